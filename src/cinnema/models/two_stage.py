"""What cinnema's own models share: a stage 1, a conditioner and a flow, each of its config."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.models.base import VideoModel
from cinnema.models.flow.conditioning import Conditioner
from cinnema.models.flow.flow import ConditionalFlow


class TwoStageModel(VideoModel):
    """Stage 1, the conditioner and the flow, without what stage 1 is.

    An implementer owes, besides what a `VideoModel` does, a config with `name`, `stage1`,
    `conditioner` and `flow`, which `require_fit` accepts.

    Args:
        config: What it is made of.
        stage1: Built by `config.stage1`.
    """

    stored_dtype: ClassVar[torch.dtype] = torch.bfloat16

    def __init__(
        self,
        config: Any,  # noqa: ANN401 - each kind of model has its own
        stage1: nn.Module,
    ) -> None:
        super().__init__()
        self.config, self.stage1 = config, stage1
        self.conditioner = Conditioner(config.conditioner)
        self.flow = ConditionalFlow(config.flow)

    @property
    def name(self) -> str:
        """What the weights are called."""
        return str(self.config.name)

    @property
    def size(self) -> int:
        """Width and height of the pictures that the networks see, in pixels."""
        return int(self.config.stage1.size)

    @property
    def num_frames(self) -> int:
        """T, the frames after x0 that `decode` returns."""
        return int(self.config.stage1.num_frames)

    @property
    def z_dim(self) -> int:
        """Length of z and nu."""
        return int(self.config.stage1.z_dim)

    @property
    def fps(self) -> float:
        """Frames a second of its clips."""
        return float(self.config.stage1.fps)

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Put x0 into a residual: z, and log abs det d z / d nu in nats."""
        return self.flow.to_latent(nu, c)

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Take x0 out of a latent: nu, and log abs det d nu / d z in nats."""
        return self.flow.to_residual(z, c)

    def drawn(
        self, z: Float[Tensor, "b z"], generator: torch.Generator | None
    ) -> Float[Tensor, "b z"]:
        """Return a draw from q(z | X) about its mean z; z itself without a generator."""
        if generator is None:
            return z
        noise = torch.randn(z.shape, generator=generator).to(z)
        out: Tensor = z + self.config.stage1.noise * noise
        return out


def require_fit(
    config: Any,  # noqa: ANN401 - each kind of model has its own
    more: Mapping[str, tuple[int, int]] | None = None,
) -> None:
    """Raise a UserError unless stage 1, the conditioner and the flow of a config fit each other.

    Args:
        config: Of a `TwoStageModel`.
        more: Pairs of numbers that have to be equal as well, by what they are.
    """
    pairs = {
        "flow.z_dim and stage1.z_dim": (config.flow.z_dim, config.stage1.z_dim),
        "flow.condition_dim and the conditioner's columns": (
            config.flow.condition_dim,
            config.conditioner.out_dim,
        ),
        "conditioner.feature_dim and stage1.feature_dim": (
            config.conditioner.feature_dim,
            config.stage1.feature_dim,
        ),
    }
    for names, (mine, other) in {**pairs, **(more or {})}.items():
        if mine != other:
            raise UserError(f"{names} must be equal, got {mine} and {other}: change one")
