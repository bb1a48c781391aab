"""Plots: the drawn lines, bands and labels."""

import dataclasses
import math
import re
from collections.abc import Sequence

import pytest

from cinnema.evaluation.report.plots import Theme, banded_rows, draw, shown_rows, styles_of
from cinnema.evaluation.report.tables import by_kind
from cinnema.evaluation.results import Curve, Evaluation, Row

Point = tuple[float, float]


def paths(svg: str, colour: str) -> list[list[Point]]:
    """Return the points of each line of a colour; a gap starts a new line; the legend is last."""
    lines = re.findall(r'<path d="([^"]*)"[^>]*style="fill: none;[^"]* stroke: (#\w+)', svg)
    return [
        [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", piece)]
        for line, stroke in lines
        if stroke == colour
        for piece in re.findall(r"M[^M]*", line)
    ]


def curve_of(**values: Sequence[float]) -> Curve:
    ys = {name: tuple(y) for name, y in values.items()}
    xs = {name: tuple(float(i) for i in range(len(y))) for name, y in ys.items()}
    return Curve(title="t", x_label="time", y_label="error", x=xs, y=ys)


def test_a_line_goes_through_its_points_and_breaks_at_gaps() -> None:
    rows = [Row(name="m", kind="model"), Row(name="b", kind="baseline")]
    styles = styles_of(rows)
    svg = draw(curve_of(m=(1, 2, 4), b=(1, 2, math.nan, 4, 5)), styles, theme="light")
    line, _ = paths(svg, styles["m"].colour("light"))
    assert line[0][0] < line[1][0] < line[2][0]
    assert line[0][1] > line[1][1] > line[2][1]  # larger values are higher up
    assert line[1][1] - line[2][1] == pytest.approx(2 * (line[0][1] - line[1][1]), abs=1e-3)
    assert list(map(len, paths(svg, styles["b"].colour("light"))))[:-1] == [2, 2]


def test_of_many_bands_only_those_of_models_are_drawn() -> None:
    rows = [Row(name="m", kind="model"), *(Row(name=n, kind="baseline") for n in "abc")]
    lines = curve_of(m=(1, 2), a=(1, 2), b=(1, 2), c=(1, 2))
    many = dataclasses.replace(lines, low=lines.y, high=lines.y)
    assert banded_rows(many, styles_of(rows)) == ["m"]
    few = dataclasses.replace(many, low={"a": (0.0, 0.0), "m": (0.0, 0.0)})
    assert banded_rows(few, styles_of(rows)) == ["m", "a"]
    svgs = [draw(curve, styles_of(rows), theme="light") for curve in (lines, many, few)]
    assert [svg.count("FillBetweenPolyCollection_") for svg in svgs] == [0, 1, 2]


def test_rows_are_drawn_in_the_order_of_the_table_without_those_without_numbers() -> None:
    styles = styles_of([Row(name=n, kind="baseline") for n in ("b", "none", "a")])
    curve = curve_of(a=(1, 2), other=(1, 2), none=(math.nan, math.inf), b=(1, 2))
    assert shown_rows(curve, styles) == ["other", "b", "a"]


def test_a_curve_without_a_number_is_empty_axes() -> None:
    assert draw(curve_of(a=(math.nan,)), {}, theme="light").startswith("<svg")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_styles_of_curves_are_drawn_in_both_themes(
    evaluation: Evaluation, theme: Theme
) -> None:
    styles = styles_of(by_kind(evaluation.rows))
    for curve in evaluation.curves:
        assert styles["cINN"].colour(theme) in draw(curve, styles, theme=theme)


def test_a_plot_is_the_same_each_time(evaluation: Evaluation) -> None:
    first, again = (draw(evaluation.curves[1], {}, theme="light") for _ in range(2))
    assert first == again


def test_no_two_baselines_look_the_same() -> None:
    styles = list(styles_of([Row(name=str(i), kind="baseline") for i in range(8)]).values())
    for theme in ("light", "dark"):
        assert len({style.colour(theme) for style in styles}) == 8
    assert len({(tuple(style.dash), style.marker) for style in styles}) >= 4
