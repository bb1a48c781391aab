"""A model that carries motion over to another picture, and one that cannot."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.evaluation.known_truth.transfer import cosine, measure_transfer, motion_of
from cinnema.media.pictures import to_pixels
from known_models import (
    MIDDLE,
    NUM_FRAMES,
    SPREAD,
    Character,
    DotReader,
    DotRobot,
    RollingSky,
    read_dots,
    robot_clips,
    sky_clips,
)


class TellingRobot(DotRobot):
    """Tells its path: straight from where the dot is to its end."""

    def read_landmarks(self, x0: Tensor, z: Tensor) -> Tensor:
        start = torch.from_numpy(read_dots(to_pixels(x0))).float()[:, None]
        end = torch.from_numpy(MIDDLE).float() + z[:, :3] * torch.from_numpy(SPREAD).float()
        share = torch.linspace(0, 1, NUM_FRAMES + 1)[:, None]
        return start + share * (end[:, None] - start)


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
    assert result.hand.carried is None  # it does not tell its path
    assert len(result.numbers()) == 15
    assert any("do so in other places" in note for note in result.notes())


def test_a_robot_that_tells_its_path_is_also_given_the_way() -> None:
    result = measure_transfer(TellingRobot(), robot_clips(8), DotReader())
    assert result.hand is not None
    assert result.path is not None
    for likeness in (result.hand, result.path):
        assert likeness.carried is not None
        assert likeness.led is not None
        # The tray's edge cuts some of the ways.
        assert likeness.carried.value > 0.85
        assert likeness.carried.value > likeness.transferred.value + 0.1
        assert likeness.led.value > likeness.random.value + 0.3
    rows = {(number.what, number.of): number for number in result.numbers()}
    assert len(rows) == 21
    asked = [of for (_, of), number in rows.items() if number.aim is not None]
    assert asked == ["other picture, given the way and nu"]


def test_beside_them_stands_the_real_clip_that_goes_most_nearly_the_same_way() -> None:
    clips = robot_clips(12)
    one = clips[0]
    assert one.track is not None
    shifted = one.track + np.float32([0.02, 0, 0])
    twin = replace(clips[1], track=shifted, frames=one.frames)
    result = measure_transfer(DotRobot(), [one, twin], DotReader())
    for likeness in (result.fields, result.hand, result.path):
        assert likeness is not None
        assert likeness.alike is not None
        assert likeness.alike.value == pytest.approx(1, abs=1e-4)  # dots are read off pixels
    many = measure_transfer(DotRobot(), clips, DotReader())
    assert many.path is not None
    assert many.path.alike is not None
    assert 0.5 < many.path.alike.value < 1


def test_clips_of_the_same_source_are_no_others() -> None:
    clips = robot_clips(3, futures=2)
    twins = [replace(c, track=clips[i - i % 2].track) for i, c in enumerate(clips)]
    result = measure_transfer(DotRobot(), twins, DotReader())
    assert result.path is not None
    assert result.path.alike is not None
    assert result.path.alike.value < 0.99


def test_a_hand_that_rests_has_no_way_and_a_robot_without_tracks_none_at_all() -> None:
    clips = robot_clips(4)
    assert clips[0].track is not None
    resting = replace(clips[0], track=np.repeat(clips[0].track[:1], NUM_FRAMES + 1, axis=0))
    result = measure_transfer(DotRobot(), [resting, *clips[1:]], DotReader())
    assert result.hand is not None
    assert result.hand.transferred.num_clips == 3
    assert result.fields.transferred.num_clips == 4
    blind = measure_transfer(DotRobot(), [replace(c, track=None) for c in clips], DotReader())
    assert blind.hand is not None
    assert blind.hand.alike is None
    assert np.isnan(blind.hand.transferred.value)


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
