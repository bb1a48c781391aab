"""Scores of single clips by warping models: flow, reconstruction, samples and their motion.

Pictures are compared before they are rounded to 8 bits. The metrics of warping models, their
validation during training and the comparison after fine-tuning use these scores.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from cinnema.backbones.lpips import LPIPS
from cinnema.backbones.optical_flow import backward_flow, to_volume
from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.data.crop_batches import moving_target
from cinnema.evaluation.protocol import RealClip
from cinnema.models.layers import warp
from cinnema.models.warping.model import WarpingModel
from cinnema.models.warping.motion import GRID
from cinnema.models.warping.rendering import Layers
from cinnema.models.warping.stage1 import SceneFeatures, Stage1

# Smallest share of the picture that counts as a still region.
_MIN_SHARE = 0.03

Scores = Mapping[str, float]
"""Scores of one clip by name."""


@dataclass(frozen=True, kw_only=True)
class WarpingSettings:
    """Numbers of clips measured per source; the defaults take minutes on one CPU core.

    Attributes:
        num_reconstructed: Clips that are decoded and compared.
        num_flows: Clips whose flow is compared.
        num_started: Clips from which samples are drawn and compared.
        num_spread: Clips from which samples are drawn, of which only the flow is computed.
        num_latents: Clips whose likelihood is computed.
        num_fitted: Clips of each training source that priors are fitted to.
        times: Frames that are compared, from 1 to T; None for four spread over the clip.
    """

    num_reconstructed: int = 8
    num_flows: int = 48
    num_started: int = 3
    num_spread: int = 16
    num_latents: int = 48
    num_fitted: int = 100
    times: tuple[int, ...] | None = None

    def frames(self, num_frames: int) -> tuple[int, ...]:
        """Return the frames that are compared.

        Args:
            num_frames: T.

        Raises:
            UserError: One of them does not exist.
        """
        times = self.times or spread_times(num_frames)
        if not all(1 <= t <= num_frames for t in times):
            raise UserError(
                f"times: frames from 1 to {num_frames} can be compared, got {times}; choose among "
                "these"
            )
        return times


def spread_times(num_frames: int) -> tuple[int, ...]:
    """Return four frames spread evenly over a clip, the last among them.

    Args:
        num_frames: T.
    """
    return tuple(sorted({max(1, round(num_frames * k / 4)) for k in range(1, 5)}))


def with_flow(clip: RealClip) -> RealClip:
    """Return a clip with its optical flow, which is computed if it is missing."""
    if clip.flow is not None and clip.motion is not None:
        return clip
    flow = backward_flow(clip.frames, size=clip.frames.shape[1:3])
    lengths = np.sqrt((flow**2).sum(-1)).max(0)
    motion = cv2.resize(lengths, (2 * GRID, 2 * GRID), interpolation=cv2.INTER_AREA)
    return RealClip(
        start=clip.start,
        frames=clip.frames,
        flow=to_volume(flow, grid=GRID).astype(np.float32),
        motion=np.asarray(motion, dtype=np.float32),
    )


def pictures(pixels: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """Return pictures in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def flow_scores(
    stage1: Stage1, x0: UInt8[np.ndarray, "n h w 3"], flow: np.ndarray
) -> list[Scores]:  # fmt: skip
    """Return the absolute flow error, the motion it is relative to, and the true speed of clips.

    Args:
        stage1: Stage 1 in evaluation mode.
        x0: First frames.
        flow: Backward flow of shape (n, 2, t, g, g), in picture widths and heights.
    """
    like = next(stage1.parameters())
    first = pictures(x0).to(like)
    true = torch.from_numpy(flow).to(like)
    predicted = visible_flow(stage1, stage1.encode(true), stage1.scene(first)).float()
    true = true.float()
    steps = torch.diff(true, dim=2, prepend=torch.zeros_like(true[:, :, :1]))
    columns = {
        "flow_error": (predicted - true).abs().sum(dim=(1, 2, 3, 4)),
        "flow_motion": true.abs().sum(dim=(1, 2, 3, 4)),
        "true_speed": steps.norm(dim=1).mean(dim=(1, 2, 3)) * first.shape[-1],
    }
    return [{k: float(v[i]) for k, v in columns.items()} for i in range(len(first))]


@torch.no_grad()
def reconstruction_scores(
    stage1: Stage1, lpips: LPIPS, clip: RealClip, *, times: Sequence[int]
) -> Scores:
    """Return LPIPS, L1 (of values in [0, 1]) and PSNR (dB) of a clip, for three predictions.

    "_model" is the clip encoded and decoded, "_frozen" the first frame, "_warped" x0 warped by the
    real flow; "_saved" is how much lower than the frozen frame's LPIPS is.

    Args:
        stage1: Stage 1 in evaluation mode, float32.
        lpips: LPIPS network, on the same device.
        clip: The clip with its flow.
        times: Frames that are compared, from 1 to T.
    """
    device = next(stage1.parameters()).device
    x0 = pictures(clip.frames[:1]).to(device)
    real = pictures(clip.frames[list(times)]).to(device)
    flow = torch.from_numpy(np.asarray(clip.flow)[None]).to(device)
    chosen = flow[0, :, [t - 1 for t in times]].transpose(0, 1)
    values = _compared(
        lpips,
        real,
        model=_decoded(stage1, x0, flow, times),
        frozen=x0,
        warped=warp(x0.expand(len(times), -1, -1, -1), chosen),
    )
    values["lpips_saved"] = values["lpips_frozen"] - values["lpips_model"]
    values["lpips_warped_saved"] = values["lpips_frozen"] - values["lpips_warped"]
    return values


def _decoded(
    stage1: Stage1,
    x0: Float[Tensor, "1 3 h w"],
    flow: Float[Tensor, "1 2 t g g"],
    times: Sequence[int],
) -> Float[Tensor, "n 3 h w"]:
    features = stage1.scene(x0)
    predicted = stage1.basis.clip(stage1.motion(stage1.encode(flow), features.joint))
    layers = stage1.layers(x0, features)
    frames = [stage1.frame(layers, predicted[:, :, t - 1]) for t in times]
    return torch.cat(frames).clamp(-1, 1)


def _compared(lpips: LPIPS, real: Tensor, **guesses: Tensor) -> dict[str, float]:
    real_features = lpips.features(real)
    values = {}
    for name, guess in guesses.items():
        distance = lpips.distance(real_features, lpips.features(guess))
        values[f"lpips_{name}"] = float(distance.mean())
        error = (guess - real) / 2  # of values in [0, 1]
        values[f"l1_{name}"] = float(error.abs().mean())
        squared = error.square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
        values[f"psnr_{name}"] = float((-10 * squared.log10()).mean())
    return values


@dataclass(frozen=True)
class _Drawn:
    """Samples of one start."""

    x0: Float[Tensor, "1 3 h w"]
    features: SceneFeatures
    z: Float[Tensor, "k z"]


@torch.no_grad()
def sample_scores(
    model: WarpingModel,
    lpips: LPIPS,
    clip: RealClip,
    *,
    num_samples: int,
    times: Sequence[int],
    seed: int = 0,
) -> Scores:
    """Return LPIPS of the best of K samples, of all, and of the frozen first frame.

    Args:
        model: The model in evaluation mode, float32.
        lpips: LPIPS network, on the same device.
        clip: The clip.
        num_samples: K.
        times: Frames that are compared, from 1 to T.
        seed: Seed of the samples.
    """
    drawn = _draw(model, clip, num_samples=num_samples, seed=seed)
    real = pictures(clip.frames[list(times)]).to(drawn.x0.device)
    x0_features = lpips.features(drawn.x0)
    distances, frozen = [], []
    for truth, rendered in zip(real.split(1), _render(model, drawn, times), strict=True):
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
    return values


@torch.no_grad()
def motion_scores(
    model: WarpingModel, clip: RealClip, *, num_samples: int, seed: int = 0
) -> Scores:
    """Return how the flows of a start's samples differ, and their speed in still regions.

    Args:
        model: The model in evaluation mode, float32.
        clip: The clip with its flow.
        num_samples: K, at least 2.
        seed: Seed of the samples.
    """
    drawn = _draw(model, clip, num_samples=num_samples, seed=seed)
    moving, known = moving_target(torch.from_numpy(np.asarray(clip.motion)))
    flow = visible_flow(
        model.stage1, drawn.z, _repeat(drawn.features, num_samples), size=len(moving)
    ).cpu()
    true = torch.from_numpy(np.asarray(clip.flow)[None])
    true = functional.interpolate(
        true.flatten(1, 2), moving.shape, mode="bilinear", align_corners=False
    ).unflatten(1, (2, true.shape[2]))
    still, size = (1 - moving) * known, drawn.x0.shape[-1]
    moving = moving * known
    drift = mean_drift(flow, moving, size=size)
    drifts, speeds = drift.norm(dim=1), mean_speed(flow, moving, size=size)
    has_still = float(still.mean()) >= _MIN_SHARE
    in_still = float(mean_speed(flow, still, size=size).mean()) if has_still else math.nan
    return {
        "direction_spread": circular_deviation(torch.atan2(drift[:, 1], drift[:, 0])),
        "drift": float(drifts.mean()),
        "drift_spread": float(drifts.std(correction=0)),
        "speed": float(speeds.mean()),
        "speed_spread": float(speeds.std(correction=0)),
        "true_speed": float(mean_speed(true, moving, size=size)),
        "still_speed": in_still,
    }


def _draw(model: WarpingModel, clip: RealClip, *, num_samples: int, seed: int) -> _Drawn:
    device = next(model.parameters()).device
    x0 = pictures(clip.frames[:1]).to(device)
    features = model.stage1.scene(x0)
    # The clips of a source have independent samples.
    nu = torch.stack(
        [
            torch.randn(model.z_dim, generator=generator_for(seed + clip.start.sample, sample))
            for sample in range(num_samples)
        ]
    )
    c = model.condition_on(features).expand(num_samples, -1)
    return _Drawn(x0=x0, features=features, z=model.to_latent(nu.to(device), c)[0])


def _render(
    model: WarpingModel, drawn: _Drawn, times: Sequence[int]
) -> list[Float[Tensor, "k 3 h w"]]:
    """Return frames of all samples, a batch for each time."""
    stage1, count = model.stage1, len(drawn.z)
    one = stage1.layers(drawn.x0, drawn.features)
    layers = Layers(
        x0=one.x0.expand(count, -1, -1, -1),
        moving=one.moving.expand(count, -1, -1, -1),
        plate=one.plate.expand(count, -1, -1, -1),
    )
    joint = drawn.features.joint.expand(count, -1, -1, -1)
    flow = stage1.basis.clip(stage1.motion(drawn.z, joint))
    return [stage1.frame(layers, flow[:, :, t - 1]).clamp(-1, 1) for t in times]


def _repeat(features: SceneFeatures, count: int) -> SceneFeatures:
    stride2, stride4 = (f.expand(count, -1, -1, -1) for f in features.fine)
    return SceneFeatures(joint=features.joint.expand(count, -1, -1, -1), fine=(stride2, stride4))


def visible_flow(
    stage1: Stage1, z: Float[Tensor, "b z"], features: SceneFeatures, *, size: int | None = None
) -> Float[Tensor, "b 2 t _ _"]:
    """Return the flow of z times the share of each cell that may move.

    It is the flow that training compares with the true one.

    Args:
        stage1: Stage 1 in evaluation mode.
        z: Latents.
        features: Features of the first frames.
        size: Rows and columns of the result; defaults to those of the flow.
    """
    flow = stage1.basis.clip(stage1.motion(z, features.joint))
    moves = torch.sigmoid(stage1.mask(features.joint, features.fine))
    if size is not None and size != flow.shape[-1]:
        num_frames = flow.shape[2]
        flow = functional.interpolate(
            flow.flatten(1, 2), (size, size), mode="bilinear", align_corners=False
        ).unflatten(1, (2, num_frames))
    return flow * functional.adaptive_avg_pool2d(moves, flow.shape[-1])[:, :, None]


def mean_speed(
    flow: Float[Tensor, "b 2 t g g"], where: Float[Tensor, "g g"], *, size: int
) -> Float[Tensor, " b"]:
    """Return the mean displacement of a region's points from frame to frame, in pixels.

    Args:
        flow: Backward flow to frame 0, in picture widths and heights.
        where: Weight of each cell; the result is NaN where all are 0.
        size: Width and height of the picture, in pixels.
    """
    steps = torch.diff(flow, dim=2, prepend=torch.zeros_like(flow[:, :, :1]))
    lengths = steps.square().sum(dim=1).sqrt().mean(dim=1)
    return (lengths * where).sum(dim=(1, 2)) / where.sum() * size


def mean_drift(
    flow: Float[Tensor, "b 2 t g g"], where: Float[Tensor, "g g"], *, size: int
) -> Float[Tensor, "b 2"]:
    """Return the displacement of a region as a whole, (right, down), in pixels a frame.

    The sign is that of the visible motion: a backward flow to the left is a motion to the right.

    Args:
        flow: Backward flow to frame 0, in picture widths and heights.
        where: Weight of each cell; the result is NaN where all are 0.
        size: Width and height of the picture, in pixels.
    """
    last = flow[:, :, -1]
    return -(last * where).sum(dim=(2, 3)) / where.sum() * size / flow.shape[2]


def circular_deviation(angles: Float[Tensor, " n"]) -> float:
    """Return the circular standard deviation of directions, in degrees.

    sqrt(-2 log R) with R the length of the mean of the unit vectors: 0 where all are equal, 95 on
    average for ten random directions. NaN if a direction is NaN.

    Source: Mardia and Jupp, "Directional Statistics", 2000, equation 2.3.11.

    Args:
        angles: Directions in radians.
    """
    resultant = torch.stack([angles.cos(), angles.sin()]).mean(dim=1).norm()
    # Never infinite, so that averages over starts stay finite: R below 0.01 counts as 0.01.
    return float(torch.rad2deg((-2 * resultant.clamp(0.01, 1.0).log()).sqrt()))
