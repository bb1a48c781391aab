"""How good and how different the futures are that a model draws for one first frame."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.backbones.lpips import LPIPS
from cinnema.core.randomness import generator_for
from cinnema.data.crop_batches import moving_target
from cinnema.data.crops import SceneCrops
from cinnema.evaluation.motion import circular_spread, mean_drift, mean_speed, pictures, seen_flow
from cinnema.evaluation.scores import ClipScore, Metric
from cinnema.models.warping.model import WarpingModel
from cinnema.models.warping.rendering import Layers
from cinnema.models.warping.stage1 import SceneFeatures

SAMPLE_MEASURES = (
    Metric("LPIPS best", "lpips_best"),
    Metric("mean", "lpips_mean"),
    Metric("frozen", "lpips_frozen"),
    Metric("best below frozen", "best_saved", "lpips_frozen", shows_interval=True),
    Metric("mean below frozen", "mean_saved", "lpips_frozen", shows_interval=True),
)
# Drift is the motion of a region as a whole, speed that of its points; deviations are over seeds.
DIVERSITY_MEASURES = (
    Metric("direction dev.", "direction_spread", digits=1),
    Metric("drift", "drift"),
    Metric("drift dev.", "drift_spread"),
    Metric("speed", "speed"),
    Metric("speed dev.", "speed_spread"),
    Metric("true speed", "true_speed"),
    Metric("still speed", "still_speed", shows_interval=True),
)

# A clip's still region counts from this share of the picture on.
_MIN_SHARE = 0.03


@dataclass(frozen=True)
class _Start:
    x0: Float[Tensor, "1 3 h w"]
    features: SceneFeatures
    z: Float[Tensor, "k z"]


@torch.no_grad()
def score_samples(
    model: WarpingModel,
    lpips: LPIPS,
    crops: SceneCrops,
    *,
    num_clips: int,
    num_samples: int,
    times: Sequence[int],
    seed: int = 0,
) -> list[ClipScore]:
    """Compare samples with what really happened: the best of them, and their mean.

    Args:
        model: In evaluation mode, float32.
        lpips: The distance, on the same device.
        crops: Clips of one scene.
        num_clips: How many of them, at most.
        num_samples: K, futures of each start.
        times: Which frames are compared, from 1 to T.
        seed: Of the samples.
    """
    scores = []
    for index in range(min(num_clips, len(crops))):
        start = _start(model, crops, index, num_samples=num_samples, seed=seed)
        real = pictures(crops.frames[index, list(times)]).to(start.x0.device)
        x0_features = lpips.features(start.x0)
        distances, frozen = [], []
        for truth, rendered in zip(real.split(1), _render(model, start, times), strict=True):
            features = lpips.features(truth)
            distances.append(lpips.distance(lpips.features(rendered), features))
            frozen.append(lpips.distance(features, x0_features))
        of_samples = torch.stack(distances).mean(dim=0)
        values = {
            "lpips_best": float(of_samples.min()),
            "lpips_mean": float(of_samples.mean()),
            "lpips_frozen": float(torch.cat(frozen).mean()),
        }
        values["best_saved"] = values["lpips_frozen"] - values["lpips_best"]
        values["mean_saved"] = values["lpips_frozen"] - values["lpips_mean"]
        scores.append(ClipScore(crops.scene.name, crops.scene.texture, values))
    return scores


@torch.no_grad()
def score_diversity(
    model: WarpingModel, crops: SceneCrops, *, num_clips: int, num_samples: int, seed: int = 0
) -> list[ClipScore]:
    """Measure how the futures of one start differ, and whether the ground stays.

    Directions and drifts are those of the mean flow of what really moves in the clip (the sky,
    on landscapes); still regions are those in which the library sees no motion.

    Args:
        model: In evaluation mode, float32.
        crops: Clips of one scene.
        num_clips: How many of them, at most.
        num_samples: K, futures of each start.
        seed: Of the samples.
    """
    scores = []
    for index in range(min(num_clips, len(crops))):
        start = _start(model, crops, index, num_samples=num_samples, seed=seed)
        moving, known = moving_target(torch.from_numpy(crops.motion[index]))
        flow = seen_flow(
            model.stage1, start.z, _repeat(start.features, num_samples), size=len(moving)
        ).cpu()
        true = torch.from_numpy(crops.flow[index : index + 1])
        true = torch.nn.functional.interpolate(
            true.flatten(1, 2), moving.shape, mode="bilinear", align_corners=False
        ).unflatten(1, (2, true.shape[2]))
        scores.append(
            ClipScore(
                crops.scene.name,
                crops.scene.texture,
                _diversity(
                    flow, true, moving * known, (1 - moving) * known, size=start.x0.shape[-1]
                ),
            )
        )
    return scores


def _diversity(
    flow: Float[Tensor, "k 2 t m m"],
    true: Float[Tensor, "1 2 t m m"],
    moving: Float[Tensor, "m m"],
    still: Float[Tensor, "m m"],
    *,
    size: int,
) -> dict[str, float]:
    drift = mean_drift(flow, moving, size=size)
    drifts, speeds = drift.norm(dim=1), mean_speed(flow, moving, size=size)
    has_still = float(still.mean()) >= _MIN_SHARE
    in_still = float(mean_speed(flow, still, size=size).mean()) if has_still else math.nan
    return {
        "direction_spread": circular_spread(torch.atan2(drift[:, 1], drift[:, 0])),
        "drift": float(drifts.mean()),
        "drift_spread": float(drifts.std(correction=0)),
        "speed": float(speeds.mean()),
        "speed_spread": float(speeds.std(correction=0)),
        "true_speed": float(mean_speed(true, moving, size=size)),
        "still_speed": in_still,
    }


def _start(
    model: WarpingModel, crops: SceneCrops, index: int, *, num_samples: int, seed: int
) -> _Start:
    device = next(model.parameters()).device
    x0 = pictures(crops.frames[index, :1]).to(device)
    features = model.stage1.scene(x0)
    # Each start has futures of its own, so that scenes do not share a lucky sample.
    nu = torch.stack(
        [
            torch.randn(model.config.stage1.z_dim, generator=generator_for(seed + index, sample))
            for sample in range(num_samples)
        ]
    )
    c = model.condition_on(features).expand(num_samples, -1)
    return _Start(x0=x0, features=features, z=model.to_latent(nu.to(device), c)[0])


def _render(
    model: WarpingModel, start: _Start, times: Sequence[int]
) -> list[Float[Tensor, "k 3 h w"]]:
    """Frames of all samples, one batch for each time."""
    stage1, count = model.stage1, len(start.z)
    one = stage1.layers(start.x0, start.features)
    layers = Layers(
        x0=one.x0.expand(count, -1, -1, -1),
        moving=one.moving.expand(count, -1, -1, -1),
        plate=one.plate.expand(count, -1, -1, -1),
    )
    joint = start.features.joint.expand(count, -1, -1, -1)
    flow = stage1.basis.clip(stage1.motion(start.z, joint))
    return [stage1.frame(layers, flow[:, :, t - 1]).clamp(-1, 1) for t in times]


def _repeat(features: SceneFeatures, count: int) -> SceneFeatures:
    stride2, stride4 = (f.expand(count, -1, -1, -1) for f in features.fine)
    return SceneFeatures(joint=features.joint.expand(count, -1, -1, -1), fine=(stride2, stride4))
