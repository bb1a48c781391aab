"""Metrics of warping models, on crops whose flow is known."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cinnema.backbones.lpips import LPIPS
from cinnema.core.errors import UserError
from cinnema.data.crops import SceneCrops
from cinnema.evaluation.protocol import CropClips, RealClip
from cinnema.evaluation.results import FROZEN, MODEL, RECONSTRUCTION, Evaluation, as_text
from cinnema.evaluation.runner import evaluate_crops
from cinnema.evaluation.statistics.bootstrap import Estimate
from cinnema.evaluation.warping_scores import (
    WarpingSettings,
    circular_deviation,
    flow_scores,
    mean_drift,
    mean_speed,
    motion_scores,
    pictures,
    reconstruction_scores,
    sample_scores,
    visible_flow,
    with_flow,
)
from cinnema.models.warping.model import WarpingModel
from cinnema.training.losses import relative_flow_error

FEW = WarpingSettings(
    num_reconstructed=1, num_flows=2, num_started=1, num_spread=1, num_latents=3, num_fitted=5,
    times=(2, 4),
)  # fmt: skip


@pytest.fixture(scope="module")
def clip(validation: list[SceneCrops]) -> RealClip:
    clips = CropClips(validation, num_frames=4, name="crops")
    return clips.read(clips.starts[0])


# --- Single clips -------------------------------------------------------------------------------


def test_warping_by_the_true_flow_beats_the_frozen_frame(
    model: WarpingModel, lpips: LPIPS, clip: RealClip
) -> None:
    values = reconstruction_scores(model.stage1, lpips, clip, times=(2, 4))
    assert values["lpips_warped"] < values["lpips_frozen"]
    assert values["l1_warped"] < values["l1_frozen"]
    assert values["psnr_warped"] > values["psnr_frozen"]


def test_scores_are_those_of_the_decoded_clip(
    model: WarpingModel, lpips: LPIPS, clip: RealClip
) -> None:
    values = reconstruction_scores(model.stage1, lpips, clip, times=(1, 4))
    x0, flow = pictures(clip.frames[:1]), torch.from_numpy(np.asarray(clip.flow)[None])
    decoded = model.stage1.decode(x0, model.stage1.encode(flow))[0, [0, 3]].clamp(-1, 1)
    real = pictures(clip.frames[[1, 4]])
    assert values["lpips_model"] == pytest.approx(float(lpips(decoded, real).mean()), rel=1e-4)
    expected = float((decoded - real).abs().mean()) / 2
    assert values["l1_model"] == pytest.approx(expected, rel=1e-4)


def test_flow_scores_add_up_to_the_relative_error(
    model: WarpingModel, validation: list[SceneCrops]
) -> None:
    crops = validation[0]
    scores = flow_scores(model.stage1, np.asarray(crops.frames[:3, 0]), crops.flow[:3])
    error, motion = (sum(s[name] for s in scores) for name in ("flow_error", "flow_motion"))
    true = torch.from_numpy(crops.flow[:3])
    assert motion == pytest.approx(float(true.abs().sum()), rel=1e-4)
    assert error / motion == pytest.approx(1.0, abs=0.3)  # a random model hardly moves anything
    assert relative_flow_error(torch.zeros_like(true), true) == pytest.approx(1.0)
    assert scores[0]["true_speed"] == pytest.approx(2 * 12 / 16, rel=1e-4)  # in pixels a frame


def test_the_best_sample_is_no_worse_than_the_mean_and_more_contain_fewer(
    model: WarpingModel, lpips: LPIPS, clip: RealClip
) -> None:
    few, many = (sample_scores(model, lpips, clip, num_samples=k, times=(4,)) for k in (2, 5))
    assert many["lpips_best"] <= few["lpips_best"] + 1e-6
    assert few["lpips_best"] <= few["lpips_mean"]
    assert few["best_saved"] == few["lpips_frozen"] - few["lpips_best"]


def test_motion_of_samples_depends_on_the_seed_and_knows_the_truth(
    model: WarpingModel, clip: RealClip
) -> None:
    first, again, other = (
        motion_scores(model, clip, num_samples=3, seed=seed) for seed in (0, 0, 7)
    )
    assert first == again
    assert first != other
    assert first["true_speed"] == pytest.approx(2.0, rel=0.05)
    assert first["still_speed"] >= 0
    restless = replace(clip, motion=np.asarray(clip.motion) * 0 + 9)
    assert math.isnan(motion_scores(model, restless, num_samples=2)["still_speed"])


def test_a_model_that_ignores_nu_shows_no_deviation(
    model: WarpingModel, clip: RealClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(nu: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones_like(nu), c[:, 0]

    monkeypatch.setattr(model, "to_latent", constant)
    scores = motion_scores(model, clip, num_samples=4)
    assert scores["direction_spread"] < 0.1
    assert scores["drift_spread"] < 1e-5
    assert scores["speed_spread"] < 1e-5


def test_flow_is_computed_where_it_is_not_there(clip: RealClip) -> None:
    computed = with_flow(replace(clip, flow=None, motion=None))
    assert computed.flow is not None
    assert computed.motion is not None
    assert computed.flow.shape == np.asarray(clip.flow).shape
    assert with_flow(clip) is clip


def _wind(right: float, down: float) -> torch.Tensor:
    """Backward flow of a picture of 64 pixels that moves by so many pixels a frame, 4 frames."""
    steps = torch.arange(1, 5).view(1, 1, 4, 1, 1)
    return -torch.tensor([right, down]).view(1, 2, 1, 1, 1) * steps.expand(1, 1, 4, 8, 8) / 64


def test_drift_is_that_of_the_region_and_speed_that_of_its_points() -> None:
    everywhere = torch.ones(8, 8)
    drift = mean_drift(_wind(2.0, -1.0), everywhere, size=64)
    torch.testing.assert_close(drift, torch.tensor([[2.0, -1.0]]))
    flow = _wind(3.0, 4.0)
    flow[..., 4:] *= -1
    torch.testing.assert_close(mean_speed(flow, everywhere, size=64), torch.tensor([5.0]))
    assert mean_drift(flow, everywhere, size=64).abs().max() < 1e-5
    upper, still = torch.zeros(8, 8), _wind(2.0, 0.0)
    still[..., :4, :] = 0
    upper[:4] = 1
    assert mean_speed(still, upper, size=64).item() == 0
    assert math.isnan(mean_speed(still, torch.zeros(8, 8), size=64).item())


@given(st.floats(-10, 10), st.integers(1, 20))
def test_equal_directions_have_no_deviation(angle: float, count: int) -> None:
    assert circular_deviation(torch.full((count,), angle)) < 0.1


def test_deviations_of_directions_are_the_usual_ones() -> None:
    angles = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 0.1 + math.pi
    assert circular_deviation(angles) == pytest.approx(math.degrees(0.1), rel=0.03)
    assert circular_deviation(torch.tensor([0.0, math.pi])) == pytest.approx(173.9, abs=0.1)
    assert math.isnan(circular_deviation(torch.tensor([math.nan, 0.0])))


def test_the_visible_flow_is_the_flow_behind_the_mask(model: WarpingModel) -> None:
    x0, z = torch.rand(2, 3, 64, 64) * 2 - 1, torch.randn(2, 16)
    features = model.stage1.scene(x0)
    flow = model.stage1.basis.clip(model.stage1.motion(z, features.joint))
    mask = torch.sigmoid(model.stage1.mask(features.joint, features.fine))
    small = torch.nn.functional.adaptive_avg_pool2d(mask, 16)
    torch.testing.assert_close(visible_flow(model.stage1, z, features), flow * small[:, :, None])
    assert visible_flow(model.stage1, z, features, size=32).shape == (2, 2, 4, 32, 32)


# --- All metrics over crops ----------------------------------------------------------------------


def on_crops(
    model: WarpingModel,
    validation: list[SceneCrops],
    train: list[SceneCrops],
    lpips: LPIPS,
    **options: Any,
) -> Evaluation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LPIPS, "load", lambda _: lpips)
        return evaluate_crops(
            model, validation, train=train, name="crops", num_samples=2,
            **{"warping": FEW, **options},
        )  # fmt: skip


@pytest.fixture(scope="module")
def found(
    model: WarpingModel, lpips: LPIPS, validation: list[SceneCrops], train: list[SceneCrops]
) -> Evaluation:
    return on_crops(model, validation, train, lpips)


def cell(evaluation: Evaluation, row: str, column: str, part: str = "") -> Estimate:
    (found,) = (r for r in evaluation.rows if r.name == row)
    cell = (found.parts[part] if part else found.cells)[column]
    assert isinstance(cell, Estimate)
    return cell


def test_every_scene_and_texture_has_its_part(found: Evaluation) -> None:
    parts = ["clouds", "clouds: a", "clouds: b", "fire", "fire: c"]
    assert [list(row.parts) for row in found.rows] == [parts] * len(found.rows)
    text = as_text(found)
    assert "  clouds: b" in text
    assert "…" not in text
    json.dumps(found.to_dict(), allow_nan=False)


def test_each_metric_rests_on_its_number_of_clips(found: Evaluation) -> None:
    assert cell(found, RECONSTRUCTION, "relative flow error").num_clips == 6
    assert cell(found, RECONSTRUCTION, "LPIPS of stage 1").num_clips == 3
    assert cell(found, MODEL, "negative log-likelihood", "clouds").num_clips == 6
    assert cell(found, MODEL, "inversion error of nu").num_clips == 9
    assert cell(found, MODEL, "inversion error of z").value < 1e-4
    assert cell(found, MODEL, "drift", "fire: c").num_clips == 1


def test_saved_shares_are_of_sums_over_clips(found: Evaluation) -> None:
    frozen, model = (cell(found, row, "LPIPS of stage 1").value for row in (FROZEN, RECONSTRUCTION))
    saved = cell(found, RECONSTRUCTION, "LPIPS saved by stage 1").value
    assert saved == pytest.approx((frozen - model) / frozen)


def test_the_numbers_do_not_depend_on_the_global_random_stream(
    found: Evaluation,
    model: WarpingModel,
    lpips: LPIPS,
    validation: list[SceneCrops],
    train: list[SceneCrops],
) -> None:
    torch.rand(5)
    again = on_crops(model, validation, train, lpips)
    assert again.to_dict()["rows"] == found.to_dict()["rows"]


@pytest.mark.parametrize(
    ("num_validation", "num_train", "times", "message"),
    [
        (1, 2, (4, 5), "frames from 1 to 4"),
        (1, 1, (4,), "at least 2 training sources"),
        (1, 0, (4,), "give more clips"),
        (0, 2, (4,), "at least 1 scene"),
    ],
)
def test_what_cannot_be_measured_is_refused(  # noqa: PLR0917 - fixtures
    model: WarpingModel,
    lpips: LPIPS,
    validation: list[SceneCrops],
    train: list[SceneCrops],
    num_validation: int,
    num_train: int,
    times: tuple[int, ...],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        on_crops(
            model, validation[:num_validation], train[:num_train], lpips,
            warping=replace(FEW, times=times),
        )  # fmt: skip
