"""Cheap scores on validation scenes, for use while a model is trained.

Training is handed these as callables; it does not know the room of metrics.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cinnema.data.scenes import SceneCrops
from cinnema.evaluation.latents import encode_scenes, with_noise
from cinnema.evaluation.reconstruction import score_flow
from cinnema.models.flow.conditioning import Conditioner
from cinnema.models.flow.flow import ConditionalFlow
from cinnema.models.warping.stage1 import Stage1


def stage1_validation(
    crops: Sequence[SceneCrops], *, num: int = 32
) -> Callable[[Stage1], dict[str, float]]:
    """Return what measures the relative flow error on each texture: "error_clouds" and so on.

    1 is what predicting no motion gives. The flow is the one that is seen, behind the mask.

    Args:
        crops: Validation scenes.
        num: Clips of each scene, at most.
    """

    def validate(stage1: Stage1) -> dict[str, float]:
        sums: dict[str, list[float]] = {}
        for scene in crops:
            total = sums.setdefault(f"error_{scene.scene.texture}", [0.0, 0.0])
            for score in score_flow(stage1, scene, num_clips=num):
                total[0] += score.values["flow_error"]
                total[1] += score.values["flow_motion"]
        return {name: error / max(motion, 1e-12) for name, (error, motion) in sums.items()}

    return validate


def latent_validation(
    stage1: Stage1,
    crops: Sequence[SceneCrops],
    *,
    num: int = 48,
    noise: float | None = None,
    num_draws: int = 4,
    seed: int = 0,
) -> Callable[[Conditioner, ConditionalFlow], dict[str, float]]:
    """Return what measures the flow's negative log-likelihood, in nats a dimension.

    The clips are encoded once, here. "nll" is the mean over all clips, "nll_clouds" and so on
    that of a texture. The noise is the same at every call, so that calls can be compared. Where
    there is a control, "nll" is the mean of doing without and of being told it ("nll_free" and
    "nll_told"), by as much as it is known.

    Args:
        stage1: Trained; it is set to evaluation.
        crops: Validation scenes.
        num: Clips of each scene, at most.
        noise: Standard deviation of what is added to z; stage 1's own if None.
        num_draws: Draws of noise for each clip.
        seed: Of the noise.
    """
    latents = encode_scenes(stage1, crops, num=num)
    scale = stage1.config.noise if noise is None else noise
    draws = [
        with_noise(latents.pool.z, noise=scale, draw=draw, seed=seed) for draw in range(num_draws)
    ]

    @torch.no_grad()
    def validate(conditioner: Conditioner, flow: ConditionalFlow) -> dict[str, float]:
        pool = latents.pool.to(next(flow.parameters()).device)

        def of(c: Tensor) -> Tensor:
            log_prob = torch.stack([flow.log_prob(z.to(c.device), c) for z in draws])
            return -log_prob.mean(dim=0).cpu() / pool.z.shape[1]

        nll, ways = of(conditioner(pool.joint.float())), {}
        if conditioner.config.control_dim:
            told = of(conditioner(pool.joint.float(), pool.eta, pool.known))
            ways = {"nll_free": float(nll.mean()), "nll_told": float(told.mean())}
            nll = (nll + told) / 2
        textures = [latents.textures[group] for group in latents.groups.tolist()]
        by_texture = {
            f"nll_{t}": float(nll[_is(textures, t)].mean()) for t in dict.fromkeys(textures)
        }
        return {"nll": float(nll.mean())} | ways | by_texture

    return validate


def _is(textures: Sequence[str], texture: str) -> Tensor:
    return torch.tensor([t == texture for t in textures])
