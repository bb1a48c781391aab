"""A robot that goes where the control says, and one that ignores it."""

import numpy as np
import pytest

from cinnema.core.errors import UserError
from cinnema.evaluation.results import FROZEN, MODEL, REAL, RECONSTRUCTION, Evaluation
from known_models import (
    Character,
    DotReader,
    DotRobot,
    RollingSky,
    evaluated,
    number,
    robot_clips,
    sky_clips,
    targets_met,
)

ERROR, GAIN = "error of the end point", "times smaller than with another eta"


def measured(character: Character) -> Evaluation:
    return evaluated("end-point", DotRobot(character), robot_clips(24), DotReader())


@pytest.fixture(scope="module")
def obedient() -> Evaluation:
    return measured(Character())


def test_a_robot_that_follows_the_control_has_no_error(obedient: Evaluation) -> None:
    assert number(obedient, MODEL, ERROR).value < 0.01
    assert number(obedient, MODEL, GAIN).value > 20
    assert targets_met(obedient) == [True, True]


def test_one_that_ignores_it_has_the_error_of_another_control() -> None:
    deaf = measured(Character(obeys=False))
    assert number(deaf, MODEL, ERROR).value > 0.15
    assert number(deaf, MODEL, GAIN).value == pytest.approx(1.0, abs=0.35)
    assert number(deaf, MODEL, ERROR).value == number(deaf, "no eta", ERROR).value
    assert targets_met(deaf) == [False, False]


def test_the_error_of_the_frozen_frame_is_the_hands_displacement(obedient: Evaluation) -> None:
    lengths = [
        float(np.linalg.norm(clip.track[-1] - clip.track[0]))
        for clip in robot_clips(24)
        if clip.track is not None
    ]
    frozen = number(obedient, FROZEN, ERROR)
    assert frozen.value == pytest.approx(np.mean(lengths) / 0.48, rel=0.02)
    assert frozen.num_clips == 24


def test_the_errors_of_the_reader_and_of_stage_1_are_reported(obedient: Evaluation) -> None:
    reader = number(obedient, REAL, ERROR)
    assert reader.value < 0.005
    assert number(obedient, RECONSTRUCTION, ERROR).value < 0.01
    assert reader.low is not None
    assert reader.low <= reader.value


def test_the_batch_size_does_not_matter() -> None:
    one, all_ = (
        number(
            evaluated("end-point", DotRobot(), robot_clips(5), DotReader(), batch_size=size),
            MODEL,
            ERROR,
        )
        for size in (1, 5)
    )
    assert one.value == pytest.approx(all_.value, abs=1e-6)


def test_a_model_that_needs_its_control_is_not_used_without() -> None:
    result = measured(Character(needs_control=True))
    assert np.isnan(number(result, "no eta", ERROR).value)
    assert number(result, MODEL, ERROR).value < 0.01


@pytest.mark.parametrize(
    ("model", "clips", "message"),
    [
        (RollingSky(), robot_clips(3), r"takes the drift.*name weights of a robot"),
        (DotRobot(Character(is_steered=False)), robot_clips(3), "takes no control"),
        (DotRobot(), sky_clips(3), "have no position of an end effector"),
        (DotRobot(), robot_clips(1), "2 source videos are needed"),
    ],
)
def test_models_and_clips_without_end_points_are_refused(
    model: DotRobot, clips: list, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluated("end-point", model, clips, DotReader())


def test_a_reader_is_needed() -> None:
    with pytest.raises(UserError, match="give one with --reader"):
        evaluated("end-point", DotRobot(), robot_clips(3))
