"""Cheap scores of a model of a body on held-out clips, for use while it is trained.

Training is handed these as callables; it does not know the room of metrics.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.data.loading import VideoBatch
from cinnema.models.flow.conditioning import Conditioner
from cinnema.models.flow.flow import ConditionalFlow
from cinnema.models.keypoint.keypoints import Twins, sides_apart
from cinnema.models.keypoint.stage1 import KeypointStage1
from cinnema.training.latent_pool import LatentPool
from cinnema.training.losses import PerceptualDistance

_CHUNK = 16


def reconstruction_validation(
    clips: VideoBatch,
    *,
    lpips: PerceptualDistance,
    twins: Twins = (),
) -> Callable[[KeypointStage1], dict[str, float]]:
    """Return what measures how well clips come back from z.

    "l1" is the mean absolute difference of the frames, in [0, 2], "lpips" that of the last frame;
    "l1_frozen" and "lpips_frozen" are those of x0, held still. "landmarks" is the mean distance of
    the landmarks' displacement to the true one, entry by entry, where the model tells any;
    "landmarks_known" that of z of the true path, and "latent" the mean square between that z and
    the one of pixels, where they are points.

    Args:
        clips: Held out, on the CPU.
        lpips: On the CPU.
        twins: Landmarks that look alike, see `KeypointTraining`.
    """
    places = sides_apart(clips.track, twins)
    video = clips.video
    frozen = video[:, :1].expand_as(video[:, 1:])
    beside = {"l1_frozen": _l1(frozen, video), "lpips_frozen": _last_lpips(lpips, frozen, video)}

    @torch.no_grad()
    def validate(stage1: KeypointStage1) -> dict[str, float]:
        made, told, codes = [], [], []
        device = next(stage1.parameters()).device
        for part in video.to(device).split(_CHUNK):
            z = stage1.encode(part)
            codes.append(z.cpu())
            made.append(stage1.decode(part[:, 0], z).clamp(-1, 1).cpu())
            times = torch.arange(1, part.shape[1], device=device) / (part.shape[1] - 1)
            told.append(stage1.path(z, times.expand(len(part), -1)).cpu())
        frames = torch.cat(made)
        numbers = {"l1": _l1(frames, video), "lpips": _last_lpips(lpips, frames, video)} | beside
        if stage1.config.landmarks:
            path = places[:, 1:] - places[:, :1]
            numbers["landmarks"] = float((torch.cat(told) - path).abs().mean())
        if stage1.config.points:
            z = stage1.encode_path(places.to(device))
            times = torch.arange(1, video.shape[1], device=device) / (video.shape[1] - 1)
            own = stage1.path(z, times.expand(len(z), -1)).cpu()
            numbers["landmarks_known"] = float((own - path).abs().mean())
            numbers["latent"] = float((torch.cat(codes) - z.cpu()).square().mean())
        return numbers

    return validate


def density_validation(
    pool: LatentPool, *, noise: float, num_draws: int = 4, seed: int = 0
) -> Callable[[Conditioner, ConditionalFlow], dict[str, float]]:
    """Return what measures the flow's negative log-likelihood, in nats a dimension.

    The noise is the same at every call. With a control, "nll" is the mean of doing without and of
    being told it, "nll_free" and "nll_told".

    Args:
        pool: Held-out clips, encoded.
        noise: Standard deviation of what is added to z.
        num_draws: Draws of noise for each clip.
        seed: Of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = [
        pool.z + noise * torch.randn(pool.z.shape, generator=generator) for _ in range(num_draws)
    ]

    @torch.no_grad()
    def validate(conditioner: Conditioner, flow: ConditionalFlow) -> dict[str, float]:
        device = next(flow.parameters()).device
        here = pool.to(device)

        def of(c: Float[Tensor, "b c"]) -> float:
            values = [-float(flow.log_prob(z.to(device), c).mean()) for z in draws]
            return sum(values) / len(values) / pool.z.shape[1]

        free = of(conditioner(here.joint.float()))
        if not conditioner.config.control_dim:
            return {"nll": free}
        told = of(conditioner(here.joint.float(), here.eta))
        return {"nll": (free + told) / 2, "nll_free": free, "nll_told": told}

    return validate


def _l1(frames: Tensor, video: Tensor) -> float:
    return float((frames - video[:, 1:]).abs().mean())


@torch.no_grad()
def _last_lpips(lpips: PerceptualDistance, frames: Tensor, video: Tensor) -> float:
    return float(lpips(frames[:, -1], video[:, -1]).mean())
