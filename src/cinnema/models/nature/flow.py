"""The flow of one kind's motion: a linear-Gaussian layer for each kind, then a small cINN."""

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from cinnema.models.flow.flow import ConditionalFlow, FlowConfig, NormalizingFlow
from cinnema.models.flow.transforms import Transform


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KindFlowConfig:
    """Sizes of a `KindFlow`.

    Attributes:
        num_blocks: Blocks of the cINN after the linear-Gaussian layer; 0 leaves it out.
        hidden_dim: Width of its coupling networks.
        dropout: Probability of dropping a hidden unit in training.
        log_scale_bound: Largest log-scale of a coupling, in nats a dimension.
    """

    num_blocks: Annotated[int, Field(ge=0)] = 4
    hidden_dim: Annotated[int, Field(ge=1)] = 96
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    log_scale_bound: Annotated[float, Field(gt=0, le=10)] = 0.7


class LinearGaussian(Transform):
    """nu = L^-1 (z - mean - W c), with its own L, mean and W for each kind and kind of control.

    The best simple prior, as the first layer of a flow: what follows starts at the identity, and
    has only what is not Gaussian to learn.

    The condition's columns from `first_kind` on are the kinds' indicators, its last one tells
    whether the control is given.

    Args:
        z_dim: Length of z.
        condition_dim: Columns of c.
        num_kinds: Number of kinds.
        first_kind: Column of the first kind's indicator.
    """

    def __init__(self, *, z_dim: int, condition_dim: int, num_kinds: int, first_kind: int) -> None:
        super().__init__()
        self._kinds = slice(first_kind, first_kind + num_kinds)
        sets = 2 * num_kinds
        self.register_buffer("mean", torch.zeros(sets, z_dim))
        self.register_buffer("weight", torch.zeros(sets, condition_dim, z_dim))
        self.register_buffer("cholesky", torch.eye(z_dim).repeat(sets, 1, 1))

    mean: Tensor
    weight: Tensor
    cholesky: Tensor

    def set_of(self, c: Float[Tensor, "b c"]) -> Tensor:
        """Return the index of the parameters of each row: 2 kind + (1 if the control is given)."""
        given = (c[:, -1] > 0.5).long()
        return 2 * c[:, self._kinds].argmax(1) + given

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Whiten; the log-determinant is that of L^-1."""
        index = self.set_of(c)
        away = z - self._expected(c, index)
        nu = torch.linalg.solve_triangular(
            self.cholesky[index].to(z), away[..., None], upper=False
        )[..., 0]
        return nu, -self._log_det(index, z)

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Colour; the log-determinant is that of L."""
        index = self.set_of(c)
        z = torch.einsum("bij,bj->bi", self.cholesky[index].to(nu), nu)
        return z + self._expected(c, index), self._log_det(index, nu)

    def _expected(self, c: Tensor, index: Tensor) -> Tensor:
        return self.mean[index].to(c) + torch.einsum("bc,bcz->bz", c, self.weight[index].to(c))

    def _log_det(self, index: Tensor, like: Tensor) -> Tensor:
        return self.cholesky.diagonal(dim1=1, dim2=2).log().sum(1)[index].to(like)


class KindFlow(NormalizingFlow):
    """z of one kind to nu: the linear-Gaussian layer, then a cINN that starts at the identity.

    Args:
        config: Sizes of the cINN.
        z_dim: Length of z of one kind.
        condition_dim: Columns of its condition, see `NatureModelConfig.condition_dim`.
        num_kinds: Number of kinds.
    """

    def __init__(
        self, config: KindFlowConfig, *, z_dim: int, condition_dim: int, num_kinds: int
    ) -> None:
        flow = ConditionalFlow(replace_sizes(config, z_dim=z_dim, condition_dim=condition_dim))
        first_kind = condition_dim - num_kinds - 3
        linear = LinearGaussian(
            z_dim=z_dim, condition_dim=condition_dim, num_kinds=num_kinds, first_kind=first_kind
        )
        super().__init__(_Then(linear, flow), z_dim=z_dim, condition_dim=condition_dim)
        self.config = config

    @property
    def linear(self) -> LinearGaussian:
        """The first layer of `to_residual`."""
        assert isinstance(self.transform, _Then)
        return self.transform.first

    @property
    def network(self) -> ConditionalFlow:
        """What follows."""
        assert isinstance(self.transform, _Then)
        return self.transform.second


def replace_sizes(config: KindFlowConfig, *, z_dim: int, condition_dim: int) -> FlowConfig:
    """Return the configuration of the cINN."""
    return FlowConfig(
        z_dim=z_dim,
        condition_dim=condition_dim,
        num_blocks=config.num_blocks,
        hidden_dim=config.hidden_dim,
        depth=1,
        dropout=config.dropout,
        log_scale_bound=config.log_scale_bound,
        leaky_relu=False,
        mixing="linear",
    )


class _Then(Transform):
    """Two transforms, one after the other."""

    def __init__(self, first: LinearGaussian, second: ConditionalFlow) -> None:
        super().__init__()
        self.first, self.second = first, second

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Run the first, then the second."""
        middle, one = self.first.to_residual(z, c)
        nu, two = self.second.to_residual(middle, c)
        return nu, one + two

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Run the second backwards, then the first."""
        middle, two = self.second.to_latent(nu, c)
        z, one = self.first.to_latent(middle, c)
        return z, one + two
