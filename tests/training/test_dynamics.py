"""The search for the constants of each kind's motion."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.data.scenes import Scene
from cinnema.data.windows import SceneWindows
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import KIND_DIM, NatureModel
from cinnema.models.nature.motion import GRID, KindDynamics
from cinnema.training.dynamics import (
    DynamicsSearch,
    MeasuredVideos,
    choose_clips,
    climb,
    fit_dynamics,
    give_dynamics,
)
from cinnema.training.motion_pool import MotionPool
from small_nature import nature_model, textured

SKY = KINDS.index("sky")
SEARCH = DynamicsSearch(options={"sky": {"gain": (0.5, 2.0)}}, clips_per_scene=1)


@pytest.fixture(scope="module")
def model() -> NatureModel:
    model = nature_model()
    model.config = replace(model.config, num_frames=2)
    return model


def clips(*, held_out: int = 1) -> tuple[MotionPool, list[SceneWindows]]:
    """Three scenes of two clips of sky; the first ones are held out."""
    windows = [
        SceneWindows(
            Scene(f"sky{k}", "clouds", held_out=k < held_out),
            np.stack([textured("sky", (128, 128), seed=k)] * 6).reshape(2, 3, 128, 128, 3)
            + np.uint8(k),
            np.zeros(2, bool),
        )
        for k in range(3)
    ]
    cells = torch.zeros(6, len(KINDS), GRID, GRID)
    cells[:, SKY] = 1
    geometry = torch.zeros(6, len(KINDS), 4)
    geometry[:, SKY, 0] = 1
    pool = MotionPool(
        raw=torch.zeros(6, len(KINDS), KIND_DIM),
        look=torch.zeros(6, len(KINDS), 432),
        geometry=geometry,
        cells=cells,
        scene=torch.arange(3).repeat_interleave(2),
        closer=torch.zeros(6, dtype=torch.bool),
        scenes=("sky0", "sky1", "sky2"),
        held_out=torch.arange(3) < held_out,
    )
    return pool, windows


def test_a_change_is_kept_only_if_it_scores_better() -> None:
    told: list[tuple[str, float]] = []

    def score(dynamics: KindDynamics) -> float:
        return -((dynamics.gain - 2) ** 2) - (dynamics.churn - 0.5) ** 2

    options = {"gain": (0.5, 2.0, 3.0), "churn": (0.5, 1.0)}
    found = climb(KindDynamics(), options, score, report=lambda *trial: told.append(trial))
    assert (found.gain, found.churn) == (2.0, 0.5)
    assert [what for what, _ in told] == [
        "start", "gain 0.5", "gain 2", "gain 3", "churn 0.5", "churn 1"
    ]  # fmt: skip


def test_clips_are_those_of_training_scenes_that_show_the_kind() -> None:
    pool, windows = clips()
    chosen = choose_clips(pool, windows, SKY, SEARCH)
    assert chosen is not None
    assert chosen.scenes == ("sky1", "sky2")
    assert np.array_equal(chosen.frames[1], windows[2].frames[0])
    assert choose_clips(pool, windows, KINDS.index("fire"), SEARCH) is None
    assert choose_clips(*clips(held_out=2), SKY, SEARCH) is None


def test_videos_depend_on_the_constants_and_the_seed_alone(model: NatureModel) -> None:
    pool, windows = clips()
    chosen = choose_clips(pool, windows, SKY, SEARCH)
    assert chosen is not None
    videos = MeasuredVideos(model, pool, chosen)
    first = videos.render(seed=0)
    assert first.shape == (2, 2, 128, 128, 3)
    assert np.array_equal(videos.render(seed=0), first)
    assert not np.array_equal(videos.render(seed=1), first)
    before = model.config.dynamics[SKY]
    give_dynamics(model, SKY, replace(before, gain=2.0, churn=1.0))
    assert not np.array_equal(videos.render(seed=0), first)
    assert np.array_equal(MeasuredVideos(model, pool, chosen).render(seed=0), videos.render(seed=0))
    give_dynamics(model, SKY, before)


def test_the_constants_that_score_best_are_given_to_the_model(model: NatureModel) -> None:
    pool, windows = clips()
    chosen = choose_clips(pool, windows, SKY, SEARCH)
    assert chosen is not None
    before = model.config.dynamics

    def score(_videos: Any) -> float:
        return model.config.dynamics[SKY].gain

    found = fit_dynamics(model, pool, SKY, chosen, SEARCH, score=score)
    assert found == replace(before[SKY], gain=2.0)
    assert model.config.dynamics == (found, *before[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lava": {}}, "no kind 'lava': use sky, water"),
        ({"sky": {"wind": (1.0,)}}, "no constant 'wind': use gain"),
    ],
)
def test_unknown_kinds_and_constants_are_refused(options: Any, message: str) -> None:
    with pytest.raises((UserError, ValueError), match=message):
        DynamicsSearch(options=options)
