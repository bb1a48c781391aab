"""Agreement of a video's motion with that of the picture to which it is transferred."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from cinnema.backbones.optical_flow import backward_flow, to_volume
from cinnema.evaluation.baselines import draws, encoded, first_frames
from cinnema.evaluation.known_truth.decoding import (
    TaskMetric,
    Video,
    all_partners,
    conditioned,
    corrected,
    decode_latent,
    decode_residual,
    required_controls,
)
from cinnema.evaluation.known_truth.end_point import require_reader
from cinnema.evaluation.known_truth.reader import EndPointReader
from cinnema.evaluation.metrics.base import Entry, Task
from cinnema.evaluation.protocol import RealClip, Start
from cinnema.evaluation.results import (
    FROZEN,
    RECONSTRUCTION,
    Cell,
    Cells,
    Column,
    Missing,
    Row,
    Target,
)
from cinnema.evaluation.statistics.bootstrap import Estimate, mean
from cinnema.synthesis.path import has_path, transfer_path

_GRID = 16
_STILL = 0.005  # in picture sizes: a video whose field is shorter than this does not move
_LEAST_CELLS = 5.0  # grid cells, at least, that have to move in both pictures
_LEAST_PATH = 0.02  # shortest path of a hand with a direction, in the unit of its position

Volume = Float32[np.ndarray, "2 t g g"]
Path: TypeAlias = Float64[np.ndarray, "t 3"]

GIVEN, RANDOM = "another picture, given nu", "another picture, random nu"
CARRIED, LED = "another picture, given path and nu", "another picture, given the path, random nu"
ALIKE = "real clip of the most similar path"
_ROWS = (
    Row(name=CARRIED, kind="model", about="another x0, given the hand's path and nu"),
    Row(name=LED, kind="baseline", about="another x0, given the path: the effect of the path"),
    Row(name=GIVEN, kind="model", about="another x0, given the video's nu alone"),
    Row(name=RANDOM, kind="baseline", about="that x0 with a random nu"),
    Row(
        name=ALIKE,
        kind="real",
        about="the real clip of another source whose hand has the most similar path",
    ),
)
_PATHS = (CARRIED, LED)
_OPTIONAL = (*_PATHS, ALIKE)  # rows without cells where there is nothing to measure
_NAMES = (CARRIED, LED, GIVEN, RANDOM, FROZEN, RECONSTRUCTION, ALIKE)

_FIELDS, _END, _ALONG = (
    "cosine of motion fields",
    "cosine of the hand's displacement",
    "cosine of the hand's path",
)


class Transfer(TaskMetric):
    """Cosine between the motion of a video and of a picture to which it is transferred; 1 is best.

        nu~ = T^-1(q(X~); x~0),   X = p(x0, T(nu~; x0))

    The control is left out, so that nu holds all of the motion; a model that needs its control
    gets the clip's own on both sides. A model that predicts the path of a robot's hand also
    receives that path, as `cinnema transfer` does (`cinnema.synthesis.path.transfer_path`). Motion
    fields are optical flows over the clip in the same cells of both pictures; with data of a robot
    the displacement and the path of its hand are compared, too.

    Args:
        task: The evaluation; with data of a robot it needs a reader of end points.

    Raises:
        UserError: All clips come from one source, or lack the control that the model needs.
    """

    rows = _ROWS

    def __init__(self, task: Task) -> None:
        super().__init__(task, length=3 * len(_NAMES))
        self._partners = all_partners(task.clips.starts)
        control = task.clips.control
        has_hand = control is not None and control.kind == "position" and len(control.labels) == 3
        self._reader: EndPointReader | None = require_reader(task) if has_hand else None
        self._has_path = has_path(task.model)
        self._paths: dict[str, Path] = {}
        if has_hand:
            tracks = {start.key: task.clips.track(start) for start in task.clips.starts}
            self._paths = {key: _relative(t) for key, t in tracks.items() if _is_hand(t)}
        self.columns = _columns(CARRIED if self._has_path else GIVEN, has_hand=has_hand)
        self.entries = {
            (row, column.name): Entry(mean, (i + len(_NAMES) * kind,))
            for kind, column in enumerate(self.columns)
            for i, row in enumerate(_NAMES)
            if (row not in _PATHS or self._has_path) and (row != ALIKE or self._paths)
        }

    def measure(self, clips: Sequence[RealClip]) -> list[list[float]]:
        """Return the cosines of fields, of displacements and of paths, in the order of rows."""
        partners = [self._clips.read(self._partners[clip.start.key]) for clip in clips]
        videos = self._videos(clips, partners)
        rows = []
        for i, (clip, partner) in enumerate(zip(clips, partners, strict=True)):
            shown = {name: (video[i], partner) for name, video in videos.items()}
            shown[RECONSTRUCTION] = (videos[RECONSTRUCTION][i], clip)
            alike = self._most_alike(clip.start)
            if alike is not None:
                real = self._clips.read(alike)
                shown[ALIKE] = (real.frames, real)
            rows.append(self._row(clip, partner, shown))
        return rows

    def _row(
        self, clip: RealClip, partner: RealClip, shown: Mapping[str, tuple[Video, RealClip]]
    ) -> list[float]:
        fields = _field_cosines(clip, partner, shown)
        end, along = dict[str, float](), dict[str, float]()
        if self._reader is not None:
            seen = {name: _visible_path(video, self._reader) for name, (video, _) in shown.items()}
            own = self._paths.get(clip.start.key)
            end, along = _path_cosines(own, seen, first=-1), _path_cosines(own, seen, first=1)
        return [by_name.get(name, np.nan) for by_name in (fields, end, along) for name in _NAMES]

    def _videos(
        self, clips: Sequence[RealClip], partners: Sequence[RealClip]
    ) -> dict[str, list[Video]]:
        """Return the partners with the motion, a random one or none, and decoded clips."""
        model = self._model
        x0, other = first_frames(model, clips), first_frames(model, partners)
        etas, z = required_controls(model, clips), encoded(model, clips)
        nu, _ = model.to_residual(z, conditioned(model, x0, etas))
        random = draws(model, clips, seed=self._seed, purpose="transfer").to(nu)
        c = conditioned(model, other, etas)
        videos = {
            GIVEN: decode_residual(model, other, nu, c),
            RANDOM: decode_residual(model, other, random, c),
            FROZEN: [np.repeat(p.frames[:1], len(p.frames), axis=0) for p in partners],
            RECONSTRUCTION: decode_latent(model, x0, z),
        }
        if self._has_path:
            for name, start in ((CARRIED, None), (LED, random)):
                moved = transfer_path(model, x0, z, other, nu=start)
                c = corrected(model, other, moved.nu, [*moved.eta])
                videos[name] = decode_residual(model, other, moved.nu, c)
        return videos

    def _most_alike(self, start: Start) -> Start | None:
        """Return the clip of another source whose hand has the most similar path."""
        own = self._paths.get(start.key)
        if own is None:
            return None
        found, least = None, np.inf
        for other in self._clips.starts:
            path = None if other.source == start.source else self._paths.get(other.key)
            if path is None:
                continue
            distance = float(np.square(path - own).sum())
            if distance < least:
                found, least = other, distance
        return found

    def cells(self, row: str) -> Cells:
        """Return the cosines, or the reason where no clip moves."""
        name = self.columns[0].name
        cells: dict[str, Cell] = {
            column: cell
            for column, cell in super().cells(row).items()
            if row not in _OPTIONAL or (isinstance(cell, Estimate) and cell.num_clips)
        }
        first = super().cells(GIVEN)[name]
        if name in cells and isinstance(first, Estimate) and not first.num_clips:
            reason = "no clip moves where both pictures can: use data that move more"
            cells[name] = Missing(reason=reason)
        return cells

    def notes(self) -> list[str]:
        """Return what the cosines mean."""
        said = ["transfer: fields are compared where both pictures can move, as far as known"]
        if self._reader is not None:
            said += [
                "transfer: hands start in different places, so the same motion is in other places "
                "of the picture; the hand's displacement (to the last frame) and path (at every "
                "frame) do not depend on where it starts",
                "transfer: the fields of the real clip of the most similar path show what can be "
                "reached by true motion along nearly the same path",
            ]
        return said


def _columns(row: str, *, has_hand: bool) -> tuple[Column, ...]:
    limit = 0.5 if has_hand else 0.7
    fields = Column(
        name=_FIELDS, better="higher", digits=2, group="transfer",
        about="cosine of the optical flows over the clip, from -1 to 1",
        target=Target(kind="at least", limit=limit, row=row),
    )  # fmt: skip
    hand = (
        (_END, "from the first to the last frame"),
        (_ALONG, "at every frame, relative to the first"),
    )
    hands = tuple(
        Column(
            name=name, better="higher", digits=2, group="transfer",
            about=f"cosine of where the hand is {when}, from -1 to 1",
        )
        for name, when in hand
    )  # fmt: skip
    return (fields, *hands) if has_hand else (fields,)


def motion_of(video: Video) -> Volume:
    """Return the displacement of the cells of a grid since x0, in picture sizes, over the clip.

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
        a: One motion.
        b: The other.
        weight: Weight of each cell; all equal if None.

    Returns:
        The cosine; 0 where one of them is zero.
    """
    w = np.ones(a.shape[-2:]) if weight is None else weight
    top, power = float((w * a * b).sum()), float((w * a * a).sum() * (w * b * b).sum())
    return top / power**0.5 if power > 1e-16 else 0.0


def _field_cosines(
    clip: RealClip, partner: RealClip, shown: Mapping[str, tuple[Video, RealClip]]
) -> dict[str, float]:
    """Return the cosines of videos' motions with the clip's; empty if the clip is still.

    Args:
        clip: The clip.
        partner: The clip whose first frame is to move.
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


def _can_move(clip: RealClip) -> Float64[np.ndarray, "g g"]:
    """Return the share of each cell that is not known to be still."""
    if clip.still is None:
        return np.ones((_GRID, _GRID))
    share = cv2.resize(clip.still.astype(np.float64), (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    return np.asarray(1 - share)


def _is_hand(track: Float32[np.ndarray, "t1 _"] | None) -> bool:
    return track is not None and track.shape[1] == 3


def _relative(track: Float32[np.ndarray, "t1 _"] | None) -> Path:
    """Return the positions at each frame relative to the first."""
    assert track is not None
    return np.asarray(track - track[:1], dtype=np.float64)


def _visible_path(video: Video, reader: EndPointReader) -> Path:
    places = reader.read(video).astype(np.float64)
    return np.asarray(places - places[:1])


def _path_cosines(own: Path | None, seen: Mapping[str, Path], *, first: int) -> dict[str, float]:
    """Return the cosines of paths with the true one, from frame `first` on; empty if still."""
    if own is None or np.sqrt(np.square(own[first:]).sum(axis=1).mean()) < _LEAST_PATH:
        return {}
    return {name: _along(path[first:], own[first:]) for name, path in seen.items()}


def _along(a: Path, b: Path) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / lengths if lengths > 1e-9 else 0.0
