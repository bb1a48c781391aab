"""Stage 2: a conditional flow between latents and residuals, and the priors it has to beat."""

from cinnema.models.flow.flow import ConditionalFlow, FlowConfig
from cinnema.models.flow.mixing import InvertibleLinear, Permutation
from cinnema.models.flow.priors import GaussianPrior, LatentPrior, LinearGaussianPrior
from cinnema.models.flow.transforms import (
    ActNorm,
    AffineCoupling,
    Compose,
    LeakyReLU,
    Transform,
)

__all__ = [
    "ActNorm",
    "AffineCoupling",
    "Compose",
    "ConditionalFlow",
    "FlowConfig",
    "GaussianPrior",
    "InvertibleLinear",
    "LatentPrior",
    "LeakyReLU",
    "LinearGaussianPrior",
    "Permutation",
    "Transform",
]
