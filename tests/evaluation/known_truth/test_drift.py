"""A sky that drifts as told, one that does not listen, and videos with another direction."""

import numpy as np
import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.evaluation.known_truth.drift import (
    DirectionResult,
    EditResult,
    angle_between,
    measure_direction,
    measure_edit,
    seen_drift,
    turned,
)
from known_models import Character, DotRobot, RollingSky, robot_clips, sky_clips


@pytest.fixture(scope="module")
def directed() -> DirectionResult:
    return measure_direction(RollingSky(), sky_clips(16))


@pytest.fixture(scope="module")
def edited() -> EditResult:
    return measure_edit(RollingSky(), sky_clips(16))


def test_angles_are_between_0_and_180() -> None:
    right, down, left = (np.array(v, dtype=np.float64) for v in ([1, 0], [0, 2], [-1, 1e-9]))
    assert angle_between(right, down) == pytest.approx(90)
    assert angle_between(down, right) == pytest.approx(90)
    assert angle_between(right, left) == pytest.approx(180, abs=1e-3)
    assert angle_between(right, right) == 0
    assert angle_between(right, 0 * right) == 90  # what stands still misses as chance does


def test_turning_is_counter_clockwise_as_one_sees_it() -> None:
    up = turned(torch.tensor([2.0, 0.0]), 90)
    assert torch.allclose(up, torch.tensor([0.0, -2.0]), atol=1e-6)  # down is positive


def test_a_drift_is_read_off_the_frames() -> None:
    for clip in sky_clips(4):
        assert clip.eta is not None
        seen = seen_drift(clip.frames, clip)
        assert np.linalg.norm(seen - clip.eta) < 0.15 * np.linalg.norm(clip.eta)


def test_one_that_obeys_drifts_as_told(directed: DirectionResult) -> None:
    assert directed.told.error.value < 5
    assert directed.told.narrow.value == 1
    assert directed.told.speed.value > 0.95
    assert all(n.aim.is_met(n.estimate) for n in directed.numbers() if n.aim)


def test_baselines_and_the_estimators_own_error_stand_beside(directed: DirectionResult) -> None:
    assert directed.shuffled.error.value > 45
    assert directed.dropped.error.value > 45
    assert directed.estimator.error.value < 5
    assert directed.estimator.speed.value > 0.95
    assert directed.estimator.error.num_clips == 16


def test_one_that_does_not_listen_drifts_anywhere() -> None:
    deaf = measure_direction(RollingSky(Character(obeys=False)), sky_clips(16)).told
    assert deaf.error.value > 45
    assert deaf.narrow.value < 0.5
    assert abs(deaf.speed.value) < 0.6


def test_an_edited_video_takes_the_direction_and_keeps_its_speed(edited: EditResult) -> None:
    assert edited.edited.error.value < 5
    assert edited.edited.speed.value > 0.95
    assert edited.pace.value == pytest.approx(1, abs=0.1)
    assert all(n.aim.is_met(n.estimate) for n in edited.numbers() if n.aim)


def test_a_video_as_it_is_goes_its_own_way(edited: EditResult) -> None:
    assert edited.unedited.error.value > 60
    assert edited.unedited.speed.value > 0.95


def test_an_edit_that_does_nothing_is_seen() -> None:
    deaf = measure_edit(RollingSky(Character(obeys=False)), sky_clips(16))
    assert deaf.edited.error.value > 60
    assert deaf.edited.narrow.value == 0


def test_models_and_clips_that_do_not_drift_are_refused() -> None:
    for measure in (measure_direction, measure_edit):
        with pytest.raises(UserError, match=r"told the end point.*told the drift"):
            measure(DotRobot(), sky_clips(3))
        with pytest.raises(UserError, match="told no control"):
            measure(RollingSky(Character(is_steered=False)), sky_clips(3))
    with pytest.raises(UserError, match="no clip has a known wind"):
        measure_edit(RollingSky(), robot_clips(3))
