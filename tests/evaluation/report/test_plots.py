"""Plots and their axes: that points lie where the numbers say."""

import dataclasses
import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinnema.evaluation.report.axes import make_axis, round_ticks
from cinnema.evaluation.report.labels import spread_labels
from cinnema.evaluation.report.plots import banded_rows, looks_of, plot
from cinnema.evaluation.report.tables import by_kind
from cinnema.evaluation.results import Curve, Evaluation, Row

finite = st.floats(-1e6, 1e6)


@given(finite, st.floats(1e-3, 1e6), st.integers(2, 12))
def test_ticks_are_few_and_lie_between_the_ends(low: float, length: float, most: int) -> None:
    high = low + length
    ticks = round_ticks(low, high, most=most)
    assert 1 <= len(ticks) <= most
    slack = 1e-6 * max(abs(low), abs(high), 1e-3)
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    steps = [b - a for a, b in pairwise(ticks)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-4) for step in steps)


def test_ticks_are_round() -> None:
    assert round_ticks(0, 1.1) == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert round_ticks(-0.013, 0.021) == (-0.01, 0.0, 0.01, 0.02)
    assert round_ticks(0, 16, most=7, whole=True) == (0, 5, 10, 15)
    assert round_ticks(0, 3, most=7, whole=True) == (0, 1, 2, 3)


@given(st.lists(finite, min_size=1, max_size=20))
def test_an_axis_holds_its_numbers(numbers: list[float]) -> None:
    axis = make_axis(numbers, start=250, end=20)
    assert all(20 - 1e-6 <= axis.place(n) <= 250 + 1e-6 for n in numbers)
    assert axis.place(axis.low) == pytest.approx(250)
    assert axis.place(axis.high) == pytest.approx(20)


def test_an_axis_starts_at_zero_only_where_the_numbers_reach_down_to_it() -> None:
    assert make_axis([0.2, 0.9], start=0, end=1).low == 0
    assert make_axis([20.0, 21.0], start=0, end=1).low > 19
    assert make_axis([math.nan], start=0, end=1).low == 0
    assert make_axis([3.0, 3.0], start=0, end=1).low < 3


def test_labels_of_ticks_have_the_digits_of_their_step() -> None:
    axis = make_axis([-0.4, 0.9], start=0, end=1, most=8)
    assert axis.labels() == ("−0.4", "−0.2", "0.0", "0.2", "0.4", "0.6", "0.8")
    assert make_axis([0, 40_000], start=0, end=1, most=4).labels()[-1] == "40,000"


def series(svg: str) -> list[str]:
    return re.findall(r'<g class="series.*?</g>', svg)


def test_a_line_goes_through_its_points_and_breaks_at_gaps(evaluation: Evaluation) -> None:
    svg = str(plot(evaluation.curves[0], looks_of(by_kind(evaluation.rows))))
    frozen, model = series(svg)  # the model is drawn last, on top
    assert "hue-model0" in model
    line = re.search(r'class="line" d="M([^"]*)"', model)
    assert line is not None
    places = [tuple(map(float, point.split())) for point in line[1].split("L")]
    assert len(places) == 3
    assert places[0][0] < places[1][0] < places[2][0]
    assert places[0][1] > places[1][1] > places[2][1]  # higher numbers are higher up
    assert places[1][1] - places[2][1] == pytest.approx(places[0][1] - places[1][1], abs=0.11)
    assert len(re.findall(r'class="line"', frozen)) == 2
    assert frozen.count('class="marker') == 2


def test_a_band_reaches_from_low_to_high(evaluation: Evaluation) -> None:
    svg = str(plot(evaluation.curves[0], looks_of(by_kind(evaluation.rows))))
    (band,) = re.findall(r'class="band" d="M([^"]*)"', svg)
    assert len(band.split("L")) == 6


def test_of_many_bands_only_those_of_models_are_drawn() -> None:
    rows = [Row(name="m", kind="model"), *(Row(name=n, kind="baseline") for n in "abc")]
    values = dict.fromkeys("mabc", (1.0, 2.0))
    curve = Curve(title="t", x_label="x", y_label="y", x=values, y=values, low=values,
                  high=values | {"a": (9.0, 9.0)})  # fmt: skip
    assert banded_rows(curve, looks_of(rows)) == ["m"]
    assert str(plot(curve, looks_of(rows))).count('class="band"') == 1
    few = dataclasses.replace(curve, low={"a": (0.0, 0.0), "m": (0.0, 0.0)})
    assert banded_rows(few, looks_of(rows)) == ["m", "a"]


def test_single_points_carry_their_names_and_many_a_legend(evaluation: Evaluation) -> None:
    looks = looks_of(by_kind(evaluation.rows))
    scatter = str(plot(evaluation.curves[1], looks))
    assert re.findall(r'class="label [^>]*>([^<]*)<', scatter) == [
        "cINN", "frozen &lt;first&gt; frame",
    ]  # fmt: skip
    assert 'class="legend"' not in scatter
    quantiles = str(plot(evaluation.curves[2], looks))
    assert 'class="legend"' in quantiles
    assert 'class="diagonal"' in quantiles


def test_a_curve_without_a_number_says_so() -> None:
    curve = Curve(title="t", x_label="x", y_label="y", x={"a": (1.0,)}, y={"a": (math.nan,)})
    assert "No number to plot" in plot(curve, {})


def test_a_curve_of_what_is_no_row_is_drawn_too() -> None:
    curve = Curve(title="t", x_label="x", y_label="y", x={"real": (1.0, 2.0)},
                  y={"real": (1.0, 2.0)})  # fmt: skip
    assert "hue-real" in plot(curve, {})


def test_no_two_baselines_look_the_same() -> None:
    rows = [Row(name=str(i), kind="baseline") for i in range(8)]
    looks = list(looks_of(rows).values())
    assert len({look.hue for look in looks}) == 8
    assert len({(look.dash, look.marker) for look in looks}) == 8


@given(st.integers(0, 2**32 - 1))
def test_names_stay_inside_the_plot(seed: int) -> None:
    x, y = 40 + seed % 380, 30 + (seed // 380) % 220
    labels = spread_labels(
        {"linear-Gaussian prior": (x, y), "cINN": (x, y)}, left=36, right=426, top=26, bottom=260
    )
    for label in labels:
        width = 6.2 * len(label.text)
        left = label.x - {"start": 0, "middle": width / 2, "end": width}[label.anchor]
        assert left >= 36
        assert left + width <= 426
    assert (labels[0].x, labels[0].y) != (labels[1].x, labels[1].y)
