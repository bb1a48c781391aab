"""Which measures there are for a model, its data and the networks at hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cinnema.backbones.i3d import I3D
from cinnema.backbones.inception import Inception
from cinnema.backbones.lpips import LPIPS, LPIPSNetwork
from cinnema.backbones.registry import BackboneName, Found
from cinnema.data.dataset import PackedDataset
from cinnema.evaluation.baselines import Sampled
from cinnema.evaluation.features import (
    FeatureCache,
    FeatureNetwork,
    Features,
    i3d_network,
    inception_network,
)
from cinnema.evaluation.metrics.base import Metric, Unavailable
from cinnema.evaluation.metrics.control import (
    DirectionError,
    EndPointError,
    end_point_columns,
)
from cinnema.evaluation.metrics.distances import (
    FrameFrechetDistance,
    FrechetDistance,
    TrainingDistance,
    frechet_columns,
)
from cinnema.evaluation.metrics.diversity import (
    ClipDiversity,
    FrameDiversity,
    diversity_column,
)
from cinnema.evaluation.metrics.drift import Drift
from cinnema.evaluation.metrics.latents import Latents, StandardNormal
from cinnema.evaluation.metrics.likeness import (
    PerceptualLikeness,
    PixelLikeness,
    perceptual_columns,
)
from cinnema.evaluation.metrics.motion import Motion
from cinnema.evaluation.metrics.transfer import Transfer
from cinnema.evaluation.precision import choose_precision
from cinnema.evaluation.protocols import Protocol, Start
from cinnema.evaluation.results import Column
from cinnema.evaluation.statistics.bootstrap import hash_of
from cinnema.evaluation.training import Training
from cinnema.models.base import VideoModel
from cinnema.models.flow.priors import LatentPrior

MODEL = Sampled.name

_DRIFTED = 16  # starts that long videos are made of
_TRANSFERRED = 64  # starts whose motion is given to another picture


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is measured, with what.

    Attributes:
        model: In evaluation mode, where the networks are.
        dataset: Its clips.
        starts: Of them, in order.
        protocol: What is compared.
        training: What training clips give, if there are any.
        no_training: Why there is none.
        backbones: What was found of the networks.
        cache: Of features.
        device: Where networks compute.
        num_samples: K.
        seed: Of all draws.
    """

    model: VideoModel
    dataset: PackedDataset
    starts: Sequence[Start]
    protocol: Protocol
    training: Training | None
    no_training: str
    backbones: Mapping[BackboneName, Found]
    cache: FeatureCache | None
    device: torch.device
    num_samples: int
    seed: int
    features: dict[BackboneName, Features] = field(default_factory=dict)

    def path(self, name: BackboneName) -> Path | None:
        """Where a network's file is, if it is anywhere."""
        return self.backbones[name].path

    def lacks(self, *names: BackboneName) -> str:
        """Say why something cannot be measured, for want of networks; empty if it can."""
        missing = [self.backbones[name].backbone for name in names if self.path(name) is None]
        return "; ".join(f"{b.title} is missing: {b.how_to_get}" for b in missing)


def metrics_of(task: Task) -> list[Metric]:
    """Return every measure, in the order of the table; what cannot be measured says why.

    Args:
        task: What is measured.
    """
    return [
        *_likeness(task),
        *_distances(task),
        *_diversity(task),
        Motion(),
        *_control(task),
        _memory(task),
        _drift(task),
        _latents(task),
        _transfer(task),
    ]


def _likeness(task: Task) -> list[Metric]:
    measures: list[Metric] = []
    networks: tuple[tuple[LPIPSNetwork, str, bool], ...] = (
        ("vgg", "VGG16", True),
        ("alex", "AlexNet", False),
    )
    for name, title, is_main in networks:
        reason = task.lacks(name) or _too_small(task, 31 if name == "alex" else 16)
        if reason:
            columns = perceptual_columns(title, num_samples=task.num_samples, is_main=is_main)
            measures.append(Unavailable(columns, reason=reason))
            continue
        lpips = LPIPS.load(name).to(task.device)
        measures.append(
            PerceptualLikeness(
                lpips,
                title=title,
                num_samples=task.num_samples,
                is_main=is_main,
                identity=task.backbones[name].sha256,
                cache=task.cache,
            )
        )
    return [*measures, PixelLikeness()]


def _too_small(task: Task, least: int) -> str:
    size = task.model.size
    return f"frames of {size} pixels are below its {least}" if size < least else ""


def _distances(task: Task) -> list[Metric]:
    i3d = frechet_columns(
        "FVD",
        about="I3D's logits (Kinetics-400), frames resized to 224 as TensorFlow does it",
        is_main=True,
    )
    fid = frechet_columns("FID", about="Inception's features of all frames, resized to 299")
    measures: list[Metric] = [
        _frechet(task, "i3d", i3d, is_main=True),
        _frechet(task, "inception", fid),
    ]
    for frames in (16, 32):
        name: BackboneName = "dti3d_16" if frames == 16 else "dti3d_32"
        columns = frechet_columns(
            f"DTFVD-{frames}",
            about=f"the features of I3D trained on DTDB, clips of {frames} frames, resized to 224 "
            "with aligned corners; never comparable with FVD",
        )
        measures.append(_frechet(task, name, columns))
    return measures


def _frechet(
    task: Task, name: BackboneName, columns: Sequence[Column], *, is_main: bool = False
) -> Metric:
    features = _features(task, name)
    if isinstance(features, str):
        return Unavailable(columns, reason=features)
    if name == "inception":
        return FrameFrechetDistance(features, columns=columns)
    return FrechetDistance(features, columns=columns, is_main=is_main)


def _features(task: Task, name: BackboneName) -> Features | str:
    """Return features by a network, or why there are none."""
    path = task.path(name)
    if path is None:
        return task.lacks(name)
    if name not in task.features:
        task.features[name] = Features(_network(task, name, path), cache=task.cache)
    features = task.features[name]
    length = task.protocol.num_frames + task.protocol.with_x0
    if length < features.network.min_frames:
        return (
            f"it takes clips of {features.network.min_frames} frames or more, these have {length}"
        )
    return features


def _network(task: Task, name: BackboneName, path: Path) -> FeatureNetwork:
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


def _diversity(task: Task) -> list[Metric]:
    one = "" if task.num_samples > 1 else "one future of each start was drawn: give --samples 2"
    vgg = one or task.lacks("vgg")
    measures: list[Metric] = [
        Unavailable(FrameDiversity.columns, reason=vgg)
        if vgg
        else FrameDiversity(
            LPIPS.load("vgg").to(task.device),
            identity=task.backbones["vgg"].sha256,
            cache=task.cache,
        )
    ]
    kinds: tuple[tuple[BackboneName, str, str, float], ...] = (
        ("i3d", "DIV-I3D", "I3D's logits (Kinetics-400)", 1.0),
        ("dti3d_16", "DIV-DTI3D-16", "the features of DTDB's I3D, 16 frames, times 1000", 1e3),
        ("dti3d_32", "DIV-DTI3D-32", "the features of DTDB's I3D, 32 frames, times 1000", 1e3),
    )
    for name, title, of, factor in kinds:
        column = diversity_column(title, of=of)
        features = one or _features(task, name)
        measures.append(
            Unavailable([column], reason=features)
            if isinstance(features, str)
            else ClipDiversity(features, column, factor=factor)
        )
    return measures


def _control(task: Task) -> list[Metric]:
    control = task.dataset.manifest.control
    if control is None:
        return []  # there is nothing to steer by
    if control.kind == "velocity":
        return [DirectionError()]
    if task.training is None:
        return [Unavailable(end_point_columns(control.unit), reason=task.no_training)]
    return [EndPointError(task.training.clips, unit=control.unit)]


def _memory(task: Task) -> Metric:
    features = task.no_training or _features(task, "i3d")
    if isinstance(features, str) or task.training is None:
        return Unavailable(TrainingDistance.columns, reason=str(features))
    return TrainingDistance(features, task.training.clips, protocol=task.protocol)


def _drift(task: Task) -> Metric:
    chosen = sorted((start.key for start in task.starts), key=hash_of)[:_DRIFTED]
    return Drift(
        task.model, row=MODEL, dataset=task.dataset, chosen=frozenset(chosen), seed=task.seed
    )


def _latents(task: Task) -> Metric:
    priors: dict[str, LatentPrior] = {"z ~ N(0, I)": StandardNormal()}
    priors |= task.training.priors if task.training is not None else {}
    return Latents(task.model, row=MODEL, priors=priors, seed=task.seed)


def _transfer(task: Task) -> Metric:
    """Each chosen start's partner is the next one, by a hash, of another source."""
    ordered = sorted(task.starts, key=lambda start: hash_of(start.key))
    partners = {}
    for i, start in enumerate(ordered[:_TRANSFERRED]):
        others = (o for o in ordered[i + 1 :] + ordered[:i] if o.source != start.source)
        partner = next(others, None)
        if partner is not None:
            partners[start.key] = partner
    if not partners:
        return Unavailable(Transfer.columns, reason="transfer needs 2 source videos: give more")
    return Transfer(task.model, row=MODEL, dataset=task.dataset, partners=partners, seed=task.seed)
