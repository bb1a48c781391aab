"""What the measures have gathered, as rows, plots, exhibits and notes."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256 as sha256_of

from cinnema.data.dataset import PackedDataset
from cinnema.evaluation.assembly import MODEL, Task
from cinnema.evaluation.baselines import (
    Baseline,
    Frozen,
    NearestTraining,
    OtherFutures,
    Reconstructed,
    Sampled,
)
from cinnema.evaluation.examples import exhibits_of
from cinnema.evaluation.metrics.base import REAL, Metric
from cinnema.evaluation.metrics.likeness import PerceptualLikeness
from cinnema.evaluation.results import Cell, Curve, Evaluation, Example, Missing, Row
from cinnema.evaluation.settings import EvaluationSettings

_MANY_SOURCES = 10
_MANY_CLIPS = 256


def sum_up(
    task: Task,
    contestants: Sequence[Baseline],
    measures: Sequence[Metric],
    settings: EvaluationSettings,
    *,
    sha256: str,
    seconds: float,
) -> Evaluation:
    """Return all that was found.

    Args:
        task: What was measured.
        contestants: In the order of the rows.
        measures: In the order of the columns, with all that they have seen.
        settings: Of the run.
        sha256: Of the model's file.
        seconds: How long it took.
    """
    manifest = task.dataset.manifest
    rows = _rows(contestants, measures)
    names = [row.name for row in rows]
    curves = [curve for measure in measures for curve in measure.curves(names)]
    used = [found for found in task.backbones.values() if found.path is not None]
    return Evaluation(
        weights={"name": task.model.name, "sha256": sha256},
        data={
            "name": manifest.name,
            "split": settings.split,
            "size": str(manifest.size),
            "sha256": _manifest_hash(task.dataset),
        },
        protocol={"name": task.protocol.name, "about": task.protocol.about},
        settings=asdict(settings)
        | {
            "samples": task.num_samples,
            "clips": len(task.starts),
            "sources": len({start.source for start in task.starts}),
        },
        backbones={found.backbone.title: found.sha256 for found in used},
        columns=tuple(column for measure in measures for column in measure.columns),
        rows=tuple(rows),
        curves=(*curves, *_diversity_against_quality(rows)),
        exhibits=tuple(_exhibits(task, contestants, measures)),
        notes=(*_notes(task), *_note_on_other_futures(task, contestants)),
        seconds=seconds,
    )


def _rows(contestants: Sequence[Baseline], measures: Sequence[Metric]) -> list[Row]:
    def cells(row: str) -> dict[str, Cell]:
        return {name: cell for m in measures for name, cell in m.cells(row).items()}

    about = "half of the source videos against the other half: the floor of a distance"
    real = Row(name=REAL, kind="real", about=about, cells=cells(REAL))
    others = [
        Row(name=c.name, kind=c.kind, about=c.about, sees_real=c.sees_real, cells=cells(c.name))
        for c in contestants
    ]
    return [real, *others]


def _diversity_against_quality(rows: Sequence[Row]) -> Iterator[Curve]:
    x, y = "LPIPS (VGG16)", "DIV-I3D"
    points = {
        row.name: (row.cells[x], row.cells[y]) for row in rows if x in row.cells and y in row.cells
    }
    known = {
        name: (near.value, apart.value)
        for name, (near, apart) in points.items()
        if not isinstance(near, Missing) and not isinstance(apart, Missing)
    }
    if known:
        yield Curve(
            title="Diversity against quality",
            x_label=x,
            y_label=y,
            x={name: (near,) for name, (near, _) in known.items()},
            y={name: (apart,) for name, (_, apart) in known.items()},
            style="points",
            about="to the left is nearer to what came, up is more different; noise is far right "
            "and up",
        )


def _exhibits(
    task: Task, contestants: Sequence[Baseline], measures: Sequence[Metric]
) -> list[Example]:
    main = next((m for m in measures if isinstance(m, PerceptualLikeness)), None)
    if main is None:
        return []
    shown = (Sampled, Frozen, Reconstructed, NearestTraining)
    return exhibits_of(
        main.ranking(MODEL),
        task.starts,
        [c for c in contestants if type(c) in shown],
        task.dataset,
        num_frames=task.model.num_frames,
        measure=main.columns[0].name,
    )


def _notes(task: Task) -> Iterator[str]:
    sources = len({start.source for start in task.starts})
    if sources < _MANY_SOURCES:
        yield f"The clips are of {sources} source videos only: intervals are rough, or missing."
    if len(task.starts) < _MANY_CLIPS:
        yield (
            f"Distances of sets rest on {len(task.starts)} clips: FVD, DTFVD and FID of so few are "
            "larger than of many, so compare them within this table only."
        )
    if task.no_training:
        yield f"No row for simple priors and the nearest training clip: {task.no_training}."
    if task.protocol.lag:
        yield "The real frames are one step behind the generated ones, as published."
    for found in task.backbones.values():
        if found.path is not None and found.state == "another":
            yield f"{found.path.name} is not the known file of {found.backbone.title}."


def _note_on_other_futures(task: Task, contestants: Sequence[Baseline]) -> Iterator[str]:
    """Why there is no such row, or that its best is of fewer than the best of samples."""
    row = OtherFutures.name
    other = next((c for c in contestants if isinstance(c, OtherFutures)), None)
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


def _manifest_hash(dataset: PackedDataset) -> str:
    return sha256_of(dataset.manifest.to_json()).hexdigest()
