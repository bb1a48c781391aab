"""Scores of the ablation study: a file with one line per row and seed, and tables."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cinnema.evaluation.statistics.bootstrap import (
    ClusteredSums,
    Estimate,
    joint_estimate,
    ratio_of_sums,
)

Scores = dict[str, list[list[float] | None]]
"""By metric: numerator and denominator of each clip, or None where it is not defined."""

Found = dict[tuple[str, int], dict[str, Any]]
"""Lines of the file, by row and seed."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A column of the tables.

    Attributes:
        name: Key of the scores.
        title: Heading.
        digits: Number of decimals.
    """

    name: str
    title: str
    digits: int = 4


def pairs(top: Tensor, bottom: Tensor | None = None) -> list[list[float] | None]:
    bottom = torch.ones_like(top) if bottom is None else bottom
    return [[round(a, 6), round(b, 6)] for a, b in zip(top.tolist(), bottom.tolist(), strict=True)]


def num_parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def read(path: Path, settings: dict[str, Any]) -> Found:
    """Return the lines of a file with these settings, by row and seed."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {(li["row"], li["seed"]): li for li in lines if li["settings"] == settings}


def sums_of(lines: Iterable[dict[str, Any]], measure: str) -> ClusteredSums | None:
    """Sum a metric over clips and seeds; None if a clip has no value."""
    sums = ClusteredSums(2)
    for line in lines:
        for clip, pair in zip(line["clips"], line["scores"][measure], strict=True):
            if pair is None:
                return None
            sums.add(clip, pair)
    return sums


def table(
    found: Found,
    rows: Sequence[str],
    measures: Sequence[Metric],
    *,
    against: str,
) -> str:
    """Return tables of the scores, and of paired differences from one row, as Markdown."""
    by_row = {row: [line for (name, _), line in found.items() if name == row] for row in rows}
    by_row = {row: lines for row, lines in by_row.items() if lines}
    sums = {
        row: {m.name: sums_of(lines, m.name) for m in measures} for row, lines in by_row.items()
    }
    head = ["", "seeds", "parameters", "CPU s", *(m.title for m in measures)]
    scores = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row, lines in by_row.items():
        cells = [_value(sums[row][m.name], m) for m in measures]
        seconds = np.mean([line["seconds"] for line in lines])
        parameters = f"{lines[0]['parameters'] / 1e6:.2f} M" if lines[0]["parameters"] else "-"
        scores.append([row, str(len(lines)), parameters, f"{seconds:.0f}", *cells])
    if against not in by_row:
        return _markdown(scores)
    head = [f"minus {against}", *(m.title for m in measures), f"{measures[0].title}, seed by seed"]
    gaps = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row, lines in by_row.items():
        if row != against:
            cells = [_gap(sums[row][m.name], sums[against][m.name], m) for m in measures]
            gaps.append([row, *cells, _seeds(lines, by_row[against], measures[0])])
    return _markdown(scores) + "\n\n" + _markdown(gaps)


def _markdown(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _value(sums: ClusteredSums | None, measure: Metric) -> str:
    if sums is None:
        return "-"
    return _shown(sums.ratio(), f".{measure.digits}f")


def _gap(sums: ClusteredSums | None, other: ClusteredSums | None, measure: Metric) -> str:
    if sums is None or other is None:
        return "-"
    gap = joint_estimate(
        [sums, other], lambda parts: ratio_of_sums(parts[0]) - ratio_of_sums(parts[1])
    )
    return _shown(gap, f"+.{measure.digits}f")


def _shown(estimate: Estimate, form: str) -> str:
    value = f"{estimate.value:{form}}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _seeds(
    lines: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], measure: Metric
) -> str:
    """Return the difference of the first metric for each seed."""
    other = {line["seed"]: sums_of([line], measure.name) for line in others}
    gaps = []
    for line in lines:
        sums, base = sums_of([line], measure.name), other.get(line["seed"])
        if sums is not None and base is not None:
            gap = float(ratio_of_sums(sums.whole) - ratio_of_sums(base.whole))
            gaps.append(f"{gap:+.{measure.digits}f}")
    return ", ".join(gaps) or "-"
