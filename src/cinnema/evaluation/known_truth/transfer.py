"""Whether a picture that is given a video's motion moves as the video does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Float64

from cinnema.backbones.optical_flow import backward_flow, to_volume
from cinnema.core.errors import UserError
from cinnema.evaluation.baselines import draws, encoded, first_frames
from cinnema.evaluation.known_truth.clips import (
    KnownClip,
    Progress,
    Video,
    aimed_at,
    batches,
    developed,
    filmed,
    own_etas,
    partners_of,
    say_nothing,
    told,
)
from cinnema.evaluation.known_truth.reader import EndPointReader
from cinnema.evaluation.known_truth.results import Aim, Number, TaskResult
from cinnema.evaluation.statistics.bootstrap import Estimate, mean, resampled
from cinnema.models.base import VideoModel
from cinnema.synthesis.path import has_path, transfer_path

_GRID = 16
_STILL = 0.005  # in picture sizes: a video whose field is shorter than this has no motion to give
_LEAST_CELLS = 5.0  # of the grid, that have to move in both pictures
_LEAST_WAY = 0.02  # of a hand, in the unit of its position: a shorter one has no direction

Volume = Float32[np.ndarray, "2 t g g"]
Path: TypeAlias = Float64[np.ndarray, "t 3"]
Cosines: TypeAlias = dict[str, float]
"""By the names that `Likeness` has for them; NaN or left out where there is nothing to compare"""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How like the video's motion that of a few others is: mean cosines, 1 is the same way.

    Attributes:
        transferred: Of another picture that was given nu alone.
        random: Of that picture with a random nu.
        frozen: Of that picture as it stands: 0, as nothing goes no way.
        decoded: Of the video itself, encoded and decoded: the most that stage 1 lets through.
        carried: Of another picture that was given the way of the hand, and nu; None where the
            model has no way.
        led: Of that picture, given the way and a random nu: what the way alone brings along.
        alike: Of the real clip of another source whose hand goes most nearly the same path; None
            without a hand.
    """

    transferred: Estimate
    random: Estimate
    frozen: Estimate
    decoded: Estimate
    carried: Estimate | None = None
    led: Estimate | None = None
    alike: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class TransferResult(TaskResult):
    """How far motion is kept when it is given to another picture.

    Attributes:
        fields: By the optical flow over the clip, in the same places of both pictures.
        hand: By the way of the end effector from the first frame to the last; None without one.
        path: By where it is at every frame, as seen from the first; None without one.
        least: The cosine of fields that is asked for.
    """

    title: ClassVar[str] = "Motion of one video in another picture"

    fields: Likeness
    hand: Likeness | None
    path: Likeness | None
    least: float

    def numbers(self) -> Sequence[Number]:
        """Return the cosines."""
        aim = Aim(way="at least", limit=self.least)
        found = _numbers("cosine of motion fields", self.fields, aim)
        if self.hand is not None:
            found += _numbers("cosine of the hand's way", self.hand, None)
        if self.path is not None:
            found += _numbers("cosine of the hand's path", self.path, None)
        return found

    def notes(self) -> Sequence[str]:
        """Return what the cosines mean."""
        said = ["fields are compared where both pictures can move, as far as the data tell"]
        if self.hand is not None:
            said += [
                "hands start in other places, so fields that move alike do so in other places of "
                "the picture; the hand's way (to the last frame) and path (at every frame) do not "
                "mind where it starts",
                "the real clip is of another source, the one whose hand goes most nearly the same "
                "path: its fields show what true motion has that goes so nearly the same way",
            ]
        return said


def _numbers(what: str, likeness: Likeness, aim: Aim | None) -> list[Number]:
    """Return the rows that there are. What is asked is asked of what `cinnema transfer` does."""
    carries = likeness.carried is not None
    rows = (
        ("other picture, given the way and nu", likeness.carried),
        ("other picture, the way, random nu", likeness.led),
        (f"other picture, given nu{' alone' * carries}", likeness.transferred),
        ("other picture, random nu", likeness.random),
        ("other picture, frozen", likeness.frozen),
        ("the video, encoded and decoded", likeness.decoded),
        ("real clip, most alike in its path", likeness.alike),
    )
    there = [(of, estimate) for of, estimate in rows if estimate is not None]
    return [
        Number(what=what, of=of, estimate=estimate, digits=2, aim=None if i else aim)
        for i, (of, estimate) in enumerate(there)
    ]


@torch.inference_mode()
def measure_transfer(
    model: VideoModel,
    clips: Sequence[KnownClip],
    reader: EndPointReader | None = None,
    *,
    seed: int = 0,
    batch_size: int = 8,
    progress: Progress = say_nothing,
) -> TransferResult:
    """Give the motion of each clip to the first frame of another source, and compare the motions.

        nu~ = T^-1(q(X~); x~0),   X = p(x0, T(nu~; x0))

    The control is left out, so that nu holds all of the motion; a model that cannot do without is
    told the clip's own on both sides. A model that tells the way of a hand is also given that, as
    `cinnema transfer` does of itself, see `cinnema.synthesis.path.transfer_path`.

    Args:
        model: In evaluation mode.
        clips: Of two sources at least; those that stand still are left out.
        reader: Of end points, for a robot: then the ways of its hand are compared, too, and each
            clip with the most alike of the others.
        seed: Of the random nu.
        batch_size: Clips at once.
        progress: Told how many are done.

    Raises:
        UserError: The clips are of one source, or none moves.
    """
    others = dict(zip([c.start.key for c in clips], partners_of(clips), strict=True))
    rows: dict[str, list[Cosines]] = {"fields": [], "hand": [], "path": []}
    for batch in batches(clips, batch_size, text="transferring", progress=progress):
        partners = [others[clip.start.key] for clip in batch]
        films = _films(model, batch, partners, seed=seed)
        for i, (clip, partner) in enumerate(zip(batch, partners, strict=True)):
            shown = {name: (film[i], partner) for name, film in films.items()}
            shown["decoded"] = (films["decoded"][i], clip)
            if reader is not None and (alike := _most_alike(clip, clips)) is not None:
                shown["alike"] = (alike.frames, alike)
            rows["fields"].append(_field_row(clip, partner, shown))
            if reader is not None:
                seen = {name: _path_seen(video, reader) for name, (video, _) in shown.items()}
                rows["hand"].append(_hand_row(clip, seen, first=-1))
                rows["path"].append(_hand_row(clip, seen, first=1))
    sources = [clip.source for clip in clips]
    found = {name: _likeness(row, sources) for name, row in rows.items() if row}
    if not found["fields"].transferred.num_clips:
        raise UserError("no clip moves where both pictures can: name data in which more moves")
    return TransferResult(
        fields=found["fields"],
        hand=found.get("hand"),
        path=found.get("path"),
        least=0.7 if reader is None else 0.5,
    )


def _films(
    model: VideoModel,
    clips: Sequence[KnownClip],
    partners: Sequence[KnownClip],
    *,
    seed: int,
) -> dict[str, list[Video]]:
    """The partners given nu, with a random one, frozen; and the clips encoded and decoded."""
    x0, other = first_frames(model, clips), first_frames(model, partners)
    etas, z = own_etas(model, clips), encoded(model, clips)
    nu, _ = model.to_residual(z, told(model, x0, etas))
    random = draws(model, clips, seed=seed, purpose="transfer").to(nu)
    c = told(model, other, etas)
    films = {
        "transferred": filmed(model, other, nu, c),
        "random": filmed(model, other, random, c),
        "frozen": [np.repeat(p.frames[:1], len(p.frames), axis=0) for p in partners],
        "decoded": developed(model, x0, z),
    }
    if has_path(model):
        for name, start in (("carried", None), ("led", random)):
            way = transfer_path(model, x0, z, other, nu=start)
            c = aimed_at(model, other, way.nu, [*way.eta])
            films[name] = filmed(model, other, way.nu, c)
    return films


def _most_alike(clip: KnownClip, clips: Sequence[KnownClip]) -> KnownClip | None:
    """Return the clip of another source whose hand goes most nearly the same path."""
    own = _path_of(clip)
    if own is None:
        return None
    found, least = None, np.inf
    for other in clips:
        path = None if other.source == clip.source else _path_of(other)
        if path is not None and (distance := float(np.square(path - own).sum())) < least:
            found, least = other, distance
    return found


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
    clip: KnownClip, partner: KnownClip, shown: Mapping[str, tuple[Video, KnownClip]]
) -> Cosines:
    """Cosines of videos' motions with the clip's; none of what has none to give.

    Args:
        clip: The clip.
        partner: Whose first frame is to move.
        shown: Videos, each with the clip whose first frame moves in it.
    """
    own, free = motion_of(clip.frames), _can_move(clip)
    both = free * _can_move(partner)
    length = float(np.sqrt((both * (own[:, -1] ** 2).sum(axis=0)).sum() / max(both.sum(), 1e-9)))
    if length < _STILL or both.sum() < _LEAST_CELLS:
        return {}
    return {
        name: cosine(own, motion_of(video), free * _can_move(where))
        for name, (video, where) in shown.items()
    }


def _can_move(clip: KnownClip) -> Float64[np.ndarray, "g g"]:
    """Which share of each cell is not known to be still."""
    if clip.still is None:
        return np.ones((_GRID, _GRID))
    share = cv2.resize(clip.still.astype(np.float64), (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    return np.asarray(1 - share)


def _path_of(clip: KnownClip) -> Path | None:
    """Return where the hand truly is at every frame, as seen from the first; None without one."""
    if clip.track is None or clip.track.shape[1] != 3:
        return None
    return np.asarray(clip.track - clip.track[:1], dtype=np.float64)


def _path_seen(video: Video, reader: EndPointReader) -> Path:
    places = reader.read(video).astype(np.float64)
    return np.asarray(places - places[:1])


def _hand_row(clip: KnownClip, seen: Mapping[str, Path], *, first: int) -> Cosines:
    """Cosines of paths with the true one, from the frame `first` on; none of a hand that rests."""
    own = _path_of(clip)
    if own is None or np.sqrt(np.square(own[first:]).sum(axis=1).mean()) < _LEAST_WAY:
        return {}
    return {name: _along(path[first:], own[first:]) for name, path in seen.items()}


def _along(a: Path, b: Path) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / lengths if lengths > 1e-9 else 0.0


def _likeness(rows: Sequence[Cosines], sources: Sequence[str]) -> Likeness:
    names = ["transferred", "random", "frozen", "decoded"]
    names += [name for name in ("carried", "led", "alike") if any(name in row for row in rows)]
    tables = {name: np.array([[row.get(name, np.nan)] for row in rows]) for name in names}
    return Likeness(**{name: resampled(table, sources, mean) for name, table in tables.items()})
