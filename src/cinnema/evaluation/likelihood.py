"""How likely held-out motions are: the flow beside a Gaussian and a linear-Gaussian prior."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from cinnema.evaluation.latents import SceneLatents, with_noise
from cinnema.evaluation.scores import ClipScore, Metric
from cinnema.models.flow.priors import GaussianPrior, LinearGaussianPrior
from cinnema.models.warping.model import WarpingModel
from cinnema.training.latent_pool import LatentPool

LIKELIHOOD_MEASURES = (
    Metric("flow", "flow"),
    Metric("Gaussian", "gaussian"),
    Metric("linear-Gaussian", "linear"),
    Metric("flow less Gaussian", "less_gaussian", shows_interval=True),
    Metric("flow less linear", "less_linear", shows_interval=True),
)

_DIMENSIONS = (2, 4, 8, 16, 32, 64)
_NUM_FOLDS = 4


@dataclass(frozen=True)
class Embedding:
    """Principal components of the features of x0, averaged to 2 x 2, scaled to deviation 1.

    Attributes:
        mean: Of the features.
        axes: Components divided by their deviations, the largest first.
    """

    mean: Float[Tensor, " f"]
    axes: Float[Tensor, "f d"]

    @classmethod
    def fit(cls, joint: Float[Tensor, "n f 8 8"], dim: int) -> "Embedding":
        """Fit at most `dim` components."""
        x = _flat(joint)
        mean = x.mean(dim=0)
        _, singular, right = torch.linalg.svd(x - mean, full_matrices=False)
        dim = min(dim, int((singular > 1e-6 * singular[0]).sum()))
        return cls(mean=mean, axes=right[:dim].T * (len(x) ** 0.5 / singular[:dim]))

    def __call__(self, joint: Float[Tensor, "n f 8 8"]) -> Float[Tensor, "n d"]:
        """Return the embedding of each picture, float64."""
        return (_flat(joint) - self.mean) @ self.axes


@dataclass(frozen=True)
class Baselines:
    """The priors that the flow has to beat.

    Attributes:
        gaussian: Ignores x0.
        linear: Given the embedding of x0.
        embedding: Of x0.
    """

    gaussian: GaussianPrior
    linear: LinearGaussianPrior
    embedding: Embedding


def fit_baselines(
    pool: LatentPool, groups: Int[Tensor, " n"], *, noise: float, seed: int = 0
) -> Baselines:
    """Fit both priors on training clips; they are given every chance.

    The number of principal components is the one with the best likelihood on training scenes
    left out of the fit.

    Args:
        pool: Training clips.
        groups: Scene of each clip, two different ones at least.
        noise: Standard deviation of what is added to z, as the flow was trained with.
        seed: Of the noise.
    """
    z = with_noise(pool.z, noise=noise, draw=0, seed=seed)
    dim = _choose_dim(pool.joint.float(), z, groups)
    return _fit(pool.joint.float(), z, groups, dim)


@torch.no_grad()
def score_likelihood(
    model: WarpingModel,
    baselines: Baselines,
    latents: SceneLatents,
    *,
    noise: float,
    num_draws: int = 4,
    seed: int = 1,
) -> list[ClipScore]:
    """Return negative log-likelihoods of held-out clips, in nats a dimension.

    Args:
        model: In evaluation mode, float32.
        baselines: Fitted on training scenes.
        latents: Of validation scenes.
        noise: Standard deviation of what is added to z.
        num_draws: Draws of noise for each clip; the same ones for all priors.
        seed: Of the noise.
    """
    device = next(model.parameters()).device
    joint = latents.pool.joint.float()
    c, embedded = model.conditioner(joint.to(device)), baselines.embedding(joint)
    priors: dict[str, Callable[[Tensor], Tensor]] = {
        "flow": lambda z: model.flow.log_prob(z.to(device), c).cpu(),
        "gaussian": lambda z: baselines.gaussian.log_prob(z.double(), embedded),
        "linear": lambda z: baselines.linear.log_prob(z.double(), embedded),
    }
    draws = [with_noise(latents.pool.z, noise=noise, draw=d, seed=seed) for d in range(num_draws)]
    nll = {
        name: -torch.stack([log_prob(z).double() for z in draws]).mean(dim=0)
        / model.config.stage1.z_dim
        for name, log_prob in priors.items()
    }
    nll["less_gaussian"] = nll["flow"] - nll["gaussian"]
    nll["less_linear"] = nll["flow"] - nll["linear"]
    return [
        ClipScore(
            latents.scenes[group],
            latents.textures[group],
            {name: float(values[i]) for name, values in nll.items()},
        )
        for i, group in enumerate(latents.groups.tolist())
    ]


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


def _fit(joint: Tensor, z: Tensor, groups: Tensor, dim: int) -> Baselines:
    embedding = Embedding.fit(joint, dim)
    c = embedding(joint)
    return Baselines(
        gaussian=GaussianPrior.fit(z, c),
        linear=LinearGaussianPrior.fit(z, c, groups=groups),
        embedding=embedding,
    )


def _flat(joint: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(joint, 2).flatten(1).double()
