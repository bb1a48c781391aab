"""JSON documents: what is written is read, and what does not fit is named."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.data.manifest import (
    ENCODINGS,
    ClipEntry,
    Document,
    Manifest,
    ShardEntry,
    ShardIndex,
    list_names,
)
from cinnema.data.records import SPLITS

names = st.text(st.characters(codec="utf-8"), max_size=6)
files = st.from_regex(r"[a-z0-9-]{1,6}\.npz", fullmatch=True)
numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 10**6)
split = st.sampled_from(SPLITS)
encoding = st.sampled_from(ENCODINGS)
widths = st.dictionaries(names, counts, max_size=2)


def objects(
    optional: dict[str, Any] | None = None, **fields: Any
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(fields, optional=optional or {})


def few(entries: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(entries, max_size=2)


controls = objects(
    name=names,
    kind=st.sampled_from(["position", "velocity"]),
    labels=few(names),
    unit=names,
    mirror_axis=counts,
    mirror_centre=numbers,
)
infos: dict[str, Any] = {
    "clip": names,
    "source": names,
    "split": split,
    "frames": counts,
    "fps": numbers,
}
known: dict[str, Any] = {  # left out where it is not known
    "control": few(numbers),
    "start": names,
    "height": counts,
    "width": counts,
    "label": names,
    "stride": counts,
    "origin": names,
    "licence": names,
}
skipped = few(objects(record=names, reason=names))
shard = objects(file=files, sha256=names, bytes=counts, clips=st.just(3))
about: dict[str, Any] = {
    "name": names,
    "encoding": encoding,
    "settings": st.dictionaries(names, counts | names | few(counts), max_size=2),
}
chosen = {"size": counts, "control": controls}
plans = objects(
    chosen,
    **about,
    file=files,
    clips_per_shard=counts,
    items=few(objects(name=names, split=split, clips=counts)),
)
DOCUMENTS: dict[type[Document], st.SearchStrategy[dict[str, Any]]] = {
    ShardIndex: objects(
        {"size": counts, "plan": plans},
        encoding=encoding,
        tracks=widths,
        clips=few(objects(known, **infos)),
        skipped=skipped,
    ),
    Manifest: objects(
        chosen,
        **about,
        tracks=widths,
        shards=st.lists(shard, min_size=1, max_size=2),
        clips=few(objects(known, **infos, shard=st.just(0), index=st.integers(0, 2), first=counts)),
        skipped=skipped,
        notes=few(names),
    ),
}


@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("kind", DOCUMENTS, ids=lambda kind: kind.__name__)
@given(st.data())
def test_a_document_that_is_written_is_read(kind: type[Document], data: st.DataObject) -> None:
    values = {"format": kind.FORMAT, "version": 1} | data.draw(DOCUMENTS[kind])
    document = kind.from_json(json.dumps(values).encode(), source="it")
    content = document.to_json()
    assert json.loads(content) == values
    assert kind.from_json(content, source="it") == document


EMPTY = Manifest(
    name="tiny",
    size=6,
    encoding="png",
    control=None,
    settings={},
    tracks={},
    shards=(),
    clips=(),
    skipped=(),
)
CLIP = ClipEntry(
    clip="a", source="v", split="test", frames=2, fps=5, control=None, start=None, shard=0, index=0
)


def test_every_clip_is_one_line_of_the_manifest() -> None:
    shards = (ShardEntry(file="test-00000.npz", sha256="0" * 64, bytes=1, clips=2),)
    clips = (CLIP, dataclasses.replace(CLIP, clip="b", index=1))
    lines = dataclasses.replace(EMPTY, shards=shards, clips=clips).to_json().decode().splitlines()
    assert [json.loads(line.rstrip(","))["clip"] for line in lines if "fps" in line] == ["a", "b"]


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(EMPTY.to_json()) | fields).encode()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", r"m\.json is not a cinnema-clips document .*JSON"),
        (b'{"format": "cinnema-cl', r"m\.json is not a cinnema-clips document .*JSON"),
        (b"[1]", r"m\.json is not a cinnema-clips document"),
        (b"\xff\xfe", r"m\.json is not a cinnema-clips document"),
        (b"{}", r"m\.json is not a cinnema-clips document \(format: Field required"),
        (changed(format="other"), r"m\.json is a other document, not cinnema-clips"),
        (changed(version=2), r"m\.json has version 2, .* reads 1: update"),
        (changed(size="large"), r"m\.json is damaged \(size: .*integer"),
        (changed(clips=[{"clip": "a"}]), r"m\.json is damaged \(clips\.0\.source: Field required"),
        (changed(control={"name": "x"}), r"m\.json is damaged \(control\.kind: Field required"),
        (changed(clips=[dataclasses.asdict(CLIP)]), r"m\.json is damaged .*a is in shard 0 of 0"),
        (
            changed(
                shards=[{"file": "s", "sha256": "", "bytes": 1, "clips": 0}],
                clips=[dataclasses.asdict(CLIP)],
            ),
            r"m\.json is damaged .*a is clip 0, its shard has fewer",
        ),
    ],
)
def test_what_is_not_a_manifest_is_named_in_one_line(content: bytes, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        Manifest.from_json(content, source="m.json")
    assert "\n" not in str(caught.value)


def test_unknown_fields_of_a_later_version_are_ignored() -> None:
    assert Manifest.from_json(changed(licence="CC0"), source="m.json") == EMPTY


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.json does not exist"):
        Manifest.read(tmp_path / "manifest.json")


def test_a_name_that_is_not_unicode_is_shown() -> None:
    with pytest.raises(UserError, match=r"'.*sky\\udcff.*' is not Unicode: rename"):
        dataclasses.replace(EMPTY, name="sky\udcff").to_json()


def test_many_names_are_counted() -> None:
    assert list_names("abc") == "a, b, c"
    assert list_names("abcdefgh") == "a, b, c, d, e and 3 more"
