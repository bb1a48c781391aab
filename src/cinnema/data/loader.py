"""Endless batches of clips that do not depend on the number of processes that prepare them.

The n-th clip of a training, counted over all ranks, is a function of the seed and n alone. Batch k
of rank r of R consists of the clips

    (k R + r) B, ..., (k R + r) B + B - 1

counted from where the training was resumed. Workers, resumption and the number of ranks (at the
same R B) therefore change nothing.
"""

import itertools
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cinnema.core.errors import UserError
from cinnema.core.randomness import NumberedStreams
from cinnema.data.augmentation import Augmentation, Variation
from cinnema.data.dataset import PackedClip, PackedDataset
from cinnema.data.manifest import ClipEntry
from cinnema.data.records import SPLITS, Split

# Labels of the two kinds of random streams, so that they are independent.
_ORDER, _CLIP = 0, 1

# A batch between processes: the fields of `VideoBatch`, with frames of 8 bits. A tensor is sent as
# a file in shared memory, which costs more than the few bytes of the other fields are worth.
_Packet: TypeAlias = dict[str, Tensor | NDArray[Any]]

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


@runtime_checkable
class NumberedClips(Protocol[_T_co]):
    """The endless sequence of clips of a training."""

    def batch(self, numbers: Sequence[int]) -> _T_co:
        """Return the clips with these numbers as a batch.

        Raises:
            UserError: The data are damaged.
        """
        ...

    def names(self, batch: Any) -> Sequence[str]:  # noqa: ANN401 - what a loader made of it
        """Return the names of a batch's clips, for error messages."""
        ...


class BatchLoader(Generic[_T]):
    """Endless batches of numbered clips, resumable at any clip.

    With several ranks, each makes its own loader, with the same options except `rank`. The
    workers are forked at the first batch and end with the loader.

    Args:
        source: The clips.
        batch_size: B, number of clips in a batch of this rank, at least 1.
        rank: r, rank of this process, from 0.
        num_ranks: R, number of processes that train together.
        num_workers: Number of processes that prepare batches; 0 prepares each one here, when it is
            requested.
        pin_memory: Whether tensors are prepared for copying to an accelerator.

    Attributes:
        clips: Number of clips that all ranks together have returned.

    Raises:
        UserError: A number is out of range; when iterating, the data are damaged.
    """

    def __init__(
        self,
        source: NumberedClips[Any],
        *,
        batch_size: int,
        rank: int = 0,
        num_ranks: int = 1,
        num_workers: int = 1,
        pin_memory: bool = False,
    ) -> None:
        _check_at_least(1, batch_size=batch_size, num_ranks=num_ranks)
        _check_at_least(0, rank=rank, num_workers=num_workers)
        if rank >= num_ranks:
            raise UserError(
                f"rank must be less than num_ranks, {num_ranks}, got {rank}: count ranks from 0"
            )
        self.source, self.batch_size = source, batch_size
        self.rank, self.num_ranks = rank, num_ranks
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.clips = 0
        self._batches: Iterator[Any] | None = None

    def __iter__(self) -> "BatchLoader[_T]":
        """Return the loader itself, which continues at its position."""
        return self

    def __next__(self) -> _T:
        """Return the next batch."""
        if self._batches is None:
            self._batches = iter(self._loader())
        batch = next(self._batches)
        if isinstance(batch, UserError):
            self.close()
            raise batch
        self.clips += self.batch_size * self.num_ranks
        return self._receive(batch)

    def _receive(self, batch: Any) -> _T:  # noqa: ANN401 - what the source returned
        """Turn what a worker has prepared into a batch."""
        received: _T = batch
        return received

    def state_dict(self) -> dict[str, Any]:
        """Return the position: the number of clips that all ranks have returned."""
        return {"clips": self.clips}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from another loader's position; batch size and number of ranks may differ.

        Args:
            state: State from `state_dict` of any rank.

        Raises:
            UserError: The state is not valid.
        """
        clips = state.get("clips")
        if not isinstance(clips, int) or clips < 0:
            raise UserError(
                f"the state of a loader must have a number of clips, at least 0, got {state!r}: "
                "start again"
            )
        self.close()
        self.clips = clips

    def names(self, batch: _T) -> Sequence[str]:
        """Return the names of a batch's clips, for error messages."""
        return self.source.names(batch)

    def close(self) -> None:
        """End the workers. The next batch, if one is requested, starts new ones."""
        self._batches = None  # its finaliser ends them

    def _loader(self) -> "DataLoader[Any]":
        first = self.clips + self.rank * self.batch_size
        return DataLoader(
            _ByNumbers(self.source),
            batch_size=None,  # a worker makes whole batches
            sampler=_batch_ranges(
                first, length=self.batch_size, step=self.num_ranks * self.batch_size
            ),
            collate_fn=_unchanged,
            num_workers=self.num_workers,
            worker_init_fn=_begin_worker,
            pin_memory=self.pin_memory,
            generator=torch.Generator(),  # so that the global stream is not used
        )


class _ByNumbers(Dataset[Any]):
    """Batches by the range of their numbers."""

    def __init__(self, source: NumberedClips[Any]) -> None:
        self.source = source

    def __getitem__(self, numbers: range) -> Any:  # noqa: ANN401 - what the source returns
        # torch would raise a worker's error with its traceback as the message.
        try:
            return self.source.batch(numbers)
        except UserError as error:
            return error


def _batch_ranges(first: int, *, length: int, step: int) -> Iterator[range]:
    """Yield the numbers of the clips of each batch, without end.

    Args:
        first: Number of the first batch's first clip.
        length: Clips in a batch.
        step: From one batch's first clip to the next one's: more than `length` with several ranks.
    """
    # Not a method of a loader: the iterator would then keep the workers alive after it.
    for start in itertools.count(first, step):
        yield range(start, start + length)


def _unchanged(batch: _T) -> _T:
    return batch


def _begin_worker(_: int) -> None:
    # The training handles an interrupt and may still want a batch to end well; workers end with the
    # process that started them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)  # OpenCV's pool of threads does not survive a fork


@dataclass(frozen=True)
class VideoBatch:
    """Windows of clips for training.

    Attributes:
        video: x0 and the T frames after it, in [-1, 1].
        control: eta, in the control's unit; zeros if the track has a gap (is not finite). e is 0
            if the data have no control.
        confidence: Confidence of `control`, in [0, 1]: the mean of the track's over the frames
            after x0; 1 if the track is exact, 0 if there is no control or a gap.
        track: The rows of the requested track, frame by frame; k is 0 if none was requested.
        fps: Frames per second at which `video` plays at the speed of the recording.
        index: Position of the clip in the packed data set's manifest.
        number: n, number of the clip in the training.
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
    """One augmented window of a clip; fields as in `VideoBatch`, with frames of 8 bits."""

    frames: UInt8[np.ndarray, "t h w 3"]
    control: Float32[np.ndarray, "e"]
    confidence: float
    track: Float32[np.ndarray, "t k"]
    fps: float
    index: int
    number: int


class ClipSequence:
    """The endless sequence of training clips: each is a function of the seed and its number.

    Epoch n // N takes the N clips of the split in a separate random order; the position of the
    window and the augmentation are drawn from a separate stream for each clip. Clips too short for
    a window are left out. A clip too short for the drawn stride uses the largest that fits.

    Args:
        dataset: The packed clips.
        split: The split that is used.
        num_frames: Number of frames of a window with x0, T + 1, at least 2.
        size: Width and height of the frames in pixels; None uses the data set's.
        augmentation: Augmentation of the clips; None for none.
        track: Name of the track that is returned with the frames; None for none.
        has_points: Whether the track consists of points (x, y), in picture widths and heights; then
            it is mirrored with the pictures, without exchanging points.
        seed: Seed of all draws, at least 0.

    Attributes:
        indices: Positions in the manifest of the clips that are long enough.
        size: Width and height of the frames in pixels.

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
        self._streams = NumberedStreams(seed)
        self._epoch, self._order = -1, np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        """The number of clips in an epoch, N."""
        return len(self.indices)

    def batch(self, numbers: Sequence[int]) -> _Packet:
        """Return the clips with these numbers as a batch, with frames of 8 bits."""
        return _pack([self.clip(number) for number in numbers])

    def names(self, batch: VideoBatch) -> list[str]:
        """Return the names of a batch's clips in the data set."""
        return [self.dataset.manifest.clips[index].clip for index in batch.index.tolist()]

    def clip(self, number: int) -> VariedClip:
        """Return the clip with a number.

        Args:
            number: n, at least 0.

        Raises:
            UserError: The packed data are damaged.
        """
        generator = self._streams.of(_CLIP, number)
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

    def _index(self, number: int) -> int:
        epoch, place = divmod(number, len(self))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = self._streams.of(_ORDER, epoch).permutation(self.indices)
        return int(self._order[place])

    def _window(self, entry: ClipEntry, *, stride: int, place: float) -> range:
        """The frames of a window at relative position `place`, in [0, 1), in its clip."""
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
        if not np.isfinite(value).all():  # a track may have gaps, training needs numbers
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


class ClipLoader(BatchLoader[VideoBatch]):
    """Endless shuffled batches of packed clips, resumable at any clip (see `BatchLoader`).

    Args:
        dataset: The packed clips.
        split: The split that is used.
        batch_size: B, number of clips in a batch of this rank.
        num_frames: Number of frames of a window with x0, T + 1, at least 2.
        size: Width and height of the frames in pixels; None uses the data set's.
        augmentation: Augmentation of the clips; None for none.
        track: Name of the track that is returned with the frames; None for none.
        has_points: Whether the track consists of points (x, y), in picture widths and heights; then
            it is mirrored with the pictures, without exchanging points.
        seed: Seed of all draws, at least 0.
        rank: r, rank of this process, from 0.
        num_ranks: R, number of processes that train together.
        num_workers: Number of processes that read and augment clips; 0 does it here, when a batch
            is requested.
        device: Device of the batches. They are copied there as 8 bits.

    Attributes:
        sequence: The clips.

    Raises:
        UserError: As `ClipSequence`, and when iterating if the packed data are damaged.

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
        self.device = torch.device(device)
        super().__init__(
            self.sequence,
            batch_size=batch_size,
            rank=rank,
            num_ranks=num_ranks,
            num_workers=num_workers,
            pin_memory=self.device.type == "cuda",
        )

    def _receive(self, batch: _Packet) -> VideoBatch:
        moved = {
            name: torch.as_tensor(value).to(self.device, non_blocking=True)
            for name, value in batch.items()
        }
        # Converted on the device, as 8 bits are copied four times as fast as floats.
        return VideoBatch(**moved | {"video": moved["video"].float().div_(127.5).sub_(1)})


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
    """Return the clips of a split that have enough frames for a window."""
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
    """Refuse a track that cannot be augmented: only a control and points can be mirrored."""
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
