"""The published cINN: the parts of `cinnema.models.flow`, with the published state dict."""

import re
from typing import Annotated, Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.models.flow.couplings import AffineCoupling, Half
from cinnema.models.flow.flow import NormalizingFlow
from cinnema.models.flow.transforms import Compose, LeakyReLU, Permutation
from cinnema.paper.actnorm import ActNorm
from cinnema.paper.fast_flow import FastFlow

# With a control, the couplings of every fourth block depend on the latent too.
_FULL_EVERY = 4

_HALVES: tuple[Half, ...] = ("second", "first")

LogDet: TypeAlias = Literal["exact", "published"]
PositiveCount = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PaperFlowConfig:
    """Sizes and options of a `PaperFlow`, under their published names.

    Attributes:
        in_channels: Number of latent dimensions, even.
        embedding_dim: Number of condition columns; with a control, the frame's embedding and the
            30 of the one-hots.
        hidden_dim: Width of the couplings' networks; 8 * in_channels in the paper.
        hidden_depth: Number of their hidden layers after the first; 2 in the paper.
        n_flows: Number of blocks; 20 in the paper.
        conditioning_option: The published `"None"`: every block is given the condition unchanged.
        control: Whether the couplings of three of every four blocks depend on the condition alone.
        log_det: `"exact"`, or `"published"` for the numbers of the released code, whose leaky ReLU
            adds 0 instead of log(0.9) for each negative entry. Values and samples do not depend on
            it; likelihoods do, by up to 135 nats at 20 blocks of 64 dimensions.

    Raises:
        ValueError: A field is unknown, missing or out of range.
    """

    in_channels: Annotated[int, Field(ge=2, multiple_of=2)]
    embedding_dim: PositiveCount
    hidden_dim: PositiveCount
    hidden_depth: Annotated[int, Field(ge=0)]
    n_flows: PositiveCount
    conditioning_option: Literal["None", "none"] = "None"
    control: bool = False
    log_det: LogDet = "exact"


class PaperFlow(NormalizingFlow):
    """The cINN as published, a bijection between z and nu for every condition c.

    A block is ActNorm, leaky ReLU, a coupling of the second half, a coupling of the first half,
    a permutation. It differs from `ConditionalFlow` in its coupling networks, in an ActNorm whose
    scale may be negative, and in couplings without a bound on their log-scales: a latent far from
    those of the training may become infinite, as it does in the released code.

    `state_dict` and `load_state_dict` use the published keys. First weights are drawn from torch's
    global generator. Before training call `initialise` once; nothing else changes its state.

    In evaluation mode without gradients both directions are those of a `FastFlow`, which is made at
    the first call and after each change of weights. It holds the weights a second time.

    Source: Dorkenwald et al., "Stochastic Image-to-Video Synthesis using cINNs", 2021, section 3.2.

    Example:
        >>> flow = PaperFlow(
        ...     PaperFlowConfig(
        ...         in_channels=4, embedding_dim=3, hidden_dim=8, hidden_depth=2, n_flows=2
        ...     )
        ... )
        >>> z, c = torch.randn(8, 4), torch.randn(8, 3)
        >>> flow.initialise(z, c)
        >>> nu, _ = flow.to_residual(z, c)
        >>> torch.allclose(flow.to_latent(nu, c)[0], z, atol=1e-5)
        True
        >>> list(flow.state_dict())[0]
        'sub_layers.0.norm_layer.loc'

    Args:
        config: Sizes and options.
    """

    def __init__(self, config: PaperFlowConfig) -> None:
        blocks = [
            _block(config, sees_latent=not config.control or index % _FULL_EVERY == 0)
            for index in range(config.n_flows)
        ]
        super().__init__(
            Compose(blocks), z_dim=config.in_channels, condition_dim=config.embedding_dim
        )
        self.config = config
        self._fast: tuple[tuple[int, ...], FastFlow] | None = None
        self.register_state_dict_post_hook(_to_published)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_from_published)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_name_as_published)  # type: ignore[no-untyped-call]

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map latents to residuals; see `NormalizingFlow.to_residual`."""
        if self._is_differentiated(z, c):
            return super().to_residual(z, c)
        self._require_shapes(z, c)
        return self._packed().to_residual(z, c)

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map residuals to latents; see `NormalizingFlow.to_latent`."""
        if self._is_differentiated(nu, c):
            return super().to_latent(nu, c)
        self._require_shapes(nu, c)
        return self._packed().to_latent(nu, c)

    def _is_differentiated(self, z: Tensor, c: Tensor) -> bool:
        return self.training or (
            torch.is_grad_enabled()
            and (
                z.requires_grad
                or c.requires_grad
                or any(value.requires_grad for value in self.parameters())
            )
        )

    @torch.no_grad()
    def _packed(self) -> FastFlow:
        """Return the flow for its present weights, made anew if these have changed."""
        state = tuple(
            number
            for value in (*self.parameters(), *self.buffers())
            for number in (value.data_ptr(), 0 if value.is_inference() else value._version)
        )
        if self._fast is None or self._fast[0] != state:
            assert isinstance(self.transform, Compose)
            counts_slope = self.config.log_det == "exact"
            self._fast = state, FastFlow(self.transform.parts, counts_slope=counts_slope)
        return self._fast[1]


def _block(config: PaperFlowConfig, *, sees_latent: bool) -> Compose:
    exact = config.log_det == "exact"
    activation = LeakyReLU(slope=0.9) if exact else PublishedLeakyReLU(slope=0.9)
    half = config.in_channels // 2
    in_dim = config.embedding_dim + (half if sees_latent else 0)
    # The order of construction is that of the released code, for the same first weights.
    scales, shifts = (
        [PlainNetwork(in_dim, half, config=config) for _ in range(2)] for _ in range(2)
    )
    second, first = (
        AffineCoupling(
            config.in_channels,
            transforms=transforms,
            network=ScaleAndShift(scale, shift, sees_latent=sees_latent),
            log_scale_bound=None,
        )
        for transforms, scale, shift in zip(_HALVES, scales, shifts, strict=True)
    )
    shuffle = Permutation(config.in_channels)
    # The released couplings leave the halves swapped; the permutation here includes the swap.
    shuffle.order.add_(half).remainder_(config.in_channels)
    return Compose([ActNorm(config.in_channels), activation, Compose([second, first]), shuffle])


class PublishedLeakyReLU(LeakyReLU):
    """The leaky ReLU of the released code, which returns 0 as its log-determinant.

    That is wrong by log(slope) for each negative entry. It is kept because the published
    likelihoods, and the training of the published weights, contain it.

    Args:
        slope: Above 0.
    """

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Shrink negative entries; log_det = 0, which is not exact."""
        nu, log_det = super().to_residual(z, c)
        return nu, torch.zeros_like(log_det)

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Stretch negative entries; log_det = 0, which is not exact."""
        z, log_det = super().to_latent(nu, c)
        return z, torch.zeros_like(log_det)


class ScaleAndShift(nn.Module):
    """Two networks of a coupling side by side: one gives the log-scales, one the shifts.

    Args:
        s: Gives the log-scales.
        t: Gives the shifts.
        sees_latent: Whether both read the half that is kept and the condition, or the condition
            alone.
    """

    def __init__(self, s: nn.Module, t: nn.Module, *, sees_latent: bool) -> None:
        super().__init__()
        self.s, self.t, self.sees_latent = s, t, sees_latent

    def forward(self, x: Float[Tensor, "b x"], c: Float[Tensor, "b c"]) -> Float[Tensor, "b out"]:
        """Return log-scales and then shifts, for each row."""
        h = torch.cat([x, c], dim=1) if self.sees_latent else c
        return torch.cat([self.s(h), self.t(h)], dim=1)


class PlainNetwork(nn.Module):
    """A multi-layer perceptron with leaky ReLUs of slope 0.01 between its layers.

    Args:
        in_dim: Number of inputs.
        out_dim: Number of outputs.
        config: Config of the flow, for the width and the number of hidden layers.
    """

    def __init__(self, in_dim: int, out_dim: int, *, config: PaperFlowConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        layers: list[nn.Module] = [nn.Linear(in_dim, width), nn.LeakyReLU()]
        for _ in range(config.hidden_depth):
            layers += [nn.Linear(width, width), nn.LeakyReLU()]
        self.main = nn.Sequential(*layers, nn.Linear(width, out_dim))

    def forward(self, h: Float[Tensor, "b h"]) -> Float[Tensor, "b out"]:
        """Compute the result for each row."""
        out: Tensor = self.main(h)
        return out


_BLOCK = r"transform\.parts\.(\d+)\.parts\."
# Patterns of our keys with the published keys that replace them, and the other way round.
_TO_PUBLISHED = (
    (_BLOCK + r"0\.(.*)", r"sub_layers.\1.norm_layer.\2"),
    (_BLOCK + r"2\.parts\.([01])\.network\.([st])\.(.*)", r"sub_layers.\1.coupling.\3.\2.\4"),
    (_BLOCK + r"3\.order", r"sub_layers.\1.shuffle.forward_shuffle_idx"),
)
_FROM_PUBLISHED = (
    (r"sub_layers\.(\d+)\.norm_layer\.(.*)", r"transform.parts.\1.parts.0.\2"),
    (
        r"sub_layers\.(\d+)\.coupling\.([st])\.([01])\.(.*)",
        r"transform.parts.\1.parts.2.parts.\3.network.\2.\4",
    ),
    (r"sub_layers\.(\d+)\.shuffle\.forward_shuffle_idx", r"transform.parts.\1.parts.3.order"),
)
_SECTIONS = ("norm_layer", "coupling", "shuffle")


def _to_published(_: nn.Module, state: dict[str, Any], prefix: str, __: object) -> None:
    """Rename our entries to the published ones, in the published order, and undo the swap."""
    ours = [name for name in state if name.startswith(f"{prefix}transform.")]
    entries = {_renamed(name.removeprefix(prefix), _TO_PUBLISHED): state.pop(name) for name in ours}
    for name in sorted(entries, key=_published_place):
        value = entries[name]
        if not name.endswith("forward_shuffle_idx"):
            state[prefix + name] = value
            continue
        order = (value - value.numel() // 2).remainder(value.numel())
        state[prefix + name] = order
        state[prefix + name.replace("forward", "backward")] = order.argsort()


def _from_published(_: nn.Module, state: dict[str, Any], prefix: str, *__: object) -> None:
    """Rename the published entries to ours, and let the permutation include the swap."""
    published = [name for name in state if name.startswith(f"{prefix}sub_layers.")]
    for name in published:
        value = state.pop(name)
        if name.endswith("backward_shuffle_idx"):
            continue  # the inverse of the forward one
        if name.endswith("forward_shuffle_idx"):
            value = (value + value.numel() // 2).remainder(value.numel())
        state[prefix + _renamed(name.removeprefix(prefix), _FROM_PUBLISHED)] = value


def _name_as_published(_: nn.Module, wrong: Any) -> None:  # noqa: ANN401 - torch's own
    """Let the error message of `load_state_dict` name the published entries."""
    for names in (wrong.missing_keys, wrong.unexpected_keys):
        names[:] = [_renamed(name, _TO_PUBLISHED) for name in names]


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(rf"\b{pattern}$", replacement, name)
    return name


def _published_place(name: str) -> tuple[int, int, list[str]]:
    """Return the position of an entry in the published state dict."""
    _, block, section, *rest = name.split(".")
    return int(block), _SECTIONS.index(section), rest[:2] if section == "coupling" else []
