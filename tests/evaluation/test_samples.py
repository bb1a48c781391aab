import math

import pytest
import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.data.crops import SceneCrops
from cinnema.evaluation.samples import score_diversity, score_samples
from cinnema.models.warping.model import WarpingModel


def test_the_best_sample_is_no_worse_than_the_mean(
    model: WarpingModel, lpips: LPIPS, validation: list[SceneCrops]
) -> None:
    scores = score_samples(model, lpips, validation[0], num_clips=2, num_samples=3, times=(2, 4))
    for score in scores:
        values = score.values
        assert values["lpips_best"] <= values["lpips_mean"]
        assert values["best_saved"] == values["lpips_frozen"] - values["lpips_best"]


def test_more_samples_contain_the_fewer(
    model: WarpingModel, lpips: LPIPS, validation: list[SceneCrops]
) -> None:
    few, many = (
        score_samples(model, lpips, validation[0], num_clips=1, num_samples=k, times=(4,))[0]
        for k in (2, 5)
    )
    assert many.values["lpips_best"] <= few.values["lpips_best"] + 1e-6


def test_the_same_seed_gives_the_same_scores(
    model: WarpingModel, validation: list[SceneCrops]
) -> None:
    first, again, other = (
        score_diversity(model, validation[0], num_clips=1, num_samples=3, seed=seed)
        for seed in (0, 0, 7)
    )
    assert first == again
    assert first != other


def test_the_truth_and_the_still_region_are_seen(
    model: WarpingModel, validation: list[SceneCrops]
) -> None:
    score = score_diversity(model, validation[0], num_clips=1, num_samples=3)[0]
    assert score.values["true_speed"] == pytest.approx(2.0, rel=0.05)
    assert score.values["still_speed"] >= 0


def test_a_clip_without_still_parts_does_not_count_for_them(
    model: WarpingModel, validation: list[SceneCrops]
) -> None:
    crops = validation[0]
    restless = SceneCrops(crops.scene, crops.frames, crops.flow, crops.motion * 0 + 9)
    score = score_diversity(model, restless, num_clips=1, num_samples=2)[0]
    assert math.isnan(score.values["still_speed"])


def test_a_model_that_ignores_nu_shows_no_spread(
    model: WarpingModel, validation: list[SceneCrops], monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(nu: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones_like(nu), c[:, 0]

    monkeypatch.setattr(model, "to_latent", constant)
    score = score_diversity(model, validation[0], num_clips=1, num_samples=4)[0]
    assert score.values["direction_spread"] < 0.1
    assert score.values["drift_spread"] < 1e-5
    assert score.values["speed_spread"] < 1e-5
