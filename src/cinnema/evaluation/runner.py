"""An evaluation: every contestant continues every start, and every measure looks on.

Starts come in batches and are forgotten; what is kept are sums. So 100,000 clips need no more
memory than 100, and processes that share the starts add up to the same numbers.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from cinnema.backbones.registry import BackboneName, Found
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.evaluation.assembly import Task, metrics_of
from cinnema.evaluation.baselines import (
    Baseline,
    Frozen,
    Misled,
    OtherFutures,
    Reconstructed,
    Sampled,
    Shuffled,
    StandardLatent,
)
from cinnema.evaluation.features import FeatureCache
from cinnema.evaluation.metrics.base import Futures, Metric, RealBatch
from cinnema.evaluation.protocols import (
    RealClip,
    Start,
    choose_protocol,
    choose_starts,
    find_other_futures,
    read_clip,
)
from cinnema.evaluation.results import Evaluation
from cinnema.evaluation.settings import EvaluationSettings
from cinnema.evaluation.statistics.bootstrap import hash_of
from cinnema.evaluation.summing import sum_up
from cinnema.evaluation.training import Training, prepare_training
from cinnema.media.pictures import to_tensor
from cinnema.models.base import VideoModel

Progress = Callable[[str, int, int], None]

_CONTROLS = 256


def evaluate_model(
    model: VideoModel,
    dataset: PackedDataset,
    *,
    backbones: Mapping[BackboneName, Found],
    settings: EvaluationSettings | None = None,
    training: PackedDataset | None = None,
    sha256: str = "",
    cache: FeatureCache | None = None,
    device: torch.device | None = None,
    ranks: Ranks | None = None,
    progress: Progress | None = None,
) -> Evaluation | None:
    """Measure a model beside all baselines.

    Args:
        model: Moved to the device and set to evaluation.
        dataset: Clips of the model's size.
        backbones: From `find_backbones`: what is missing is reported as missing.
        settings: How much is measured; see there for the default.
        training: Whose split train the priors are fitted on; the data set itself if None.
        sha256: Of the model's file.
        cache: Of features, between runs.
        device: Where to compute; where the model is if None.
        ranks: The processes that measure together; only this one if None.
        progress: Told what goes on, how many continuations are measured, and of how many.

    Returns:
        What was found; None in all processes but the first.

    Raises:
        UserError: The data do not fit the model or the protocol.
    """
    began = time.monotonic()
    settings, ranks = settings or EvaluationSettings(), ranks or Ranks()
    device = device or next(model.parameters()).device
    model = model.to(device).eval()
    tell = progress if progress is not None and ranks.is_first else _say_nothing
    task = _task(
        model, dataset, training or dataset, settings, backbones, cache, device, progress=tell
    )
    contestants = _contestants(task)
    measures = metrics_of(task)
    share = ranks.shard(task.starts)
    _stream(task, contestants, measures, share, settings.batch_size, progress=tell)
    for measure in measures:  # one after the other, as the sums of some are large
        for sums in ranks.gather_on_first(measure.sums):
            measure.merge(sums)
    if not ranks.is_first:
        return None
    tell("summing up", len(share), len(share))
    return sum_up(
        task, contestants, measures, settings, sha256=sha256, seconds=time.monotonic() - began
    )


def _task(  # noqa: PLR0917 - handed through
    model: VideoModel,
    dataset: PackedDataset,
    training: PackedDataset,
    settings: EvaluationSettings,
    backbones: Mapping[BackboneName, Found],
    cache: FeatureCache | None,
    device: torch.device,
    *,
    progress: Progress,
) -> Task:
    for data in (dataset, training):
        _require_fit(model, data)
    protocol = choose_protocol(
        settings.protocol, dataset.manifest.name, num_frames=model.num_frames
    )
    starts = choose_starts(
        dataset,
        protocol,
        split=settings.split,
        num_frames=model.num_frames,
        most=settings.clips,
        stride=settings.stride,
        seed=settings.seed,
    )
    progress("reading training clips", 0, len(starts))
    fitted, reason = _fitted(model, training, settings)
    return Task(
        model=model,
        dataset=dataset,
        starts=starts,
        protocol=protocol,
        training=fitted,
        no_training=reason,
        backbones=backbones,
        cache=cache,
        device=device,
        num_samples=settings.num_samples,
        seed=settings.seed,
    )


def _require_fit(model: VideoModel, dataset: PackedDataset) -> None:
    manifest = dataset.manifest
    if manifest.size != model.size:
        raise UserError(
            f"{dataset.folder} has frames of {manifest.size} pixels, the model {model.name} takes "
            f"{model.size}: pack it again with --size {model.size}"
        )


def _fitted(
    model: VideoModel, training: PackedDataset, settings: EvaluationSettings
) -> tuple[Training | None, str]:
    if not len(training.indices("train")):
        return None, f"{training.folder} has no training clips: name others with --training"
    try:
        return prepare_training(model, training, stride=settings.stride, seed=settings.seed), ""
    except UserError as error:
        return None, str(error)


def _contestants(task: Task) -> list[Baseline]:
    model, seed = task.model, task.seed
    num_frames = model.num_frames
    others = find_other_futures(task.dataset, task.starts, num_frames=num_frames)
    contestants: list[Baseline] = [
        *([OtherFutures(task.dataset, others, num_frames=num_frames)] if others else []),
        Sampled(model, seed=seed),
        Frozen(),
        Shuffled(seed=seed),
        Reconstructed(model, seed=seed),
        StandardLatent(model, seed=seed),
    ]
    if task.training is not None:
        contestants += task.training.contestants(model, seed=seed)
    if model.control_dim:
        chosen = sorted(task.starts, key=lambda start: hash_of(start.key))[:_CONTROLS]
        clips = (read_clip(task.dataset, s, num_frames=num_frames) for s in chosen)
        controls = [clip.eta for clip in clips if clip.eta is not None]
        if len(controls) > 1:
            contestants.append(Misled(model, np.stack(controls), seed=seed))
    return contestants


def _stream(
    task: Task,
    contestants: Sequence[Baseline],
    measures: Sequence[Metric],
    share: Sequence[Start],
    batch_size: int,
    *,
    progress: Progress,
) -> None:
    """Show every batch to every measure, and forget it."""
    halves = _halves(task.starts)
    done, total = 0, len(share) * len(contestants)
    for first in range(0, len(share), batch_size):
        progress("measuring", done, total)
        real = _real_batch(task, share[first : first + batch_size], halves)
        for measure in measures:
            measure.see_real(real)
        for contestant in contestants:
            for part, count in _parts(contestant, real, most=task.num_samples):
                futures = _futures(task, contestant, part.clips, count)
                for measure in measures:
                    measure.see(part, futures)
            done += len(real.clips)
            progress("measuring", done, total)


def _halves(starts: Sequence[Start]) -> dict[str, int]:
    """Put every second source into the other half; of a single source, every second clip."""
    sources = sorted({start.source for start in starts}, key=hash_of)
    if len(sources) > 1:
        half_of = {source: number % 2 for number, source in enumerate(sources)}
        return {start.key: half_of[start.source] for start in starts}
    keys = sorted((start.key for start in starts), key=hash_of)
    return {key: number % 2 for number, key in enumerate(keys)}


def _real_batch(task: Task, starts: Sequence[Start], halves: Mapping[str, int]) -> RealBatch:
    clips = [read_clip(task.dataset, s, num_frames=task.model.num_frames) for s in starts]
    videos = [task.protocol.real(clip.frames) for clip in clips]
    return RealBatch(
        clips=clips,
        videos=videos,
        x=to_tensor(np.stack(videos)).to(task.device),
        halves=[halves[start.key] for start in starts],
    )


def _parts(contestant: Baseline, real: RealBatch, *, most: int) -> Iterator[tuple[RealBatch, int]]:
    """Cut a batch into starts of which the contestant has as many futures, if it has any."""
    counts = [contestant.num_futures(clip, most=most) for clip in real.clips]
    for count in sorted(set(counts) - {0}):
        yield real.only([i for i, own in enumerate(counts) if own == count]), count


def _futures(task: Task, contestant: Baseline, clips: Sequence[RealClip], count: int) -> Futures:
    frames = [contestant.follow(clips, sample=k) for k in range(count)]
    videos = [
        [
            task.protocol.generated(clip.frames[0], video)
            for clip, video in zip(clips, of_one, strict=True)
        ]
        for of_one in frames
    ]
    return Futures(
        row=contestant.name,
        kind=contestant.kind,
        frames=frames,
        videos=videos,
        x=to_tensor(np.stack([np.stack(of_one) for of_one in videos])).to(task.device),
    )


def _say_nothing(_text: str, _done: int, _total: int) -> None:
    return None
