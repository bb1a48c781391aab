"""Computes a list of metrics over the starts of a clip set, for the model and the baselines.

Starts are read in batches and not kept: metrics keep sums, or a few numbers for each clip. The
starts are divided among processes, whose sums add up to the same numbers.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from cinnema.backbones.registry import BackboneName, Found
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.data.records import Split
from cinnema.evaluation import MetricName
from cinnema.evaluation.baselines import (
    Baseline,
    Frozen,
    OtherFutures,
    Reconstructed,
    Sampled,
    Shuffled,
    ShuffledControl,
    StandardLatent,
    Training,
    fit_training,
)
from cinnema.evaluation.features import FeatureCache
from cinnema.evaluation.known_truth.reader import EndPointReader
from cinnema.evaluation.metrics.base import Futures, Metric, Progress, RealBatch, Task
from cinnema.evaluation.metrics.registry import METRICS, default_metrics, make_metrics
from cinnema.evaluation.other_motion import OtherMotion
from cinnema.evaluation.protocol import (
    ClipSet,
    PackedClips,
    ProtocolName,
    RealClip,
    Start,
    choose_protocol,
    choose_split,
    choose_starts,
    thin_shared_starts,
)
from cinnema.evaluation.results import Evaluation
from cinnema.evaluation.statistics.bootstrap import hash_of
from cinnema.evaluation.summary import summarise
from cinnema.media.pictures import to_tensor
from cinnema.models.base import VideoModel
from cinnema.models.nature.model import NatureModel

_MAX_TRAINING = 512  # training clips that priors are fitted to and that are looked up
_MAX_CONTROLS = 256


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EvaluationSettings:
    """Settings of an evaluation.

    Attributes:
        only: Names of the metrics; None for all general ones.
        protocol: "aligned", or "paper" for the published pairing of frames, lengths and counts.
        split: Split that is evaluated; None for the first of test, validation and train that has a
            clip that is long enough.
        samples: K, futures of each start by the model and stochastic baselines; None is 5 by the
            paper's protocol, else 2.
        clips: Largest number of starts; None for all, or for what the paper has. For the metric
            "futures" alone it is the number of first frames, each with all its futures.
        stride: Distance between two frames, in frames of the clip; None for natural speed where
            the data say so, else 1.
        seed: Seed of all draws.
        batch_size: Number of starts that the model computes at once. With 1, any number of
            processes gives the same numbers to the last digits; more are faster on a GPU, and
            change numbers by rounding.
        parts: Whether the numbers of each label and source are reported, too, by metrics that keep
            single clips.
    """

    only: tuple[MetricName, ...] | None = None
    protocol: ProtocolName = "aligned"
    split: Split | None = None
    samples: int | None = Field(default=None, ge=1)
    clips: int | None = Field(default=None, ge=2)
    stride: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=1, ge=1)
    parts: bool = False

    @property
    def num_samples(self) -> int:
        """K, the number of futures of each start."""
        return self.samples or (5 if self.protocol == "paper" else 2)

    @property
    def names(self) -> tuple[MetricName, ...]:
        """Names of the metrics."""
        return default_metrics() if self.only is None else self.only

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self) | {"only": None if self.only is None else list(self.only)}


def evaluate_model(
    model: VideoModel,
    dataset: PackedDataset,
    *,
    backbones: Mapping[BackboneName, Found],
    settings: EvaluationSettings | None = None,
    training: PackedDataset | None = None,
    reader: Callable[[], EndPointReader] | None = None,
    against: VideoModel | None = None,
    sha256: str = "",
    cache: FeatureCache | None = None,
    device: torch.device | None = None,
    ranks: Ranks | None = None,
    progress: Progress | None = None,
) -> Evaluation | None:
    """Evaluate a model and all baselines on packed clips.

    Args:
        model: The model; moved to the device and set to evaluation.
        dataset: Packed clips; frames of another size than the model's are stretched to it.
        backbones: Networks from `find_backbones`: a column whose network is missing states it.
        settings: Settings; defaults to `EvaluationSettings()`.
        training: Data whose split train priors are fitted to; defaults to `dataset`.
        reader: Returns the network that predicts end points, for task metrics of robots.
        against: Another model; metrics that support it report paired differences.
        sha256: SHA-256 of the model's file, for the record.
        cache: Cache of features between runs.
        device: Device to compute on; defaults to the model's.
        ranks: The processes that measure together; only this one if None.
        progress: Called with a description, the number of finished continuations, and the total.

    Returns:
        The result; None on all processes but the first.

    Raises:
        UserError: The data do not suit the model, the protocol or a metric.
    """
    settings, ranks = settings or EvaluationSettings(), ranks or Ranks()
    device = device or next(model.parameters()).device
    if progress is None or not ranks.is_first:
        progress = _ignore
    task = _packed_task(model.to(device).eval(), dataset, training or dataset, settings, progress)
    task = replace(task, backbones=backbones, reader=reader, cache=cache)
    other = None if against is None else replace(task, model=against.to(device).eval(), features={})
    return run(task, settings, against=other, sha256=sha256, ranks=ranks)


def compare_likelihood(
    model: VideoModel,
    before: VideoModel,
    clips: ClipSet,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate the held-out likelihood of a model on clips, with the change from another model.

    The same metric and paired differences as `cinnema evaluate --only latents --against`, without
    the priors that are fitted to training clips.

    Args:
        model: The model.
        before: The other model.
        clips: The held-out clips.
        seed: Seed of all draws.
        progress: Called as the evaluation proceeds.
    """
    settings = EvaluationSettings(only=("latents",), seed=seed)
    task = Task(
        model=model.eval(),
        clips=clips,
        protocol=choose_protocol("aligned", clips.name, num_frames=model.num_frames),
        device=next(model.parameters()).device,
        seed=seed,
        progress=progress or _ignore,
    )
    evaluation = run(task, settings, against=replace(task, model=before.to(task.device).eval()))
    assert evaluation is not None
    return evaluation


def run(
    task: Task,
    settings: EvaluationSettings,
    *,
    against: Task | None = None,
    sha256: str = "",
    ranks: Ranks | None = None,
) -> Evaluation | None:
    """Compute metrics over the clips of a task.

    Args:
        task: The model and the data.
        settings: Settings of the evaluation.
        against: The same data with another model, for paired differences.
        sha256: SHA-256 of the model's file, for the record.
        ranks: The processes that measure together; only this one if None.

    Returns:
        The result; None on all processes but the first.

    Raises:
        UserError: A metric does not suit the model or the data.
    """
    began, ranks = time.monotonic(), ranks or Ranks()
    metrics = make_metrics(task, settings.names)
    baselines = _baselines(task)
    _stream(task, baselines, metrics, ranks)
    others = [] if against is None else make_metrics(against, settings.names)
    if against is not None:
        _stream(against, [Sampled(against.model, seed=against.seed)], others, ranks)
    for metric in (*metrics, *others):  # one after the other, as the sums of some are large
        for sums in ranks.gather_on_first(metric.sums):
            metric.merge(sums)
    if not ranks.is_first:
        return None
    task.progress("computing the results", 1, 1)
    evaluation = summarise(task, baselines, metrics, settings.to_dict(), parts=settings.parts)
    return replace(
        evaluation,
        weights={"name": task.model.name, "sha256": sha256},
        changes=_changes(metrics, others),
        settings=dict(evaluation.settings)
        | ({} if against is None else {"against": against.model.name}),
        seconds=time.monotonic() - began,
    )


def _changes(metrics: Sequence[Metric], others: Sequence[Metric]) -> dict[str, dict[str, Any]]:
    """Paired differences by row and column, of metrics that can compute them."""
    found: dict[str, dict[str, Any]] = {}
    for metric, other in zip(metrics, others, strict=False):
        for row in (Sampled.name, Reconstructed.name):
            changes = metric.changes(row, other)
            if changes:
                found.setdefault(row, {}).update(changes)
    return found


def _packed_task(
    model: VideoModel,
    dataset: PackedDataset,
    training: PackedDataset,
    settings: EvaluationSettings,
    progress: Progress,
) -> Task:
    num_frames = model.num_frames
    protocol = choose_protocol(settings.protocol, dataset.manifest.name, num_frames=num_frames)
    split = settings.split
    if split is None:
        split, _ = choose_split(dataset, num_frames=num_frames, stride=settings.stride)
    only_futures = settings.only == ("futures",)
    starts = choose_starts(
        dataset,
        protocol,
        split=split,
        num_frames=num_frames,
        most=None if only_futures else settings.clips,
        stride=settings.stride,
        seed=settings.seed,
    )
    if only_futures:
        starts = thin_shared_starts(dataset, starts, most=settings.clips) or starts
    clips = PackedClips(dataset, starts, num_frames=num_frames, size=model.size, split=split)
    training_clips, reason = _training_clips(model, training, settings)
    task = Task(
        model=model,
        clips=clips,
        protocol=protocol,
        training_clips=training_clips,
        no_training=reason,
        device=next(model.parameters()).device,
        num_samples=settings.num_samples,
        seed=settings.seed,
        batch_size=settings.batch_size,
        progress=progress,
    )
    return _with_training(task, training_clips, settings)


def _training_clips(
    model: VideoModel, training: PackedDataset, settings: EvaluationSettings
) -> tuple[PackedClips | None, str]:
    """Return windows of the split train, or why there are none."""
    if not len(training.indices("train")):
        return None, f"{training.folder} has no training clips: name others with --training"
    num_frames = model.num_frames
    protocol = choose_protocol("aligned", training.manifest.name, num_frames=num_frames)
    try:
        starts = choose_starts(
            training,
            protocol,
            split="train",
            num_frames=num_frames,
            most=_MAX_TRAINING,
            stride=settings.stride,
            seed=settings.seed,
        )
    except UserError as error:
        return None, str(error)
    return PackedClips(training, starts, num_frames=num_frames, size=model.size, split="train"), ""


def _with_training(task: Task, clips: ClipSet | None, settings: EvaluationSettings) -> Task:
    """Fit priors to the training clips, if a metric needs them."""
    if clips is None or not any(METRICS[name].uses_training for name in settings.names):
        return task
    training: Training | None = None
    reason = ""
    try:
        training = fit_training(
            task.model,
            clips,
            seed=task.seed,
            progress=partial(task.progress, "encoding training clips"),
        )
    except UserError as error:
        reason = str(error)
    return replace(task, training=training, no_training=reason)


def _baselines(task: Task) -> list[Baseline]:
    model, seed, clips = task.model, task.seed, task.clips
    others = clips.other_futures()
    baselines: list[Baseline] = [
        *([OtherFutures(clips, others)] if others else []),
        Sampled(model, seed=seed),
        Frozen(),
        Shuffled(seed=seed),
        Reconstructed(model, seed=seed),
        StandardLatent(model, seed=seed),
    ]
    if isinstance(model, NatureModel):
        baselines.append(OtherMotion(model, clips, seed=seed))
    if task.training is not None:
        baselines += task.training.baselines(model, seed=seed)
    if model.control_dim:
        chosen = sorted(clips.starts, key=lambda start: hash_of(start.key))[:_MAX_CONTROLS]
        controls = [eta for eta in map(clips.eta, chosen) if eta is not None]
        if len(controls) > 1:
            baselines.append(ShuffledControl(model, np.stack(controls), seed=seed))
    return baselines


def _stream(
    task: Task, baselines: Sequence[Baseline], metrics: Sequence[Metric], ranks: Ranks
) -> None:
    """Pass every batch to every metric."""
    followed = baselines if any(metric.uses_futures for metric in metrics) else ()
    starts = ranks.shard(_needed(task, metrics))
    halves = _halves(task.clips.starts)
    done, total = 0, len(starts) * max(1, len(followed))
    for batch in task.clips.batches(starts, size=task.batch_size):
        task.progress("measuring", done, total)
        real = _real_batch(task, batch, halves)
        for metric in metrics:
            metric.see_real(real)
        for baseline in followed:
            for part, count in _parts(baseline, real, most=task.num_samples):
                futures = _futures(task, baseline, part.clips, count)
                for metric in metrics:
                    metric.see(part, futures)
            done += len(real.clips)
            task.progress("measuring", done, total)
        done += 0 if followed else len(real.clips)
    task.progress("measuring", total, total)


def _needed(task: Task, metrics: Sequence[Metric]) -> list[Start]:
    """Return the starts that any metric uses."""
    if any(metric.chosen is None for metric in metrics):
        return list(task.clips.starts)
    keys = {key for metric in metrics for key in metric.chosen or ()}
    return [start for start in task.clips.starts if start.key in keys]


def _halves(starts: Sequence[Start]) -> dict[str, int]:
    """Divide the sources into two halves; of a single source, its clips."""
    sources = sorted({start.source for start in starts}, key=hash_of)
    if len(sources) > 1:
        half_of = {source: number % 2 for number, source in enumerate(sources)}
        return {start.key: half_of[start.source] for start in starts}
    keys = sorted((start.key for start in starts), key=hash_of)
    return {key: number % 2 for number, key in enumerate(keys)}


def _real_batch(task: Task, starts: Sequence[Start], halves: Mapping[str, int]) -> RealBatch:
    clips = [task.clips.read(start) for start in starts]
    videos = [task.protocol.real(clip.frames) for clip in clips]
    return RealBatch(
        clips=clips,
        videos=videos,
        x=to_tensor(np.stack(videos)).to(task.device),
        halves=[halves[start.key] for start in starts],
    )


def _parts(baseline: Baseline, real: RealBatch, *, most: int) -> Iterator[tuple[RealBatch, int]]:
    """Group a batch by the baseline's number of futures; starts without any are dropped."""
    counts = [baseline.num_futures(clip, most=most) for clip in real.clips]
    for count in sorted(set(counts) - {0}):
        yield real.only([i for i, own in enumerate(counts) if own == count]), count


def _futures(task: Task, baseline: Baseline, clips: Sequence[RealClip], count: int) -> Futures:
    frames = [baseline.follow(clips, sample=k) for k in range(count)]
    videos = [
        [
            task.protocol.generated(clip.frames[0], video)
            for clip, video in zip(clips, of_one, strict=True)
        ]
        for of_one in frames
    ]
    return Futures(
        row=baseline.name,
        kind=baseline.kind,
        frames=frames,
        videos=videos,
        x=to_tensor(np.stack([np.stack(of_one) for of_one in videos])).to(task.device),
    )


def _ignore(_text: str, _done: int, _total: int) -> None:
    return None
