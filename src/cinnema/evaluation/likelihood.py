"""Held-out negative log-likelihood of latents, in nats per dimension: of a flow, and of priors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor
from torch.nn import functional

from cinnema.data.crop_batches import moving_target
from cinnema.data.crops import SceneCrops
from cinnema.evaluation.protocol import RealClip
from cinnema.evaluation.warping_scores import Scores, pictures, with_flow
from cinnema.models.flow.priors import GaussianPrior, LinearGaussianPrior
from cinnema.models.warping.model import WarpingModel
from cinnema.models.warping.stage1 import Stage1
from cinnema.training.latent_pool import LatentPool, encode

_DIMENSIONS = (2, 4, 8, 16, 32, 64)
_NUM_FOLDS = 4


def negative_log_likelihood(
    log_prob: Callable[[Float[Tensor, "n z"]], Float[Tensor, " n"]],
    draws: Sequence[Float[Tensor, "n z"]],
    *,
    dim: int | Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "d n"]:
    """Return -log p(z) / dim(z) in nats per dimension, a row for each draw of the latents.

    A density: it may be negative. Lower is better. Every held-out likelihood is computed here.

    Args:
        log_prob: Log-density of latents, in nats.
        draws: Samples of q(z | X) of the same clips, at least one.
        dim: Number of entries of z that the density is of, maybe for each clip; by default all.
    """
    return torch.stack([-log_prob(z) for z in draws]) / (draws[0].shape[1] if dim is None else dim)


def with_noise(
    z: Float[Tensor, "n z"], *, noise: float, draw: int, seed: int = 0
) -> Float[Tensor, "n z"]:
    """Return a sample of q(z | X), on the CPU.

    Args:
        z: Means of q.
        noise: Standard deviation of q.
        draw: Number of the sample; the same number and seed give the same noise.
        seed: Seed of the noise.
    """
    generator = torch.Generator().manual_seed(seed * 1009 + draw)
    return z + noise * torch.randn(z.shape, generator=generator)


@dataclass(frozen=True)
class SceneLatents:
    """Encoded clips of scenes, not augmented.

    Attributes:
        pool: Features of x0, and z without noise.
        groups: Index of each clip's scene in `scenes`.
        scenes: Names of the scenes.
        textures: Texture of each scene.
    """

    pool: LatentPool
    groups: Int[Tensor, " n"]
    scenes: tuple[str, ...]
    textures: tuple[str, ...]


def encode_scenes(stage1: Stage1, crops: Sequence[SceneCrops], *, num: int) -> SceneLatents:
    """Encode clips of each scene on stage 1's device; the result is on the CPU.

    Args:
        stage1: Stage 1; it is set to evaluation mode.
        crops: The scenes, at least one.
        num: Largest number of clips of a scene.
    """
    stage1.eval()
    pools = [
        encode(
            stage1,
            pictures(c.frames[:num, 0]),
            torch.from_numpy(c.flow[:num]),
            _known_to_move(c.motion[:num]),
        ).to(torch.device("cpu"))
        for c in crops
    ]
    return SceneLatents(
        pool=LatentPool.joined(pools),
        groups=torch.cat([torch.full((len(p),), i) for i, p in enumerate(pools)]),
        scenes=tuple(c.scene.name for c in crops),
        textures=tuple(c.scene.texture for c in crops),
    )


def encode_clips(stage1: Stage1, clips: Sequence[RealClip]) -> LatentPool:
    """Encode clips on stage 1's device; the result is on the CPU.

    Args:
        stage1: Stage 1 in evaluation mode.
        clips: The clips; their optical flow is computed where it is missing.
    """
    known = [with_flow(clip) for clip in clips]
    return encode(
        stage1,
        pictures(np.stack([clip.frames[0] for clip in known])),
        torch.from_numpy(np.stack([np.asarray(clip.flow) for clip in known])),
        _known_to_move(np.stack([np.asarray(clip.motion) for clip in known])),
    ).to(torch.device("cpu"))


def _known_to_move(motion: Float32[np.ndarray, "n m m"]) -> Float[Tensor, "n m m"]:
    moving, known = moving_target(torch.from_numpy(motion))
    return moving * known


@dataclass(frozen=True)
class Embedding:
    """Principal components of the features of x0, averaged to 2 x 2, scaled to deviation 1.

    Attributes:
        mean: Mean of the features.
        axes: Components divided by their deviations, the largest first.
    """

    mean: Float[Tensor, " f"]
    axes: Float[Tensor, "f d"]

    @classmethod
    def fit(cls, joint: Float[Tensor, "n f 8 8"], dim: int) -> "Embedding":
        """Fit at most `dim` components to the features of training pictures."""
        x = _flat(joint)
        mean = x.mean(dim=0)
        _, singular, right = torch.linalg.svd(x - mean, full_matrices=False)
        dim = min(dim, int((singular > 1e-6 * singular[0]).sum()))
        return cls(mean=mean, axes=right[:dim].T * (len(x) ** 0.5 / singular[:dim]))

    def __call__(self, joint: Float[Tensor, "n f 8 8"]) -> Float[Tensor, "n d"]:
        """Return the embedding of each picture, float64."""
        return (_flat(joint) - self.mean) @ self.axes


@dataclass(frozen=True)
class FittedPriors:
    """The priors that the flow has to beat.

    Attributes:
        gaussian: A Gaussian that ignores x0.
        linear: A Gaussian around a linear map of the embedding of x0.
        embedding: Maps features of x0 to what the linear prior is conditioned on.
    """

    gaussian: GaussianPrior
    linear: LinearGaussianPrior
    embedding: Embedding


def fit_priors(
    pool: LatentPool, groups: Int[Tensor, " n"], *, noise: float, seed: int = 0
) -> FittedPriors:
    """Fit both priors on training clips.

    The number of principal components is the one with the best likelihood on training scenes
    left out of the fit, so that the baseline is as strong as it can be.

    Args:
        pool: Training clips.
        groups: Scene of each clip, two different ones at least.
        noise: Standard deviation of q(z | X), as the flow was trained with.
        seed: Seed of the noise.
    """
    z = with_noise(pool.z, noise=noise, draw=0, seed=seed)
    dim = _choose_dim(pool.joint.float(), z, groups)
    return _fit(pool.joint.float(), z, groups, dim)


@torch.no_grad()
def likelihood_scores(
    model: WarpingModel,
    priors: FittedPriors,
    pool: LatentPool,
    *,
    noise: float,
    num_draws: int = 4,
    seed: int = 1,
) -> list[Scores]:
    """Return negative log-likelihoods of held-out clips under the flow and both priors.

    "flow", "gaussian" and "linear" are those of each, in nats per dimension, "less_gaussian" and
    "less_linear" the flow's less a prior's.

    Args:
        model: The model in evaluation mode, float32.
        priors: Priors fitted to training clips.
        pool: Held-out clips, encoded.
        noise: Standard deviation of q(z | X).
        num_draws: Draws of noise for each clip; the same ones for all priors.
        seed: Seed of the noise.
    """
    device = next(model.parameters()).device
    joint = pool.joint.float()
    c, embedded = model.conditioner(joint.to(device)), priors.embedding(joint)
    densities: dict[str, Callable[[Tensor], Tensor]] = {
        "flow": lambda z: model.flow.log_prob(z.to(device), c).cpu().double(),
        "gaussian": lambda z: priors.gaussian.log_prob(z.double(), embedded),
        "linear": lambda z: priors.linear.log_prob(z.double(), embedded),
    }
    draws = [with_noise(pool.z, noise=noise, draw=d, seed=seed) for d in range(num_draws)]
    nll = {
        name: negative_log_likelihood(log_prob, draws).mean(dim=0)
        for name, log_prob in densities.items()
    }
    nll["less_gaussian"] = nll["flow"] - nll["gaussian"]
    nll["less_linear"] = nll["flow"] - nll["linear"]
    return [{name: float(values[i]) for name, values in nll.items()} for i in range(len(pool))]


@torch.no_grad()
def inversion_errors(
    model: WarpingModel, pool: LatentPool, *, noise: float, seed: int = 2
) -> tuple[float, float]:
    """Return the largest absolute errors of the flow's round trips of nu and of z, in float32.

    Args:
        model: The model in evaluation mode, float32.
        pool: Held-out clips, encoded: their first frames are the conditions.
        noise: Standard deviation of q(z | X).
        seed: Seed of nu and of the noise.
    """
    device = next(model.parameters()).device
    c = model.conditioner(pool.joint.float().to(device))
    z = with_noise(pool.z, noise=noise, draw=0, seed=seed).to(device)
    nu = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed)).to(device)
    residual = model.to_residual(model.to_latent(nu, c)[0], c)[0]
    latent = model.to_latent(model.to_residual(z, c)[0], c)[0]
    return float((residual - nu).abs().max()), float((latent - z).abs().max())


def _choose_dim(joint: Tensor, z: Tensor, groups: Tensor) -> int:
    """Cross-validate over whole scenes."""
    folds = groups.unique(return_inverse=True)[1] % _NUM_FOLDS
    costs = {
        dim: sum(_left_out(joint, z, groups, folds == fold, dim) for fold in range(_NUM_FOLDS))
        for dim in _DIMENSIONS
    }
    return min(costs, key=costs.__getitem__)


def _left_out(joint: Tensor, z: Tensor, groups: Tensor, is_out: Tensor, dim: int) -> float:
    if not is_out.any() or len(groups[~is_out].unique()) < 2:
        return 0.0
    fitted = _fit(joint[~is_out], z[~is_out], groups[~is_out], dim)
    log_prob = fitted.linear.log_prob(z[is_out].double(), fitted.embedding(joint[is_out]))
    return -float(log_prob.sum())


def _fit(joint: Tensor, z: Tensor, groups: Tensor, dim: int) -> FittedPriors:
    embedding = Embedding.fit(joint, dim)
    c = embedding(joint)
    return FittedPriors(
        gaussian=GaussianPrior.fit(z, c),
        linear=LinearGaussianPrior.fit(z, c, groups=groups),
        embedding=embedding,
    )


def _flat(joint: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(joint, 2).flatten(1).double()
