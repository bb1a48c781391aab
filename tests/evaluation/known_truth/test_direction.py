"""A sky that drifts as the control says, one that ignores it, and videos with another direction."""

import numpy as np
import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.evaluation.known_truth.direction import angle_between, turned, visible_drift
from cinnema.evaluation.results import MODEL, REAL, RECONSTRUCTION, Evaluation
from known_models import (
    Character,
    DotRobot,
    RollingSky,
    evaluated,
    number,
    robot_clips,
    sky_clips,
    targets_met,
)

ANGLE, SHARE, SPEED = (
    "angle to the control",
    "within 22.5 degrees of it",
    ("correlation with its speed"),
)
EDIT_ANGLE, EDIT_SPEED = "angle to the new direction", "correlation with the video's speed"


@pytest.fixture(scope="module")
def directed() -> Evaluation:
    return evaluated("direction", RollingSky(), sky_clips(10))


@pytest.fixture(scope="module")
def edited() -> Evaluation:
    return evaluated("edit", RollingSky(), sky_clips(10))


def test_angles_are_between_0_and_180() -> None:
    right, down, left = (np.array(v, dtype=np.float64) for v in ([1, 0], [0, 2], [-1, 1e-9]))
    assert angle_between(right, down) == pytest.approx(90)
    assert angle_between(down, right) == pytest.approx(90)
    assert angle_between(right, left) == pytest.approx(180, abs=1e-3)
    assert angle_between(right, right) == 0
    assert angle_between(right, 0 * right) == 90  # no motion is as wrong as chance


def test_turning_is_counter_clockwise_in_the_picture() -> None:
    up = turned(torch.tensor([2.0, 0.0]), 90)
    assert torch.allclose(up, torch.tensor([0.0, -2.0]), atol=1e-6)  # down is positive


def test_a_drift_is_read_off_the_frames() -> None:
    for clip in sky_clips(4):
        assert clip.eta is not None
        seen = visible_drift(clip.frames, clip)
        assert np.linalg.norm(seen - clip.eta) < 0.15 * np.linalg.norm(clip.eta)


def test_a_model_that_follows_the_control_drifts_as_it_says(directed: Evaluation) -> None:
    assert number(directed, MODEL, ANGLE).value < 5
    assert number(directed, MODEL, SHARE).value == 1
    assert number(directed, MODEL, SPEED).value > 0.95
    assert targets_met(directed) == [True, True, True]


def test_baselines_and_the_error_of_the_flow_are_in_rows_of_their_own(
    directed: Evaluation,
) -> None:
    assert number(directed, "eta of another clip", ANGLE).value > 45
    assert number(directed, "no eta", ANGLE).value > 45
    assert number(directed, REAL, ANGLE).value < 5
    assert number(directed, REAL, SPEED).value > 0.95
    assert number(directed, REAL, ANGLE).num_clips == 10


def test_a_model_that_ignores_the_control_drifts_anywhere() -> None:
    deaf = evaluated("direction", RollingSky(Character(obeys=False)), sky_clips(10))
    assert number(deaf, MODEL, ANGLE).value > 45
    assert number(deaf, MODEL, SHARE).value < 0.5
    assert abs(number(deaf, MODEL, SPEED).value) < 0.6


def test_an_edited_video_takes_the_direction_and_keeps_its_speed(edited: Evaluation) -> None:
    assert number(edited, MODEL, EDIT_ANGLE).value < 5
    assert number(edited, MODEL, EDIT_SPEED).value > 0.95
    relative = number(edited, MODEL, "speed relative to the video's")
    assert relative.value == pytest.approx(1, abs=0.1)
    assert targets_met(edited) == [True, True, True]


def test_a_video_as_it_is_has_its_own_direction(edited: Evaluation) -> None:
    assert number(edited, RECONSTRUCTION, EDIT_ANGLE).value > 60
    assert number(edited, RECONSTRUCTION, EDIT_SPEED).value > 0.95


def test_an_edit_that_does_nothing_is_seen() -> None:
    deaf = evaluated("edit", RollingSky(Character(obeys=False)), sky_clips(10))
    assert number(deaf, MODEL, EDIT_ANGLE).value > 60
    assert number(deaf, MODEL, "edits within 22.5 degrees of it").value == 0


@pytest.mark.parametrize("metric", ["direction", "edit"])
def test_models_without_a_drift_are_refused(metric: str) -> None:
    with pytest.raises(UserError, match=r"takes the end point.*needs the drift"):
        evaluated(metric, DotRobot(), sky_clips(3))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="takes no control"):
        evaluated(metric, RollingSky(Character(is_steered=False)), sky_clips(3))  # type: ignore[arg-type]


def test_clips_without_a_wind_cannot_be_edited() -> None:
    with pytest.raises(UserError, match="no clip has a known wind"):
        evaluated("edit", RollingSky(), robot_clips(3))
