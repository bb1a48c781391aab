"""Whether a picture that is given a video's nu moves as the video does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Float64

from cinnema.backbones.optical_flow import backward_flow, to_volume
from cinnema.core.errors import UserError
from cinnema.metrics.evaluation.contestants import draws, encoded, first_frames
from cinnema.metrics.scores import Estimate
from cinnema.metrics.tasks.clips import (
    KnownClip,
    Progress,
    Video,
    batches,
    developed,
    filmed,
    own_etas,
    partners_of,
    say_nothing,
    told,
)
from cinnema.metrics.tasks.intervals import mean, resampled
from cinnema.metrics.tasks.reader import EndPointReader
from cinnema.metrics.tasks.results import Aim, Number, TaskResult
from cinnema.synthesis.synthesizer import Synthesizer

_GRID = 16
_STILL = 0.005  # in picture sizes: a video whose field is shorter than this has no motion to give
_LEAST_CELLS = 5.0  # of the grid, that have to move in both pictures
_LEAST_WAY = 0.02  # of a hand, in the unit of its position: a shorter one has no direction

Volume = Float32[np.ndarray, "2 t g g"]


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How like the video's motion that of a few others is: mean cosines, 1 is the same way.

    Attributes:
        transferred: Of another picture that was given nu.
        random: Of that picture with a random nu.
        frozen: Of that picture as it stands: 0, as nothing goes no way.
        decoded: Of the video itself, encoded and decoded: the most that stage 1 lets through.
    """

    transferred: Estimate
    random: Estimate
    frozen: Estimate
    decoded: Estimate


@dataclass(frozen=True, kw_only=True)
class TransferResult(TaskResult):
    """How far motion is kept when it is given to another picture.

    Attributes:
        fields: By the optical flow over the clip, in the same places of both pictures.
        hand: By the way of the end effector from the first frame to the last; None without one.
        least: The cosine of fields that is asked for.
    """

    title: ClassVar[str] = "Motion of one video in another picture"

    fields: Likeness
    hand: Likeness | None
    least: float

    def numbers(self) -> Sequence[Number]:
        """Return the cosines."""
        aim = Aim(way="at least", limit=self.least)
        found = _numbers("cosine of motion fields", self.fields, aim)
        if self.hand is not None:
            found += _numbers("cosine of the hand's way", self.hand, None)
        return found

    def notes(self) -> Sequence[str]:
        """Return what the two cosines mean."""
        said = ["fields are compared where both pictures can move, as far as the data tell"]
        if self.hand is not None:
            said.append(
                "hands start in other places, so fields that move alike do so in other places of "
                "the picture; the hand's way does not mind where it starts"
            )
        return said


def _numbers(what: str, likeness: Likeness, aim: Aim | None) -> list[Number]:
    rows = (
        ("other picture, given nu", likeness.transferred, aim),
        ("other picture, random nu", likeness.random, None),
        ("other picture, frozen", likeness.frozen, None),
        ("the video, encoded and decoded", likeness.decoded, None),
    )
    return [Number(what=what, of=of, estimate=e, digits=2, aim=aim) for of, e, aim in rows]


@torch.inference_mode()
def measure_transfer(
    model: Synthesizer,
    clips: Sequence[KnownClip],
    reader: EndPointReader | None = None,
    *,
    seed: int = 0,
    batch_size: int = 8,
    progress: Progress = say_nothing,
) -> TransferResult:
    """Give nu of each clip to the first frame of another source, and compare the motions.

        nu~ = T^-1(q(X~); x~0),   X = p(x0, T(nu~; x0))

    The control is left out, so that nu holds all of the motion, as in `cinnema transfer`. A model
    that cannot do without is told the clip's own on both sides.

    Args:
        model: In evaluation mode.
        clips: Of two sources at least; those that stand still are left out.
        reader: Of end points, for a robot: then the ways of its hand are compared, too.
        seed: Of the random nu.
        batch_size: Clips at once.
        progress: Told how many are done.

    Raises:
        UserError: The clips are of one source, or none moves.
    """
    others = dict(zip([c.start.key for c in clips], partners_of(clips), strict=True))
    fields, hands = [], []
    for batch in batches(clips, batch_size, text="transferring", progress=progress):
        partners = [others[clip.start.key] for clip in batch]
        films = _films(model, batch, partners, seed=seed)
        for i, (clip, partner) in enumerate(zip(batch, partners, strict=True)):
            videos = [film[i] for film in films]
            fields.append(_field_row(clip, partner, videos))
            if reader is not None:
                hands.append(_hand_row(clip, videos, reader))
    sources, table = [clip.source for clip in clips], np.stack(fields)
    if not np.isfinite(table).any():
        raise UserError("no clip moves where both pictures can: name data in which more moves")
    return TransferResult(
        fields=_likeness(table, sources),
        hand=_likeness(np.stack(hands), sources) if hands else None,
        least=0.7 if reader is None else 0.5,
    )


def _films(
    model: Synthesizer,
    clips: Sequence[KnownClip],
    partners: Sequence[KnownClip],
    *,
    seed: int,
) -> list[list[Video]]:
    """The partners given nu, with a random one, frozen; and the clips encoded and decoded."""
    x0, other = first_frames(model, clips), first_frames(model, partners)
    etas, z = own_etas(model, clips), encoded(model, clips)
    nu, _ = model.to_residual(z, told(model, x0, etas))
    random = draws(model, clips, seed=seed, purpose="transfer").to(nu)
    c = told(model, other, etas)
    frozen = [np.repeat(p.frames[:1], len(p.frames), axis=0) for p in partners]
    return [
        filmed(model, other, nu, c),
        filmed(model, other, random, c),
        frozen,
        developed(model, x0, z),
    ]


def motion_of(video: Video) -> Volume:
    """Return how far the cells of a grid have come since x0, in picture sizes, over the clip.

    Args:
        video: x0 and the T frames after it.
    """
    side = 128 if video.shape[1] > 64 else 64
    return np.asarray(-to_volume(backward_flow(video, size=(side, side)), grid=_GRID))


def cosine(
    a: Volume, b: Volume, weight: Float64[np.ndarray, "g g"] | None = None
) -> float:  # fmt: skip
    """Return the cosine of two motions over a clip, from -1 to 1.

    Args:
        a: One.
        b: The other.
        weight: Of each cell; all alike if None.

    Returns:
        0 where one of them stands still.
    """
    w = np.ones(a.shape[-2:]) if weight is None else weight
    top, power = float((w * a * b).sum()), float((w * a * a).sum() * (w * b * b).sum())
    return top / power**0.5 if power > 1e-16 else 0.0


def _field_row(
    clip: KnownClip, partner: KnownClip, videos: Sequence[Video]
) -> Float64[np.ndarray, "4"]:
    """Cosines of the films' motions with the clip's; NaN of what has none to give."""
    own, both = motion_of(clip.frames), _can_move(clip) * _can_move(partner)
    length = float(np.sqrt((both * (own[:, -1] ** 2).sum(axis=0)).sum() / max(both.sum(), 1e-9)))
    if length < _STILL or both.sum() < _LEAST_CELLS:
        return np.full(4, np.nan)
    weights = (both, both, both, _can_move(clip))
    return np.array([cosine(own, motion_of(v), w) for v, w in zip(videos, weights, strict=True)])


def _can_move(clip: KnownClip) -> Float64[np.ndarray, "g g"]:
    """Which share of each cell is not known to be still."""
    if clip.still is None:
        return np.ones((_GRID, _GRID))
    share = cv2.resize(clip.still.astype(np.float64), (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    return np.asarray(1 - share)


def _hand_row(
    clip: KnownClip, videos: Sequence[Video], reader: EndPointReader
) -> Float64[np.ndarray, "4"]:
    if clip.track is None or clip.track.shape[1] != 3:
        return np.full(4, np.nan)
    own = (clip.track[-1] - clip.track[0]).astype(np.float64)
    if np.linalg.norm(own) < _LEAST_WAY:
        return np.full(4, np.nan)
    ends = reader.read(np.concatenate([video[[0, -1]] for video in videos]))
    ways = ends[1::2] - ends[::2]
    lengths = np.linalg.norm(ways, axis=1) * np.linalg.norm(own)
    return np.asarray(np.where(lengths > 1e-9, ways @ own / lengths.clip(1e-9), 0.0))


def _likeness(table: Float64[np.ndarray, "n 4"], sources: Sequence[str]) -> Likeness:
    estimates = [resampled(table[:, i : i + 1], sources, mean) for i in range(4)]
    return Likeness(
        transferred=estimates[0],
        random=estimates[1],
        frozen=estimates[2],
        decoded=estimates[3],
    )
