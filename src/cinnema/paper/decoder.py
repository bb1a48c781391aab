"""The stage-1 decoder: from a first frame and a latent to a clip."""

import math
from functools import partial
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.errors import UserError
from cinnema.paper.clip_convs import convolve_doubled, doubling_filters
from cinnema.paper.recomputing import recomputed
from cinnema.paper.spectral import SpectralConv3d, draw_first_weights, weight_of

_GROUPS = 16
_SLOPE = 0.2
_HIDDEN = 128  # channels between x0 and its gamma and beta
_START = 4  # height and width of the first map, which has one time step
# Input and output widths of the blocks, in units of `channel_factor`.
_BLOCKS = {
    "head_0": (16, 16),
    "g_0": (16, 16),
    "g_1": (16, 8),
    "g_2": (8, 4),
    "g_3": (4, 2),
    "g_4": (2, 1),
}

Factor = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DecoderConfig:
    """The section `Decoder` of a published stage-1 config.

    Attributes:
        channel_factor: Width of the last block, a multiple of 8; the first is 16 times as wide.
        z_dim: Number of latent dimensions.
        upsample_s: Factors on height and width before the last two blocks.
        upsample_t: Factors on the length before the last two blocks.
        spectral_norm: Whether the blocks' convolutions have spectral norm.

    Raises:
        ValueError: A field is unknown, missing or out of range.
    """

    channel_factor: Annotated[int, Field(ge=8, multiple_of=8)]
    z_dim: Factor
    upsample_s: tuple[Factor, Factor]
    upsample_t: tuple[Factor, Factor]
    spectral_norm: bool

    @property
    def upsampling(self) -> tuple[tuple[int, int, int], ...]:
        """Upsampling factors of (t, h, w) before each block but the first."""
        last = zip(self.upsample_t, self.upsample_s, self.upsample_s, strict=True)
        return (2, 2, 2), (2, 2, 2), (2, 2, 2), *last

    @property
    def num_frames(self) -> int:
        """Number of frames of the decoded clips."""
        return math.prod(factor[0] for factor in self.upsampling)

    @property
    def size(self) -> int:
        """Height and width of the decoded clips, in pixels."""
        return _START * math.prod(factor[1] for factor in self.upsampling)


class Decoder(nn.Module):
    """p(x0, z): six residual blocks that turn a 4x4 map into a clip.

    The first map is a linear function of z; before each block but the first the map is upsampled
    (nearest neighbour). Every block is conditioned on x0 and z (see `DecoderBlock`). The output is
    tanh(conv(lrelu(h))).

    Source: the paper's stage 1.

    Example:
        >>> config = DecoderConfig(
        ...     channel_factor=8,
        ...     z_dim=16,
        ...     upsample_s=(2, 1),
        ...     upsample_t=(2, 1),
        ...     spectral_norm=True,
        ... )
        >>> Decoder(config).eval()(torch.zeros(1, 3, 64, 64), torch.zeros(1, 16)).shape
        torch.Size([1, 16, 3, 64, 64])

    Args:
        config: Widths and upsampling factors.

    Attributes:
        recomputes: Whether the backward pass computes the blocks' activations again, which then
            need no memory.
        rearranges: Whether blocks are computed with less work, and other errors of rounding (see
            `DecoderBlock.enlarged`).
    """

    recomputes = False
    rearranges = False

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channel_factor
        self.fc = nn.Linear(config.z_dim, 16 * width * _START * _START)
        for name, (n_in, n_out) in _BLOCKS.items():
            block = DecoderBlock(
                n_in * width,
                n_out * width,
                z_dim=config.z_dim,
                spectral_norm=config.spectral_norm,
            )
            self.add_module(name, block)
        self.conv_img = nn.Conv3d(width, 3, 3, padding=1)
        draw_first_weights(
            self, nn.Conv2d, lambda weight: nn.init.xavier_uniform_(weight, gain=0.02)
        )

    def forward(
        self, x0: Float[Tensor, "b c h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t 3 height width"]:
        """Return the frames that follow x0.

        Args:
            x0: First frames in [-1, 1], of any size; the blocks resize them.
            z: Latents, of length `config.z_dim`.

        Returns:
            Clips of `config.num_frames` frames of `config.size` pixels, in [-1, 1].

        Raises:
            UserError: A shape does not match the config.
        """
        self.require_shapes(x0, z)
        h = self.fc(z).unflatten(1, (-1, 1, _START, _START))
        compute = DecoderBlock.enlarged if self.rearranges else _enlarged_block
        for block, factors in zip(self.blocks(), ((1, 1, 1), *self.config.upsampling), strict=True):
            enlarge = partial(compute, block, factors)
            h = (
                recomputed(enlarge, h, x0, z, network=block)
                if self.recomputes
                else enlarge(h, x0, z)
            )
        video: Tensor = self.conv_img(functional.leaky_relu(h, _SLOPE)).tanh()
        return video.transpose(1, 2)

    def blocks(self) -> "list[DecoderBlock]":
        """Return the blocks, in the order of the forward pass."""
        return [getattr(self, name) for name in _BLOCKS]

    def require_shapes(self, x0: Float[Tensor, "_ _ h w"], z: Float[Tensor, "_ _"]) -> None:
        """Raise a UserError unless first frames have colours, and each has a latent.

        Args:
            x0: First frames.
            z: Latents.
        """
        if x0.shape[1] != 3:
            raise UserError(f"x0: needs shape (b, 3, h, w), got {tuple(x0.shape)}")
        if z.shape != (len(x0), self.config.z_dim):
            raise UserError(
                f"z: needs one row of {self.config.z_dim} numbers for each of {len(x0)} first "
                f"frames, got shape {tuple(z.shape)}; latents and decoder must come from the "
                "same training"
            )


class DecoderBlock(nn.Module):
    """A residual block conditioned on the first frame, then on the latent.

        dx = conv_0(lrelu(Spade(x, x0)))
        dx = conv_1(lrelu(AdaIN(dx, z)))
        result = shortcut(x) + dx

    The shortcut is a 1x1x1 convolution of the normalised x where the width changes, else x.

    Args:
        in_channels: Channels of x, a multiple of 16 where the width changes.
        out_channels: Channels of the result.
        z_dim: Number of latent dimensions.
        spectral_norm: Whether the convolutions have spectral norm.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, z_dim: int, spectral_norm: bool
    ) -> None:
        super().__init__()
        conv = SpectralConv3d if spectral_norm else nn.Conv3d
        middle = min(in_channels, out_channels)
        changes = in_channels != out_channels
        self.conv_0 = conv(in_channels, middle, 3, padding=1)
        self.conv_1 = conv(middle, out_channels, 3, padding=1)
        self.conv_s = conv(in_channels, out_channels, 1, bias=False) if changes else None
        self.norm_0 = Spade(in_channels)
        self.norm_1 = AdaIN(middle, z_dim=z_dim)
        # The published name of a GroupNorm in the shortcut is `norm_s.bn`.
        norm = {"bn": nn.GroupNorm(_GROUPS, in_channels)} if changes else None
        self.norm_s = None if norm is None else nn.ModuleDict(norm)

    def forward(
        self,
        x: Float[Tensor, "b c t h w"],
        x0: Float[Tensor, "b 3 height width"],
        z: Float[Tensor, "b z"],
    ) -> Float[Tensor, "b d t h w"]:
        """Compute the block."""
        dx = self.conv_0(functional.leaky_relu(self.norm_0(x, x0), _SLOPE))
        dx = self.conv_1(functional.leaky_relu(self.norm_1(dx, z), _SLOPE))
        if self.conv_s is not None and self.norm_s is not None:
            x = self.conv_s(self.norm_s["bn"](x))
        result: Tensor = x + dx
        return result

    def enlarged(
        self,
        factors: tuple[int, int, int],
        x: Float[Tensor, "b c t h w"],
        x0: Float[Tensor, "b 3 height width"],
        z: Float[Tensor, "b z"],
    ) -> Float[Tensor, "b d _ _ _"]:
        """Compute the block of x, upsampled (nearest neighbour), with less work than `forward`.

        Norms and the shortcut come before the upsampling, which does not change their statistics,
        and `conv_0` doubles the length.

        Args:
            factors: Upsampling factors of (t, h, w).
            x: The map before it is upsampled.
            x0: First frames.
            z: Latents.
        """
        length, *sides = factors
        dx = _upsampled(self.norm_0.norm(x), (1, *sides))
        gamma, beta = self.norm_0.gamma_and_beta(x0, size=(dx.shape[-2], dx.shape[-1]))
        dx = torch.addcmul(beta[:, :, None], dx, 1 + gamma[:, :, None])
        dx = functional.leaky_relu(dx, _SLOPE)
        if length == 2:
            filters = doubling_filters(weight_of(self.conv_0))
            dx = convolve_doubled(dx, *filters, self.conv_0.bias)
        else:
            dx = self.conv_0(_upsampled(dx, (length, 1, 1)))
        dx = self.conv_1(functional.leaky_relu(self.norm_1(dx, z), _SLOPE))
        if self.conv_s is not None and self.norm_s is not None:
            x = self.conv_s(self.norm_s["bn"](x))
        result: Tensor = _upsampled(x, factors) + dx
        return result


def _enlarged_block(
    block: DecoderBlock, factors: tuple[int, int, int], h: Tensor, x0: Tensor, z: Tensor
) -> Tensor:
    result: Tensor = block(_upsampled(h, factors), x0, z)
    return result


def _upsampled(x: Tensor, factors: tuple[int, ...]) -> Tensor:
    if all(factor == 1 for factor in factors):
        return x
    return functional.interpolate(x, scale_factor=tuple(map(float, factors)))


class Spade(nn.Module):
    """Modulation by an image: (1 + gamma(x0)) * norm(x) + beta(x0), the same at every time step.

    x0 is resized to the map's height and width (bilinear, aligned corners); gamma and beta share
    one convolution and a leaky ReLU. The norm is a GroupNorm without weights, with 16 groups or
    the next smaller number that divides the width.

    Source: Park et al., "Semantic Image Synthesis with Spatially-Adaptive Normalization", 2019.

    Args:
        num_channels: Channels of x.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        groups = next(count for count in range(_GROUPS, 0, -1) if num_channels % count == 0)
        self.norm = nn.GroupNorm(groups, num_channels, affine=False)
        self.conv = nn.Conv2d(3, _HIDDEN, 3, padding=1)
        self.conv_gamma = nn.Conv2d(_HIDDEN, num_channels, 3, padding=1)
        self.conv_beta = nn.Conv2d(_HIDDEN, num_channels, 3, padding=1)
        for conv in (self.conv, self.conv_gamma, self.conv_beta):
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(
        self, x: Float[Tensor, "b c t h w"], x0: Float[Tensor, "b 3 height width"]
    ) -> Float[Tensor, "b c t h w"]:
        """Modulate x by x0."""
        gamma, beta = self.gamma_and_beta(x0, size=(x.shape[-2], x.shape[-1]))
        modulated: Tensor = self.norm(x) * (1 + gamma[:, :, None]) + beta[:, :, None]
        return modulated

    def gamma_and_beta(
        self, x0: Float[Tensor, "b 3 height width"], *, size: tuple[int, int]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        """Return gamma(x0) and beta(x0).

        Args:
            x0: First frames in [-1, 1].
            size: Height and width of the result.
        """
        image = functional.interpolate(x0, size=size, mode="bilinear", align_corners=True)
        hidden = functional.leaky_relu(self.conv(image), _SLOPE)
        return self.conv_gamma(hidden), self.conv_beta(hidden)


class AdaIN(nn.Module):
    """Modulation by a latent: gamma(z) * norm(x) + beta(z), with one gamma and beta per channel.

    The norm is an instance norm over (t, h, w), without weights.

    Source: Huang and Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance
    Normalization", 2017, equation 8.

    Args:
        num_channels: Channels of x.
        z_dim: Number of latent dimensions.
    """

    def __init__(self, num_channels: int, *, z_dim: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm3d(num_channels)
        self.linear = nn.Linear(z_dim, 2 * num_channels)

    def forward(
        self, x: Float[Tensor, "b c t h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b c t h w"]:
        """Modulate x by z."""
        gamma, beta = self.linear(z)[:, :, None, None, None].chunk(2, dim=1)
        modulated: Tensor = gamma * self.norm(x) + beta
        return modulated
