"""The results table: required values, cells without a number, text and JSON."""

import json

import pytest

from cinnema.evaluation.results import (
    MODEL,
    Column,
    Curve,
    Evaluation,
    Missing,
    Row,
    Target,
    as_text,
)
from cinnema.evaluation.statistics.bootstrap import Estimate

SURE = Estimate(0.25, 0.2, 0.3, 12, 4)
NONE = Estimate(float("nan"), None, None, 0, 0)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    target = Target(kind="at most", limit=0.5)
    columns = (
        Column(name="error", better="lower", unit="m", group="task", target=target),
        Column(name="FVD", better="lower", group="distribution"),
    )
    missing = Missing(reason="the network is missing")
    rows = (
        Row(name=MODEL, kind="model", cells={"error": SURE, "FVD": missing},
            parts={"clouds": {"error": SURE}}),
        Row(name="baseline", kind="baseline", cells={"error": NONE, "FVD": missing}),
    )  # fmt: skip
    curve = Curve(title="over time", x_label="frame", y_label="error", x={MODEL: (1.0, 2.0)},
                  y={MODEL: (0.5, float("nan"))})  # fmt: skip
    return Evaluation(
        weights={"name": "w"}, data={"name": "d"}, protocol={"name": "p", "about": "a"},
        settings={"against": "base"}, backbones={}, columns=columns, rows=rows, curves=(curve,),
        changes={MODEL: {"error": Estimate(-0.1, -0.2, -0.05, 12, 4)}}, notes=("a note",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value", "is_met"),
    [
        ("at most", 2.0, True),
        ("at most", 2.1, False),
        ("at least", 2.0, True),
        ("at least", 1.9, False),
        ("at most", float("nan"), False),
        ("at least", float("nan"), False),
    ],
)
def test_a_required_value_is_reached_or_not(kind: str, value: float, *, is_met: bool) -> None:
    target = Target(kind=kind, limit=2)  # type: ignore[arg-type]
    assert target.is_met(Estimate(value, None, None, 1, 1)) is is_met


def test_the_text_has_values_intervals_counts_parts_and_required_values(
    evaluation: Evaluation,
) -> None:
    text = as_text(evaluation)
    for part in (
        "task",
        "error (m)",
        "0.250  n 12/4",
        "0.200 to 0.300",
        "  clouds",
        "required error, cINN: at most 0.5 m: met (0.250)",
        "missing  FVD: the network is missing",
        "cINN: change from base",
        "-0.100  n 12/4",
        "-0.200 to -0.050",
        "note     a note",
    ):
        assert part in text, part
    assert "distribution" not in text  # a table without any number


def test_json_has_none_where_there_is_no_number(evaluation: Evaluation) -> None:
    values = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    model = values["rows"][MODEL]
    assert model["values"]["error"]["target"] == "at most 0.5"
    assert model["values"]["error"]["is_met"] is True
    assert model["parts"]["clouds"]["error"]["num_sources"] == 4
    assert model["values"]["FVD"] == {"missing": "the network is missing"}
    assert values["rows"]["baseline"]["values"]["error"]["value"] is None
    assert values["curves"]["over time"]["y"] == {MODEL: [0.5, None]}
    assert values["changes"][MODEL]["error"]["value"] == -0.1
    assert [(n["what"], n["of"]) for n in evaluation.numbers()][:2] == [
        ("error", MODEL),
        ("error", "baseline"),
    ]
