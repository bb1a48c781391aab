"""Which clips are evaluated, and which generated frame is compared with which real one.

A start is a window of a clip: the first frame x0 and the T frames after it. A `ClipSet` holds
the starts of an evaluation and reads their clips; a `Protocol` says which frames are compared.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedClip, PackedDataset
from cinnema.data.manifest import ClipEntry
from cinnema.data.records import Control, Split
from cinnema.data.sources.frames import square
from cinnema.data.windows import SceneWindows
from cinnema.evaluation.statistics.bootstrap import hash_of

ProtocolName = Literal["aligned", "paper"]

_SPREAD = 6  # windows of a clip, at most
_PAPER_LIMITS = {"paper (BAIR)": 256, "paper (iPER)": 1000}
_SAMPLES_OF_DTDB = 5


@dataclass(frozen=True, kw_only=True)
class Start:
    """A window of a clip whose first frame models continue, and the index of the sample.

    Attributes:
        key: Unique name: clip, first frame, stride, number of the window.
        source: Name of the source video.
        position: Number of the clip in its data set.
        first: Number of the frame that is x0.
        stride: Distance between two frames of the window, in frames of the clip.
        sample: Index of the sample; a window that is continued several times has a `Start` for
            each, with the indices 0, 1, ...
        label: What moves in the clip ("clouds"), where the data say so; else empty.
    """

    key: str
    source: str
    position: int
    first: int
    stride: int = 1
    sample: int = 0
    label: str = ""

    @property
    def window(self) -> str:
        """Name of the window, which starts that differ in the number of the sample share."""
        return self.key.removesuffix(f"#{self.sample}")


@dataclass(frozen=True, kw_only=True)
class RealClip:
    """The real clip of a start, and its known ground truth.

    Attributes:
        start: The start.
        frames: x0 and the T frames after it, at the model's size.
        eta: The true control of these frames, where it is known.
        track: Value of the control at each frame, where it is known.
        still: Where nothing moves throughout the clip, where that is known.
        shared_start: Identifier that clips with the same first frame share; None if unique.
    """

    start: Start
    frames: UInt8[np.ndarray, "t1 h w 3"]
    eta: Float32[np.ndarray, " e"] | None = None
    track: Float32[np.ndarray, "t1 e"] | None = None
    still: Bool[np.ndarray, "h w"] | None = None
    shared_start: str | None = None

    @property
    def source(self) -> str:
        """Name of the source video."""
        return self.start.source


class ClipSet(ABC):
    """The starts of an evaluation, and access to their clips.

    Attributes:
        name: Name of the data set.
        starts: The starts, in order.
        num_frames: T, number of frames after x0.
    """

    name: str
    starts: tuple[Start, ...]
    num_frames: int

    @abstractmethod
    def read(self, start: Start) -> RealClip:
        """Return the real clip of a start."""

    @property
    def control(self) -> Control | None:
        """What the control of the clips means; None where they have none."""
        return None

    def eta(self, start: Start) -> Float32[np.ndarray, " e"] | None:
        """Return the true control of a clip, where it is known."""
        return self.read(start).eta

    def track(self, start: Start) -> Float32[np.ndarray, "t1 e"] | None:
        """Return the track of a clip's control at each frame, where it is known."""
        return self.read(start).track

    def shared_start(self, start: Start) -> str | None:
        """Return the name that clips with the same first frame share, if there are any."""
        return self.read(start).shared_start

    def continuation(self, start: Start, *, num_frames: int) -> UInt8[np.ndarray, "n h w 3"] | None:
        """Return x0 and the real frames after it, where the clip has so many, else None.

        Args:
            start: The start.
            num_frames: Number of frames after x0, which may exceed T.
        """
        del start, num_frames
        return None

    def first_frame(self, start: Start) -> UInt8[np.ndarray, "h w 3"]:
        """Return x0 of a start."""
        return np.asarray(self.read(start).frames[0])

    def other_futures(self) -> Mapping[str, Sequence[Start]]:
        """Return other real futures by the key of a start; starts without any are left out."""
        return {}

    def fps(self, start: Start) -> float:
        """Return how many frames of a window are one second."""
        del start
        return 8.0

    def batches(self, starts: Sequence[Start], *, size: int) -> Iterator[list[Start]]:
        """Yield starts in batches of at most `size`."""
        for first in range(0, len(starts), size):
            yield list(starts[first : first + size])

    def facts(self) -> dict[str, str]:
        """Return name, split, frame size and hash of the data, for the record."""
        return {"name": self.name}


class PackedClips(ClipSet):
    """Windows of packed clips.

    Args:
        dataset: The packed clips.
        starts: The windows, from `choose_starts`.
        num_frames: T.
        size: Width and height of the model's frames, in pixels; frames of another size are
            resized, stretched to a square as in training.
        split: The split that the starts are of, for the record.
    """

    def __init__(
        self,
        dataset: PackedDataset,
        starts: Sequence[Start],
        *,
        num_frames: int,
        size: int,
        split: Split,
    ) -> None:
        self.name, self.starts, self.num_frames = dataset.manifest.name, tuple(starts), num_frames
        self._dataset, self._size, self._split = dataset, size, split

    @property
    def control(self) -> Control | None:
        """What the control of the clips means; None where they have none."""
        return self._dataset.manifest.control

    def read(self, start: Start) -> RealClip:
        """Return the real clip of a start."""
        clip = self._dataset.read(start.position, self._times(start))
        eta, track = self._control_of(start, clip)
        return RealClip(
            start=start,
            frames=self._resized(clip.frames),
            eta=eta,
            track=track,
            still=None if clip.still is None else self._resized_mask(clip.still),
            shared_start=clip.entry.start,
        )

    def eta(self, start: Start) -> Float32[np.ndarray, " e"] | None:
        """Return the true control of a clip, where it is known, without decoding frames."""
        return self._control_of(start, self._dataset.read(start.position, []))[0]

    def track(self, start: Start) -> Float32[np.ndarray, "t1 e"] | None:
        """Return the track of a clip's control, where it is known, without decoding frames."""
        return self._control_of(start, self._dataset.read(start.position, []))[1]

    def shared_start(self, start: Start) -> str | None:
        """Return the name that clips with the same first frame share, if there are any."""
        return self._dataset.manifest.clips[start.position].start

    def _times(self, start: Start) -> list[int]:
        last = start.first + self.num_frames * start.stride
        return list(range(start.first, last + 1, start.stride))

    def _control_of(
        self, start: Start, clip: PackedClip
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | tuple[None, None]:
        if self.control is None:
            return None, None
        whole, times = clip.tracks[self.control.name], self._times(start)
        eta = self.control.of(whole, first=times[0], last=times[-1])
        return eta, np.asarray(whole[times], dtype=np.float32)

    def continuation(self, start: Start, *, num_frames: int) -> UInt8[np.ndarray, "n h w 3"] | None:
        """Return x0 and `num_frames` real frames after it, where the clip has so many."""
        times = range(start.first, start.first + num_frames * start.stride + 1, start.stride)
        if times[-1] >= self._dataset.manifest.clips[start.position].frames:
            return None
        return self._resized(self._dataset.read(start.position, list(times)).frames)

    def first_frame(self, start: Start) -> UInt8[np.ndarray, "h w 3"]:
        """Return x0 of a start, without decoding other frames."""
        return np.asarray(
            self._resized(self._dataset.read(start.position, [start.first]).frames)[0]
        )

    def other_futures(self) -> Mapping[str, Sequence[Start]]:
        """Return the other clips of the data set that continue the same first frame.

        They come in the manifest's order, cyclically from the clip after the start's own, so
        that the clips of a start do not all have the same one first. Windows that do not begin
        with their clip have none, as only first frames are shared.
        """
        entries = self._dataset.manifest.clips
        positions: dict[str, list[int]] = {}
        for position, entry in enumerate(entries):
            if entry.start is not None:
                positions.setdefault(entry.start, []).append(position)
        found = {}
        for start in self.starts:
            shared = entries[start.position].start
            if shared is None or start.first != 0:
                continue
            place = positions[shared].index(start.position)
            others = positions[shared][place + 1 :] + positions[shared][:place]
            long_enough = [p for p in others if entries[p].frames > self.num_frames * start.stride]
            if long_enough:
                found[start.key] = [
                    _start(self._dataset, p, first=0, stride=start.stride, number=0)
                    for p in long_enough
                ]
        return found

    def fps(self, start: Start) -> float:
        """Return how many frames of a window are one second."""
        return self._dataset.manifest.clips[start.position].fps / start.stride

    def facts(self) -> dict[str, str]:
        """Return name, split, frame size and hash of the data, for the record."""
        manifest, size = self._dataset.manifest, f"{self._size}"
        if manifest.size != self._size:
            size += f", resized from {manifest.size or 'clips of their own sizes'}, "
            size += "stretched to a square as in training"
        return {
            "name": self.name,
            "split": self._split,
            "size": size,
            "sha256": sha256(manifest.to_json()).hexdigest(),
        }

    def _resized(self, frames: UInt8[np.ndarray, "n _ _ 3"]) -> UInt8[np.ndarray, "n _ _ 3"]:
        if frames.shape[1:3] == (self._size, self._size):
            return frames
        return np.stack([square(frame, self._size) for frame in frames])

    def _resized_mask(self, mask: Bool[np.ndarray, "_ _"]) -> Bool[np.ndarray, "_ _"]:
        if mask.shape == (self._size, self._size):
            return mask
        grey = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8)
        return np.asarray(square(grey, self._size)[..., 0] > 0)


class WindowClips(ClipSet):
    """Windows of scenes, as nature models are trained on; a source is a scene.

    Args:
        windows: Windows of each scene.
        num_frames: T.
        name: Name of the data set.
    """

    def __init__(self, windows: Sequence[SceneWindows], *, num_frames: int, name: str) -> None:
        self.name, self.num_frames, self._windows = name, num_frames, list(windows)
        self.starts = tuple(
            Start(
                key=f"{part.scene.name}/{index}",
                source=part.scene.name,
                position=position,
                first=0,
                sample=index,
                label=part.scene.texture,
            )
            for position, part in enumerate(windows)
            for index in range(len(part.frames))
        )

    def read(self, start: Start) -> RealClip:
        """Return a window."""
        frames = self._windows[start.position].frames[start.sample]
        return RealClip(start=start, frames=np.asarray(frames))


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which generated frame is compared with which real one.

    Attributes:
        name: "aligned", or "paper" and the data set.
        about: Description of the protocol.
        num_frames: Number of generated frames that are compared, at most T.
        with_x0: Whether x0 is put before the generated frames, as part of their clip.
        lag: Generated frame t is compared with real frame t - lag; 0 is the same time.
    """

    name: str
    about: str
    num_frames: int
    with_x0: bool = False
    lag: int = 0

    def generated(
        self, x0: UInt8[np.ndarray, "h w 3"], frames: UInt8[np.ndarray, "t h w 3"]
    ) -> UInt8[np.ndarray, "n h w 3"]:
        """Return the generated clip that is compared.

        Args:
            x0: The first frame.
            frames: The T generated frames.
        """
        chosen = frames[: self.num_frames]
        return np.concatenate([x0[None], chosen]) if self.with_x0 else chosen

    def real(self, frames: UInt8[np.ndarray, "t1 h w 3"]) -> UInt8[np.ndarray, "n h w 3"]:
        """Return the real clip that it is compared with.

        Args:
            frames: x0 and the T frames after it.
        """
        first = 0 if self.with_x0 else 1 - self.lag
        return frames[first : self.num_frames + 1 - self.lag]


def choose_protocol(name: ProtocolName, data_set: str, *, num_frames: int) -> Protocol:
    """Return the protocol for a data set.

    Args:
        name: "aligned", or "paper" for the published one, with its deviations.
        data_set: Name of the packed data set.
        num_frames: T, number of frames that the model generates.

    Raises:
        UserError: The paper did not measure that data set, or T is too small for its protocol.
    """
    if name == "aligned":
        about = f"generated frames 1..{num_frames} compared with the real frames of the same times"
        return Protocol(name="aligned", about=about, num_frames=num_frames)
    family = data_set.partition("-")[0]  # "dtdb-fire" is one of DTDB's textures
    if family not in _PAPER:
        raise UserError(
            f"the paper did not measure {data_set}: its data sets are {', '.join(_PAPER)}; "
            "use --protocol aligned"
        )
    protocol = _PAPER[family]
    if num_frames < protocol.num_frames:
        raise UserError(
            f"{protocol.name} needs {protocol.num_frames} generated frames, the model makes "
            f"{num_frames}: use --protocol aligned"
        )
    return protocol


_PAPER = {
    "bair": Protocol(
        name="paper (BAIR)",
        about="x0 and 15 generated frames compared with real frames 0..15; 256 test clips from "
        "frame 0",
        num_frames=15,
        with_x0=True,
    ),
    "iper": Protocol(
        name="paper (iPER)",
        about="x0 and 16 generated frames compared with real frames 0..16; 1000 clips",
        num_frames=16,
        with_x0=True,
    ),
    "landscape": Protocol(
        name="paper (Landscape)",
        about="generated frames 1..16 compared with real frames 0..15, one frame off as published; "
        "6 random starts of each test video",
        num_frames=16,
        lag=1,
    ),
    "dtdb": Protocol(
        name="paper (DTDB)",
        about="generated frames 1..16 compared with real frames 0..15, one frame off as published; "
        "frame 0 of each test video, each real clip five times, with five samples",
        num_frames=16,
        lag=1,
    ),
}


def choose_starts(
    dataset: PackedDataset,
    protocol: Protocol,
    *,
    split: Split = "test",
    num_frames: int,
    most: int | None = None,
    stride: int | None = None,
    seed: int = 0,
) -> list[Start]:
    """Choose the starts that are evaluated.

    With the protocol "aligned", each clip has up to six windows without overlap, spread over it;
    clips that share their first frame have one, from that frame. Where there are more than `most`,
    those with the smallest hashes are taken, so that a larger number contains a smaller one's.

    Args:
        dataset: Packed clips.
        protocol: A protocol from `choose_protocol`.
        split: Split that the clips are of.
        num_frames: T of the model: windows have T + 1 frames.
        most: Largest number of starts; defaults to what the paper has, else to all.
        stride: Distance between two frames of a window, in frames of the clip; defaults to the
            one of natural speed, where the data say so, else 1.
        seed: Seed of random starts, where the paper has some.

    Raises:
        UserError: No clip of the split is long enough.
    """
    starts = [
        _start(dataset, position, first=first, stride=step, number=number)
        for position in map(int, dataset.indices(split))
        if (step := _fitting(dataset.manifest.clips[position], stride, num_frames=num_frames))
        for first, number in _windows(
            dataset.manifest.clips[position], protocol, length=num_frames * step + 1, seed=seed
        )
    ]
    if not starts:
        raise UserError(
            f"{dataset.manifest.name}: no clip of the split {split} has {num_frames + 1} frames at "
            f"stride {stride or 1}, which the model needs: choose another split (--split) or a "
            "smaller --stride"
        )
    limit = most if most is not None else _PAPER_LIMITS.get(protocol.name)
    if limit is not None and len(starts) > limit:
        starts = sorted(sorted(starts, key=lambda s: hash_of(s.key))[:limit], key=lambda s: s.key)
    return starts


def _fitting(entry: ClipEntry, stride: int | None, *, num_frames: int) -> int:
    """Return the stride of a clip's windows; 0 if the clip is too short for it."""
    step = stride or entry.stride or 1
    return step if entry.frames > num_frames * step else 0


def _start(dataset: PackedDataset, position: int, *, first: int, stride: int, number: int) -> Start:
    entry = dataset.manifest.clips[position]
    return Start(
        key=f"{entry.clip}@{first}x{stride}#{number}",
        source=entry.source,
        position=position,
        first=first,
        stride=stride,
        sample=number,
        label=entry.label or "",
    )


def _windows(
    entry: ClipEntry, protocol: Protocol, *, length: int, seed: int
) -> Iterator[tuple[int, int]]:
    """First frame and number of each window of a clip that is long enough."""
    room = entry.frames - length
    if protocol.name == "paper (Landscape)":
        generator = np.random.Generator(np.random.Philox(key=[seed, hash_of(entry.clip)]))
        firsts = generator.integers(0, room + 1, _SPREAD).tolist()
    elif protocol.name == "paper (DTDB)":
        firsts = [0] * _SAMPLES_OF_DTDB
    elif protocol.name == "paper (BAIR)" or entry.start is not None:
        firsts = [0]
    else:
        count = min(_SPREAD, room // length + 1)
        firsts = np.linspace(0, room, count).round().astype(int).tolist()
    return ((first, number) for number, first in enumerate(firsts))


def choose_split(
    dataset: PackedDataset, *, num_frames: int, stride: int | None = None
) -> tuple[Split, str]:
    """Return the split to evaluate on, and a sentence that states the choice and its reason.

    The first of test, validation and train that has a clip of T + 1 frames.

    Args:
        dataset: Packed clips.
        num_frames: T of the model.
        stride: As in `choose_starts`.

    Raises:
        UserError: No clip of any split is long enough.
    """
    entries = dataset.manifest.clips
    order: tuple[Split, ...] = ("test", "validation", "train")
    for number, split in enumerate(order):
        clips = (entries[int(i)] for i in dataset.indices(split))
        if any(_fitting(clip, stride, num_frames=num_frames) for clip in clips):
            return split, _reason(split, order[:number])
    raise UserError(
        f"{dataset.manifest.name}: no clip has {num_frames + 1} frames at stride {stride or 1}, "
        "which the model needs: give longer clips, or a smaller --stride"
    )


def _reason(split: Split, skipped: Sequence[Split]) -> str:
    if not skipped:
        return f"the split {split} is evaluated"
    verb = "has" if len(skipped) == 1 else "have"
    reason = f"the split {split} is evaluated, as {' and '.join(skipped)} {verb} no clip that is "
    reason += "long enough"
    if split == "train":
        reason += "; the model may have been trained on these clips"
    return reason


def thin_shared_starts(
    dataset: PackedDataset, starts: Sequence[Start], *, most: int | None
) -> list[Start]:
    """Keep the clips of at most `most` shared first frames, chosen by a hash, with all futures.

    Args:
        dataset: The packed clips that the starts are of.
        starts: Starts; those of clips that share no first frame are dropped.
        most: Largest number of shared first frames; all if None.
    """
    by_name: dict[str, list[Start]] = {}
    for start in starts:
        name = dataset.manifest.clips[start.position].start
        if name is not None:
            by_name.setdefault(name, []).append(start)
    chosen = sorted(by_name, key=hash_of)[:most]
    return [start for name in chosen for start in by_name[name]]


def find_partners(starts: Sequence[Start]) -> dict[str, Start]:
    """Return for each start, by its key, one of another source: the next in the order of a hash.

    Args:
        starts: Starts; one whose source is the only one gets no partner.
    """
    order = sorted(starts, key=lambda start: hash_of(start.key))
    found = {}
    for i, start in enumerate(order):
        others = (o for o in order[i + 1 :] + order[:i] if o.source != start.source)
        partner = next(others, None)
        if partner is not None:
            found[start.key] = partner
    return found
