"""Convolutions with spectral norm, under the names that published state dicts have."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

_FIRST_ITERATIONS = 15  # power iterations on fresh weights; training adds one for each call


class SpectralWeight(_ConvNd):
    """What the two convolutions below share: a weight divided by its largest singular value.

    With W = `weight_orig` flattened to (out, rest), the convolution uses

        weight_orig / sigma,   sigma = u^T W v.

    In training mode each call first takes one step of power iteration, v = W^T u and u = W v, each
    scaled to length 1, and gradients take u and v for constants. In evaluation u and v stay.

    The state dict holds `weight_orig`, `weight_u` and `weight_v`, as that of
    `torch.nn.utils.spectral_norm` does. We do without that function because a module it has
    touched can not be copied after a call in training mode, and because its u and v are random
    until training begins; ours fit the first weights.

    Source: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018.
    """

    weight_orig: nn.Parameter
    weight_u: Float[Tensor, " out"]
    weight_v: Float[Tensor, " rest"]

    def normalised_weight(self) -> Float[Tensor, "out in *kernel"]:
        """Return weight_orig / sigma, after a step of power iteration in training mode."""
        if self.training:
            self.iterate()
        with _full_precision(self.weight_orig.device):
            sigma = self.weight_u @ self.weight_orig.flatten(1) @ self.weight_v
        return self.weight_orig / sigma

    @torch.no_grad()
    def iterate(self, *, num_iterations: int = 1) -> None:
        """Bring u and v closer to the weight's first singular vectors.

        Args:
            num_iterations: Steps of power iteration.
        """
        matrix = self.weight_orig.flatten(1)
        if matrix.is_meta:
            return
        u, v = self.weight_u, self.weight_v
        with _full_precision(matrix.device):
            for _ in range(num_iterations):
                v = functional.normalize(u @ matrix, dim=0, eps=1e-12)
                u = functional.normalize(matrix @ v, dim=0, eps=1e-12)
        # New tensors rather than new values: the graphs of earlier calls hold the old ones.
        self.weight_u, self.weight_v = u, v

    @torch.no_grad()
    def folded(self) -> nn.Conv2d | nn.Conv3d:
        """Return a plain convolution that computes what this one does in evaluation."""
        sigma = self.weight_u @ self.weight_orig.flatten(1) @ self.weight_v
        kind = nn.Conv2d if self.weight_orig.ndim == 4 else nn.Conv3d
        # mypy does not know that a convolution's tuples are as long as its kind asks.
        plain = cast(type[nn.Conv3d], kind)(
            self.in_channels,
            self.out_channels,
            cast(tuple[int, int, int], self.kernel_size),
            stride=cast(tuple[int, int, int], self.stride),
            padding=cast(tuple[int, int, int], self.padding),
            bias=self.bias is not None,
            device=self.weight_orig.device,
            dtype=self.weight_orig.dtype,
        )
        plain.weight.copy_(self.weight_orig / sigma)
        if self.bias is not None and plain.bias is not None:
            plain.bias.copy_(self.bias)
        return plain.train(self.training)

    def _normalise_weight(self) -> None:
        # The constructor's last step: `weight` becomes what the state dict wants.
        weight = self.weight
        del self.weight
        self.weight_orig = nn.Parameter(weight.detach())
        rows, columns = weight.flatten(1).shape
        self.register_buffer(
            "weight_u", functional.normalize(weight.new_empty(rows).normal_(), dim=0)
        )
        self.register_buffer("weight_v", weight.new_zeros(columns))
        self.iterate(num_iterations=_FIRST_ITERATIONS)


class SpectralConv2d(SpectralWeight, nn.Conv2d):
    """A 2-D convolution with spectral norm, see `SpectralWeight`.

    Example:
        >>> SpectralConv2d(3, 8, 4, stride=2, padding=1)(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 8, 4, 4])

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the result.
        kernel_size: Side of the kernel.
        stride: Of the kernel.
        padding: Zeros on every side.
        bias: Whether a bias is added; it is not normalised.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int | tuple[int, int] = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=bias
        )
        self._normalise_weight()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d _ _"]:
        """Convolve."""
        return functional.conv2d(
            x, self.normalised_weight(), self.bias, stride=self.stride, padding=self.padding
        )


class SpectralConv3d(SpectralWeight, nn.Conv3d):
    """A 3-D convolution with spectral norm, see `SpectralWeight`.

    Example:
        >>> SpectralConv3d(3, 8, 3, padding=1)(torch.zeros(1, 3, 4, 8, 8)).shape
        torch.Size([1, 8, 4, 8, 8])

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the result.
        kernel_size: Length, height and width of the kernel.
        stride: Of the kernel.
        padding: Zeros on every side.
        bias: Whether a bias is added; it is not normalised.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int | tuple[int, int, int] = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=bias
        )
        self._normalise_weight()

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d _ _ _"]:
        """Convolve."""
        return functional.conv3d(
            x, self.normalised_weight(), self.bias, stride=self.stride, padding=self.padding
        )


def fold_spectral_norm(network: nn.Module) -> None:
    """Put plain convolutions in place of those with spectral norm.

    In evaluation the network computes what it did. Its state dict becomes that of the network
    whose config says `spectral_norm: false`.

    Args:
        network: Changed in place.

    Example:
        >>> network = nn.Sequential(SpectralConv2d(3, 8, 1))
        >>> fold_spectral_norm(network)
        >>> list(network.state_dict())
        ['0.weight', '0.bias']
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SpectralWeight):
                setattr(parent, name, child.folded())


def draw_first_weights(
    network: nn.Module,
    kind: type[nn.Conv2d] | type[nn.Conv3d],
    draw: Callable[[Tensor], object],
) -> None:
    """Give every convolution of a kind, with spectral norm or without, new first weights.

    Args:
        network: Changed in place.
        kind: Which convolutions.
        draw: Fills a weight, as the functions of `torch.nn.init` do.
    """
    for module in network.modules():
        if not isinstance(module, kind):
            continue
        weight = module.weight_orig if isinstance(module, SpectralWeight) else module.weight
        if weight.is_meta:  # some draws take seconds there, for nothing
            continue
        draw(weight)
        if isinstance(module, SpectralWeight):
            module.iterate(num_iterations=_FIRST_ITERATIONS)


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    # sigma scales a whole weight, so it deserves float32 under autocast, which meta does not know.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
