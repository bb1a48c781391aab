"""A model that carries motion over to another picture, and one that cannot."""

from dataclasses import replace

import numpy as np
import pytest

from cinnema.core.errors import UserError
from cinnema.metrics.tasks.transfer import cosine, measure_transfer, motion_of
from known_models import Character, DotReader, DotRobot, RollingSky, robot_clips, sky_clips


def field(x: float, y: float) -> np.ndarray:
    return np.broadcast_to(np.float32([x, y])[:, None, None, None], (2, 3, 4, 4)).copy()


def test_cosines_of_motions_are_those_of_vectors() -> None:
    assert cosine(field(1, 0), field(3, 0)) == pytest.approx(1)
    assert cosine(field(1, 0), field(0, 1)) == pytest.approx(0)
    assert cosine(field(1, 0), field(-1, 0)) == pytest.approx(-1)
    assert cosine(field(1, 0), field(0, 0)) == 0


def test_what_does_not_count_does_not_matter() -> None:
    other = field(1, 0)
    other[:, :, 0] = -5
    weight = np.ones((4, 4))
    assert cosine(field(1, 0), other) < 0.5
    weight[0] = 0
    assert cosine(field(1, 0), other, weight) == pytest.approx(1)


def test_motion_has_the_sign_of_what_one_sees() -> None:
    clip = sky_clips(1)[0]
    assert clip.eta is not None
    mean = motion_of(clip.frames)[:, -1].mean(axis=(1, 2))
    assert np.linalg.norm(mean - clip.eta) < 0.2 * np.linalg.norm(clip.eta)


def test_a_sky_that_is_given_a_nu_moves_as_its_video_does() -> None:
    result = measure_transfer(RollingSky(), sky_clips(12))
    assert result.fields.transferred.value > 0.9
    assert result.fields.decoded.value > 0.9
    assert abs(result.fields.random.value) < 0.6
    assert result.fields.frozen.value == 0
    assert result.hand is None
    assert next(number.aim for number in result.numbers()) is not None
    assert result.least == 0.7


def test_the_ways_of_a_hand_are_compared_where_fields_are_in_other_places() -> None:
    clips = robot_clips(16)
    result = measure_transfer(DotRobot(), clips, DotReader())
    assert result.least == 0.5
    assert result.hand is not None
    # A dot that is sent to the same end from another start goes another way.
    assert result.hand.transferred.value > result.hand.random.value + 0.1
    assert result.hand.decoded.value > 0.99
    assert abs(result.hand.frozen.value) < 0.05
    assert len(result.numbers()) == 8
    assert any("do so in other places" in note for note in result.notes())


def test_a_model_that_forgets_the_motion_is_seen() -> None:
    class Forgetful(RollingSky):
        def seen(self, video: object) -> object:
            return 0 * super().seen(video)  # type: ignore[arg-type]

    result = measure_transfer(Forgetful(), sky_clips(8))
    assert result.fields.transferred.value < 0.3
    assert result.fields.decoded.value < 0.3


def test_a_model_that_needs_its_control_is_told_the_clips_own() -> None:
    result = measure_transfer(RollingSky(Character(needs_control=True)), sky_clips(8))
    assert result.fields.transferred.value > 0.9
    assert result.fields.random.value > 0.9  # eta alone carries the drift


def test_clips_that_do_not_move_cannot_be_transferred() -> None:
    still = [replace(c, frames=np.repeat(c.frames[:1], 5, axis=0)) for c in sky_clips(3)]
    with pytest.raises(UserError, match="no clip moves"):
        measure_transfer(RollingSky(), still)
    with pytest.raises(UserError, match="2 source videos"):
        measure_transfer(RollingSky(), sky_clips(1))
    rooted = [replace(c, still=np.ones((64, 64), dtype=bool)) for c in sky_clips(3)]
    with pytest.raises(UserError, match="no clip moves"):
        measure_transfer(RollingSky(), rooted)


def test_a_control_that_the_data_lack_is_missed() -> None:
    clips = [replace(clip, eta=None) for clip in sky_clips(3)]
    with pytest.raises(UserError, match="must be told the drift, which these data do not have"):
        measure_transfer(RollingSky(Character(needs_control=True)), clips)
