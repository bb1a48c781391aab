"""Samples as diverse as the truth, samples that are all one, and samples that are anywhere."""

from dataclasses import replace

import numpy as np
import pytest

from cinnema.core.errors import UserError
from cinnema.evaluation.baselines import GAUSSIAN, LINEAR
from cinnema.evaluation.protocol import RealClip
from cinnema.evaluation.results import FROZEN, MODEL, REAL, Evaluation
from known_models import (
    Character,
    DotReader,
    DotRobot,
    evaluated,
    number,
    robot_clips,
    sky_clips,
)

COVERED, PRECISE = "true ends with a sample near", "samples with a true end near"
TO_SAMPLE, TO_REAL = "distance to the nearest sample", "distance to the nearest true end"
SPREAD = "relative spread"


def measured(character: Character, *, futures: int = 8) -> Evaluation:
    clips = robot_clips(40, futures=futures)
    return evaluated("futures", DotRobot(character), clips, DotReader())


@pytest.fixture(scope="module")
def true() -> Evaluation:
    return measured(Character())


def test_half_of_the_true_ends_are_near_others(true: Evaluation) -> None:
    assert number(true, REAL, COVERED).value == pytest.approx(0.5, abs=0.02)
    assert number(true, REAL, PRECISE).value == pytest.approx(0.5, abs=0.02)
    assert number(true, REAL, SPREAD).value == pytest.approx(1, abs=0.01)
    assert any("4 samples are compared with 4 true futures" in note for note in true.notes)


def test_samples_of_the_true_distribution_are_as_good_as_real_ones(true: Evaluation) -> None:
    for column in (COVERED, PRECISE):
        real = number(true, REAL, column).value
        assert number(true, MODEL, column).value == pytest.approx(real, abs=0.09)
    real = number(true, REAL, TO_SAMPLE).value
    assert number(true, MODEL, TO_SAMPLE).value == pytest.approx(real, rel=0.15)
    assert number(true, MODEL, SPREAD).value == pytest.approx(1, abs=0.12)


def test_samples_that_are_all_one_cover_little(true: Evaluation) -> None:
    collapsed = measured(Character(spread=0.01))
    assert number(collapsed, MODEL, COVERED).value < 0.75 * number(true, MODEL, COVERED).value
    assert number(collapsed, MODEL, SPREAD).value < 0.1
    # The middle of everything is near to some true end: precision alone would praise it.
    assert number(collapsed, MODEL, PRECISE).value > number(true, MODEL, PRECISE).value


def test_samples_that_are_anywhere_are_not_precise(true: Evaluation) -> None:
    wild = measured(Character(spread=2.0))
    assert number(wild, MODEL, PRECISE).value < 0.7 * number(true, MODEL, PRECISE).value
    assert number(wild, MODEL, TO_REAL).value > 1.3 * number(true, MODEL, TO_REAL).value
    assert number(wild, MODEL, SPREAD).value > 1.5


def test_the_frozen_frame_is_one_future(true: Evaluation) -> None:
    assert number(true, FROZEN, SPREAD).value == 0
    assert number(true, FROZEN, COVERED).value < number(true, MODEL, COVERED).value
    assert number(true, FROZEN, COVERED).num_clips == 40


def test_simple_priors_are_fitted_where_there_are_training_clips() -> None:
    clips, training = robot_clips(20, futures=4), robot_clips(60, seed=5)
    result = evaluated("futures", DotRobot(), clips, DotReader(), training=training)
    # Without its control the model is a Gaussian, so a Gaussian does as well.
    assert number(result, GAUSSIAN, SPREAD).value == pytest.approx(1, abs=0.2)
    assert number(result, LINEAR, SPREAD).num_clips == 20
    assert any("without the end point" in note for note in result.notes)


def test_a_model_that_needs_its_control_draws_one_for_each_sample() -> None:
    model = DotRobot(Character(needs_control=True))
    clips, training = robot_clips(40, futures=4), robot_clips(9)
    result = evaluated("futures", model, clips, DotReader(), training=training)
    assert number(result, MODEL, SPREAD).value > 0.8
    assert np.isfinite(number(result, GAUSSIAN, SPREAD).value)
    assert any("each sample draws its own" in note for note in result.notes)


def test_starts_may_have_different_numbers_of_futures() -> None:
    clips = [*robot_clips(6, futures=6), *_renamed(robot_clips(5, futures=3, seed=1))]
    result = evaluated("futures", DotRobot(), clips, DotReader())
    assert any("3 samples are compared" in note for note in result.notes)
    assert number(result, MODEL, COVERED).num_clips == 6  # 3 futures are too few


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (robot_clips(6, futures=3), r"no start has 4 futures.*--futures 8"),
        (sky_clips(2, futures=4), "have no position of an end effector"),
        (
            [replace(c, shared_start=None) for c in robot_clips(2, futures=4)],
            "no start has 4 futures",
        ),
    ],
)
def test_data_without_futures_or_hands_are_refused(clips: list[RealClip], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluated("futures", DotRobot(), clips, DotReader())


def test_the_batch_size_does_not_matter() -> None:
    clips = robot_clips(4, futures=4)
    one, many = (
        number(
            evaluated("futures", DotRobot(), clips, DotReader(), batch_size=size),
            MODEL,
            TO_SAMPLE,
        )
        for size in (1, 7)
    )
    assert np.isclose(one.value, many.value, atol=1e-6)


def _renamed(clips: list[RealClip]) -> list[RealClip]:
    return [
        replace(
            clip,
            shared_start=f"other {clip.shared_start}",
            start=replace(clip.start, key=f"other {clip.start.key}"),
        )
        for clip in clips
    ]
