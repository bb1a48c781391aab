"""The published ActNorm, of the flow and of the patch discriminator."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.models.flow.transforms import Transform


class ActNorm(Transform):
    """Shift and scale every channel: y = scale * (x + loc).

    It is a layer for feature maps and a bijection of vectors. Until it is initialised it is the
    identity. The flag `initialized` is saved with the weights.

    Source: Kingma and Dhariwal, "Glow", 2018, section 3.1. The released code initialises it with
    the first batch, in the flow even in evaluation mode; we do so on demand, because a model must
    not change when it is used. `cinnema.models.flow.ActNorm` stores the logarithm of the scale, so
    published weights, some of which are negative, do not load into it.

    Example:
        >>> norm = ActNorm(2)
        >>> norm.fit(torch.tensor([[0.0, 7.0], [4.0, 9.0]]))
        >>> norm.loc.flatten().tolist(), int(norm.initialized)
        ([-2.0, -8.0], 1)

    Args:
        num_channels: Number of channels, or dimensions of a vector.
    """

    initialized: UInt8[Tensor, ""]

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, num_channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, num_channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    @property
    def is_initialised(self) -> bool:
        """Whether shift and scale were set from data, here or before the weights were saved."""
        return bool(self.initialized)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Shift and scale feature maps."""
        return self.scale * (x + self.loc)

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Shift and scale vectors; log_det = sum(log abs scale)."""
        del c
        nu = self.scale.flatten() * (z + self.loc.flatten())
        return nu, self.scale.abs().log().sum().expand(len(z))

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Invert `to_residual`; log_det = -sum(log abs scale)."""
        del c
        z = nu / self.scale.flatten() - self.loc.flatten()
        return z, -self.scale.abs().log().sum().expand(len(nu))

    def initialise(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> None:
        """Set shift and scale from a batch of vectors (see `fit`)."""
        del c
        self.fit(z)

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "b c *size"]) -> None:
        """Set shift and scale so that the channels of a batch have mean 0 and deviation 1.

        As published: loc = -mean and scale = 1 / (deviation + 1e-6), over all axes but channels.

        Args:
            x: Feature maps or vectors, with at least two finite values in each channel.

        Raises:
            UserError: There are fewer values, or values that are not finite.
        """
        values = x.movedim(1, 0).flatten(1)
        if values.shape[1] < 2:
            raise UserError(
                f"ActNorm needs at least 2 values in a channel to measure a deviation, got "
                f"{values.shape[1]}: initialise with a larger batch"
            )
        if not torch.isfinite(values).all():
            raise UserError("ActNorm needs finite values, got NaN or infinity: check the batch")
        std, mean = torch.std_mean(values, dim=1)
        self.loc.copy_(-mean.view_as(self.loc))
        self.scale.copy_(1 / (std.view_as(self.scale) + 1e-6))
        self.initialized.fill_(1)
