"""Registry of all metrics by name, and their factories."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cinnema.backbones.i3d import I3D
from cinnema.backbones.inception import Inception
from cinnema.backbones.lpips import LPIPS, LPIPSNetwork
from cinnema.backbones.registry import BackboneName
from cinnema.core.errors import UserError
from cinnema.evaluation import MetricName
from cinnema.evaluation.features import (
    FeatureNetwork,
    Features,
    choose_precision,
    i3d_network,
    inception_network,
)
from cinnema.evaluation.known_truth.direction import Direction, Edit
from cinnema.evaluation.known_truth.end_point import EndPoint
from cinnema.evaluation.known_truth.futures import Futures
from cinnema.evaluation.known_truth.swap import Swap
from cinnema.evaluation.known_truth.transfer import Transfer
from cinnema.evaluation.metrics.base import Metric, Task, Unavailable
from cinnema.evaluation.metrics.control import DirectionError, EndPointError, end_point_columns
from cinnema.evaluation.metrics.distances import (
    FrameFrechetDistance,
    FrechetDistance,
    TrainingDistance,
    frechet_columns,
)
from cinnema.evaluation.metrics.diversity import ClipDiversity, FrameDiversity, diversity_column
from cinnema.evaluation.metrics.kernel import KernelDistance, kernel_columns
from cinnema.evaluation.metrics.latents import Latents
from cinnema.evaluation.metrics.long_videos import LongVideos
from cinnema.evaluation.metrics.motion import Motion
from cinnema.evaluation.metrics.nature import MotionByKind, StillAndMoving
from cinnema.evaluation.metrics.quality import PerceptualQuality, PixelQuality, perceptual_columns
from cinnema.evaluation.metrics.transfer import MotionKept

_Make = Callable[[Task], list[Metric]]


@dataclass(frozen=True)
class Entry:
    """Registry entry of a metric.

    Attributes:
        make: Makes the metric for a task; raises a UserError if the model or the data are not of
            the kind that it measures.
        uses_training: Whether it needs training clips and the priors fitted to them.
        is_default: Whether it is computed unless metrics are named.
    """

    make: _Make
    uses_training: bool = False
    is_default: bool = False


def make_metrics(task: Task, names: Sequence[MetricName]) -> list[Metric]:
    """Return metrics in the order of the table; cells of unavailable ones state the reason.

    Args:
        task: The evaluation.
        names: Names of the metrics.

    Raises:
        UserError: A task metric, or one of some kinds of models, does not suit the model or the
            data.
    """
    return [metric for name in METRICS if name in names for metric in METRICS[name].make(task)]


def default_metrics() -> tuple[MetricName, ...]:
    """Return the names of the metrics that are computed unless some are named."""
    return tuple(name for name, entry in METRICS.items() if entry.is_default)


def _lpips(task: Task, name: LPIPSNetwork) -> list[Metric]:
    title, least = ("VGG16", 16) if name == "vgg" else ("AlexNet", 31)
    is_main, size = name == "vgg", task.model.size
    reason = task.missing(name)
    if not reason and size < least:
        reason = f"frames of {size} pixels are below its {least}"
    if reason:
        columns = perceptual_columns(title, num_samples=task.num_samples, is_main=is_main)
        return [Unavailable(columns, reason=reason)]
    return [
        PerceptualQuality(
            LPIPS.load(name).to(task.device),
            title=title,
            num_samples=task.num_samples,
            is_main=is_main,
            identity=task.backbones[name].sha256,
            cache=task.cache,
        )
    ]


def _kernel(task: Task) -> list[Metric]:
    features = _features(task, "i3d")
    if isinstance(features, str):
        return [Unavailable(kernel_columns(task.clips.starts), reason=features)]
    return [KernelDistance(features, task.clips)]


_FRECHET: dict[BackboneName, tuple[str, str]] = {
    "i3d": ("FVD", "I3D's logits (Kinetics-400), frames resized to 224 as TensorFlow does it"),
    "inception": ("FID", "Inception's features of all frames, resized to 299"),
    "dti3d_16": (
        "DTFVD-16",
        "the features of I3D trained on DTDB, clips of 16 frames, resized to 224 with aligned "
        "corners; never comparable with FVD",
    ),
    "dti3d_32": (
        "DTFVD-32",
        "the features of I3D trained on DTDB, clips of 32 frames, resized to 224 with aligned "
        "corners; never comparable with FVD",
    ),
}


def _frechet(task: Task, name: BackboneName) -> list[Metric]:
    title, about = _FRECHET[name]
    is_main = name == "i3d"
    columns = frechet_columns(title, about=about, is_main=is_main)
    features = _features(task, name)
    if isinstance(features, str):
        return [Unavailable(columns, reason=features)]
    if name == "inception":
        return [FrameFrechetDistance(features, columns=columns)]
    return [FrechetDistance(features, columns=columns, is_main=is_main)]


def _features(task: Task, name: BackboneName) -> Features | str:
    """Return features by a network, or why there are none."""
    path = task.path(name)
    if path is None:
        return task.missing(name)
    if name not in task.features:
        task.features[name] = Features(feature_network(task, name, path), cache=task.cache)
    features = task.features[name]
    length = task.protocol.num_frames + task.protocol.with_x0
    if length < features.network.min_frames:
        return (
            f"it takes clips of {features.network.min_frames} frames or more, these have {length}"
        )
    return features


def feature_network(task: Task, name: BackboneName, path: Path) -> FeatureNetwork:
    """Return the feature network of a name.

    Args:
        task: The evaluation.
        name: Name of the network.
        path: Its file.
    """
    sha256, device = task.backbones[name].sha256, task.device
    if name == "inception":
        return inception_network(Inception.from_file(path), sha256, device=device)
    if name == "i3d":
        return i3d_network(
            I3D.kinetics(),
            sha256,
            layer="logits",
            resize="tensorflow",
            device=device,
            precision=choose_precision(device),
        )
    i3d = I3D.from_file(path, frames=16 if name == "dti3d_16" else 32)
    return i3d_network(i3d, sha256, layer="features", resize="corners", device=device)


def _frame_diversity(task: Task) -> list[Metric]:
    reason = _one_future(task) or task.missing("vgg")
    if reason:
        return [Unavailable(FrameDiversity.columns, reason=reason)]
    vgg = LPIPS.load("vgg").to(task.device)
    return [FrameDiversity(vgg, identity=task.backbones["vgg"].sha256, cache=task.cache)]


_DIVERSITY: dict[BackboneName, tuple[str, str, float]] = {
    "i3d": ("DIV-I3D", "I3D's logits (Kinetics-400)", 1.0),
    "dti3d_16": ("DIV-DTI3D-16", "the features of DTDB's I3D, 16 frames, times 1000", 1e3),
    "dti3d_32": ("DIV-DTI3D-32", "the features of DTDB's I3D, 32 frames, times 1000", 1e3),
}


def _clip_diversity(task: Task, name: BackboneName) -> list[Metric]:
    title, of, factor = _DIVERSITY[name]
    column = diversity_column(title, of=of)
    features = _one_future(task) or _features(task, name)
    if isinstance(features, str):
        return [Unavailable([column], reason=features)]
    return [ClipDiversity(features, column, factor=factor)]


def _one_future(task: Task) -> str:
    return "" if task.num_samples > 1 else "one future of each start was drawn: give --samples 2"


def _control(task: Task) -> list[Metric]:
    control = task.clips.control
    if control is None:
        return []
    if control.kind == "velocity":
        return [DirectionError()]
    if task.training is None:
        return [Unavailable(end_point_columns(control.unit), reason=task.no_training)]
    return [EndPointError(task.training.clips, unit=control.unit)]


def _memory(task: Task) -> list[Metric]:
    features = task.no_training or _features(task, "i3d")
    if isinstance(features, str) or task.training is None:
        return [Unavailable(TrainingDistance.columns, reason=str(features))]
    return [TrainingDistance(features, task.training.clips, protocol=task.protocol)]


def _motion_kept(task: Task) -> list[Metric]:
    try:
        return [MotionKept(task)]
    except UserError as error:
        return [Unavailable(MotionKept.columns, reason=str(error))]


def _general(make: _Make, *, uses_training: bool = False) -> Entry:
    return Entry(make, uses_training=uses_training, is_default=True)


METRICS: dict[MetricName, Entry] = {
    "kvd": _general(_kernel, uses_training=True),
    "lpips": _general(partial(_lpips, name="vgg"), uses_training=True),
    "lpips-alex": _general(partial(_lpips, name="alex"), uses_training=True),
    "pixels": _general(lambda _: [PixelQuality()], uses_training=True),
    "fvd": _general(partial(_frechet, name="i3d"), uses_training=True),
    "fid": _general(partial(_frechet, name="inception"), uses_training=True),
    "dtfvd-16": _general(partial(_frechet, name="dti3d_16"), uses_training=True),
    "dtfvd-32": _general(partial(_frechet, name="dti3d_32"), uses_training=True),
    "div-vgg": _general(_frame_diversity, uses_training=True),
    "div-i3d": _general(partial(_clip_diversity, name="i3d"), uses_training=True),
    "div-dti3d-16": _general(partial(_clip_diversity, name="dti3d_16"), uses_training=True),
    "div-dti3d-32": _general(partial(_clip_diversity, name="dti3d_32"), uses_training=True),
    "motion": _general(lambda _: [Motion()], uses_training=True),
    "control": _general(_control, uses_training=True),
    "memory": _general(_memory, uses_training=True),
    "long-videos": _general(lambda task: [LongVideos(task)]),
    "latents": _general(lambda task: [Latents(task)], uses_training=True),
    "motion-kept": _general(_motion_kept),
    "end-point": Entry(lambda task: [EndPoint(task)]),
    "direction": Entry(lambda task: [Direction(task)]),
    "transfer": Entry(lambda task: [Transfer(task)]),
    "edit": Entry(lambda task: [Edit(task)]),
    "swap": Entry(lambda task: [Swap(task)]),
    "futures": Entry(lambda task: [Futures(task)]),
    "kind-motion": Entry(lambda task: [MotionByKind(task)]),
    "still-moving": Entry(lambda _: [StillAndMoving()]),
}
