"""Numbers and their intervals over source videos."""

import numpy as np
import pytest

from cinnema.evaluation.statistics.bootstrap import (
    ClusteredRows,
    ClusteredSums,
    Estimate,
    correlation,
    mean,
    median,
    ratio,
    resampled,
    share_below,
)

SEVERAL = [str(i // 4) for i in range(80)]


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)[:, None]


def width_of(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def test_an_interval_holds_the_number_and_narrows_with_more_sources() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(3, 1, (400, 1))
    many = resampled(rows, [str(i) for i in range(400)], mean)
    few = resampled(rows[:40], [str(i) for i in range(40)], mean)
    assert many.low is not None
    assert many.low < 3 < many.low + width_of(many)
    assert width_of(many) == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert width_of(few) > 2 * width_of(many)


def test_clips_of_one_source_are_no_independent_witnesses() -> None:
    rows = np.repeat(np.random.default_rng(0).normal(size=(20, 1)), 4, axis=0)
    alone = resampled(rows, [str(i) for i in range(80)], mean)
    together = resampled(rows, SEVERAL, mean)
    assert alone.value == together.value
    assert together.num_sources == 20
    assert width_of(together) > 1.5 * width_of(alone)


def test_the_same_seed_gives_the_same_interval() -> None:
    rows = np.random.default_rng(0).normal(size=(80, 1))
    assert resampled(rows, SEVERAL, median) == resampled(rows, SEVERAL, median)
    assert resampled(rows, SEVERAL, median) != resampled(rows, SEVERAL, median, seed=1)


def test_rows_that_could_not_be_measured_are_left_out() -> None:
    estimate = resampled(column(1, np.nan, 3), ["a", "b", "c"], mean)
    assert estimate == Estimate(2.0, None, None, num_clips=2, num_sources=2)
    nothing = resampled(column(np.nan), ["a"], mean)
    assert np.isnan(nothing.value)
    assert nothing.num_clips == 0


def test_statistics_are_what_their_names_say() -> None:
    assert median(column(1, 2, 9)) == 2
    assert share_below(2.5)(column(1, 2, 9)) == pytest.approx(2 / 3)
    pairs = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    assert ratio(pairs) == 0.5
    assert correlation(pairs) == pytest.approx(1.0)
    assert correlation(pairs * [1, -1]) == pytest.approx(-1.0)
    assert np.isnan(correlation(pairs * [1, 0]))
    assert np.isnan(ratio(pairs * [1, 0]))


def test_a_table_of_clips_is_that_of_its_rows_in_any_parts() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 2))
    order, sources = [f"c{i}" for i in range(40)], [f"s{i % 8}" for i in range(40)]
    one, other = ClusteredRows(2), ClusteredRows(2)
    for i in range(40):
        (one if i % 3 else other).add(order[i], sources[i], rows[i])
    one.merge(other)
    found = one.estimate(ratio, order=order, columns=(0, 1))
    assert found == resampled(rows, sources, ratio)
    assert one.estimate(mean, order=order[:8], columns=(1,)).num_clips == 8
    assert np.isnan(ClusteredRows(2).estimate(mean, order=order, columns=(0,)).value)


def test_sums_of_clusters_merge() -> None:
    whole, one, other = ClusteredSums(2), ClusteredSums(2), ClusteredSums(2)
    for i in range(20):
        source, values = f"s{i % 5}", [float(i), 1.0]
        whole.add(source, values)
        (one if i % 3 else other).add(source, values)
    one.merge(other)
    a, b = whole.ratio(), one.ratio()
    assert (a.value, a.num_clips, a.num_sources) == (9.5, 20, 5)
    assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high))
    assert a.low is not None
    assert a.high is not None
    assert a.low < 9.5 < a.high


def test_intervals_of_means_are_as_wide_as_those_of_other_sources() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        sums = ClusteredSums(2)
        for source in range(30):
            centre = rng.normal()
            for _ in range(3):
                sums.add(f"{trial}/{source}", [centre + 0.1 * rng.normal(), 1.0])
        estimate = sums.ratio()
        covered += (estimate.low or 0) <= 0 <= (estimate.high or 0)
    assert 50 <= covered <= 60  # of a nominal 57
