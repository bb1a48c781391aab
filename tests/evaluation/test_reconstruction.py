import pytest
import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.data.crops import SceneCrops
from cinnema.evaluation.motion import pictures
from cinnema.evaluation.reconstruction import score_flow, score_reconstruction
from cinnema.models.warping.model import WarpingModel
from cinnema.training.losses import relative_flow_error


def test_warping_by_the_true_flow_beats_the_frozen_frame(
    model: WarpingModel, lpips: LPIPS, validation: list[SceneCrops]
) -> None:
    scores = score_reconstruction(model.stage1, lpips, validation[0], num_clips=2, times=(2, 4))
    assert len(scores) == 2
    for score in scores:
        values = score.values
        assert values["lpips_warped"] < values["lpips_frozen"]
        assert values["l1_warped"] < values["l1_frozen"]
        assert values["psnr_warped"] > values["psnr_frozen"]


def test_scores_are_those_of_the_decoded_clip(
    model: WarpingModel, lpips: LPIPS, validation: list[SceneCrops]
) -> None:
    crops = validation[0]
    score = score_reconstruction(model.stage1, lpips, crops, num_clips=1, times=(1, 4))[0]
    x0, flow = pictures(crops.frames[0, :1]), torch.from_numpy(crops.flow[:1])
    decoded = model.stage1.decode(x0, model.stage1.encode(flow))[0, [0, 3]].clamp(-1, 1)
    real = pictures(crops.frames[0, [1, 4]])
    assert score.values["lpips_model"] == pytest.approx(
        float(lpips(decoded, real).mean()), rel=1e-4
    )
    expected = float((decoded - real).abs().mean()) / 2
    assert score.values["l1_model"] == pytest.approx(expected, rel=1e-4)


def test_flow_scores_add_up_to_the_relative_error(
    model: WarpingModel, validation: list[SceneCrops]
) -> None:
    scores = score_flow(model.stage1, validation[0], num_clips=3)
    assert len(scores) == 3
    error = sum(s.values["flow_error"] for s in scores)
    motion = sum(s.values["flow_motion"] for s in scores)
    true = torch.from_numpy(validation[0].flow[:3])
    assert motion == pytest.approx(float(true.abs().sum()), rel=1e-4)
    assert error / motion == pytest.approx(1.0, abs=0.3)  # a random model hardly moves anything
    assert relative_flow_error(torch.zeros_like(true), true) == pytest.approx(1.0)


def test_true_speed_is_in_pixels_a_frame(model: WarpingModel, validation: list[SceneCrops]) -> None:
    score = score_flow(model.stage1, validation[0], num_clips=1)[0]
    assert score.values["true_speed"] == pytest.approx(2 * 12 / 16, rel=1e-4)
