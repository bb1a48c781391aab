"""Scores on held-out clips while a model is trained.

Training receives these as callables, so that it does not import evaluation. Each call computes on
the same clips with the same noise, so its numbers can be compared over a training.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.data.loader import VideoBatch
from cinnema.evaluation.likelihood import negative_log_likelihood
from cinnema.models.flow.conditioning import Conditioner
from cinnema.models.flow.flow import ConditionalFlow
from cinnema.models.keypoint.keypoints import SymmetricLimbs, sort_symmetric
from cinnema.models.keypoint.stage1 import KeypointStage1
from cinnema.training.latent_pool import LatentPool
from cinnema.training.losses import PerceptualDistance

Numbers = dict[str, float]

_CHUNK = 16  # clips decoded at once


def keypoint_validation(
    clips: VideoBatch,
    *,
    lpips: PerceptualDistance,
    symmetric: SymmetricLimbs = (),
) -> Callable[[KeypointStage1], Numbers]:
    """Return a function that computes how well stage 1 of a keypoint model reconstructs clips.

    "l1" is the mean absolute difference of the frames, in [0, 2], "lpips" LPIPS of the last frame;
    "l1_frozen" and "lpips_frozen" are those of x0 repeated. Lower is better for all. "landmarks",
    for models with landmarks, is the mean absolute error of the landmarks' displacements, in
    picture sizes; for models whose z is made of points, "landmarks_known" is that error for z of
    the true path, and "latent" the mean squared difference between that z and the z of the pixels.

    Args:
        clips: Held-out clips on the CPU.
        lpips: LPIPS on the CPU.
        symmetric: Pairs of symmetric limbs, see `KeypointTraining`.
    """
    places = sort_symmetric(clips.track, symmetric)
    video = clips.video
    frozen = video[:, :1].expand_as(video[:, 1:])
    of_frozen = {"l1_frozen": _l1(frozen, video), "lpips_frozen": _last_lpips(lpips, frozen, video)}

    @torch.no_grad()
    def validate(stage1: KeypointStage1) -> Numbers:
        made, seen, codes = [], [], []
        device = next(stage1.parameters()).device
        for part in video.to(device).split(_CHUNK):
            z = stage1.encode(part)
            codes.append(z.cpu())
            made.append(stage1.decode(part[:, 0], z).clamp(-1, 1).cpu())
            times = torch.arange(1, part.shape[1], device=device) / (part.shape[1] - 1)
            seen.append(stage1.path(z, times.expand(len(part), -1)).cpu())
        frames = torch.cat(made)
        numbers = {"l1": _l1(frames, video), "lpips": _last_lpips(lpips, frames, video)} | of_frozen
        if stage1.config.landmarks:
            path = places[:, 1:] - places[:, :1]
            numbers["landmarks"] = float((torch.cat(seen) - path).abs().mean())
        if stage1.config.points:
            z = stage1.encode_path(places.to(device))
            times = torch.arange(1, video.shape[1], device=device) / (video.shape[1] - 1)
            own = stage1.path(z, times.expand(len(z), -1)).cpu()
            numbers["landmarks_known"] = float((own - path).abs().mean())
            numbers["latent"] = float((torch.cat(codes) - z.cpu()).square().mean())
        return numbers

    return validate


def keypoint_latent_validation(
    pool: LatentPool, *, noise: float, num_draws: int = 4, seed: int = 0
) -> Callable[[Conditioner, ConditionalFlow], Numbers]:
    """Return a function that computes the flow's negative log-likelihood on a keypoint model.

    "nll" is the mean over clips, in nats per dimension; lower is better. Where the flow takes a
    control, it is the mean of "nll_without_control" and of "nll_with_control".

    Args:
        pool: Held-out clips, encoded.
        noise: Standard deviation of q(z | X).
        num_draws: Draws of noise for each clip.
        seed: Seed of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = [
        pool.z + noise * torch.randn(pool.z.shape, generator=generator) for _ in range(num_draws)
    ]

    @torch.no_grad()
    def validate(conditioner: Conditioner, flow: ConditionalFlow) -> Numbers:
        here = pool.to(next(flow.parameters()).device)

        def of(c: Float[Tensor, "b c"]) -> float:
            return sum(float(of_draw.mean()) for of_draw in _nll(flow, draws, c)) / num_draws

        without = of(conditioner(here.joint.float()))
        if not conditioner.config.control_dim:
            return {"nll": without}
        controlled = of(conditioner(here.joint.float(), here.eta))
        return {
            "nll": (without + controlled) / 2,
            "nll_without_control": without,
            "nll_with_control": controlled,
        }

    return validate


def _nll(flow: ConditionalFlow, draws: Sequence[Tensor], c: Float[Tensor, "b c"]) -> Tensor:
    return negative_log_likelihood(lambda z: flow.log_prob(z.to(c.device), c).cpu(), draws)


def _l1(frames: Tensor, video: Tensor) -> float:
    return float((frames - video[:, 1:]).abs().mean())


@torch.no_grad()
def _last_lpips(lpips: PerceptualDistance, frames: Tensor, video: Tensor) -> float:
    return float(lpips(frames[:, -1], video[:, -1]).mean())
