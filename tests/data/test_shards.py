"""One shard: what is written is read, by numpy and Pillow too, and damage is never passed on."""

import io
import json
import multiprocessing
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, JpegImagePlugin

from cinnema.core.errors import UserError
from cinnema.data.manifest import (
    ENCODINGS,
    Encoding,
    ShardEntry,
    ShardIndex,
    ShardPlan,
    SkippedRecord,
)
from cinnema.data.records import BadRecord, Control, Item, RawClip
from cinnema.data.shards import Shard, decode_picture, encode_picture, write_shard
from data.tiny_sources import HAND, make_clip

LOSSLESS: tuple[Encoding, ...] = ("png", "webp", "raw")


def write(
    path: Path,
    *records: RawClip | BadRecord,
    encoding: Encoding = "png",
    size: int | None = 6,
    control: Control | None = None,
) -> tuple[ShardEntry, ShardIndex]:
    plan = plan_of(path.name, size=size, encoding=encoding, control=control)
    return write_shard(path.parent, plan, records)


def plan_of(
    file: str, *, size: int | None, encoding: Encoding, control: Control | None = None
) -> ShardPlan:
    items = (Item(name="a", split="train"),)
    return ShardPlan(
        file=file, name="tiny", size=size, encoding=encoding, control=control, clips_per_shard=9,
        settings={}, items=items,
    )  # fmt: skip


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "train-00000.npz"
    write(path, make_clip("a"), make_clip("b", frames=5), make_clip("c"), control=HAND)
    return path


def everything(path: Path) -> list[Any]:
    shard = Shard(path)
    parts = (shard.frames, shard.tracks, shard.confidence, shard.still)
    return [shard.index(), *([part(clip) for part in parts] for clip in range(len(shard)))]


@st.composite
def clips(draw: st.DrawFn) -> tuple[int, list[RawClip]]:
    """Clips of one size with the same tracks."""
    size = draw(st.integers(1, 9))
    widths = draw(st.dictionaries(st.sampled_from(["hand", "knee", "ä.b"]), st.integers(0, 3)))
    names = draw(st.lists(st.text(max_size=5), max_size=4, unique=True))
    floats = st.floats(width=32)

    def draw_clip(name: str) -> RawClip:
        count = draw(st.integers(1, 4))
        tracks = {
            n: draw(arrays(np.float32, (count, d), elements=floats)) for n, d in widths.items()
        }
        confidence = arrays(np.float32, count, elements=st.floats(0, 1, width=32))
        return RawClip(
            name=name,
            source=draw(st.text(max_size=5)),
            frames=draw(arrays(np.uint8, (count, size, size, 3))),
            fps=draw(st.floats(0.1, 100)),
            tracks=tracks,
            confidence=draw(st.none() | confidence),
            still=draw(st.none() | arrays(np.bool_, (size, size))),
            start=draw(st.none() | st.text(max_size=5)),
        )

    return size, [draw_clip(name) for name in names]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(clips(), st.sampled_from(LOSSLESS))
def test_what_is_written_is_read(
    tmp_path: Path, drawn: tuple[int, list[RawClip]], encoding: Encoding
) -> None:
    size, written = drawn
    path = tmp_path / "train-00000.npz"
    entry, index = write(path, *written, encoding=encoding, size=size)
    shard = Shard(path)
    assert (entry.bytes, entry.clips) == (path.stat().st_size, len(written))
    assert len(shard) == len(written)
    assert shard.index() == index
    for number, (clip, info) in enumerate(zip(written, index.clips, strict=True)):
        assert (info.clip, info.source, info.start) == (clip.name, clip.source, clip.start)
        assert (info.frames, info.fps, info.split) == (len(clip.frames), clip.fps, "train")
        assert np.array_equal(shard.frames(number), clip.frames)
        tracks = shard.tracks(number)
        assert tracks.keys() == clip.tracks.keys()
        for name, track in clip.tracks.items():
            assert np.array_equal(tracks[name], track, equal_nan=True)
        exact = clip.confidence is None or bool((clip.confidence == 1).all())
        assert_same(shard.confidence(number), None if exact else clip.confidence)
        assert_same(shard.still(number), clip.still)


def assert_same(mine: Any, theirs: Any) -> None:
    assert (mine is None) == (theirs is None)
    assert mine is None or (mine.dtype == theirs.dtype and np.array_equal(mine, theirs))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_numpy_and_pillow_alone_read_a_shard(tmp_path: Path, encoding: Encoding) -> None:
    first, second = make_clip("first"), make_clip("second", frames=4, start="s")
    path = tmp_path / "train-00000.npz"
    write(path, first, second, encoding=encoding, control=HAND)
    with np.load(path) as shard:
        index = json.loads(shard["index"].tobytes())
        assert (index["format"], index["encoding"], index["size"]) == ("cinnema-shard", encoding, 6)
        entry = index["clips"][1]
        assert (entry["clip"], entry["frames"], entry["fps"]) == ("second", 4, 5.0)
        assert (entry["split"], entry["start"]) == ("train", "s")
        assert entry["control"] == pytest.approx(second.tracks["hand"][-1].tolist())
        begin, end = shard["first"][1:]
        assert np.array_equal(shard["track.hand"][begin:end], second.tracks["hand"])
        assert np.array_equal(shard["confidence"][begin:end], second.confidence)
        pictures = [
            shard["frames"][a:b].tobytes()
            for a, b in zip(shard["offsets"][begin:end], shard["offsets"][begin + 1 :], strict=True)
        ]
        mask = shard["still"][slice(*shard["still_offsets"][1:])].tobytes()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(mask))), second.still)
    if encoding == "raw":
        decoded = [np.frombuffer(p, np.uint8).reshape(6, 6, 3) for p in pictures]
    else:
        decoded = [np.asarray(Image.open(io.BytesIO(p))) for p in pictures]
    assert np.array_equal(decoded, Shard(path).frames(1))


@settings(deadline=None)
@given(st.integers(1, 40).flatmap(lambda s: arrays(np.uint8, (s, 41 - s, 3))))
def test_lossless_encodings_keep_every_bit_and_jpeg_decodes_as_pillow_does(
    pixels: np.ndarray,
) -> None:
    for encoding in get_args(Encoding):
        content = np.frombuffer(encode_picture(pixels, encoding), np.uint8)
        decoded = decode_picture(content, encoding, shape=pixels.shape[:2])
        if encoding == "jpeg":
            pixels_of_pillow = np.asarray(Image.open(io.BytesIO(content.tobytes())))
            assert np.array_equal(decoded, pixels_of_pillow)
        else:
            assert np.array_equal(decoded, pixels)


def test_jpeg_is_close_and_keeps_the_colours_at_full_size() -> None:
    y, x = np.mgrid[:32, :32]
    smooth = np.stack([x * 8, y * 8, 255 - x * 4 - y * 4], axis=-1).astype(np.uint8)
    content = encode_picture(smooth, "jpeg")
    decoded = decode_picture(np.frombuffer(content, np.uint8), "jpeg", shape=(32, 32))
    assert np.abs(decoded.astype(int) - smooth).max() <= 8
    image = Image.open(io.BytesIO(content))
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4


def test_chosen_frames_come_in_the_order_they_were_asked_for(shard: Path) -> None:
    whole = Shard(shard).frames(1)
    assert np.array_equal(Shard(shard).frames(1, [4, 0, 0, 2]), whole[[4, 0, 0, 2]])
    assert Shard(shard).frames(1, []).shape == (0, 6, 6, 3)
    assert np.array_equal(Shard(shard).frames(1, range(1, 5)), whole[1:])


@pytest.mark.parametrize(("clip", "frame"), [(1, 5), (1, -1), (3, 0), (-1, 0)])
def test_what_is_not_there_is_an_index_error(shard: Path, clip: int, frame: int) -> None:
    with pytest.raises(IndexError, match=r"of a (clip with 5 frames|shard with 3 clips)"):
        Shard(shard).frames(clip, [frame])


def test_a_control_of_motion_is_summed_over_the_clip(tmp_path: Path) -> None:
    wind = Control(name="wind", kind="velocity", labels=("x", "y"), unit="picture sizes")
    track = np.array([[9, 9], [1, 0], [2, -1]], dtype=np.float32)
    lost = np.where(track == 2, np.nan, track).astype(np.float32)
    _, index = write(
        tmp_path / "s.npz",
        make_clip("a", tracks={"wind": track}),
        make_clip("unknown", tracks={"wind": lost}),
        control=wind,
    )
    assert [clip.control for clip in index.clips] == [(3.0, -1.0), None]


def test_skipped_records_are_listed(tmp_path: Path) -> None:
    bad = BadRecord(name="a.tfrecords, record 7", reason="a wrong checksum")
    write(tmp_path / "s.npz", make_clip("a"), bad, make_clip("b"))
    index = Shard(tmp_path / "s.npz").index()
    assert [clip.clip for clip in index.clips] == ["a", "b"]
    assert index.skipped == (SkippedRecord(record=bad.name, reason=bad.reason),)


def test_a_shard_may_be_empty(tmp_path: Path) -> None:
    write(tmp_path / "s.npz", BadRecord(name="all of it", reason="no video"))
    assert len(Shard(tmp_path / "s.npz")) == 0


def test_the_same_clips_make_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "s.npz", make_clip("a"), make_clip("b"))
    content = (tmp_path / "s.npz").read_bytes()
    write(tmp_path / "s.npz", make_clip("a"), make_clip("b"))
    assert (tmp_path / "s.npz").read_bytes() == content


def test_a_shard_that_numpy_has_written_is_read(shard: Path) -> None:
    before = everything(shard)
    with np.load(shard) as arrays_:
        members = dict(arrays_)
    np.savez(shard, **members)  # which writes longer headers, for files beyond 4 GiB
    assert pickle.dumps(everything(shard)) == pickle.dumps(before)


def test_a_compressed_archive_is_refused(shard: Path) -> None:
    with np.load(shard) as arrays_:
        members = dict(arrays_)
    np.savez_compressed(shard, **members)
    with pytest.raises(UserError, match=r"train-00000\.npz is damaged \(.*is compressed"):
        Shard(shard)


def test_another_npz_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", frames=np.zeros(3, np.uint8))
    with pytest.raises(UserError, match=r"s\.npz is damaged \(it has no confidence, crc32"):
        Shard(tmp_path / "s.npz")
    (tmp_path / "s.npz").write_text("no zip file")
    with pytest.raises(UserError, match=r"s\.npz is damaged \(File is not a zip file"):
        Shard(tmp_path / "s.npz")
    with pytest.raises(UserError, match="does not exist"):
        Shard(tmp_path / "none.npz")


def offset_of(path: Path, name: str) -> int:
    """Where the numbers of an array begin in a shard: after a header that ends in a new line."""
    with zipfile.ZipFile(path) as archive:
        member = archive.read(f"{name}.npy")
    return path.read_bytes().index(member) + member.index(b"\n") + 1


def flip(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_a_damaged_clip_is_named_and_the_others_are_read(shard: Path) -> None:
    with np.load(shard) as arrays_:
        position = int(arrays_["offsets"][arrays_["first"][1]])
    whole = Shard(shard).frames(2)
    flip(shard, offset_of(shard, "frames") + position + 20)
    opened = Shard(shard)
    for frames in (None, [4]):  # even if the damage is in another frame
        with pytest.raises(UserError, match=r"train-00000\.npz is damaged .*checksum.*clip b is"):
            opened.frames(1, frames)
    assert np.array_equal(opened.frames(2), whole)


def test_damaged_numbers_are_found_when_the_shard_is_opened(shard: Path) -> None:
    flip(shard, offset_of(shard, "track.hand") + 5)
    with pytest.raises(UserError, match=r"damaged \(the checksum of its track\.hand is wrong"):
        Shard(shard)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_no_flipped_bit_is_passed_on(shard: Path, data: st.DataObject) -> None:
    before, content = pickle.dumps(everything(shard)), shard.read_bytes()
    try:
        flip(shard, data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7)))
        with suppress(UserError):
            assert pickle.dumps(everything(shard)) == before  # a date in the zip file, say
    finally:
        shard.write_bytes(content)


def test_a_shard_that_is_cut_short_is_refused(shard: Path) -> None:
    content = shard.read_bytes()
    for length in range(0, len(content) - 1, 97):
        shard.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"train-00000\.npz is (damaged|empty)"):
            Shard(shard)


def test_a_shard_that_shrinks_while_it_is_in_use_is_not_read_past_its_end(shard: Path) -> None:
    opened = Shard(shard)
    opened.close()
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UserError, match="has changed since it was opened"):
        opened.frames(0)


def test_a_shard_can_be_closed_and_pickled_and_goes_on(shard: Path) -> None:
    opened = Shard(shard)
    whole = opened.frames(1)
    track = opened.tracks(1)["hand"]
    opened.close()
    copy = pickle.loads(pickle.dumps(opened))
    assert np.array_equal(copy.frames(1), whole)
    assert np.array_equal(opened.frames(1), whole)
    assert np.array_equal(opened.tracks(1)["hand"], track)


def test_a_shard_survives_a_fork(shard: Path) -> None:
    opened = Shard(shard)
    opened.frames(0)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        theirs = pool.apply(opened.frames, (1,))
    assert np.array_equal(theirs, opened.frames(1))


def test_reading_a_clip_loads_no_more_than_the_clip(tmp_path: Path) -> None:
    many = [make_clip(f"clip {n}", frames=4, size=64) for n in range(40)]
    write(tmp_path / "s.npz", *many, encoding="raw", size=64)
    tracemalloc.start()
    frames = Shard(tmp_path / "s.npz").frames(7)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(frames, many[7].frames)
    assert peak < 40 * frames.nbytes / 8


def test_writing_holds_one_clip(tmp_path: Path) -> None:
    def grey(number: int) -> RawClip:
        frames = np.full((10, 64, 64, 3), number, dtype=np.uint8)
        return RawClip(name=str(number), source="v", frames=frames, fps=5.0)

    one = grey(0).frames.nbytes
    tracemalloc.start()
    records = (grey(number) for number in range(80))
    write_shard(tmp_path, plan_of("s.npz", size=64, encoding="raw"), records)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 * one


def test_clips_may_keep_their_own_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = [
        RawClip(
            name=name,
            source=name,
            frames=rng.integers(0, 256, shape, dtype=np.uint8),
            fps=8.0,
            label="sea",
            stride=3,
        )
        for name, shape in (("a", (2, 5, 9, 3)), ("b", (3, 8, 4, 3)))
    ]
    for encoding in LOSSLESS:
        _, index = write(tmp_path / "s.npz", *written, encoding=encoding, size=None)
        assert [(c.height, c.width) for c in index.clips] == [(5, 9), (8, 4)]
        assert [(c.label, c.stride) for c in index.clips] == [("sea", 3), ("sea", 3)]
        shard = Shard(tmp_path / "s.npz")
        for number, clip in enumerate(written):
            assert np.array_equal(shard.frames(number), clip.frames)


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    for size in (100, 2000, 5000):
        with (
            small_disk(size),
            pytest.raises(UserError, match=r"s\.npz could not be .*disk is full"),
        ):
            write(tmp_path / "s.npz", *(make_clip(str(number)) for number in range(20)))
        assert list(tmp_path.iterdir()) == []


def altered(**fields: Any) -> RawClip:
    """A clip that the shape checker of the tests would not let a source make."""
    clip = make_clip("a")
    for name, value in fields.items():
        object.__setattr__(clip, name, value)
    return clip


HAND_TRACK = make_clip("a").tracks["hand"]


@pytest.mark.parametrize(
    ("clip", "complaint"),
    [
        (make_clip("a", size=8, still=None), r"^a: its frames are uint8 \(3, 8, 8, 3\), not"),
        (altered(frames=np.zeros((3, 6, 6, 3))), r"^a: its frames are float64 \(3, 6, 6, 3\)"),
        (altered(frames=np.zeros((3, 6, 6), np.uint8)), r"^a: its frames are uint8 \(3, 6, 6\)"),
        (altered(frames=np.zeros((0, 6, 6, 3), np.uint8)), r"^a: its frames are uint8 \(0, 6"),
        (make_clip("a", fps=0.0), r"^a: 0\.0 frames per second"),
        (make_clip("a", fps=float("nan")), r"^a: nan frames per second"),
        (altered(still=np.zeros((5, 6), bool)), r"^a: its still mask is bool \(5, 6\)"),
        (altered(still=np.zeros((6, 6), int)), r"^a: its still mask is int64 \(6, 6\)"),
        (altered(tracks={"hand": HAND_TRACK[:2]}), r"^a: its track hand is \(2, 3\), not \(3,"),
        (altered(tracks={"hand": HAND_TRACK[:, 0]}), r"^a: its track hand is \(3,\), not \(3,"),
        (altered(confidence=np.ones(4, np.float32)), r"^a: its confidence is \(4,\), not \(3,\)"),
        (make_clip("a", tracks={}), r"^a: it has no track hand, which is the data set's control"),
    ],
)
def test_a_clip_that_does_not_fit_is_named(tmp_path: Path, clip: RawClip, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        write(tmp_path / "s.npz", clip, control=HAND)
    assert list(tmp_path.iterdir()) == []


def test_clips_of_a_shard_differ_in_name_and_share_their_tracks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two clips are named a: rename"):
        write(tmp_path / "s.npz", make_clip("a"), make_clip("b"), make_clip("a"))
    knees = {"knee": HAND_TRACK}
    with pytest.raises(UserError, match=r"b has the tracks .*knee.*, a has .*hand.*separate"):
        write(tmp_path / "s.npz", make_clip("a"), make_clip("b", tracks=knees))
