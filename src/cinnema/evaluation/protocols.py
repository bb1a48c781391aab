"""Which clips are compared with what: aligned as it should be, or as the paper had it.

A start is a window of a packed clip: x0 and the T frames after it. A protocol chooses the starts
and says which real frames stand beside which generated ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.data.manifest import ClipEntry
from cinnema.data.records import Split
from cinnema.evaluation.statistics.bootstrap import hash_of

ProtocolName = Literal["aligned", "paper"]


@dataclass(frozen=True, kw_only=True)
class Start:
    """A window of a packed clip, and which sample of it is drawn.

    Attributes:
        key: Unique: clip, first frame, stride, number of the window.
        source: The source video.
        position: Of the clip in the manifest.
        first: The frame that is x0.
        stride: Every which frame follows.
        sample: Number of the future that is drawn of this start: that of the window, so that
            windows that are the same get different ones.
    """

    key: str
    source: str
    position: int
    first: int
    stride: int = 1
    sample: int = 0


@dataclass(frozen=True, kw_only=True)
class RealClip:
    """What really came of a start.

    Attributes:
        start: The start.
        frames: x0 and the T frames after it.
        eta: The true control of these frames, or None.
    """

    start: Start
    frames: UInt8[np.ndarray, "t1 h w 3"]
    eta: Float32[np.ndarray, "e"] | None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is compared with what.

    Attributes:
        name: "aligned", or "paper" and the data set.
        about: In words.
        num_frames: Generated frames that count, T or fewer.
        with_x0: Whether x0 stands before the generated frames, as part of their clip.
        lag: The real frame beside generated frame t is t - lag: 0 is right.
    """

    name: str
    about: str
    num_frames: int
    with_x0: bool = False
    lag: int = 0

    def generated(
        self, x0: UInt8[np.ndarray, "h w 3"], frames: UInt8[np.ndarray, "t h w 3"]
    ) -> UInt8[np.ndarray, "n h w 3"]:
        """Return the clip of a contestant that is compared.

        Args:
            x0: The first frame.
            frames: What the contestant let follow, T frames.
        """
        chosen = frames[: self.num_frames]
        return np.concatenate([x0[None], chosen]) if self.with_x0 else chosen

    def real(self, frames: UInt8[np.ndarray, "t1 h w 3"]) -> UInt8[np.ndarray, "n h w 3"]:
        """Return the real clip beside it.

        Args:
            frames: x0 and the T frames after it.
        """
        first = 0 if self.with_x0 else 1 - self.lag
        return frames[first : self.num_frames + 1 - self.lag]


def choose_protocol(name: ProtocolName, data_set: str, *, num_frames: int) -> Protocol:
    """Return a protocol for a data set.

    Args:
        name: "aligned", or "paper" for the published one, quirks included.
        data_set: What the packed data set is called.
        num_frames: T of the model.

    Raises:
        UserError: The paper has none for that data set, or the model makes too few frames for it.
    """
    if name == "aligned":
        about = f"generated frames 1..{num_frames} beside the real frames of the same times"
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
        about="x0 and 15 generated frames beside real frames 0..15; 256 test clips from frame 0",
        num_frames=15,
        with_x0=True,
    ),
    "iper": Protocol(
        name="paper (iPER)",
        about="x0 and 16 generated frames beside real frames 0..16; 1000 clips",
        num_frames=16,
        with_x0=True,
    ),
    "landscape": Protocol(
        name="paper (Landscape)",
        about="generated frames 1..16 beside real frames 0..15, one frame off as published; "
        "6 random starts of each test video",
        num_frames=16,
        lag=1,
    ),
    "dtdb": Protocol(
        name="paper (DTDB)",
        about="generated frames 1..16 beside real frames 0..15, one frame off as published; "
        "frame 0 of each test video, each real clip five times beside five samples",
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
    stride: int = 1,
    seed: int = 0,
) -> list[Start]:
    """Choose the starts that a protocol asks for.

    Aligned: of each clip up to six windows that do not overlap, spread over it; clips of one start
    (different futures) from their first frame. Where there are more than `most`, whole source
    videos are thinned evenly, by a hash of the start.

    Args:
        dataset: Packed clips.
        protocol: From `choose_protocol`.
        split: Of which side.
        num_frames: T of the model: windows have T + 1 frames.
        most: At most so many starts; all if None.
        stride: Every which frame follows.
        seed: Of random starts, where the paper has some.

    Raises:
        UserError: No clip of the split is long enough.
    """
    length = num_frames * stride + 1
    entries = dataset.manifest.clips
    starts = [
        _start(dataset, position, first=first, stride=stride, number=number)
        for position in map(int, dataset.indices(split))
        if entries[position].frames >= length
        for first, number in _windows(entries[position], protocol, length=length, seed=seed)
    ]
    if not starts:
        raise UserError(
            f"{dataset.manifest.name}: no clip of the split {split} has {length} frames, which "
            f"{num_frames} frames after the first at stride {stride} need: choose another split "
            "(--split) or a smaller stride"
        )
    limit = most if most is not None else _PAPER_LIMITS.get(protocol.name)
    if limit is not None and len(starts) > limit:
        starts = sorted(sorted(starts, key=lambda s: hash_of(s.key))[:limit], key=lambda s: s.key)
    return starts


def _start(dataset: PackedDataset, position: int, *, first: int, stride: int, number: int) -> Start:
    entry = dataset.manifest.clips[position]
    return Start(
        key=f"{entry.clip}@{first}x{stride}#{number}",
        source=entry.source,
        position=position,
        first=first,
        stride=stride,
        sample=number,
    )


_PAPER_LIMITS = {"paper (BAIR)": 256, "paper (iPER)": 1000}
_SPREAD = 6
_SAMPLES_OF_DTDB = 5


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


def find_other_futures(
    dataset: PackedDataset, starts: Sequence[Start], *, num_frames: int
) -> dict[str, list[Start]]:
    """Find the other clips of the data set that go on from the same first frame.

    They come in the manifest's order, from the clip after the start's own round to the one before
    it, so that the clips of a start do not all have the same one first. What else is evaluated
    makes no difference.

    Args:
        dataset: That the starts are of.
        starts: Whose other futures are wanted.
        num_frames: T: clips without T frames after the first are passed over.

    Returns:
        By the key of a start, its other futures, one at least. Starts that have none are left out,
        and windows that do not begin with their clip: only first frames are shared.
    """
    entries = dataset.manifest.clips
    positions: dict[str, list[int]] = {}
    for position, entry in enumerate(entries):
        if entry.start is not None:
            positions.setdefault(entry.start, []).append(position)
    found = {}
    for start in starts:
        shared = entries[start.position].start
        if shared is None or start.first != 0:
            continue
        place = positions[shared].index(start.position)
        others = positions[shared][place + 1 :] + positions[shared][:place]
        long_enough = [p for p in others if entries[p].frames > num_frames * start.stride]
        if long_enough:
            found[start.key] = [
                _start(dataset, p, first=0, stride=start.stride, number=0) for p in long_enough
            ]
    return found


def read_clip(dataset: PackedDataset, start: Start, *, num_frames: int) -> RealClip:
    """Read what really came of a start.

    Args:
        dataset: That the start is of.
        start: The start.
        num_frames: T.
    """
    last = start.first + num_frames * start.stride
    clip = dataset.read(start.position, list(range(start.first, last + 1, start.stride)))
    control = dataset.manifest.control
    eta: NDArray[np.float32] | None = None
    if control is not None:
        eta = control.of(clip.tracks[control.name], first=start.first, last=last)
    return RealClip(start=start, frames=clip.frames, eta=eta)
