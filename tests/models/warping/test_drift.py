"""The drift of clips as a control: what it is, and how the condition holds it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.models.flow.conditioning import Conditioner, ConditionerConfig
from cinnema.models.warping.drift import apparent_drift, drift_of
from cinnema.simulators.sky import draw_motion, draw_scene


def flow_of(x: float, y: float) -> torch.Tensor:
    times = torch.arange(1, 17).view(1, 1, 16, 1, 1) / 16
    return -torch.tensor([x, y]).view(1, 2, 1, 1, 1) * times.expand(1, 1, 16, 16, 16)


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4))
def test_the_drift_is_where_what_moves_goes(x: float, y: float) -> None:
    moving = torch.zeros(1, 32, 32)
    moving[:, :16] = 1
    flow = flow_of(x, y)
    flow[..., 8:, :] = 0.3  # the ground, which is not known to move
    eta, known = drift_of(flow, moving)
    torch.testing.assert_close(eta, torch.tensor([[x, y]]))
    assert float(known) == pytest.approx(1)


def test_motions_that_cancel_out_tell_nothing() -> None:
    flow = flow_of(0.2, 0.0)
    flow[..., ::2] *= -1
    _, known = drift_of(flow, torch.ones(1, 32, 32))
    assert float(known) == 0


def test_a_picture_that_stands_still_is_known_to() -> None:
    eta, known = drift_of(torch.zeros(1, 2, 16, 16, 16), torch.ones(1, 32, 32))
    assert eta.tolist() == [[0, 0]]
    assert known.tolist() == [1]


def test_where_nothing_is_known_to_move_there_is_no_drift() -> None:
    _, known = drift_of(flow_of(0.3, 0.1), torch.zeros(1, 32, 32))
    assert known.tolist() == [0]


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 0.4), st.floats(-math.pi, math.pi))
def test_what_drifts_evenly_appears_to_drift_as_it_does(speed: float, angle: float) -> None:
    x, y = speed * math.cos(angle), speed * math.sin(angle)
    flow, moving = flow_of(x, y), torch.ones(1, 32, 32)
    torch.testing.assert_close(
        apparent_drift(flow, moving), torch.tensor([[x, y]]), atol=1e-4, rtol=0
    )


def test_a_lake_that_hardly_moves_does_not_slow_the_sky_that_is_seen() -> None:
    flow, moving = flow_of(0.2, 0.0), torch.ones(1, 32, 32)
    flow[..., 8:, :] *= 0.1  # the lake
    mean, _ = drift_of(flow, moving)
    assert float(mean[0, 0]) == pytest.approx(0.11, abs=1e-3)
    assert float(apparent_drift(flow, moving)[0, 0]) == pytest.approx(0.2, abs=0.005)


def test_what_nothing_is_known_to_move_in_appears_to_stand_still() -> None:
    for flow, moving in ((flow_of(0.2, 0.0), 0.0), (flow_of(0.0, 0.0), 1.0)):
        drift = apparent_drift(flow, torch.full((1, 32, 32), moving))
        assert drift.abs().max() < 1e-6


@pytest.mark.parametrize("direction", [0.0, 1.0, 2.5, -2.0])
def test_the_drift_of_a_synthetic_sky_is_its_wind(direction: float) -> None:
    generator = torch.Generator().manual_seed(3)
    motion = draw_motion(generator, direction=direction, speed=0.2)
    scene = draw_scene(generator, size=64, plane=motion.plane)
    flow = torch.stack([scene.flow(motion, t / 16, size=16) for t in range(1, 17)], dim=1)
    (eta,), _ = drift_of(flow[None], scene.moving[None])
    wind = scene.wind(motion, scene.view(motion, 1.0), start=0.0, end=1.0)
    angles = [math.atan2(float(v[1]), float(v[0])) for v in (eta, wind)]
    assert abs(math.remainder(angles[0] - angles[1], 2 * math.pi)) < math.radians(20)


def conditioner(**control: float) -> Conditioner:
    torch.manual_seed(0)
    config = ConditionerConfig(feature_dim=16, width=8, condition_dim=5, **control)
    return Conditioner(config).eval()


def test_a_condition_ends_with_the_control_its_direction_and_its_size() -> None:
    steered, free = conditioner(control_dim=2, control_scale=0.1), conditioner()
    joint = torch.randn(3, 16, 8, 8)
    eta = torch.tensor([[0.3, 0.4], [0.0, -0.2], [0.3, 0.3]])
    c = steered(joint, eta, torch.tensor([1.0, 1.0, 0.0]))
    assert c.shape == (3, steered.config.out_dim) == (3, 11)
    torch.testing.assert_close(c[:, :5], free(joint))
    torch.testing.assert_close(c[:, 5:7], torch.tensor([[3.0, 4.0], [0.0, -2.0], [0.0, 0.0]]))
    directions = torch.tensor([[0.6, 0.8], [0.0, -1.0], [0.0, 0.0]])
    torch.testing.assert_close(c[:, 7:9], directions, atol=0.06, rtol=0)
    assert float(c[0, 9]) > float(c[1, 9]) > float(c[2, 9]) == 0
    assert c[:, 10].tolist() == [1, 1, 0]


def test_a_control_that_is_left_out_is_the_same_as_one_that_does_not_count() -> None:
    steered = conditioner(control_dim=2)
    joint = torch.randn(2, 16, 8, 8)
    assert torch.equal(steered(joint), steered(joint, torch.ones(2, 2), torch.zeros(2)))


def test_a_control_of_another_length_is_refused() -> None:
    joint = torch.randn(2, 16, 8, 8)
    with pytest.raises(UserError, match="the control has 2 numbers for each of 2"):
        conditioner(control_dim=2)(joint, torch.zeros(2, 3))
    with pytest.raises(UserError, match="leave it out"):
        conditioner()(joint, torch.zeros(2, 2))
