"""Numbers, their intervals, and how they are told."""

import numpy as np
import pytest

from cinnema.evaluation.known_truth.results import Aim, Number, TaskResult, as_text
from cinnema.evaluation.statistics.bootstrap import (
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


@pytest.mark.parametrize(
    ("aim", "value", "is_met"),
    [
        (Aim(way="at most", limit=2), 2.0, True),
        (Aim(way="at most", limit=2), 2.1, False),
        (Aim(way="at least", limit=2), 2.0, True),
        (Aim(way="at least", limit=2), 1.9, False),
        (Aim(way="at most", limit=2), float("nan"), False),
        (Aim(way="at least", limit=2), float("nan"), False),
    ],
)
def test_an_aim_is_met_or_not(aim: Aim, value: float, *, is_met: bool) -> None:
    assert aim.is_met(Estimate(value, None, None, 1, 1)) is is_met


class Told(TaskResult):
    title = "A title"

    def numbers(self) -> list[Number]:
        aim = Aim(way="at most", limit=0.5)
        sure = Estimate(0.25, 0.2, 0.3, 12, 4)
        none = Estimate(float("nan"), None, None, 0, 0)
        return [
            Number(what="error", of="model", estimate=sure, unit="m", aim=aim),
            Number(what="error", of="baseline", estimate=none, unit="m"),
        ]

    def notes(self) -> list[str]:
        return ["a note"]


def test_a_table_tells_number_interval_counts_and_aim() -> None:
    text = as_text(Told())
    for part in ("A title", "error (m)", "0.250", "0.200 to 0.300", "12/4", "at most 0.5", "met"):
        assert part in text
    assert text.count("error (m)") == 1
    assert "note     a note" in text


def test_json_has_none_where_there_is_no_number() -> None:
    model, baseline = (number.to_dict() for number in Told().numbers())
    assert model["aim"] == "at most 0.5"
    assert model["is_met"] is True
    assert (model["low"], model["num_sources"]) == (0.2, 4)
    assert baseline["value"] is None
    assert "aim" not in baseline
