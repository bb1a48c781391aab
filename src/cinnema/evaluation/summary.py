"""Assembles rows, plots, examples and notes of an evaluation from its metrics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cinnema.core.text import plural
from cinnema.evaluation.baselines import (
    Baseline,
    Frozen,
    NearestTraining,
    OtherFutures,
    Reconstructed,
    Sampled,
)
from cinnema.evaluation.metrics.base import Metric, Task, Unavailable
from cinnema.evaluation.metrics.quality import PerceptualQuality
from cinnema.evaluation.results import (
    MODEL,
    REAL,
    Cell,
    Cells,
    Curve,
    Evaluation,
    Example,
    Row,
)
from cinnema.evaluation.statistics.bootstrap import MIN_SOURCES, Estimate

_MANY_SOURCES = 10


def summarise(
    task: Task,
    baselines: Sequence[Baseline],
    metrics: Sequence[Metric],
    settings: Mapping[str, Any],
    *,
    parts: bool = False,
) -> Evaluation:
    """Return the result of an evaluation.

    Args:
        task: The model and the data.
        baselines: The model and the baselines, in the order of the rows.
        metrics: The metrics in the order of the columns, with all that they have accumulated.
        settings: Settings of the run, as JSON values.
        parts: Whether rows also have cells for each label and source.
    """
    rows = _rows(baselines, metrics)
    if parts:
        rows = [_with_parts(row, metrics, task) for row in rows]
    curves = [curve for metric in metrics for curve in metric.curves([row.name for row in rows])]
    used = [found for found in task.backbones.values() if found.path is not None]
    follows = any(metric.uses_futures for metric in metrics)
    return Evaluation(
        weights={"name": task.model.name},
        data=task.clips.facts(),
        protocol={"name": task.protocol.name, "about": task.protocol.about},
        settings={
            **settings,
            "samples": task.num_samples,
            "clips": len(task.clips.starts),
            "sources": len({start.source for start in task.clips.starts}),
        },
        backbones={found.backbone.title: found.sha256 for found in used},
        columns=tuple(column for metric in metrics for column in metric.columns),
        rows=tuple(row for row in rows if row.cells),
        curves=(*curves, *_diversity_against_quality(rows)),
        examples=tuple(_examples(task, baselines, metrics)),
        notes=tuple(_notes(task, baselines, metrics, follows=follows)),
    )


def _rows(baselines: Sequence[Baseline], metrics: Sequence[Metric]) -> list[Row]:
    about = "half of the source videos compared with the other half: the floor of a distance"
    rows = [
        Row(name=REAL, kind="real", about=about),
        *(Row(name=b.name, kind=b.kind, about=b.about, sees_real=b.sees_real) for b in baselines),
    ]
    names = {row.name for row in rows}
    for metric in metrics:
        own = [row for row in metric.rows if row.name not in names]
        rows += own
        names |= {row.name for row in own}
    return [replace(row, cells=_cells(row.name, metrics)) for row in rows]


def _cells(row: str, metrics: Sequence[Metric]) -> dict[str, Cell]:
    """Return a row's cells; the reason of a missing column is in the model's row only."""
    return {
        name: cell
        for metric in metrics
        if row == MODEL or not isinstance(metric, Unavailable)
        for name, cell in metric.cells(row).items()
    }


def _with_parts(row: Row, metrics: Sequence[Metric], task: Task) -> Row:
    """Add the cells of each label and, below it, of each of its sources."""
    labels: dict[str, dict[str, list[str]]] = {}
    for start in task.clips.starts:
        labels.setdefault(start.label, {}).setdefault(start.source, []).append(start.key)
    parts: dict[str, Cells] = {}
    for label, sources in labels.items():
        if len(labels) > 1:
            keys = {key for of_source in sources.values() for key in of_source}
            parts[label or "no label"] = _cells_of(row.name, metrics, task, keys)
        for source, of_source in sources.items():
            name = f"{label}: {source}" if label else source
            parts[name] = _cells_of(row.name, metrics, task, set(of_source))
    return replace(row, parts={name: cells for name, cells in parts.items() if cells})


def _cells_of(row: str, metrics: Sequence[Metric], task: Task, keys: set[str]) -> dict[str, Cell]:
    order = [key for key in task.order if key in keys]
    return {n: cell for metric in metrics for n, cell in metric.cells_of(row, order).items()}


def _diversity_against_quality(rows: Sequence[Row]) -> Iterator[Curve]:
    x, y = "LPIPS (VGG16)", "DIV-I3D"
    points = {}
    for row in rows:
        quality, diversity = row.cells.get(x), row.cells.get(y)
        if isinstance(quality, Estimate) and isinstance(diversity, Estimate):
            points[row.name] = (quality.value, diversity.value)
    if points:
        yield Curve(
            title="Diversity against quality",
            x_label=x,
            y_label=y,
            x={name: (quality,) for name, (quality, _) in points.items()},
            y={name: (diversity,) for name, (_, diversity) in points.items()},
            style="points",
            about="left is nearer to the real clip, up is more diverse; noise is far right and up",
        )


def _examples(
    task: Task, baselines: Sequence[Baseline], metrics: Sequence[Metric]
) -> Iterator[Example]:
    """Yield the best, the median and the worst clip by LPIPS, as some rows continue it."""
    main = next((m for m in metrics if isinstance(m, PerceptualQuality)), None)
    ranking = [] if main is None else main.ranking(MODEL)
    if main is None or not ranking:
        return
    shown = [b for b in baselines if type(b) in (Sampled, Frozen, Reconstructed, NearestTraining)]
    start_of = {start.key: start for start in task.clips.starts}
    places = {"best": 0, "median": (len(ranking) - 1) // 2, "worst": len(ranking) - 1}
    for title, place in places.items():
        key, score = ranking[place]
        clip = task.clips.read(start_of[key])
        yield Example(
            title=f"{title} by {main.columns[0].name}",
            key=key,
            videos={
                "real": clip.frames,
                **{b.name: np.concatenate([clip.frames[:1], b.follow([clip])[0]]) for b in shown},
            },
            score=score,
            fps=float(min(max(task.clips.fps(clip.start), 4.0), 12.0)),
        )


def _notes(
    task: Task, baselines: Sequence[Baseline], metrics: Sequence[Metric], *, follows: bool
) -> Iterator[str]:
    sources = len({start.source for start in task.clips.starts})
    if sources < _MANY_SOURCES:
        how = "missing" if sources < MIN_SOURCES else "rough"
        yield f"The clips are of {plural(sources, 'source video')} only: intervals are {how}."
    for metric in metrics:
        yield from metric.notes()
    if task.no_training and follows:
        yield f"No row for simple priors and the nearest training clip: {task.no_training}."
    if task.protocol.lag:
        yield "The real frames are one step behind the generated ones, as published."
    for found in task.backbones.values():
        if found.path is not None and found.state == "another":
            yield f"{found.path.name} is not the known file of {found.backbone.title}."
    if follows:
        yield from _note_on_other_futures(task, baselines)


def _note_on_other_futures(task: Task, baselines: Sequence[Baseline]) -> Iterator[str]:
    """Yield a note if the row is missing, or if its best is of fewer than K futures."""
    row = OtherFutures.name
    other = next((b for b in baselines if isinstance(b, OtherFutures)), None)
    if other is None:
        yield (
            f"No row for {row}: no evaluated clip shares its first frame with another: simulate "
            "several futures of a start (--futures 2)."
        )
        return
    fewest, most = (min(count, task.num_samples) for count in other.counts)
    if fewest < task.num_samples:
        best = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        yield (
            f"The best of {row} is of {best}, not of {task.num_samples}: there are no more other "
            "clips of a start."
        )
