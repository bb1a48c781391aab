"""Simple priors on z, in place of a model's flow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cinnema.models.base import VideoModel, standard_log_prob
from cinnema.models.flow.priors import GaussianPrior, LatentPrior, LinearGaussianPrior

GAUSSIAN, LINEAR = "Gaussian prior", "linear-Gaussian prior"
"""Names of the priors' rows."""

_LEAST_SOURCES = 8  # a deviation of fewer is a guess

_Fit = Callable[[Tensor, Tensor, Tensor], LatentPrior]
_FITS: dict[str, _Fit] = {
    GAUSSIAN: lambda z, c, _: GaussianPrior.fit(z, c),
    LINEAR: lambda z, c, groups: LinearGaussianPrior.fit(z, c, groups=groups),
}


def fit_priors(
    model: VideoModel,
    z: Float[Tensor, "n z"],
    c: Float[Tensor, "n c"],
    groups: Int[Tensor, " n"],
) -> dict[str, LatentPrior]:
    """Fit the priors that a flow has to beat, by the names of their rows.

    A model whose flow maps several blocks of z has a prior for each block, fitted to the clips
    whose x0 shows it. A block that fewer than 8 sources show keeps N(0, I).

    Args:
        model: The model.
        z: Latents of training clips.
        c: Conditions of its flow.
        groups: Number of each clip's source; two at least.
    """
    shown = model.blocks(c)
    if shown.shape[1] == 1 and model.flow_dim == model.z_dim and bool(shown.all()):
        return {name: fit(z, c, groups) for name, fit in _FITS.items()}
    found: dict[str, LatentPrior] = {}
    for name, fit in _FITS.items():
        parts: list[LatentPrior | None] = []
        for block, (rows, given) in enumerate(_blocks(model, z, c)):
            of = shown[:, block]
            enough = len(groups[of].unique()) >= _LEAST_SOURCES
            parts.append(fit(rows[of], given[of], groups[of]) if enough else None)
        found[name] = BlockPrior(model, parts)
    return found


@dataclass(frozen=True)
class BlockPrior:
    """A prior for each block of z that a model's flow maps, and N(0, I) for the rest of z.

    Attributes:
        model: The model.
        priors: Prior of each block, None for N(0, I); empty for N(0, I) everywhere.
    """

    model: VideoModel
    priors: Sequence[LatentPrior | None] = ()

    def log_prob(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
        """Log-density of the blocks that x0 shows, in nats."""
        each = [
            standard_log_prob(rows) if prior is None else prior.log_prob(rows, given)
            for prior, rows, given in self._parts(z, c)
        ]
        shown = self.model.blocks(c).to(z.device)
        return torch.where(shown, torch.stack(each, 1).to(z), 0.0).sum(1)

    def sample(
        self,
        c: Float[Tensor, "b c"],
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b z"]:
        """Draw one latent for each condition."""
        z = temperature * torch.randn(
            len(c), self.model.z_dim, generator=generator, dtype=torch.float64
        ).to(c)
        drawn = [
            rows if prior is None
            else prior.sample(given, temperature=temperature, generator=generator)
            for prior, rows, given in self._parts(z, c)
        ]  # fmt: skip
        return torch.cat([*drawn, z[:, self.model.flow_dim :]], 1)

    def _parts(self, z: Tensor, c: Tensor) -> list[tuple[LatentPrior | None, Tensor, Tensor]]:
        blocks = _blocks(self.model, z, c)
        priors = self.priors or [None] * len(blocks)
        return [(prior, *block) for prior, block in zip(priors, blocks, strict=True)]


def described(model: VideoModel, c: Float[Tensor, "b c"]) -> Bool[Tensor, "b f"]:
    """Return which of the entries of z that the flow maps describe something that x0 shows.

    Args:
        model: The model.
        c: Conditions of its flow.
    """
    shown = model.blocks(c)
    return shown.repeat_interleave(model.flow_dim // shown.shape[1], dim=1)


def _blocks(model: VideoModel, z: Tensor, c: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the rows of z and the columns of c of each block."""
    num = model.blocks(c).shape[1]
    return list(zip(z[:, : model.flow_dim].chunk(num, 1), c.chunk(num, 1), strict=True))
