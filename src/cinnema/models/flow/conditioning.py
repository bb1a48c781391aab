"""The condition of the flow, computed from the features of x0 and the control."""

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.errors import UserError

POOLED = 8
"""Rows and columns of the features that the conditioner takes."""

_MIN_SIZE = 4
# Size of eta, in typical sizes, below which its direction hardly counts.
_SMALL = 0.1


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ConditionerConfig:
    """Sizes and options of the conditioner.

    Attributes:
        feature_dim: Channels of stage 1's features of x0.
        width: Channels of its layers, a multiple of 8.
        condition_dim: Number of columns of c that depend on x0.
        dropout: Probability that a channel of the features, or a number before the last layer, is
            dropped in training, from 0 to below 1.
        control_dim: Length of eta; 0 if the flow takes no control.
        control_scale: Typical size of eta's entries, above 0; eta is divided by it.
    """

    feature_dim: int = Field(default=96, ge=1)
    width: int = Field(default=64, ge=8, multiple_of=8)
    condition_dim: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    control_dim: int = Field(default=0, ge=0)
    control_scale: float = Field(default=0.15, gt=0)

    @property
    def out_dim(self) -> int:
        """Number of columns of c, equal to the flow's `condition_dim`.

        With a control these are `condition_dim` for x0, and then eta, its direction, the logarithm
        of its size, and whether it is given.
        """
        return self.condition_dim + (2 * self.control_dim + 2 if self.control_dim else 0)


class Conditioner(nn.Module):
    """Maps features of x0 and the control to c.

    Features are averaged to 8 x 8, pass a residual convolution, are halved to 4 x 4, and a linear
    layer follows. With a control, c ends with eta, eta / |eta| (nearly), the logarithm of |eta| and
    a 1, or with zeros if the control is left out, as training does for some clips. With direction
    and logarithm, slow motions are controlled as accurately as fast ones.

    Source: the paper's conditioning encoder is trained separately, as an auto-encoder of pictures.
    We take stage 1's features of x0 and train together with the flow, because c then holds what
    matters for motion and no second backbone is needed.

    Example:
        >>> conditioner = Conditioner(ConditionerConfig()).eval()
        >>> conditioner(torch.zeros(2, 96, 16, 16)).shape
        torch.Size([2, 128])

    Args:
        config: Sizes and options.
    """

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.drop_channels = nn.Dropout2d(config.dropout)
        self.enter = nn.Conv2d(config.feature_dim, width, 1)
        self.norm0 = nn.GroupNorm(8, width)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.norm1 = nn.GroupNorm(8, width)
        self.halve = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.norm2 = nn.GroupNorm(8, width)
        self.drop = nn.Dropout(config.dropout)
        self.leave = nn.Linear(width * (POOLED // 2) ** 2, config.condition_dim)

    def forward(
        self,
        joint: Float[Tensor, "b f h h"],
        eta: Float[Tensor, "b e"] | None = None,
        given: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b c"]:
        """Return the condition of each picture.

        Args:
            joint: Stage 1's features of x0, with at least 4 rows and columns; features that were
                pooled by `pool_features` give the same condition.
            eta: The control; None leaves it out.
            given: 1 where eta is given, 0 where it is left out; 1 everywhere if None.

        Raises:
            UserError: The number of channels is wrong, the map is smaller than 4 x 4, eta has the
                wrong length, or there is no control.
        """
        self._require_shape(joint)
        x = pool_features(joint).to(self.enter.weight.dtype)
        h = self.enter(self.drop_channels(x))
        h = h + self.middle(functional.silu(self.norm0(h)))
        h = self.halve(functional.silu(self.norm1(h)))
        h = self.drop(functional.silu(self.norm2(h)).flatten(1))
        c: Tensor = self.leave(h)
        controlled = self._control_columns(c, eta, given)
        return c if controlled is None else torch.cat([c, controlled], dim=1)

    def _control_columns(
        self, c: Tensor, eta: Tensor | None, given: Tensor | None
    ) -> Tensor | None:
        """Return the columns of c that depend on the control; None without one."""
        length = self.config.control_dim
        if eta is not None and eta.shape != (len(c), length):
            raise UserError(
                f"eta: the control has {length} numbers for each of {len(c)} pictures, got "
                f"{tuple(eta.shape)}: " + ("give as many" if length else "leave it out")
            )
        if not length:
            return None
        if eta is None:
            return c.new_zeros(len(c), self.config.out_dim - self.config.condition_dim)
        is_given = c.new_ones(len(c), 1) if given is None else given.to(c)[:, None]
        scaled = eta.to(c) / self.config.control_scale
        size = scaled.norm(dim=1, keepdim=True)
        direction = scaled / (size + _SMALL)
        log_size = 0.5 * (size / _SMALL + 1).log()
        return torch.cat([scaled, direction, log_size, torch.ones_like(is_given)], dim=1) * is_given

    def _require_shape(self, joint: Tensor) -> None:
        if joint.shape[1] != self.config.feature_dim:
            raise UserError(
                f"joint: this conditioner takes {self.config.feature_dim} channels, got "
                f"{joint.shape[1]}; conditioner and stage 1 must come from the same training"
            )
        if joint.shape[-1] < _MIN_SIZE:
            raise UserError(
                f"joint: needs at least {_MIN_SIZE}x{_MIN_SIZE} features, got "
                f"{joint.shape[-2]}x{joint.shape[-1]}; give a larger picture"
            )


def pool_features(joint: Float[Tensor, "b f h h"]) -> Float[Tensor, "b f 8 8"]:
    """Average features to the 8 x 8 that the conditioner takes; pooled ones stay as they are."""
    if joint.shape[-1] == POOLED:
        return joint
    pooled: Tensor = functional.adaptive_avg_pool2d(joint, POOLED)
    return pooled
