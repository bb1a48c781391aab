"""The JSON documents of a packed data set: the plan, each shard's index, and the manifest.

A folder of packed clips holds

    plan.json           written first: which items go into which shard
    train-00003.npz     one shard (`cinnema.data.shards`), with its index inside
    train-00003.json    its receipt: SHA-256 and a copy of the index, written after the shard
    manifest.json       written when every planned shard is there

The receipts let any number of processes find out what is missing, and the last one write the
manifest, without reading the shards again.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError

from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file
from cinnema.data.records import Control, Item, Split

Encoding: TypeAlias = Literal["png", "jpeg", "webp", "raw"]
ENCODINGS: tuple[Encoding, ...] = ("png", "jpeg", "webp", "raw")

PLAN, MANIFEST = "plan.json", "manifest.json"
_VERSION = 1
_LISTED = 5  # names that a message lists before it counts the rest

_Document = TypeVar("_Document", bound="Document")  # not Self, which the shape checker refuses


@dataclass(frozen=True)
class _Header:
    format: str
    version: int


@dataclass(frozen=True, kw_only=True)
class Document:
    """Fields that become one JSON object, with the name of its format and a version."""

    FORMAT: ClassVar[str]

    def to_json(self) -> bytes:
        """Return the document as UTF-8 JSON, one line for each field and each entry of a list.

        Raises:
            UserError: A name in it is no Unicode, as file names of old disks are.
        """
        values = {"format": self.FORMAT, "version": _VERSION}
        values |= _adapter(type(self)).dump_python(self)
        fields = (f"{json.dumps(name)}: {_lines_of(value)}" for name, value in values.items())
        text = "{\n" + ",\n".join(fields) + "\n}\n"
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            around = text[max(0, error.start - 30) : error.end + 10]
            raise UserError(f"the name in {around!r} is not Unicode: rename the file") from None

    @classmethod
    def from_json(cls: type[_Document], content: bytes, *, source: str | Path) -> _Document:
        """Return the document that JSON describes. Fields that are not known are passed over.

        Args:
            content: What `to_json` returned.
            source: Where it is from, for the message.

        Raises:
            UserError: It is not JSON, of another format or version, or a field is missing or
                does not fit.
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
                f"{source} is of version {header.version}, this version of cinnema reads "
                f"{_VERSION}: update cinnema"
            )
        try:
            document: _Document = _adapter(cls).validate_json(content)
        except ValidationError as error:
            raise UserError(
                f"{source} is damaged ({_first_of(error)}): delete it and run the same command "
                "again, which makes what is missing"
            ) from None
        return document

    @classmethod
    def read(cls: type[_Document], path: Path) -> _Document:
        """Return the document in a file.

        Raises:
            UserError: The file is missing or cannot be read, or as `from_json` says.
        """
        check_input_file(path, kind=f"a {cls.FORMAT} document")
        return cls.from_json(path.read_bytes(), source=path)


_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type) -> Any:  # noqa: ANN401 - a TypeAdapter, which the shape checker refuses
    """Return what validates this kind; to make it anew takes longer than to use it."""
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
    """A clip, as its shard's index lists it.

    Attributes:
        clip: Its name, unique in the data set.
        source: The source video; all its clips are in one split.
        split: On which side of the split it is.
        frames: How many it has.
        fps: Frames a second.
        control: Of the whole clip, from its first frame to its last. None where the data set has
            none, or the track is not finite at those frames.
        start: Clips that share their first frame, as different futures of it, share this name.
    """

    clip: str
    source: str
    split: Split
    frames: int
    fps: float
    control: tuple[float, ...] | None
    start: str | None


@dataclass(frozen=True, kw_only=True)
class ClipEntry(ClipInfo):
    """A clip, as the manifest lists it.

    Attributes:
        shard: The position of its shard in the manifest's list.
        index: Its position in that shard.
    """

    shard: int
    index: int


@dataclass(frozen=True, kw_only=True)
class SkippedRecord:
    """What could not be read and was left out.

    Attributes:
        record: The file, and the record in it.
        reason: One clause that says what is wrong.
    """

    record: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """A shard, as the manifest lists it.

    Attributes:
        file: Its name in the folder.
        sha256: Of the file, 64 hexadecimal digits.
        bytes: The file's size.
        clips: How many it holds.
    """

    file: str
    sha256: str
    bytes: int
    clips: int


@dataclass(frozen=True, kw_only=True)
class ShardIndex(Document):
    """What a shard says of itself; it lies in the shard as its member `index`.

    Attributes:
        encoding: Of the pictures.
        size: Their width and height, in pixels.
        tracks: Numbers a frame of each track, by its name.
        clips: In the order of the shard.
        skipped: What its items held besides and could not be read.
    """

    FORMAT: ClassVar[str] = "cinnema-shard"

    encoding: Encoding
    size: int
    tracks: dict[str, int]
    clips: tuple[ClipInfo, ...]
    skipped: tuple[SkippedRecord, ...]


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """A shard that is to be made.

    Attributes:
        file: Its name in the folder: "train-00003.npz".
        split: Of all its clips.
        items: What of the source goes into it, in this order.
    """

    file: str
    split: Split
    items: tuple[Item, ...]

    @property
    def receipt(self) -> str:
        """The name of its receipt in the folder: "train-00003.json"."""
        return f"{Path(self.file).stem}.json"


@dataclass(frozen=True, kw_only=True)
class Plan(Document):
    """What a packed data set will hold.

    Attributes:
        name: Of the source.
        size: Width and height of the pictures, in pixels.
        encoding: Of the pictures.
        control: What the track of the control means, or None where there is none.
        clips_per_shard: At about how many clips a shard is full.
        settings: The source's own, as JSON values.
        shards: All of them, by split.
    """

    FORMAT: ClassVar[str] = "cinnema-clips-plan"

    name: str
    size: int
    encoding: Encoding
    control: Control | None
    clips_per_shard: int
    settings: dict[str, Any]
    shards: tuple[PlannedShard, ...]

    def digest(self) -> str:
        """Return the SHA-256 of the plan, which every receipt of its shards carries."""
        return hashlib.sha256(self.to_json()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Receipt(Document):
    """What is known of a finished shard.

    Attributes:
        plan: The digest of the plan that it was made by.
        shard: The file.
        index: A copy of the shard's own.
    """

    FORMAT: ClassVar[str] = "cinnema-shard-receipt"

    plan: str
    shard: ShardEntry
    index: ShardIndex


@dataclass(frozen=True, kw_only=True)
class Manifest(Document):
    """What a packed data set holds.

    Attributes:
        name: Of the data set: "bair", "push".
        size: Width and height of the pictures, in pixels.
        encoding: Of the pictures.
        control: What the track of the control means, or None where there is none.
        settings: All that decided what came of the source, as JSON values.
        tracks: Numbers a frame of each track, by its name; every clip has all of them.
        shards: The files.
        clips: All clips, shard by shard.
        skipped: What could not be read and was left out.

    Example:
        >>> manifest = Manifest.read(Path("bair-packed/manifest.json"))
        >>> sum(clip.frames for clip in manifest.clips if clip.split == "test")
        7680
    """

    FORMAT: ClassVar[str] = "cinnema-clips"

    name: str
    size: int
    encoding: Encoding
    control: Control | None
    settings: dict[str, Any]
    tracks: dict[str, int]
    shards: tuple[ShardEntry, ...]
    clips: tuple[ClipEntry, ...]
    skipped: tuple[SkippedRecord, ...]

    def __post_init__(self) -> None:
        """Refuse a manifest whose parts contradict each other."""
        for clip in self.clips:
            if not 0 <= clip.shard < len(self.shards):
                raise ValueError(f"{clip.clip} is in shard {clip.shard} of {len(self.shards)}")
            if not 0 <= clip.index < self.shards[clip.shard].clips:
                raise ValueError(f"{clip.clip} is clip {clip.index}, its shard has fewer")


def find_receipt(folder: Path, shard: PlannedShard, *, plan: str) -> Receipt | None:
    """Return the receipt of a finished shard, or None where the shard is still to be made.

    A shard counts as finished if its receipt is whole and of this plan, and the shard is there
    and of the size that the receipt states.

    Args:
        folder: Of the data set.
        shard: The shard.
        plan: The digest of the plan.
    """
    try:
        receipt = Receipt.read(folder / shard.receipt)
        num_bytes = (folder / shard.file).stat().st_size
    except (UserError, OSError):
        return None
    return receipt if (receipt.plan, receipt.shard.bytes) == (plan, num_bytes) else None


def find_missing(folder: Path, plan: Plan) -> list[str]:
    """Return the names of the planned shards that are still to be made."""
    digest = plan.digest()
    return [s.file for s in plan.shards if find_receipt(folder, s, plan=digest) is None]


def list_names(names: Iterable[str]) -> str:
    """Return names as a message lists them: the first five, and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
