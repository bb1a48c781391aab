"""The first batch of the discriminator of pictures."""

from jaxtyping import Float
from torch import Tensor

from cinnema.paper.actnorm import ActNorm
from cinnema.paper.discriminators import PatchDiscriminator


def initialise_once(discriminator: PatchDiscriminator, image: Float[Tensor, "b c h w"]) -> None:
    """Fit the ActNorms of a discriminator to a batch, unless that was done before.

    The released code does it in the first call, which sees generated pictures of the first step;
    we show real ones as well, as the discriminator will see both.

    Args:
        discriminator: Changed in place the first time.
        image: Pictures as it will be trained on.
    """
    norms = [layer for layer in discriminator.modules() if isinstance(layer, ActNorm)]
    if norms and not all(bool(norm.initialized) for norm in norms):
        discriminator.initialise(image)
