"""ActNorm as the published networks have it: a shift, then a factor."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cinnema.core.errors import UserError


class ActNorm(nn.Module):
    """Shift and scale every channel: y = scale * (x + loc).

    Until `fit` is called it is the identity. The flag `initialized` travels with the weights.

    Source: Kingma and Dhariwal, "Glow", 2018, section 3.1. The released code fits itself to the
    first batch it meets, in the flow even in evaluation; we do it on demand because a model must
    not change when used. `cinnema.models.flow.ActNorm` keeps the factor's logarithm, so published
    weights, which are factors and may be negative, do not load into it.

    Example:
        >>> norm = ActNorm(2)
        >>> norm.fit(torch.tensor([[0.0, 7.0], [4.0, 9.0]]))
        >>> norm.loc.flatten().tolist(), int(norm.initialized)
        ([-2.0, -8.0], 1)

    Args:
        num_channels: Number of channels.
    """

    initialized: UInt8[Tensor, ""]

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, num_channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, num_channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Shift and scale."""
        return self.scale * (x + self.loc)

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "b c *size"]) -> None:
        """Choose shift and factor such that this batch gets mean 0 and deviation 1.

        The published rule: loc = -mean and scale = 1 / (deviation + 1e-6), over all but channels.

        Args:
            x: At least two values in a channel, finite.

        Raises:
            UserError: With fewer values, or with values that are not finite.
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
