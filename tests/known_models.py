"""Models whose answers are known: skies that roll, and a dot for a robot's hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cinnema.data.records import Control
from cinnema.data.wind import WIND
from cinnema.evaluation import MetricName
from cinnema.evaluation.known_truth.reader import EndPointReader, ReaderConfig
from cinnema.evaluation.metrics.base import Task
from cinnema.evaluation.protocol import ClipSet, RealClip, Start, choose_protocol
from cinnema.evaluation.results import Evaluation, Missing
from cinnema.evaluation.runner import EvaluationSettings, run
from cinnema.evaluation.statistics.bootstrap import Estimate
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.models.base import VideoModel
from cinnema.models.control import DRIFT, END_POINT, ControlSpec

SIDE, NUM_FRAMES = 64, 4
TYPICAL = 0.08  # of drifts, in picture sizes a clip
LOW, HIGH = np.array([-0.24, -0.13, 0.015]), np.array([0.24, 0.14, 0.15])
MIDDLE, SPREAD = (LOW + HIGH) / 2, (HIGH - LOW) / 6
_GREY = 40.0


@dataclass(frozen=True, kw_only=True)
class Character:
    """How a model behaves.

    Attributes:
        obeys: Whether it does what it is told.
        is_steered: Whether it takes a control at all.
        leaks: Whether its z holds the colours of x0, beside the motion.
        spread: Of what it does untold.
        needs_control: Whether it cannot do without.
    """

    obeys: bool = True
    is_steered: bool = True
    leaks: bool = False
    spread: float = 1.0
    needs_control: bool = False


class KnownModel(VideoModel):
    """z is the motion, in typical sizes, and in its other entries nothing or the colours of x0."""

    motion_dim: int

    def __init__(self, character: Character | None = None) -> None:
        super().__init__()
        self.character = character or Character()
        self.config: Any = self.character
        self.anchor = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

    @property
    def name(self) -> str:
        return "known"

    @property
    def size(self) -> int:
        return SIDE

    @property
    def num_frames(self) -> int:
        return NUM_FRAMES

    @property
    def z_dim(self) -> int:
        return self.motion_dim + 3

    def condition(self, x0: Tensor, eta: Tensor | None = None) -> Tensor:
        """The motion that is asked for, and whether one is."""
        asked = torch.zeros(len(x0), self.motion_dim) if eta is None else self.normed(eta)
        given = torch.full((len(x0), 1), float(eta is not None and self.character.obeys))
        return torch.cat([asked, given], dim=1)

    def normed(self, eta: Tensor) -> Tensor:
        raise NotImplementedError

    def _affine(self, c: Tensor) -> tuple[Tensor, Tensor]:
        given = c[:, -1:]
        shift = torch.cat([c[:, :-1] * given, torch.zeros(len(c), 3)], dim=1)
        spread = self.character.spread
        scale = torch.full_like(shift, spread)
        scale[:, : self.motion_dim] = torch.where(given > 0, 0.01, spread)
        return shift, scale

    def to_latent(self, nu: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = self._affine(c)
        return nu * scale + shift, scale.log().sum(dim=1)

    def to_residual(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = self._affine(c)
        return (z - shift) / scale, -scale.log().sum(dim=1)

    def encode(self, video: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        del generator  # q(z | X) has no spread
        rest = torch.zeros(len(video), 3)
        if self.character.leaks:
            rest = video[:, 0].mean(dim=(2, 3))
        return torch.cat([self.seen(video), rest], dim=1)

    def seen(self, video: Tensor) -> Tensor:
        raise NotImplementedError


class RollingSky(KnownModel):
    """Rolls the picture as a whole."""

    motion_dim = 2

    @property
    def control(self) -> ControlSpec | None:
        if not self.character.is_steered:
            return None
        return ControlSpec(
            name=DRIFT, labels=("right", "down"), unit="picture sizes a clip",
            low=(-2 * TYPICAL,) * 2, high=(2 * TYPICAL,) * 2, typical=TYPICAL,
            optional=not self.character.needs_control,
        )  # fmt: skip

    def normed(self, eta: Tensor) -> Tensor:
        return eta / TYPICAL

    def seen(self, video: Tensor) -> Tensor:
        drifts = [drift_of(frames) for frames in to_pixels(video)]
        return torch.from_numpy(np.stack(drifts)).float() / TYPICAL

    def read_control(self, video: Tensor) -> tuple[Tensor, Tensor]:
        return self.seen(video) * TYPICAL, torch.ones(len(video))

    def decode(self, x0: Tensor, z: Tensor) -> Tensor:
        return torch.stack([rolled(x, m * TYPICAL)[1:] for x, m in zip(x0, z[:, :2], strict=True)])


class DotRobot(KnownModel):
    """Moves a dot from where it is to where it shall be."""

    motion_dim = 3

    @property
    def control(self) -> ControlSpec | None:
        if not self.character.is_steered:
            return None
        return ControlSpec(
            name=END_POINT, labels=("x", "y", "z"), unit="m",
            low=tuple(map(float, LOW)), high=tuple(map(float, HIGH)), typical=0.1,
            optional=not self.character.needs_control,
        )  # fmt: skip

    def draw_eta(self, *, generator: torch.Generator) -> Tensor | None:
        if not self.character.needs_control:
            return None
        share = torch.rand(3, generator=generator).double().numpy()
        return torch.from_numpy(LOW + share * (HIGH - LOW)).float()

    def normed(self, eta: Tensor) -> Tensor:
        return (eta - torch.from_numpy(MIDDLE).float()) / torch.from_numpy(SPREAD).float()

    def seen(self, video: Tensor) -> Tensor:
        return self.normed(torch.from_numpy(read_dots(to_pixels(video[:, -1]))).float())

    def decode(self, x0: Tensor, z: Tensor) -> Tensor:
        ends = MIDDLE + z[:, :3].double().numpy() * SPREAD
        starts = read_dots(to_pixels(x0))
        light = x0[:, 2].amin(dim=(1, 2)).double().numpy()
        videos = [dot_video(*ends) for ends in zip(starts, ends, light, strict=True)]
        return to_tensor(np.stack(videos))[:, 1:]


class DotReader(EndPointReader):
    """Reads off dots exactly."""

    def __init__(self) -> None:
        super().__init__(
            ReaderConfig(data="push", unit="m", centre=(0.0,) * 3, scale=(1.0,) * 3, width=0.48)
        )

    def read(self, frames: np.ndarray) -> np.ndarray:
        return read_dots(frames)


def drift_of(frames: np.ndarray) -> np.ndarray:
    """How far a picture rolls over a clip, by how the phases of its longest waves turn."""
    first, last = (np.fft.fft2(frames[t].mean(axis=-1)) for t in (0, -1))
    modes = [(v, u) for v in range(-2, 3) for u in range(3) if (v, u) > (0, 0) or u > 0]
    crossed = np.array([last[mode] * np.conj(first[mode]) for mode in modes])
    weight = np.sqrt(np.abs(crossed))
    turns = -np.angle(crossed) / (2 * np.pi)
    waves = np.array([(u, v) for v, u in modes], dtype=np.float64)
    drift, *_ = np.linalg.lstsq(waves * weight[:, None], turns * weight, rcond=None)
    return np.asarray(drift)


def rolled(x0: Tensor, drift: Tensor) -> Tensor:
    """x0 and NUM_FRAMES more, moved on by part of a drift each, around the edges."""
    spectrum = torch.fft.fft2(x0.double())
    v, u = (torch.fft.fftfreq(SIDE, dtype=torch.float64) for _ in range(2))
    frames = []
    for t in range(NUM_FRAMES + 1):
        right, down = (float(d) * SIDE * t / NUM_FRAMES for d in drift)
        phase = torch.exp(-2j * np.pi * (u[None] * right + v[:, None] * down))
        frames.append(torch.fft.ifft2(spectrum * phase).real.clamp(-1, 1).float())
    return torch.stack(frames)


def picture(seed: int) -> Tensor:
    """Smooth coloured clouds that join at the edges, in a colour of their own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] * 2 * np.pi / SIDE
    waves = sum(
        rng.normal() * np.sin(i * x + j * y + rng.uniform(0, 6)) / (1 + 0.15 * (abs(i) + abs(j)))
        for i in range(7)
        for j in range(-6, 7)
    )
    grey = 0.35 * waves / np.abs(waves).max()
    return torch.from_numpy(grey[None] + rng.uniform(-0.5, 0.5, (3, 1, 1))).float()


def sky_clips(num: int, *, futures: int = 1, seed: int = 0) -> list[RealClip]:
    """Skies that drift in all directions at half to one and a half of the typical speed."""
    rng = np.random.default_rng(seed)
    clips = []
    for i in range(num):
        for future in range(futures):
            angle, speed = rng.uniform(0, 2 * np.pi), TYPICAL * rng.uniform(0.5, 1.5)
            drift = torch.tensor([np.cos(angle), np.sin(angle)]) * speed
            clips.append(
                RealClip(
                    start=Start(key=f"{i}-{future}", source=f"{i}", position=i, first=0),
                    frames=to_pixels(rolled(picture(1000 * seed + i), drift)),
                    eta=drift.numpy().astype(np.float32),
                    shared_start=f"{i}",
                    still=np.zeros((SIDE, SIDE), dtype=bool),
                )
            )
    return clips


def robot_clips(num: int, *, futures: int = 1, seed: int = 0) -> list[RealClip]:
    """Dots that go from anywhere to anywhere, as `DotRobot` lets them untold."""
    rng = np.random.default_rng(seed)
    clips = []
    for i in range(num):
        start, light = rng.uniform(LOW, HIGH), rng.uniform(-0.9, 0.0)
        for future in range(futures):
            end = MIDDLE + rng.normal(size=3) * SPREAD
            share = np.linspace(0, 1, NUM_FRAMES + 1)[:, None]
            clips.append(
                RealClip(
                    start=Start(key=f"{i}-{future}", source=f"{i}", position=i, first=0),
                    frames=dot_video(start, end, light),
                    eta=end.astype(np.float32),
                    shared_start=f"{i}",
                    track=(start + share * (end - start)).astype(np.float32),
                )
            )
    return clips


def dot_video(start: np.ndarray, end: np.ndarray, light: float) -> np.ndarray:
    """A dot on its way: red and green tell where and how high, blue is the background's light."""
    frames = []
    for share in np.linspace(0, 1, NUM_FRAMES + 1):
        x, y, z = start + share * (end - start)
        column, row = 32 + 80 * x, 32 - 80 * y
        rows, columns = np.mgrid[:SIDE, :SIDE]
        blob = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 18)
        red, green = _GREY + 200 * blob, _GREY + 1200 * z * blob
        blue = np.full_like(red, (light + 1) * 127.5)
        frames.append(np.stack([red, green, blue], axis=-1))
    return np.clip(np.rint(np.stack(frames)), 0, 255).astype(np.uint8)


def read_dots(frames: np.ndarray) -> np.ndarray:
    """Where the dot of each frame is, in metres."""
    weight = (frames[..., 0].astype(np.float64) - _GREY).clip(0)
    green = (frames[..., 1].astype(np.float64) - _GREY).clip(0)
    total = weight.sum(axis=(1, 2))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    column, row = ((weight * at).sum(axis=(1, 2)) / total for at in (columns, rows))
    height = green.sum(axis=(1, 2)) / total * 200 / 1200
    return np.stack([(column - 32) / 80, (32 - row) / 80, height], axis=1)


POSITION = Control(name="end_effector", kind="position", labels=("x", "y", "z"), unit="m")


class KnownClips(ClipSet):
    """Clips at hand as what a model is evaluated on."""

    name, num_frames = "known", NUM_FRAMES

    def __init__(self, clips: Sequence[RealClip]) -> None:
        self.starts = tuple(clip.start for clip in clips)
        self._clips = {clip.start.key: clip for clip in clips}

    @property
    def control(self) -> Control | None:
        etas = [clip.eta for clip in self._clips.values()]
        return {2: WIND, 3: POSITION}.get(0 if etas[0] is None else len(etas[0]))

    def read(self, start: Start) -> RealClip:
        return self._clips[start.key]


def evaluated(
    metric: MetricName,
    model: VideoModel,
    clips: Sequence[RealClip],
    reader: EndPointReader | None = None,
    *,
    training: Sequence[RealClip] | None = None,
    batch_size: int = 8,
) -> Evaluation:
    """One metric of a model on clips at hand."""
    task = Task(
        model=model,
        clips=KnownClips(clips),
        protocol=choose_protocol("aligned", "known", num_frames=NUM_FRAMES),
        training_clips=None if training is None else KnownClips(training),
        reader=None if reader is None else lambda: reader,
        device=torch.device("cpu"),
        batch_size=batch_size,
        progress=lambda *_: None,
    )
    found = run(task, EvaluationSettings(only=(metric,)))
    assert found is not None
    return found


def number(evaluation: Evaluation, row: str, column: str) -> Estimate:
    """The number in a row and a column."""
    cells = {r.name: r.cells for r in evaluation.rows}
    cell = cells[row][column]
    assert not isinstance(cell, Missing), cell
    return cell


def targets_met(evaluation: Evaluation) -> list[bool]:
    """Whether each required value is reached."""
    return [number["is_met"] for number in evaluation.numbers() if "is_met" in number]
