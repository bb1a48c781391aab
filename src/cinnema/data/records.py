"""What a source of clips hands over, whatever it reads: files of a data set or a simulated world.

A source lists its items (the units that are read, or simulated, apart from each other) and turns
each into clips. `cinnema.data.preparing` stores what comes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, UInt8

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Control:
    """The control eta of a data set: what a row of the track of this name means.

    The control of frames a..b of a clip is, for a position, the track at frame b; for a velocity,
    the sum of the track over frames a+1..b (its row t is the displacement from frame t-1 to t), so
    that it grows with the clip's speed and length.

    Attributes:
        name: Of the track: "end_effector", "wind".
        kind: How a clip's control follows from the track.
        labels: What each entry is: ("x", "y", "z").
        unit: Of all entries: "m", "picture sizes".
        mirror_axis: The entry that changes when the picture is mirrored left to right.
        mirror_centre: c in its new value, 2 c - value.
    """

    name: str
    kind: Literal["position", "velocity"]
    labels: tuple[str, ...]
    unit: str
    mirror_axis: int = 0
    mirror_centre: float = 0.0

    def of(
        self, track: Float32[np.ndarray, "t e"], *, first: int, last: int
    ) -> Float32[np.ndarray, "e"]:
        """Return the control of frames `first` to `last` of a clip, both counted.

        Args:
            track: The clip's track of this control.
            first: The frame that is x0, at least 0.
            last: The last frame, after `first`.
        """
        if self.kind == "position":
            return np.array(track[last], dtype=np.float32)
        return np.asarray(track[first + 1 : last + 1].sum(axis=0), dtype=np.float32)

    def mirrored(self, value: Float32[np.ndarray, "*n e"]) -> Float32[np.ndarray, "*n e"]:
        """Return the control of the clip that is mirrored left to right."""
        out = np.array(value, dtype=np.float32)
        out[..., self.mirror_axis] = 2 * self.mirror_centre - out[..., self.mirror_axis]
        return out


@dataclass(frozen=True, kw_only=True)
class Item:
    """A unit that a source reads or simulates at once, apart from all others.

    Attributes:
        name: Unique in the source, for order and messages: a path below its root, a start's number.
        split: On which side of the split all its clips are.
        clips: About how many clips come of it.
    """

    name: str
    split: Split
    clips: int = 1


@dataclass(frozen=True, kw_only=True)
class RawClip:
    """A clip as a source hands it over.

    Attributes:
        name: Unique in the source.
        source: The source video; clips of one source are never on two sides of a split.
        frames: RGB, square, at the source's size.
        fps: Frames a second.
        tracks: Numbers for each frame, by name: the control's track, joint positions, ...
        confidence: How far the control's track can be trusted, for each frame, in [0, 1]; None
            where it is exact.
        still: Where nothing moves throughout the clip, if that is known.
        start: Clips that share their first frame, as different futures of it, share this name.
    """

    name: str
    source: str
    frames: UInt8[np.ndarray, "t h w 3"]
    fps: float
    tracks: Mapping[str, Float32[np.ndarray, "t _"]] = field(default_factory=dict)
    confidence: Float32[np.ndarray, "t"] | None = None
    still: Bool[np.ndarray, "h w"] | None = None
    start: str | None = None


@dataclass(frozen=True, kw_only=True)
class BadRecord:
    """What a source could not read: a damaged file, a record with a wrong checksum.

    Attributes:
        name: The file, and the record in it.
        reason: One clause that says what is wrong.
    """

    name: str
    reason: str


@runtime_checkable
class ClipSource(Protocol):
    """A data set on disk or a simulated world.

    Sources travel to worker processes: they can be pickled, and they open files only in `read`.
    """

    @property
    def name(self) -> str:
        """What the packed data set is called: "bair", "push"."""
        ...

    @property
    def size(self) -> int:
        """Width and height of the frames, in pixels."""
        ...

    @property
    def control(self) -> Control | None:
        """What the track of the control means, or None where there is none."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return all that decides what comes of the source, as JSON values.

        A packed data set that was begun with other settings is not resumed. Of paths only the
        last part is kept.
        """
        ...

    def items(self) -> Sequence[Item]:
        """List the items, in an order that never changes; nothing is decoded yet.

        Raises:
            UserError: The folder is missing, or holds nothing of this kind.
        """
        ...

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the clips of one item, a `BadRecord` in place of each that cannot be read.

        The same item yields the same clips, to the bit, whatever was read before.
        """
        ...
