"""Samples as diverse as the truth, samples that are all one, and samples that are anywhere."""

from dataclasses import replace

import numpy as np
import pytest

from cinnema.core.errors import UserError
from cinnema.evaluation.known_truth.futures import (
    FROZEN,
    GAUSSIAN,
    LINEAR,
    MODEL,
    REAL,
    FuturesResult,
    fit_priors,
    measure_futures,
)
from known_models import Character, DotReader, DotRobot, robot_clips, sky_clips


def measured(character: Character, *, futures: int = 8) -> FuturesResult:
    return measure_futures(DotRobot(character), robot_clips(40, futures=futures), DotReader())


@pytest.fixture(scope="module")
def true() -> FuturesResult:
    return measured(Character())


def test_half_of_the_true_ends_are_in_reach_of_others(true: FuturesResult) -> None:
    real = true.rows[REAL]
    assert real.covered.value == pytest.approx(0.5, abs=0.02)
    assert real.precise.value == pytest.approx(0.5, abs=0.02)
    assert real.spread.value == pytest.approx(1, abs=0.01)
    assert true.num_futures == 4
    assert true.reader < 0.003


def test_samples_of_the_true_distribution_are_as_good_as_real_ones(true: FuturesResult) -> None:
    model, real = true.rows[MODEL], true.rows[REAL]
    for name in ("covered", "precise"):
        assert getattr(model, name).value == pytest.approx(getattr(real, name).value, abs=0.09)
    assert model.to_sample.value == pytest.approx(real.to_sample.value, rel=0.15)
    assert model.spread.value == pytest.approx(1, abs=0.12)


def test_samples_that_are_all_one_cover_little(true: FuturesResult) -> None:
    collapsed = measured(Character(spread=0.01)).rows[MODEL]
    assert collapsed.covered.value < 0.75 * true.rows[MODEL].covered.value
    assert collapsed.spread.value < 0.1
    # The middle of everything is near to some true end: precision alone would praise it.
    assert collapsed.precise.value > true.rows[MODEL].precise.value


def test_samples_that_are_anywhere_are_not_precise(true: FuturesResult) -> None:
    wild = measured(Character(spread=2.0)).rows[MODEL]
    assert wild.precise.value < 0.7 * true.rows[MODEL].precise.value
    assert wild.to_real.value > 1.3 * true.rows[MODEL].to_real.value
    assert wild.spread.value > 1.5


def test_the_frozen_frame_is_one_future(true: FuturesResult) -> None:
    frozen = true.rows[FROZEN]
    assert frozen.spread.value == 0
    assert frozen.covered.value < true.rows[MODEL].covered.value
    assert frozen.covered.num_clips == 40


def test_simple_priors_stand_beside() -> None:
    model = DotRobot()
    priors = fit_priors(model, robot_clips(60, seed=5), seed=0)
    result = measure_futures(model, robot_clips(20, futures=4), DotReader(), priors=priors)
    assert list(result.rows) == [REAL, MODEL, FROZEN, GAUSSIAN, LINEAR]
    # What the model does untold is a Gaussian, so a Gaussian does as well.
    assert result.rows[GAUSSIAN].spread.value == pytest.approx(1, abs=0.2)
    assert len(result.numbers()) == 5 * 5
    assert "told no end point" in result.notes()[-1]


def test_a_model_that_needs_a_control_draws_one_for_each_sample() -> None:
    result = measured(Character(needs_control=True), futures=4)
    assert result.rows[MODEL].spread.value > 0.8
    assert "each sample draws its own" in result.drawn
    priors = fit_priors(DotRobot(Character(needs_control=True)), robot_clips(9), seed=0)
    assert set(priors) == {GAUSSIAN, LINEAR}


def test_starts_may_have_different_numbers_of_futures() -> None:
    clips = [*robot_clips(6, futures=6), *_renamed(robot_clips(5, futures=3, seed=1))]
    result = measure_futures(DotRobot(), clips, DotReader())
    assert result.num_futures == 3
    assert result.rows[MODEL].covered.num_clips == 6  # 3 futures are too few


def test_data_without_futures_or_hands_are_refused() -> None:
    with pytest.raises(UserError, match=r"no start has 4 futures.*--futures 8"):
        measure_futures(DotRobot(), robot_clips(6, futures=3), DotReader())
    with pytest.raises(UserError, match="do not say where an end effector is"):
        measure_futures(DotRobot(), sky_clips(2, futures=4), DotReader())
    with pytest.raises(UserError, match="no start has 4 futures"):
        clips = [replace(c, future_of=None) for c in robot_clips(2, futures=4)]
        measure_futures(DotRobot(), clips, DotReader())


def test_the_batch_does_not_matter() -> None:
    clips = robot_clips(4, futures=4)
    one, many = (
        measure_futures(DotRobot(), clips, DotReader(), batch_size=size).rows[MODEL]
        for size in (1, 7)
    )
    assert np.isclose(one.to_sample.value, many.to_sample.value, atol=1e-6)


def _renamed(clips: list) -> list:
    return [replace(clip, future_of=f"other {clip.future_of}") for clip in clips]
