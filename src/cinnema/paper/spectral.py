"""Convolutions with spectral norm, with the parameter names of published state dicts."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

_FIRST_ITERATIONS = 15  # power iterations on initial weights; in training each call adds one


class SpectralWeight(_ConvNd):
    """The base of both convolutions: a weight divided by its largest singular value.

    With W = `weight_orig` flattened to (out, rest), the convolution uses

        weight_orig / sigma,   sigma = u^T W v.

    In training mode each call first makes one step of power iteration, v = W^T u and u = W v, each
    normalised to length 1; gradients treat u and v as constants. In evaluation mode u and v do not
    change.

    The state dict contains `weight_orig`, `weight_u` and `weight_v`, like that of
    `torch.nn.utils.spectral_norm`. We do not use that function because its modules cannot be
    copied after a call in training mode, and because its u and v are random until training
    begins; ours are computed from the initial weights.

    Source: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Length of the kernel along each axis.
        stride: Stride of the convolution, for all axes or for each.
        padding: Zeros added on every side.
        bias: Whether a bias is added; it is not normalised.
    """

    weight_orig: nn.Parameter
    weight_u: Float[Tensor, " out"]
    weight_v: Float[Tensor, " rest"]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int | tuple[int, ...] = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        # The next class in the resolution order is nn.Conv2d or nn.Conv3d; mypy assumes _ConvNd.
        create: Callable[..., None] = super().__init__
        create(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=bias)
        weight = self.weight
        del self.weight  # replaced by the entries of the published state dict
        self.weight_orig = nn.Parameter(weight.detach())
        rows, columns = weight.flatten(1).shape
        self.register_buffer(
            "weight_u", functional.normalize(weight.new_empty(rows).normal_(), dim=0)
        )
        self.register_buffer("weight_v", weight.new_zeros(columns))
        self.iterate(num_iterations=_FIRST_ITERATIONS)

    def normalised_weight(self) -> Float[Tensor, "out in *kernel"]:
        """Return weight_orig / sigma, after a step of power iteration in training mode."""
        if self.training:
            self.iterate()
        with _full_precision(self.weight_orig.device):
            sigma = self.weight_u @ self.weight_orig.flatten(1) @ self.weight_v
        return self.weight_orig / sigma

    @torch.no_grad()
    def iterate(self, *, num_iterations: int = 1) -> None:
        """Move u and v towards the weight's first singular vectors.

        Args:
            num_iterations: Number of steps of power iteration.
        """
        matrix = self.weight_orig.flatten(1)
        if matrix.is_meta:
            return
        u, v = self.weight_u, self.weight_v
        with _full_precision(matrix.device):
            for _ in range(num_iterations):
                v = functional.normalize(u @ matrix, dim=0, eps=1e-12)
                u = functional.normalize(matrix @ v, dim=0, eps=1e-12)
        # New tensors instead of in-place updates: graphs of earlier calls refer to the old ones.
        self.weight_u, self.weight_v = u, v

    @torch.no_grad()
    def folded(self) -> nn.Conv2d | nn.Conv3d:
        """Return a plain convolution with the same outputs as this one in evaluation mode."""
        sigma = self.weight_u @ self.weight_orig.flatten(1) @ self.weight_v
        kind = nn.Conv2d if self.weight_orig.ndim == 4 else nn.Conv3d
        # mypy does not know that the tuples have the length that the kind requires.
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


class SpectralConv2d(SpectralWeight, nn.Conv2d):
    """A 2-D convolution with spectral norm (see `SpectralWeight`).

    Example:
        >>> SpectralConv2d(3, 8, 4, stride=2, padding=1)(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 8, 4, 4])
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d _ _"]:
        """Convolve."""
        return functional.conv2d(
            x, self.normalised_weight(), self.bias, stride=self.stride, padding=self.padding
        )


class SpectralConv3d(SpectralWeight, nn.Conv3d):
    """A 3-D convolution with spectral norm (see `SpectralWeight`).

    Example:
        >>> SpectralConv3d(3, 8, 3, padding=1)(torch.zeros(1, 3, 4, 8, 8)).shape
        torch.Size([1, 8, 4, 8, 8])
    """

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d _ _ _"]:
        """Convolve."""
        return functional.conv3d(
            x, self.normalised_weight(), self.bias, stride=self.stride, padding=self.padding
        )


def fold_spectral_norm(network: nn.Module) -> None:
    """Replace convolutions with spectral norm by plain ones.

    Outputs in evaluation mode do not change. The state dict becomes that of a network whose config
    has `spectral_norm: false`.

    Args:
        network: Modified in place.

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


def weight_of(conv: nn.Conv2d | nn.Conv3d) -> Float[Tensor, "out in *kernel"]:
    """Return the weight that a convolution computes with, after a step of power iteration if any.

    Args:
        conv: A convolution with or without spectral norm.
    """
    return conv.normalised_weight() if isinstance(conv, SpectralWeight) else conv.weight


def draw_first_weights(
    network: nn.Module,
    kind: type[nn.Conv2d] | type[nn.Conv3d],
    draw: Callable[[Tensor], object],
) -> None:
    """Draw new initial weights for every 2-D or 3-D convolution, with or without spectral norm.

    Args:
        network: Modified in place.
        kind: Type of the convolutions, `nn.Conv2d` or `nn.Conv3d`.
        draw: Fills a weight in place, like the functions of `torch.nn.init`.
    """
    for module in network.modules():
        if not isinstance(module, kind):
            continue
        weight = module.weight_orig if isinstance(module, SpectralWeight) else module.weight
        if weight.is_meta:  # some draws take seconds even on meta
            continue
        draw(weight)
        if isinstance(module, SpectralWeight):
            module.iterate(num_iterations=_FIRST_ITERATIONS)


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    # sigma scales a whole weight, so it is computed in float32 under autocast, which does not
    # support the meta device.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
