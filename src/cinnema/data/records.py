"""The interface of sources of clips: readers of data sets, and simulators.

A source lists its items (units that are read or simulated independently) and turns each item into
clips. `cinnema.data.prepare` stores the clips.
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
    """The control eta of a data set: the meaning of the rows of one of its tracks.

    The control of frames a..b of a clip is, for a position, row b of the track; for a velocity,
    the sum of rows a+1..b (row t is the displacement from frame t-1 to t), so it grows with the
    clip's speed and length.

    Attributes:
        name: Name of the track, such as "end_effector" or "wind".
        kind: "position" (of the last frame) or "velocity" (summed over frames).
        labels: Name of each entry, such as ("x", "y", "z").
        unit: Unit of all entries, such as "m" or "picture sizes".
        mirror_axis: Index of the entry that changes when the picture is mirrored left to right.
        mirror_centre: c in the mirrored entry's new value, 2 c - value.
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
        """Return the control of frames `first` to `last` of a clip, both included.

        Args:
            track: The clip's track of this control.
            first: Number of the frame that is x0, at least 0.
            last: Number of the last frame, greater than `first`.
        """
        if self.kind == "position":
            return np.array(track[last], dtype=np.float32)
        return np.asarray(track[first + 1 : last + 1].sum(axis=0), dtype=np.float32)

    def mirrored(self, value: Float32[np.ndarray, "*n e"]) -> Float32[np.ndarray, "*n e"]:
        """Return the control of the clip mirrored left to right."""
        out = np.array(value, dtype=np.float32)
        out[..., self.mirror_axis] = 2 * self.mirror_centre - out[..., self.mirror_axis]
        return out


@dataclass(frozen=True, kw_only=True)
class Item:
    """A unit that a source reads or simulates independently of all others.

    Attributes:
        name: Unique in the source; used for order and messages. A path below the root, or the
            number of a start state.
        split: The split of all its clips.
        clips: Approximate number of clips that it yields.
    """

    name: str
    split: Split
    clips: int = 1


@dataclass(frozen=True, kw_only=True)
class RawClip:
    """A clip as yielded by a source.

    Attributes:
        name: Unique in the source.
        source: Name of the source video; all clips of one source video have the same split.
        frames: RGB; square and of the source's size, unless that is None.
        fps: Frames per second.
        tracks: Values for each frame, by name: the control's track, joint positions, ...
        confidence: Confidence of the control's track at each frame, in [0, 1]; None if exact.
        still: Mask, True where nothing moves throughout the clip; None if unknown.
        start: Name shared by clips that start with the same frame (different futures of it).
        label: What the clip shows, such as "clouds"; None if unknown.
        stride: Every `stride`-th frame plays at natural speed; None if unknown.
        origin: Where the source video was obtained.
        licence: Licence of the source video.
    """

    name: str
    source: str
    frames: UInt8[np.ndarray, "t h w 3"]
    fps: float
    tracks: Mapping[str, Float32[np.ndarray, "t _"]] = field(default_factory=dict)
    confidence: Float32[np.ndarray, "t"] | None = None
    still: Bool[np.ndarray, "h w"] | None = None
    start: str | None = None
    label: str | None = None
    stride: int | None = None
    origin: str | None = None
    licence: str | None = None


@dataclass(frozen=True, kw_only=True)
class BadRecord:
    """A record that a source could not read: a damaged file, or a wrong checksum.

    Attributes:
        name: The file, and the record in it.
        reason: Description of the error, as one clause.
    """

    name: str
    reason: str


@runtime_checkable
class ClipSource(Protocol):
    """A data set on disk or a simulator.

    Sources are sent to worker processes: they can be pickled, and open files only in `read`.
    """

    @property
    def name(self) -> str:
        """Name of the packed data set, such as "bair" or "push"."""
        ...

    @property
    def size(self) -> int | None:
        """Width and height of the frames in pixels; None if each clip keeps its own."""
        ...

    @property
    def control(self) -> Control | None:
        """Description of the control's track; None if there is no control."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the clips, as JSON values.

        A packing that was begun with other settings is not resumed. Paths are reduced to their
        last part.
        """
        ...

    def items(self) -> Sequence[Item]:
        """List the items, always in the same order; nothing is decoded yet.

        Raises:
            UserError: The folder is missing, or contains no data of this kind.
        """
        ...

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the clips of one item, a `BadRecord` in place of each that cannot be read.

        The same item yields the same clips, to the bit, independent of earlier reads.
        """
        ...
