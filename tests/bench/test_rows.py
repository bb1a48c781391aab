"""Rows of the bench, cases that take turns, and its sections."""

import pytest

from cinnema.bench import report, sections
from cinnema.bench.rows import Row, Settings, alternate, durations


def row(unit: str, *values: float, baseline: Row | None = None) -> Row:
    return Row(name="row", unit=unit, values=values, baseline=baseline)


def test_half_the_duration_is_twice_as_fast() -> None:
    assert row("s", 1.0, 2.0, baseline=row("s", 2.0, 4.0)).ratio == 2


def test_twice_the_frames_a_second_is_twice_as_fast() -> None:
    assert row("frames/s", 6.0, baseline=row("frames/s", 3.0)).ratio == 2


def test_the_ratio_is_the_median_over_turns_and_not_that_of_medians() -> None:
    slow_machine_in_turn_two = row("s", 1.0, 10.0, 1.0, baseline=row("s", 3.0, 30.0, 2.0))
    assert slow_machine_in_turn_two.ratio == 3


def test_a_row_without_values_has_neither_median_nor_ratio() -> None:
    missing = Row(name="zuko", unit="s", values=(), baseline=row("s", 1.0), note="not installed")
    assert missing.as_dict()["median"] is None
    assert missing.ratio is None
    assert "not installed" in report.as_line(missing)


def test_cases_take_turns_after_a_warm_up() -> None:
    seen: list[str] = []
    costs = alternate({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, runs=2)
    assert "".join(seen) == "ababab"
    assert [len(costs[name].wall) for name in "ab"] == [2, 2]


def test_all_durations_but_the_baseline_are_compared_with_it() -> None:
    cases = {"b": lambda: sum(range(1000)), "a": lambda: None}
    b, a = durations(cases, runs=3, baseline="a")
    assert (a.name, a.baseline, b.baseline) == ("a", None, a)
    assert b.ratio is not None
    assert b.ratio < 1


@pytest.mark.parametrize("name", sections.SECTIONS)
def test_every_section_runs_and_names_its_rows_apart(name: str) -> None:
    rows = list(sections.find_section(name)(Settings(runs=1, quick=True)))
    assert rows
    assert len({one.name for one in rows}) == len(rows)
    for one in rows:
        assert one.note if one.median is None else one.median > 0
