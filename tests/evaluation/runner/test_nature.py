"""Metrics of nature models on clips whose motion is known, and general metrics of such a model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.data.prepare import prepare
from cinnema.data.records import Item, RawClip
from cinnema.evaluation.metrics.base import Futures, RealBatch, Task
from cinnema.evaluation.metrics.nature import MotionByKind, StillAndMoving
from cinnema.evaluation.other_motion import OtherMotion
from cinnema.evaluation.priors import GAUSSIAN, LINEAR, BlockPrior, fit_priors
from cinnema.evaluation.protocol import ClipSet, RealClip, Start, choose_protocol
from cinnema.evaluation.results import FROZEN, MODEL, REAL
from cinnema.evaluation.runner import EvaluationSettings, evaluate_model
from cinnema.evaluation.statistics.bootstrap import Estimate
from cinnema.media.pictures import to_tensor
from cinnema.models.base import VideoModel
from cinnema.models.flow.priors import GaussianPrior
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import KIND_DIM, MOTION_DIM, NatureModel
from small_nature import nature_model, textured

from .conftest import Drifter

SKY, WATER = (KINDS.index(name) for name in ("sky", "water"))
Step = tuple[int, int]


def coast(sky: Step, water: Step = (0, 0), *, seed: int = 0, num: int = 17) -> np.ndarray:
    """Sky over water, each of which moves by a step (right, down) a frame, above rock."""
    frames = np.repeat(textured("still", (128, 128), seed=seed + 2)[None], num, axis=0)
    for rows, kind, (dx, dy) in ((slice(0, 56), "sky", sky), (slice(56, 100), "water", water)):
        surface = textured(kind, (128, 128), seed=seed + KINDS.index(kind))
        for t in range(num):
            frames[t, rows] = np.roll(surface, (t * dy, t * dx), axis=(0, 1))[rows]
    return frames


def batch(*clips: np.ndarray) -> RealBatch:
    named = [
        RealClip(start=Start(key=f"c{i}", source=f"s{i}", position=i, first=0), frames=clip)
        for i, clip in enumerate(clips)
    ]
    videos = [clip[1:] for clip in clips]
    return RealBatch(
        clips=named,
        videos=videos,
        x=to_tensor(np.stack(videos)),
        halves=[i % 2 for i in range(len(clips))],
    )


def futures(row: str, *videos: list[np.ndarray]) -> Futures:
    """Each argument is one future of all starts, with x0."""
    frames = [[video[1:] for video in of] for of in videos]
    x = to_tensor(np.stack([np.stack(of) for of in frames]))
    return Futures(row=row, kind="model", frames=frames, videos=frames, x=x)


def value(cell: object) -> float:
    assert isinstance(cell, Estimate), cell
    return cell.value


@pytest.fixture(scope="module")
def model() -> NatureModel:
    return nature_model()


@pytest.fixture
def motion(model: NatureModel) -> MotionByKind:
    return MotionByKind(task_of(model))


class NoClips(ClipSet):
    """No starts: the metrics here get their clips from the tests."""

    name, starts, num_frames = "coasts", (), 16

    def read(self, start: Start) -> RealClip:
        raise KeyError(start)


def task_of(model: VideoModel) -> Task:
    return Task(
        model=model,
        clips=NoClips(),
        protocol=choose_protocol("aligned", "coasts", num_frames=16),
        device=torch.device("cpu"),
        progress=lambda *_: None,
    )


def test_futures_that_move_half_as_far_have_half_the_motion(motion: MotionByKind) -> None:
    clips = [coast((2, 0), (0, 2), seed=seed) for seed in (0, 10)]
    slower = [coast((1, 0), (0, 1), seed=seed) for seed in (0, 10)]
    real = batch(*clips)
    motion.see_real(real)
    motion.see(real, futures(MODEL, slower))
    cells, true = motion.cells(MODEL), motion.cells(REAL)
    assert value(cells["motion: sky"]) == pytest.approx(0.5, abs=0.1)
    assert value(cells["motion: water"]) == pytest.approx(0.5, abs=0.15)
    assert value(true["right: sky"]) == pytest.approx(32, abs=4)
    assert value(cells["right: sky"]) == pytest.approx(16, abs=2)
    assert 8 < value(cells["down: water"]) < 17  # the rock below pulls the smooth velocity down
    assert abs(value(cells["down: sky"])) < 2
    assert "motion: sky" not in true
    assert "motion: fire" not in cells
    faster = MotionByKind(task_of(nature_model()))
    faster.see_real(real)
    faster.see(real, futures(MODEL, clips))
    assert value(faster.changes(MODEL, motion)["motion: sky"]) == pytest.approx(0.5, abs=0.1)


def test_a_frozen_picture_moves_nothing_and_stands_where_it_should_move(
    motion: MotionByKind,
) -> None:
    real = batch(coast((2, 0), (0, 2)))
    frozen = futures(FROZEN, [np.repeat(real.clips[0].frames[:1], 17, axis=0)])
    motion.see_real(real)
    motion.see(real, frozen)
    assert value(motion.cells(FROZEN)["motion: sky"]) < 0.01
    metric = StillAndMoving()
    metric.see(real, frozen)
    cells = metric.cells(FROZEN)
    assert value(cells["still that moves"]) == 0
    assert value(cells["moving that stands"]) == 1


def test_rock_that_moves_is_found() -> None:
    real = batch(coast((2, 0), (0, 2)))
    torn = real.clips[0].frames.copy()
    torn[1::2, 104:112] = 0  # 8 of the 28 rows of rock
    metric = StillAndMoving()
    metric.see(real, futures(MODEL, [torn]))
    cells = metric.cells(MODEL)
    assert value(cells["still that moves"]) == pytest.approx(8 / 28, abs=0.02)
    assert value(cells["moving that stands"]) == 0


def test_sky_and_water_that_move_as_one_sheet_are_correlated(motion: MotionByKind) -> None:
    real = batch(coast((1, 0), (1, 0)))
    motion.see_real(real)
    steps = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    motion.see(real, futures("sheet", *([coast(step, step)] for step in steps)))
    apart = [((1, 0), (0, 1)), ((-1, 0), (0, 1)), ((1, 0), (0, -1)), ((-1, 0), (0, -1))]
    motion.see(real, futures("apart", *([coast(sky, water)] for sky, water in apart)))
    assert value(motion.cells("sheet")["sky and water"]) > 0.95
    assert abs(value(motion.cells("apart")["sky and water"])) < 0.15


def test_motion_in_z_is_less_beside_a_real_clip_that_moves_more(model: NatureModel) -> None:
    ratios = []
    for step in (1, 2):
        motion = MotionByKind(task_of(model))
        motion.see_real(batch(coast((step, 0))))
        ratios.append(value(motion.cells(MODEL)["motion in z: sky"]))
        assert "motion in z: fire" not in motion.cells(MODEL)
    assert ratios[0] / ratios[1] == pytest.approx(2, rel=0.2)


def test_motion_by_kind_needs_a_nature_model() -> None:
    with pytest.raises(UserError, match="drifter tells no kinds"):
        MotionByKind(task_of(Drifter()))


def latents(model: NatureModel, num: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random z of coasts, their conditions, and groups of three."""
    x0 = torch.cat([to_tensor(coast((0, 0), seed=seed, num=1)) for seed in range(0, num, 2)])
    c = model.condition(x0).double().repeat_interleave(2, 0)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(num, model.z_dim, generator=generator, dtype=torch.float64)
    z[:, :KIND_DIM] = 3 + 0.5 * z[:, :KIND_DIM]
    return z, c, torch.arange(num) // 3


def test_priors_of_a_nature_model_are_fitted_to_the_kinds_that_are_shown(
    model: NatureModel,
) -> None:
    z, c, groups = latents(model)
    assert model.blocks(c).float().mean(0).tolist() == [1, 1, 0, 0, 0]
    prior = fit_priors(model, z, c, groups)[GAUSSIAN]
    assert isinstance(prior, BlockPrior)
    expected = sum(
        GaussianPrior.fit(rows, c).log_prob(rows, c)
        for rows in (z[:, :KIND_DIM], z[:, KIND_DIM : 2 * KIND_DIM])
    )
    torch.testing.assert_close(prior.log_prob(z, c), expected)
    drawn = prior.sample(c.repeat(20, 1), generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (480, model.z_dim)
    assert float(drawn[:, :KIND_DIM].mean()) == pytest.approx(3, abs=0.05)
    assert float(drawn[:, MOTION_DIM:].std()) == pytest.approx(1, abs=0.02)


def test_neither_the_churn_nor_a_kind_that_is_not_shown_changes_the_likelihood(
    model: NatureModel,
) -> None:
    z, c, _ = latents(model)
    z, c = z.float(), c.float()
    other = z.clone()
    other[:, 2 * KIND_DIM :] = 0
    torch.testing.assert_close(model.log_prob(other, c), model.log_prob(z, c))
    other[:, 0] += 1
    assert bool((model.log_prob(other, c) != model.log_prob(z, c)).all())


class Coasts:
    """Three training and two test clips of coasts."""

    name, size, control = "coasts", 128, None

    def settings(self) -> dict[str, object]:
        return {}

    def items(self) -> list[Item]:
        return [
            Item(name=f"{split}{i}", split=split)  # type: ignore[arg-type]
            for split, num in (("train", 3), ("test", 2))
            for i in range(num)
        ]

    def read(self, item: Item) -> list[RawClip]:
        number = int(item.name[-1])
        frames = coast((1, 0), (0, 1), seed=10 * number + (item.split == "test"))
        return [RawClip(name=item.name, source=item.name, frames=frames, fps=8.0, tracks={})]


def test_general_metrics_measure_a_nature_model(tmp_path: Path) -> None:
    model = nature_model(num_frames=6)
    prepare(Coasts(), tmp_path / "clips")  # type: ignore[arg-type]
    settings = EvaluationSettings(only=("latents", "kind-motion", "still-moving"), samples=1)
    found = evaluate_model(
        model, PackedDataset(tmp_path / "clips"), backbones={}, settings=settings
    )
    assert found is not None
    rows = {row.name: row.cells for row in found.rows}
    bits = {name: value(rows[name]["bits a dimension"]) for name in (MODEL, GAUSSIAN, LINEAR)}
    assert all(np.isfinite(number) for number in bits.values())
    assert value(rows[MODEL]["inversion error"]) < 1e-3
    rows_of_motion = (MODEL, FROZEN, GAUSSIAN, LINEAR, "reconstruction", "z ~ N(0, I)")
    for row in (*rows_of_motion, OtherMotion.name):
        assert {"motion: sky", "right: water", "still that moves"} <= rows[row].keys()
    assert value(rows["reconstruction"]["motion: sky"]) > value(rows[FROZEN]["motion: sky"])
    assert {"right: sky", "down: sky"} <= rows[REAL].keys()


class Given(ClipSet):
    """Clips that the test has made."""

    name, num_frames = "given", 16

    def __init__(self, *clips: np.ndarray) -> None:
        self._clips = batch(*clips).clips
        self.starts = tuple(clip.start for clip in self._clips)

    def read(self, start: Start) -> RealClip:
        return self._clips[start.position]


def test_each_kind_borrows_the_motion_of_a_clip_of_another_source(model: NatureModel) -> None:
    clips = Given(coast((2, 0), seed=0), coast((0, 1), (1, 0), seed=9))
    here, there = (clips.read(start) for start in clips.starts)
    z = OtherMotion(model, clips).latents([here], to_tensor(here.frames[:1]))
    true = model.encode(to_tensor(there.frames)[None])
    assert torch.equal(z[:, :MOTION_DIM], true[:, :MOTION_DIM])
    assert float(z[:, MOTION_DIM:].std()) == pytest.approx(1, abs=0.05)  # the churn is drawn


def test_a_clip_without_others_moves_as_the_mean(model: NatureModel) -> None:
    clips = Given(coast((2, 0)))
    clip = clips.read(clips.starts[0])
    z = OtherMotion(model, clips).latents([clip], to_tensor(clip.frames[:1]))
    assert float(z[:, :MOTION_DIM].abs().max()) == 0
