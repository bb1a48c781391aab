"""The JSON documents of a packed data set: the index in each shard, and the manifest.

A folder of packed clips holds

    train-00003.npz     one shard (`cinnema.data.shards`), with its index inside
    manifest.json       written when every shard is there

A shard is written beside its final name and then renamed, so a shard that exists is complete. Its
index states what it was made from, so that an interrupted packing can continue.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError

from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file, path_inside
from cinnema.data.records import Control, Item, Split

Encoding: TypeAlias = Literal["png", "jpeg", "webp", "raw"]
ENCODINGS: tuple[Encoding, ...] = ("png", "jpeg", "webp", "raw")

MANIFEST = "manifest.json"
SHARD_NAME = re.compile(r"(train|validation|test)-\d{5}\.npz")
_VERSION = 1
_MAX_LISTED = 5  # names listed in a message before the rest is counted

_Document = TypeVar("_Document", bound="Document")  # not Self, which the shape checker refuses


@dataclass(frozen=True)
class _Header:
    format: str
    version: int


@dataclass(frozen=True, kw_only=True)
class Document:
    """A dataclass stored as one JSON object, with the name of its format and a version."""

    FORMAT: ClassVar[str]

    def to_json(self) -> bytes:
        """Return the document as UTF-8 JSON, one line per field and per entry of a list.

        Fields that are None are left out.

        Raises:
            UserError: A name in it is not valid Unicode, as file names on old disks may be.
        """
        values = {"format": self.FORMAT, "version": _VERSION}
        values |= _adapter(type(self)).dump_python(self, exclude_none=True)
        fields = (f"{json.dumps(name)}: {_lines_of(value)}" for name, value in values.items())
        text = "{\n" + ",\n".join(fields) + "\n}\n"
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            around = text[max(0, error.start - 30) : error.end + 10]
            raise UserError(f"the name in {around!r} is not Unicode: rename the file") from None

    @classmethod
    def from_json(cls: type[_Document], content: bytes, *, source: str | Path) -> _Document:
        """Return the document that JSON describes. Unknown fields are ignored.

        Args:
            content: JSON as returned by `to_json`.
            source: Where the content comes from, for error messages.

        Raises:
            UserError: The content is not JSON, has another format or version, or a field is
                missing or invalid.
        """
        try:
            header = _adapter(_Header).validate_json(content)
        except ValidationError as error:
            raise UserError(
                f"{source} is not a {cls.FORMAT} document ({_first_of(error)}): name another "
                "folder, or delete the file and run the same command again"
            ) from None
        if header.format != cls.FORMAT:
            raise UserError(
                f"{source} is a {header.format} document, not {cls.FORMAT}: name another folder"
            )
        if header.version != _VERSION:
            raise UserError(
                f"{source} has version {header.version}, this version of cinnema reads "
                f"{_VERSION}: update cinnema"
            )
        try:
            document: _Document = _adapter(cls).validate_json(content)
        except ValidationError as error:
            raise UserError(
                f"{source} is damaged ({_first_of(error)}): delete it and run the same command "
                "again"
            ) from None
        return document

    @classmethod
    def read(cls: type[_Document], path: Path) -> _Document:
        """Return the document stored in a file.

        Raises:
            UserError: The file is missing or cannot be read, or as in `from_json`.
        """
        check_input_file(path, kind=f"a {cls.FORMAT} document")
        return cls.from_json(path.read_bytes(), source=path)


def _plain(name: str) -> str:
    """Return the name of a file in the document's own folder."""
    if len(path_inside(Path(), name).parts) != 1:
        raise ValueError(f"{name!r} is not the name of a file in this folder")
    return name


FileName: TypeAlias = Annotated[str, AfterValidator(_plain)]

_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type) -> Any:  # noqa: ANN401 - a TypeAdapter, which the shape checker refuses
    """Return the validator of a class; building one takes longer than using it."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def _lines_of(value: object) -> str:
    if not isinstance(value, list | tuple):
        return _dump(value)
    entries = ",\n".join(map(_dump, value))
    return f"[\n{entries}\n]" if entries else "[]"


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _first_of(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"{field}: {first['msg']}" if field else first["msg"]


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """A clip in a shard's index.

    Attributes:
        clip: Name, unique in the data set.
        source: Name of the source video.
        split: "train", "validation" or "test".
        frames: Number of frames.
        fps: Frames per second.
        control: The control eta over the whole clip, from its first frame to its last. None if
            the data set has no control, or the track is not finite at those frames.
        start: Name shared by clips that start with the same frame (different futures of it).
        height: Height of the frames in pixels; None if it is the data set's `size`.
        width: Width of the frames in pixels; None if it is the data set's `size`.
        label: What the clip shows, such as "clouds"; None if unknown.
        stride: Every `stride`-th frame plays at natural speed; None if unknown.
        origin: Where the source video was obtained.
        licence: Licence of the source video.
    """

    clip: str
    source: str
    split: Split
    frames: int
    fps: float
    control: tuple[float, ...] | None = None
    start: str | None = None
    height: int | None = None
    width: int | None = None
    label: str | None = None
    stride: int | None = None
    origin: str | None = None
    licence: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClipEntry(ClipInfo):
    """A clip in the manifest: a whole clip of a shard, or consecutive frames of it.

    Attributes:
        shard: Position of the shard in the manifest's list.
        index: Position of the clip in that shard.
        first: Index of its first frame in the stored clip, from 0; `frames` counts from there.
    """

    shard: int
    index: int
    first: int = 0


@dataclass(frozen=True, kw_only=True)
class SkippedRecord:
    """A record that could not be read and was left out.

    Attributes:
        record: The file, and the record in it.
        reason: Description of the error, as one clause.
    """

    record: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """A shard in the manifest.

    Attributes:
        file: File name in the folder.
        sha256: SHA-256 of the file, 64 hexadecimal digits.
        bytes: Size of the file.
        clips: Number of clips in it.
    """

    file: FileName
    sha256: str
    bytes: int
    clips: int


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """The plan of a shard: its items and settings. A shard is reused only if its plan is equal.

    Attributes:
        file: File name in the folder: "train-00003.npz".
        name: Name of the data set.
        size: Width and height of the frames in pixels; None if clips keep their own.
        encoding: Format of pictures: "png", "jpeg", "webp" or "raw".
        control: Description of the control's track; None if there is no control.
        clips_per_shard: Number of clips at which a shard counts as full.
        settings: The source's settings, as JSON values.
        items: The source's items in this shard, in order; all of one split.
    """

    file: FileName
    name: str
    size: int | None = None
    encoding: Encoding
    control: Control | None = None
    clips_per_shard: int
    settings: dict[str, Any]
    items: tuple[Item, ...]

    @property
    def split(self) -> Split:
        """The split of all items."""
        return self.items[0].split


@dataclass(frozen=True, kw_only=True)
class ShardIndex(Document):
    """The index of a shard, stored in it as the member `index`.

    Attributes:
        encoding: Format of pictures: "png", "jpeg", "webp" or "raw".
        size: Width and height of the frames in pixels; None if clips state their own.
        tracks: Number of values per frame of each track, by name.
        clips: The clips, in the order of the shard.
        skipped: Records of the same items that could not be read.
        plan: The plan that the shard was made from; None in shards of earlier versions.
    """

    FORMAT: ClassVar[str] = "cinnema-shard"

    encoding: Encoding
    size: int | None = None
    tracks: dict[str, int]
    clips: tuple[ClipInfo, ...]
    skipped: tuple[SkippedRecord, ...]
    plan: ShardPlan | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest(Document):
    """The manifest of a packed data set.

    Attributes:
        name: Name of the data set: "bair", "push".
        size: Width and height of the frames in pixels; None if clips state their own.
        encoding: Format of pictures: "png", "jpeg", "webp" or "raw".
        control: Description of the control's track; None if there is no control.
        settings: Everything that determined the clips, as JSON values.
        tracks: Number of values per frame of each track, by name; every clip has all of them.
        shards: The shard files.
        clips: All clips, shard by shard.
        skipped: Records that could not be read and were left out.
        notes: Sentences for the user about how the data set was made.

    Example:
        >>> manifest = Manifest.read(Path("bair-packed/manifest.json"))
        >>> sum(clip.frames for clip in manifest.clips if clip.split == "test")
        7680
    """

    FORMAT: ClassVar[str] = "cinnema-clips"

    name: str
    size: int | None = None
    encoding: Encoding
    control: Control | None = None
    settings: dict[str, Any]
    tracks: dict[str, int]
    shards: tuple[ShardEntry, ...]
    clips: tuple[ClipEntry, ...]
    skipped: tuple[SkippedRecord, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a manifest whose parts contradict each other."""
        for clip in self.clips:
            if not 0 <= clip.shard < len(self.shards):
                raise ValueError(f"{clip.clip} is in shard {clip.shard} of {len(self.shards)}")
            if not 0 <= clip.index < self.shards[clip.shard].clips:
                raise ValueError(f"{clip.clip} is clip {clip.index}, its shard has fewer")


def join_shards(shards: Sequence[tuple[ShardEntry, ShardIndex]]) -> Manifest:
    """Return the manifest of a data set, given all its shards.

    Args:
        shards: Entry and index of each shard, at least one, in order.

    Raises:
        UserError: Two clips share a name, clips of one source video are in two splits, or clips
            have different tracks.
    """
    entries = tuple(entry for entry, _ in shards)
    clips = tuple(
        ClipEntry(**vars(clip), shard=number, index=position)
        for number, (_, index) in enumerate(shards)
        for position, clip in enumerate(index.clips)
    )
    _check_clips(clips, entries)
    plan = shards[0][1].plan
    assert plan is not None
    return Manifest(
        name=plan.name,
        size=plan.size,
        encoding=plan.encoding,
        control=plan.control,
        settings=plan.settings,
        tracks=_common_tracks(shards),
        shards=entries,
        clips=clips,
        skipped=tuple(record for _, index in shards for record in index.skipped),
    )


def _check_clips(clips: Sequence[ClipEntry], shards: Sequence[ShardEntry]) -> None:
    names: dict[str, ClipEntry] = {}
    sources: dict[str, ClipEntry] = {}
    for clip in clips:
        first = names.setdefault(clip.clip, clip)
        if first is not clip:
            files = [shards[c.shard].file for c in (first, clip)]
            raise UserError(
                f"two clips are named {clip.clip}, in {files[0]} and {files[1]}: rename the file "
                "of one of them and prepare another folder"
            )
        first = sources.setdefault(clip.source, clip)
        if first.split != clip.split:
            raise UserError(
                f"{clip.source} has clips in {first.split} ({first.clip}) and in {clip.split} "
                f"({clip.clip}), so a model would be tested on videos it was trained on: put all "
                "clips of a source video in one split"
            )


def _common_tracks(shards: Sequence[tuple[ShardEntry, ShardIndex]]) -> dict[str, int]:
    with_clips = [(entry.file, index.tracks) for entry, index in shards if index.clips]
    for file, tracks in with_clips[1:]:
        first, common = with_clips[0]
        if tracks != common:
            raise UserError(
                f"{first} has the tracks {common} (numbers per frame), {file} has {tracks}: "
                "prepare clips of different tracks in separate folders"
            )
    return with_clips[0][1] if with_clips else {}


def list_names(names: Iterable[str]) -> str:
    """Return names for a message: the first five, and the number of the others."""
    names = list(names)
    rest = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + rest
