"""The condition of the flow: what of x0, and of the control, decides how it will move."""

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.errors import UserError

POOLED = 8
"""Rows and columns of the features that the conditioner reads."""

_MIN_SIZE = 4
# In typical sizes of eta: a smaller one has hardly a direction.
_SMALL = 0.1


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ConditionerConfig:
    """What the conditioner is made of.

    Attributes:
        feature_dim: Channels of stage 1's joint features.
        width: Channels of its layers, a multiple of 8.
        condition_dim: Columns of c that x0 fills.
        dropout: Probability that a channel of the features, or a number before the last layer, is
            dropped in training, from 0 to below 1.
        control_dim: Length of eta; 0 where the flow takes no control.
        control_scale: Typical size of eta's entries, above 0; they are divided by it.
    """

    feature_dim: int = Field(default=96, ge=1)
    width: int = Field(default=64, ge=8, multiple_of=8)
    condition_dim: int = Field(default=128, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    control_dim: int = Field(default=0, ge=0)
    control_scale: float = Field(default=0.15, gt=0)

    @property
    def out_dim(self) -> int:
        """Columns of c, which the flow's config has to match.

        Those of x0; and with a control eta, its direction, its size, and whether it is given.
        """
        return self.condition_dim + (2 * self.control_dim + 2 if self.control_dim else 0)


class Conditioner(nn.Module):
    """Features of x0 to c: averaged to 8 x 8, a residual convolution, halved to 4 x 4, a layer.

    With a control c ends with eta, eta / |eta| (nearly), the logarithm of |eta| and a 1; or with
    zeros where the control is left out, for which training leaves out some. Direction and
    logarithm let the flow steer slow motions as surely as fast ones.

    Source: the paper's conditioning encoder is trained apart as an auto-encoder of pictures. We
    read stage 1's features of x0 and train along with the flow, because c then holds what matters
    for motion and no second backbone is run.

    Example:
        >>> conditioner = Conditioner(ConditionerConfig()).eval()
        >>> conditioner(torch.zeros(2, 96, 16, 16)).shape
        torch.Size([2, 128])

    Args:
        config: Its sizes.
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
            joint: Stage 1's `SceneFeatures.joint`, 4 rows and columns or more; already pooled
                features (`pool_features`) give the same condition.
            eta: The control; None leaves it out.
            given: 1 where eta counts, 0 where it is left out; it counts everywhere if None.

        Raises:
            UserError: The channels are not the config's, or the map is smaller than 4 x 4; eta is
                of another length, or the config has none.
        """
        self._require_shape(joint)
        x = pool_features(joint).to(self.enter.weight.dtype)
        h = self.enter(self.drop_channels(x))
        h = h + self.middle(functional.silu(self.norm0(h)))
        h = self.halve(functional.silu(self.norm1(h)))
        h = self.drop(functional.silu(self.norm2(h)).flatten(1))
        c: Tensor = self.leave(h)
        controlled = self._controlled(c, eta, given)
        return c if controlled is None else torch.cat([c, controlled], dim=1)

    def _controlled(self, c: Tensor, eta: Tensor | None, given: Tensor | None) -> Tensor | None:
        """Return the columns of the control; None for a config without one."""
        length = self.config.control_dim
        if eta is not None and eta.shape != (len(c), length):
            raise UserError(
                f"eta: {length} numbers of control are taken for each of {len(c)} pictures, got "
                f"{tuple(eta.shape)}: " + ("give as many" if length else "leave it out")
            )
        if not length:
            return None
        if eta is None:
            return c.new_zeros(len(c), self.config.out_dim - self.config.condition_dim)
        counts = c.new_ones(len(c), 1) if given is None else given.to(c)[:, None]
        scaled = eta.to(c) / self.config.control_scale
        size = scaled.norm(dim=1, keepdim=True)
        direction = scaled / (size + _SMALL)
        loudness = 0.5 * (size / _SMALL + 1).log()
        return torch.cat([scaled, direction, loudness, torch.ones_like(counts)], dim=1) * counts

    def _require_shape(self, joint: Tensor) -> None:
        if joint.shape[1] != self.config.feature_dim:
            raise UserError(
                f"joint: this conditioner reads {self.config.feature_dim} channels, got "
                f"{joint.shape[1]}; conditioner and stage 1 must come from the same training"
            )
        if joint.shape[-1] < _MIN_SIZE:
            raise UserError(
                f"joint: needs at least {_MIN_SIZE}x{_MIN_SIZE} features, got "
                f"{joint.shape[-2]}x{joint.shape[-1]}; give a larger picture"
            )


def pool_features(joint: Float[Tensor, "b f h h"]) -> Float[Tensor, "b f 8 8"]:
    """Average features to the 8 x 8 that the conditioner reads; a second time changes nothing."""
    if joint.shape[-1] == POOLED:
        return joint
    pooled: Tensor = functional.adaptive_avg_pool2d(joint, POOLED)
    return pooled
