"""Stage 2: a conditional flow between latents and residuals, and the priors it has to beat."""

from cinnema.stage2.flow import ConditionalFlow, FlowConfig
from cinnema.stage2.mixing import InvertibleLinear, Permutation
from cinnema.stage2.priors import GaussianPrior, LatentPrior, LinearGaussianPrior
from cinnema.stage2.transforms import (
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
