"""A model that carries motion over to another picture, and one that cannot."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.evaluation.known_truth.transfer import (
    ALIKE,
    CARRIED,
    GIVEN,
    LED,
    RANDOM,
    cosine,
    motion_of,
)
from cinnema.evaluation.results import FROZEN, RECONSTRUCTION
from cinnema.media.pictures import to_pixels
from known_models import (
    MIDDLE,
    NUM_FRAMES,
    SPREAD,
    Character,
    DotReader,
    DotRobot,
    RollingSky,
    evaluated,
    number,
    read_dots,
    robot_clips,
    sky_clips,
)

FIELDS, END, PATH = (
    "cosine of motion fields",
    "cosine of the hand's displacement",
    "cosine of the hand's path",
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
    result = evaluated("transfer", RollingSky(), sky_clips(12))
    assert number(result, GIVEN, FIELDS).value > 0.9
    assert number(result, RECONSTRUCTION, FIELDS).value > 0.9
    assert abs(number(result, RANDOM, FIELDS).value) < 0.6
    assert number(result, FROZEN, FIELDS).value == 0
    (column,) = result.columns
    assert column.target is not None
    assert (column.target.limit, column.target.row) == (0.7, GIVEN)


def test_hands_are_compared_where_fields_are_in_other_places() -> None:
    result = evaluated("transfer", DotRobot(), robot_clips(16), DotReader())
    # A dot that is sent to the same end from another start has another displacement.
    assert number(result, GIVEN, END).value > number(result, RANDOM, END).value + 0.1
    assert number(result, RECONSTRUCTION, END).value > 0.99
    assert abs(number(result, FROZEN, END).value) < 0.05
    assert CARRIED not in {row.name for row in result.rows}  # it does not predict its path
    assert result.columns[0].target is not None
    assert result.columns[0].target.limit == 0.5
    assert any("in other places" in note for note in result.notes)


def test_a_robot_that_predicts_its_path_is_also_given_the_path() -> None:
    result = evaluated("transfer", TellingRobot(), robot_clips(8), DotReader())
    for column in (END, PATH):
        # The tray's edge cuts some of the paths.
        carried, given = (number(result, row, column).value for row in (CARRIED, GIVEN))
        assert carried > 0.85
        assert carried > given + 0.1
        assert number(result, LED, column).value > number(result, RANDOM, column).value + 0.3
    assert result.columns[0].target is not None
    assert result.columns[0].target.row == CARRIED


def test_the_real_clip_of_the_most_similar_path_is_compared() -> None:
    clips = robot_clips(12)
    one = clips[0]
    assert one.track is not None
    shifted = one.track + np.float32([0.02, 0, 0])
    twin = replace(clips[1], track=shifted, frames=one.frames)
    result = evaluated("transfer", DotRobot(), [one, twin], DotReader())
    for column in (FIELDS, END, PATH):
        assert number(result, ALIKE, column).value == pytest.approx(1, abs=1e-4)
    many = evaluated("transfer", DotRobot(), clips, DotReader())
    assert 0.5 < number(many, ALIKE, PATH).value < 1


def test_clips_of_the_same_source_are_not_compared() -> None:
    clips = robot_clips(3, futures=2)
    twins = [replace(c, track=clips[i - i % 2].track) for i, c in enumerate(clips)]
    result = evaluated("transfer", DotRobot(), twins, DotReader())
    assert number(result, ALIKE, PATH).value < 0.99


def test_a_hand_that_rests_has_no_path_and_a_robot_without_tracks_none_at_all() -> None:
    clips = robot_clips(4)
    assert clips[0].track is not None
    resting = replace(clips[0], track=np.repeat(clips[0].track[:1], NUM_FRAMES + 1, axis=0))
    result = evaluated("transfer", DotRobot(), [resting, *clips[1:]], DotReader())
    assert number(result, GIVEN, END).num_clips == 3
    assert number(result, GIVEN, FIELDS).num_clips == 4
    blind = [replace(c, track=None) for c in clips]
    result = evaluated("transfer", DotRobot(), blind, DotReader())
    assert ALIKE not in {row.name for row in result.rows}
    assert np.isnan(number(result, GIVEN, END).value)


def test_a_model_that_forgets_the_motion_is_seen() -> None:
    class Forgetful(RollingSky):
        def seen(self, video: Tensor) -> Tensor:
            return 0 * super().seen(video)

    result = evaluated("transfer", Forgetful(), sky_clips(8))
    assert number(result, GIVEN, FIELDS).value < 0.3
    assert number(result, RECONSTRUCTION, FIELDS).value < 0.3


def test_a_model_that_needs_its_control_gets_the_clips_own() -> None:
    model = RollingSky(Character(needs_control=True))
    result = evaluated("transfer", model, sky_clips(8))
    assert number(result, GIVEN, FIELDS).value > 0.9
    assert number(result, RANDOM, FIELDS).value > 0.9  # eta alone carries the drift


def test_the_cells_say_that_no_clip_moves() -> None:
    still = [replace(c, frames=np.repeat(c.frames[:1], 5, axis=0)) for c in sky_clips(3)]
    rooted = [replace(c, still=np.ones((64, 64), dtype=bool)) for c in sky_clips(3)]
    for clips in (still, rooted):
        result = evaluated("transfer", RollingSky(), clips)
        assert all("no clip moves" in number["missing"] for number in result.numbers())


@pytest.mark.parametrize(
    ("clips", "model", "message"),
    [
        (sky_clips(1), RollingSky(), "2 source videos"),
        (
            [replace(clip, eta=None) for clip in sky_clips(3)],
            RollingSky(Character(needs_control=True)),
            "needs the drift as its control, which these data do not have",
        ),
    ],
)
def test_what_cannot_be_transferred_is_refused(
    clips: list, model: RollingSky, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluated("transfer", model, clips)
