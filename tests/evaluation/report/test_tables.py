"""Tables: cells, their footnotes, and the best of a column."""

import dataclasses
import math
from collections.abc import Sequence

import pytest

from cinnema.evaluation.report.tables import (
    CellView,
    Footnotes,
    TableView,
    best_rows,
    not_measured,
    shown,
    tables_of,
)
from cinnema.evaluation.results import Better, Column, Evaluation, Missing, Row, RowKind
from cinnema.evaluation.statistics.bootstrap import Estimate


def row(name: str, value: float, kind: RowKind = "baseline", *, sees_real: bool = False) -> Row:
    cells = {"x": Estimate(value, None, None, num_clips=1, num_sources=1)}
    return Row(name=name, kind=kind, sees_real=sees_real, cells=cells)


def best(better: Better, rows: Sequence[Row], *, digits: int = 3) -> set[str]:
    return best_rows(Column(name="x", better=better, digits=digits), rows)


@pytest.fixture(scope="module")
def footnotes() -> Footnotes:
    return Footnotes()


@pytest.fixture(scope="module")
def tables(evaluation: Evaluation, footnotes: Footnotes) -> dict[str, TableView]:
    found = tables_of(evaluation.columns, evaluation.rows, footnotes)
    return {table.title: table for table in found}


def cells_of(table: TableView, name: str) -> dict[str, CellView]:
    (found,) = [r for _, rows in table.bodies for r in rows if r.name == name]
    return {column.name: view for column, view in zip(table.columns, found.cells, strict=True)}


def test_each_group_is_a_table_of_its_rows_by_kind(tables: dict[str, TableView]) -> None:
    rows = {
        title: [(kind, [row.name for row in rows]) for kind, rows in table.bodies]
        for title, table in tables.items()
    }
    real, model = ("real", ["real against real"]), ("model", ["cINN"])
    frozen, bound = "frozen <first> frame", "reconstruction"
    assert rows == {
        "Quality": [model, ("baseline", [frozen, bound])],
        "Distribution": [real, model, ("baseline", [frozen])],
        "Motion": [real, model, ("baseline", [frozen])],
    }


def test_cells_have_interval_counts_and_reason(
    tables: dict[str, TableView], footnotes: Footnotes
) -> None:
    frozen = cells_of(tables["Quality"], "frozen <first> frame")
    assert frozen["LPIPS"] == CellView(value="0.265", low="0.255", high="0.275", counts=(23, 8))
    assert frozen["PSNR"] == CellView(value="20.10", counts=(24, 8), is_best=True)
    missing = cells_of(tables["Distribution"], "cINN")["FVD"]
    assert footnotes.reasons[missing.footnote - 1] == "12 clips are too few to extrapolate"


def test_columns_without_a_number_are_listed_once_by_reason(evaluation: Evaluation) -> None:
    reason = "no Inception file: give its folder with --backbones"
    assert not_measured(evaluation.columns, evaluation.rows) == {reason: "FID"}
    cells = {name: Missing(reason="got 2") for name in "xy"}
    columns = [Column(name=name, better="lower") for name in "xyz"]
    assert not_measured(columns, [Row(name="m", kind="model", cells=cells)]) == {
        "got 2": "x, y",
        "no row has it": "z",
    }


def test_parts_are_rows_below_theirs(evaluation: Evaluation) -> None:
    model = evaluation.rows[1]
    parted = dataclasses.replace(model, parts={"few clips": {"LPIPS": model.cells["LPIPS"]}})
    (table,) = tables_of(evaluation.columns[:1], [parted], Footnotes())
    ((_, rows),) = table.bodies
    assert [(row.name, row.is_part) for row in rows] == [("cINN", False), ("few clips", True)]
    assert rows[1].cells[0].value == "0.231"


def test_the_best_does_not_see_the_real_clip(tables: dict[str, TableView]) -> None:
    quality = {name: cells_of(tables["Quality"], name) for name in ("cINN", "reconstruction")}
    assert quality["cINN"]["LPIPS"].is_best
    assert not quality["reconstruction"]["LPIPS"].is_best


@pytest.mark.parametrize(
    ("better", "expected"), [("lower", {"low"}), ("higher", {"high"}), ("real", {"middle"})]
)
def test_best_is_what_the_column_says(better: Better, expected: set[str]) -> None:
    rows = [row("low", 1.0), row("high", 9.0), row("middle", 6.0), row("real", 5.0, "real")]
    assert best(better, rows) == expected


def test_values_equal_as_shown_share_the_first_place() -> None:
    rows = [row("a", 0.1001), row("b", 0.1004), row("c", 0.1006)]
    assert best("lower", rows) == {"a", "b"}


def test_no_row_is_the_best_alone_nor_without_the_real_value() -> None:
    assert best("lower", [row("a", 1.0), row("b", math.nan)]) == set()
    assert best("lower", [row("a", 1.0), row("b", 0.5, sees_real=True)]) == set()
    assert best("real", [row("a", 1.0), row("b", 2.0)]) == set()


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (1234.56, 1, "1\u202f234.6"), (-0.5, 2, "−0.50"), (7.4e-6, 3, "7.4·10⁻⁶"),
        (-2e-4, 3, "−2.0·10⁻⁴"), (0.0, 3, "0.000"), (math.nan, 3, "–"), (math.inf, 1, "–"),
        (0.0005, 3, "0.001"), (12.0, 0, "12"),
    ],
)  # fmt: skip
def test_numbers_are_shown_as_readers_expect(value: float, digits: int, expected: str) -> None:
    assert shown(value, digits) == expected


def test_the_ends_of_an_interval_are_written_as_the_number_is() -> None:
    assert shown(-0.0002, 2, like=0.5) == "0.00"
    assert shown(0.0002, 2, like=0.0001) == "2.0·10⁻⁴"
