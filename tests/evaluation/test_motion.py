import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cinnema.evaluation.motion import circular_spread, mean_drift, mean_speed, pictures, seen_flow
from cinnema.models.warping.model import WarpingModel


def _wind(right: float, down: float) -> torch.Tensor:
    """Backward flow of a picture of 64 pixels that moves by so many pixels a frame, 4 frames."""
    steps = torch.arange(1, 5).view(1, 1, 4, 1, 1)
    return -torch.tensor([right, down]).view(1, 2, 1, 1, 1) * steps.expand(1, 1, 4, 8, 8) / 64


def test_drift_points_where_one_sees_things_go() -> None:
    drift = mean_drift(_wind(2.0, -1.0), torch.ones(8, 8), size=64)
    torch.testing.assert_close(drift, torch.tensor([[2.0, -1.0]]))


def test_speed_is_that_of_single_points() -> None:
    flow = _wind(3.0, 4.0)
    flow[..., 4:] *= -1
    speed = mean_speed(flow, torch.ones(8, 8), size=64)
    torch.testing.assert_close(speed, torch.tensor([5.0]))
    assert mean_drift(flow, torch.ones(8, 8), size=64).abs().max() < 1e-5


def test_only_the_region_counts() -> None:
    flow, where = _wind(2.0, 0.0), torch.zeros(8, 8)
    flow[..., :4, :] = 0
    where[:4] = 1
    assert mean_speed(flow, where, size=64).item() == 0
    assert math.isnan(mean_speed(flow, torch.zeros(8, 8), size=64).item())


@given(st.floats(-10, 10), st.integers(1, 20))
def test_equal_directions_have_no_spread(angle: float, count: int) -> None:
    assert circular_spread(torch.full((count,), angle)) < 0.1


def test_opposite_directions_have_the_most() -> None:
    assert circular_spread(torch.tensor([0.0, math.pi])) == pytest.approx(173.9, abs=0.1)


def test_a_narrow_spread_is_the_usual_deviation() -> None:
    angles = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 0.1 + math.pi
    assert circular_spread(angles) == pytest.approx(math.degrees(0.1), rel=0.03)


def test_an_unknown_direction_is_not_taken_for_agreement() -> None:
    assert math.isnan(circular_spread(torch.tensor([math.nan, 0.0])))


def test_pictures_are_in_minus_one_to_one() -> None:
    pixels = np.array([0, 255], np.uint8).repeat(3).reshape(1, 1, 2, 3)
    assert pictures(pixels)[0, 0, 0].tolist() == [-1.0, 1.0]


def test_the_seen_flow_is_the_flow_behind_the_mask(model: WarpingModel) -> None:
    x0, z = torch.rand(2, 3, 64, 64) * 2 - 1, torch.randn(2, 16)
    features = model.stage1.scene(x0)
    flow = model.stage1.basis.clip(model.stage1.motion(z, features.joint))
    mask = torch.sigmoid(model.stage1.mask(features.joint, features.fine))
    small = torch.nn.functional.adaptive_avg_pool2d(mask, 16)
    torch.testing.assert_close(seen_flow(model.stage1, z, features), flow * small[:, :, None])
    assert seen_flow(model.stage1, z, features, size=32).shape == (2, 2, 4, 32, 32)
