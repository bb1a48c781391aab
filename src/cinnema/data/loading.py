"""Endless batches of packed clips, the same whatever number of processes prepares them.

The n-th clip of a training, counted over all ranks, is a function of the seed and n alone: epoch
n // N takes the N clips of the split in an order of its own, and where its window lies and how it
is varied is drawn from a stream of its own. Batch k of rank r of R is the clips

    (k R + r) B, ..., (k R + r) B + B - 1

counted from where the training was resumed. Workers, resumption and the number of ranks (at the
same R B) therefore change nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cinnema.core.errors import UserError
from cinnema.data.augmentation import Augmentation, Variation
from cinnema.data.dataset import PackedClip, PackedDataset
from cinnema.data.manifest import ClipEntry
from cinnema.data.records import SPLITS, Split
from cinnema.data.workers import batch_ranges, begin_worker, unchanged

# Of the two kinds of draws, so that no stream serves both.
_ORDER, _CLIP = 0, 1

# A batch between processes: the fields of `VideoBatch`, with frames of 8 bits. A tensor travels as
# a file in shared memory, which costs more than the few bytes of the other fields are worth.
_Packet: TypeAlias = dict[str, Tensor | NDArray[Any]]


@dataclass(frozen=True)
class VideoBatch:
    """Windows of clips as training wants them.

    Attributes:
        video: x0 and the T frames after it, in [-1, 1].
        control: eta, in the control's unit, zeros where the track has a gap (is not finite); e is
            0 where the data have no control.
        confidence: How far `control` can be trusted, in [0, 1]: the mean of the track's, over the
            frames after x0; 1 where the track is exact, 0 where there is no control or a gap.
        track: The rows of the track that was asked for, frame by frame; k is 0 where none was.
        fps: Frames a second, at which `video` plays at the speed of what was filmed.
        index: Of the clip in the packed data set's manifest.
        number: n, of the clip in the training.
    """

    video: Float[Tensor, "b t 3 h w"]
    control: Float[Tensor, "b e"]
    confidence: Float[Tensor, "b"]
    track: Float[Tensor, "b t k"]
    fps: Float[Tensor, "b"]
    index: Int64[Tensor, "b"]
    number: Int64[Tensor, "b"]

    def to(self, device: torch.device | str) -> "VideoBatch":
        """Return the batch on a device."""
        return VideoBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class VariedClip:
    """One window of a clip, varied; fields as of `VideoBatch`, with frames of 8 bits."""

    frames: UInt8[np.ndarray, "t h w 3"]
    control: Float32[np.ndarray, "e"]
    confidence: float
    track: Float32[np.ndarray, "t k"]
    fps: float
    index: int
    number: int


class ClipSequence:
    """The clips of a training, in order, without end: each a function of the seed and its number.

    Clips too short for a window are left out. A clip too short for the stride that is drawn takes
    the largest that fits.

    Args:
        dataset: The packed clips.
        split: Which of them.
        num_frames: Of a window, x0 counted: T + 1, at least 2.
        size: Width and height of the frames in pixels; None is that of the packed frames.
        augmentation: How clips are varied.
        track: Which track of the clips comes with the frames; None for none.
        has_points: Whether the track is x and y of points in turn, in picture widths and heights:
            then it follows pictures that are mirrored. No point changes its name.
        seed: Of all draws, at least 0, of any size.

    Attributes:
        indices: In the manifest, of the clips that are long enough.
        size: Width and height of the frames, in pixels.

    Raises:
        UserError: The split is empty, or none of its clips is long enough; a number is out of
            range; the control cannot follow the augmentation.

    Example:
        >>> sequence = ClipSequence(PackedDataset(Path("bair")), num_frames=17)
        >>> sequence.clip(1_000_000).frames.shape
        (17, 64, 64, 3)
    """

    def __init__(
        self,
        dataset: PackedDataset,
        *,
        split: Split = "train",
        num_frames: int,
        size: int | None = None,
        augmentation: Augmentation | None = None,
        track: str | None = None,
        has_points: bool = False,
        seed: int = 0,
    ) -> None:
        _check_at_least(2, num_frames=num_frames)
        _check_at_least(1, size=1 if size is None else size)
        _check_at_least(0, seed=seed)
        self.dataset, self.num_frames = dataset, num_frames
        self.augmentation = Augmentation() if augmentation is None else augmentation
        self.augmentation.check_control(dataset.manifest.control)
        self.track, self.has_points = track, has_points
        _check_track(track, dataset, self.augmentation, has_points=has_points)
        self.size = dataset.size if size is None else size
        self.indices = _long_enough(dataset, split, num_frames)
        self._key = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        """The number of clips in an epoch, N."""
        return len(self.indices)

    def clip(self, number: int) -> VariedClip:
        """Return the clip of a number.

        Args:
            number: n, at least 0.

        Raises:
            UserError: The packed data are damaged.
        """
        generator = self._generator(_CLIP, number)
        variation = self.augmentation.draw(generator)
        index = self._index(number)
        entry = self.dataset.manifest.clips[index]
        window = self._window(entry, stride=variation.stride, place=generator.random())
        clip = self.dataset.read(index, frames=window)
        control, confidence = self._control(clip, window, variation)
        return VariedClip(
            frames=variation.frames(clip.frames, size=self.size),
            control=control,
            confidence=confidence,
            track=self._track(clip, window, variation),
            fps=entry.fps / window.step,
            index=index,
            number=number,
        )

    def _generator(self, kind: int, number: int) -> np.random.Generator:
        # Philox maps each key and counter to bits of their own: no two clips share a stream.
        key = np.array([self._key, number], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, kind]))

    def _index(self, number: int) -> int:
        epoch, place = divmod(number, len(self))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = self._generator(_ORDER, epoch).permutation(self.indices)
        return int(self._order[place])

    def _window(self, entry: ClipEntry, *, stride: int, place: float) -> range:
        """The frames of a window, `place` in [0, 1) of the way through its clip."""
        step = min(stride, (entry.frames - 1) // (self.num_frames - 1))
        span = (self.num_frames - 1) * step + 1
        first = int(place * (entry.frames - span + 1))
        return range(first, first + span, step)

    def _control(
        self, clip: PackedClip, window: range, variation: Variation
    ) -> tuple[Float32[np.ndarray, "e"], float]:
        control = self.dataset.manifest.control
        if control is None:
            return np.zeros(0, dtype=np.float32), 0.0
        first, last = window[0], window[-1]
        value = control.of(clip.tracks[control.name], first=first, last=last)
        value = variation.control(value, control, size=self.size)
        if not np.isfinite(value).all():  # a track may have gaps, a training may not
            return np.zeros_like(value), 0.0
        if clip.confidence is None:
            return value, 1.0
        return value, float(clip.confidence[first + 1 : last + 1].mean())

    def _track(
        self, clip: PackedClip, window: range, variation: Variation
    ) -> Float32[np.ndarray, "t k"]:
        if self.track is None:
            return np.zeros((len(window), 0), dtype=np.float32)
        if self.track not in clip.tracks:
            name, here = self.dataset.manifest.name, ", ".join(clip.tracks) or "none"
            raise UserError(f"{name} has no track {self.track}, it has {here}: name another one")
        rows = clip.tracks[self.track][list(window)].astype(np.float32)
        if self.has_points:
            if variation.mirrored:
                rows[:, ::2] = 1 - rows[:, ::2]
            return rows
        control = self.dataset.manifest.control
        return control.mirrored(rows) if control is not None and variation.mirrored else rows


class ClipLoader:
    """Endless shuffled batches of packed clips, resumable to the clip.

    Under several processes each makes a loader of its own, with the same options but `rank`. Its
    workers are forked at the first batch and end with the loader.

    Args:
        dataset: The packed clips.
        split: Which of them.
        batch_size: B, clips of a batch of this rank.
        num_frames: Of a window, x0 counted: T + 1, at least 2.
        size: Width and height of the frames in pixels; None is that of the packed frames.
        augmentation: How clips are varied; None leaves them as they are.
        track: Which track of the clips comes with the frames; None for none.
        has_points: Whether the track is x and y of points in turn, in picture widths and heights:
            then it follows pictures that are mirrored. No point changes its name.
        seed: Of all draws, at least 0.
        rank: r, of this process, from 0.
        num_ranks: R, processes that train together.
        num_workers: Processes that read and vary clips; 0 does it here, when a batch is wanted.
        device: Where batches shall be. They get there as 8 bits.

    Attributes:
        sequence: Of the clips.
        clips: The number of clips that all ranks together have handed out.

    Raises:
        UserError: As `ClipSequence`, and when iterating where the packed data are damaged.

    Example:
        >>> loader = ClipLoader(PackedDataset(Path("bair")), batch_size=10, num_frames=17)
        >>> next(loader).video.shape
        torch.Size([10, 17, 3, 64, 64])
        >>> loader.state_dict()
        {'clips': 10}
    """

    def __init__(
        self,
        dataset: PackedDataset,
        *,
        split: Split = "train",
        batch_size: int,
        num_frames: int,
        size: int | None = None,
        augmentation: Augmentation | None = None,
        track: str | None = None,
        has_points: bool = False,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        num_workers: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        _check_at_least(1, batch_size=batch_size, num_ranks=num_ranks)
        _check_at_least(0, rank=rank, num_workers=num_workers)
        if rank >= num_ranks:
            raise UserError(
                f"rank must be less than num_ranks, {num_ranks}, got {rank}: count ranks from 0"
            )
        self.sequence = ClipSequence(
            dataset,
            split=split,
            num_frames=num_frames,
            size=size,
            augmentation=augmentation,
            track=track,
            has_points=has_points,
            seed=seed,
        )
        self.batch_size, self.rank, self.num_ranks = batch_size, rank, num_ranks
        self.num_workers, self.device = num_workers, torch.device(device)
        self.clips = 0
        self._packets: Iterator[_Packet | UserError] | None = None

    def __iter__(self) -> "ClipLoader":
        """Return the loader itself: it has no end, and goes on where it was."""
        return self

    def __next__(self) -> VideoBatch:
        """Return the next batch."""
        if self._packets is None:
            self._packets = iter(self._loader())
        packet = next(self._packets)
        if isinstance(packet, UserError):
            self.close()
            raise packet
        self.clips += self.batch_size * self.num_ranks
        moved = {
            name: torch.as_tensor(value).to(self.device, non_blocking=True)
            for name, value in packet.items()
        }
        # Only there, as 8 bits travel four times as fast as floats.
        return VideoBatch(**moved | {"video": moved["video"].float().div_(127.5).sub_(1)})

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is: the number of clips that all ranks have handed out."""
        return {"clips": self.clips}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another loader was; batch size and number of ranks may be others.

        Args:
            state: What `state_dict` returned, on any rank.

        Raises:
            UserError: It is no such state.
        """
        clips = state.get("clips")
        if not isinstance(clips, int) or clips < 0:
            raise UserError(
                f"the state of a loader must hold a number of clips, at least 0, got {state!r}: "
                "start afresh"
            )
        self.close()
        self.clips = clips

    def close(self) -> None:
        """End the workers. The next batch, if another is wanted, starts new ones."""
        self._packets = None  # its finaliser ends them

    def _loader(self) -> DataLoader[_Packet | UserError]:
        first = self.clips + self.rank * self.batch_size
        return DataLoader(
            _Packets(self.sequence),
            batch_size=None,  # a worker makes whole batches
            sampler=batch_ranges(
                first, length=self.batch_size, step=self.num_ranks * self.batch_size
            ),
            collate_fn=unchanged,
            num_workers=self.num_workers,
            worker_init_fn=begin_worker,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # so that the global stream is left alone
        )


class _Packets(Dataset[_Packet | UserError]):
    """Batches by the range of their numbers."""

    def __init__(self, sequence: ClipSequence) -> None:
        self.sequence = sequence

    def __getitem__(self, numbers: range) -> _Packet | UserError:
        # torch would raise a worker's error with its traceback for a message.
        try:
            return _pack([self.sequence.clip(number) for number in numbers])
        except UserError as error:
            return error


def _pack(clips: list[VariedClip]) -> _Packet:
    t, h, w, _ = clips[0].frames.shape
    video = np.empty((len(clips), t, 3, h, w), dtype=np.uint8)
    for clip, out in zip(clips, video, strict=True):
        for frame, planes in zip(clip.frames, out, strict=True):
            cv2.split(frame, list(planes))  # five times as fast as NumPy's transposition
    return {
        "video": torch.from_numpy(video),
        "control": np.stack([clip.control for clip in clips]),
        "confidence": np.array([clip.confidence for clip in clips], dtype=np.float32),
        "track": np.stack([clip.track for clip in clips]),
        "fps": np.array([clip.fps for clip in clips], dtype=np.float32),
        "index": np.array([clip.index for clip in clips], dtype=np.int64),
        "number": np.array([clip.number for clip in clips], dtype=np.int64),
    }


def _long_enough(dataset: PackedDataset, split: Split, num_frames: int) -> NDArray[np.int64]:
    """The clips of a split that hold a window of so many frames."""
    name, clips = dataset.manifest.name, dataset.manifest.clips
    of_split = dataset.indices(split)
    if not len(of_split):
        others = [other for other in SPLITS if len(dataset.indices(other))]
        raise UserError(
            f"{name} has no clips of the split {split}, only of {', '.join(others) or 'none'}: "
            "choose another split"
        )
    lengths = np.array([clips[index].frames for index in of_split])
    if lengths.max() < num_frames:
        longest = clips[of_split[lengths.argmax()]]
        raise UserError(
            f"windows of {num_frames} frames need clips at least as long, but the longest of "
            f"{name} ({split}), {longest.clip}, has {longest.frames}: ask for fewer frames"
        )
    usable: NDArray[np.int64] = of_split[lengths >= num_frames]
    return usable


def _check_track(
    track: str | None, dataset: PackedDataset, augmentation: Augmentation, *, has_points: bool
) -> None:
    """Refuse a track that cannot follow pictures: only a control and points can be mirrored."""
    control = dataset.manifest.control
    if track is None or (control is not None and track == control.name):
        return
    if (augmentation.mirror > 0 and not has_points) or augmentation.enlarge > 1:
        raise UserError(
            f"the track {track} is not the control of {dataset.manifest.name}, and how it changes "
            "when a clip is mirrored or cropped is not known: set mirror to 0 and enlarge to 1"
        )


def _check_at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < least:
            raise UserError(f"{name} must be at least {least}, got {number}: choose another one")
