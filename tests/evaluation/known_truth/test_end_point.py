"""A robot that goes where it is told, and one that does not listen."""

import numpy as np
import pytest

from cinnema.core.errors import UserError
from cinnema.evaluation.known_truth.end_point import EndPointResult, measure_end_point
from known_models import Character, DotReader, DotRobot, RollingSky, robot_clips, sky_clips


def measured(character: Character) -> EndPointResult:
    return measure_end_point(DotRobot(character), robot_clips(24), DotReader())


@pytest.fixture(scope="module")
def obedient() -> EndPointResult:
    return measured(Character())


def test_one_that_obeys_misses_by_nothing(obedient: EndPointResult) -> None:
    assert obedient.told.value < 0.01
    assert obedient.gain.value > 20
    assert [number.aim.is_met(number.estimate) for number in obedient.numbers() if number.aim] == [
        True,
        True,
    ]


def test_one_that_does_not_listen_misses_as_with_another_clips_eta() -> None:
    deaf = measured(Character(obeys=False))
    assert deaf.told.value > 0.15
    assert deaf.gain.value == pytest.approx(1.0, abs=0.35)
    assert deaf.told.value == deaf.dropped.value
    assert not any(number.aim.is_met(number.estimate) for number in deaf.numbers() if number.aim)


def test_the_frozen_frame_misses_by_the_hands_way(obedient: EndPointResult) -> None:
    ways = [
        float(np.linalg.norm(clip.track[-1] - clip.track[0]))
        for clip in robot_clips(24)
        if clip.track is not None
    ]
    assert obedient.frozen.value == pytest.approx(np.mean(ways) / 0.48, rel=0.02)
    assert obedient.frozen.num_clips == 24


def test_the_readers_own_error_and_stage_1_stand_beside(obedient: EndPointResult) -> None:
    assert obedient.reader.value < 0.005
    assert obedient.decoded.value < 0.01
    assert obedient.reader.low is not None
    assert obedient.reader.low <= obedient.reader.value


def test_the_batch_does_not_matter() -> None:
    clips, model = robot_clips(5), DotRobot()
    one, all_ = (
        measure_end_point(model, clips, DotReader(), batch_size=size).told.value for size in (1, 5)
    )
    assert one == pytest.approx(all_, abs=1e-6)


def test_a_model_that_needs_a_control_is_not_asked_to_do_without() -> None:
    result = measured(Character(needs_control=True))
    assert np.isnan(result.dropped.value)
    assert result.told.value < 0.01


def test_models_and_clips_without_end_points_are_refused() -> None:
    reader = DotReader()
    with pytest.raises(UserError, match=r"told the drift.*name weights of a robot"):
        measure_end_point(RollingSky(), robot_clips(3), reader)
    with pytest.raises(UserError, match="told no control"):
        measure_end_point(DotRobot(Character(is_steered=False)), robot_clips(3), reader)
    with pytest.raises(UserError, match="do not say where an end effector is"):
        measure_end_point(DotRobot(), sky_clips(3), reader)
    with pytest.raises(UserError, match="2 source videos are needed"):
        measure_end_point(DotRobot(), robot_clips(1), reader)
