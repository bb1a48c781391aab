"""Discriminators for stage 1: one scores single frames, the other consecutive frames together.

Both are conditioned on x0, concatenated with every frame, so that they can judge whether a frame is
a continuation of this x0. Without it, an unchanged x0 would score as a perfectly real frame.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.errors import UserError

_SLOPE = 0.2  # negative slope of the leaky ReLUs
_BLOCK = 2  # pixels; side of a block that becomes one point of the first feature map
_CHANNELS = 2 * 3 * _BLOCK**2  # channels of the blocks of a frame and x0


class Judgement(NamedTuple):
    """The output of a discriminator.

    Attributes:
        logits: High where a clip looks real; P values per clip.
        features: The feature map after each stage, from fine to coarse.
    """

    logits: Float[Tensor, "b ..."]
    features: list[Tensor]


class SpatialDiscriminator(nn.Module):
    """Scores each patch of each frame, independently of the other frames.

    Images are cut into 2 x 2 blocks of pixels. Then follows a stage per width, each at half the
    height and width of the one before: a residual block without normalisation, whose last layer is
    initially zero. Nothing mixes the clips of a batch, which the gradient penalties rely on.

    Source: The blocks are those of Huang et al., "The GAN is dead; long live the GAN! A Modern GAN
    Baseline" (R3GAN), 2024, section 4, narrower and without groups; patches follow Isola et
    al., "Image-to-Image Translation with Conditional Adversarial Networks", 2017.

    Args:
        widths: Channels of each stage; with s stages, patches are 2^s pixels apart.

    Example:
        >>> network = SpatialDiscriminator([16, 24, 32])
        >>> frames, x0 = torch.zeros(2, 4, 3, 64, 64), torch.zeros(2, 3, 64, 64)
        >>> network(frames, x0).logits.shape
        torch.Size([2, 4, 8, 8])
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.enter = nn.Conv2d(_CHANNELS, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(_Block(_mix2d(width)) for width in widths)
        self.widen = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(widths))
        self.leave = nn.Conv2d(widths[-1], 1, 1)
        _draw_weights(self)

    def forward(
        self, frames: Float[Tensor, "b n 3 h w"], x0: Float[Tensor, "b 3 h w"]
    ) -> Judgement:
        """Return logits of shape `b n i j`, and features of shape `(b n) c i j`.

        Args:
            frames: Frames in about [-1, 1], at least one per clip.
            x0: The first frames of their clips.

        Raises:
            UserError: Height or width is not a multiple of 2^s.
        """
        num = frames.shape[1]
        h = self.enter(_beside(frames, x0, stages=len(self.blocks)).flatten(0, 1))
        features = [self.blocks[0](h)]
        for widen, block in zip(self.widen, self.blocks[1:], strict=True):
            features.append(block(widen(functional.avg_pool2d(features[-1], 2))))
        logits = self.leave(functional.leaky_relu(features[-1], _SLOPE))
        return Judgement(rearrange(logits, "(b n) 1 i j -> b n i j", n=num), features)


class TemporalDiscriminator(nn.Module):
    """Scores each patch of a clip, all frames together.

    Like `SpatialDiscriminator`, but in three dimensions: blocks convolve over space and then over
    time, and each stage halves the time axis as well, as long as it is longer than one.

    Source: As `SpatialDiscriminator`; space and time alternate as in Tran et al., "A Closer Look at
    Spatiotemporal Convolutions for Action Recognition", 2018.

    Args:
        widths: Channels of each stage.

    Example:
        >>> network = TemporalDiscriminator([16, 24, 32])
        >>> frames, x0 = torch.zeros(2, 6, 3, 64, 64), torch.zeros(2, 3, 64, 64)
        >>> network(frames, x0).logits.shape
        torch.Size([2, 2, 8, 8])
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.enter = nn.Conv3d(_CHANNELS, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(_Block(_mix3d(width)) for width in widths)
        self.widen = nn.ModuleList(nn.Conv3d(a, b, 1) for a, b in pairwise(widths))
        self.leave = nn.Conv3d(widths[-1], 1, 1)
        _draw_weights(self)

    def forward(
        self, frames: Float[Tensor, "b n 3 h w"], x0: Float[Tensor, "b 3 h w"]
    ) -> Judgement:
        """Return logits of shape `b t i j`, and features of shape `b c t i j`.

        Args:
            frames: At least 2 consecutive frames per clip, in about [-1, 1].
            x0: The first frames of their clips.

        Raises:
            UserError: There is only one frame, or height or width is not a multiple of 2^s.
        """
        if frames.shape[1] < 2:
            raise UserError(
                f"a temporal discriminator needs at least 2 consecutive frames, got "
                f"{frames.shape[1]}: render more, or leave it out"
            )
        seen = _beside(frames, x0, stages=len(self.blocks))
        features = [self.blocks[0](self.enter(seen.transpose(1, 2)))]
        for widen, block in zip(self.widen, self.blocks[1:], strict=True):
            features.append(block(widen(_halve(features[-1]))))
        logits = self.leave(functional.leaky_relu(features[-1], _SLOPE))
        return Judgement(logits[:, 0], features)


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Set networks to evaluation mode, without gradients of their weights, for a `with` block.

    Gradients still pass through them to their inputs.

    Args:
        networks: Modules whose submodules are all in training mode, or all in evaluation mode.
    """
    modes = [network.training for network in networks]
    for network in networks:
        network.eval().requires_grad_(requires_grad=False)
    try:
        yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode).requires_grad_(requires_grad=True)


class _Block(nn.Module):
    """x + W_last a(... a(W_1 a(x))): a 1 x 1 layer, layers that mix, and a 1 x 1 layer of zeros."""

    def __init__(self, mix: Sequence[nn.Conv2d | nn.Conv3d]) -> None:
        super().__init__()
        point, width = type(mix[0]), mix[0].in_channels
        self.layers = nn.ModuleList([point(width, width, 1), *mix, point(width, width, 1)])

    def forward(self, x: Float[Tensor, "b c ..."]) -> Float[Tensor, "b c ..."]:
        h = x
        for layer in self.layers:
            h = layer(functional.leaky_relu(h, _SLOPE))
        return x + h


def _mix2d(width: int) -> list[nn.Conv2d]:
    return [nn.Conv2d(width, width, 3, padding=1)]


def _mix3d(width: int) -> list[nn.Conv3d]:
    return [
        nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1)),
        nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0)),
    ]


def _draw_weights(network: nn.Module) -> None:
    """Initialise weights by He et al. for leaky ReLUs, biases and last layers of blocks by zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    for block in network.modules():
        if isinstance(block, _Block):
            nn.init.zeros_(block.layers[-1].weight)  # type: ignore[arg-type]


def _halve(x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c _ _ _"]:
    """Average over 2 x 2 points and 2 times; a last odd time is averaged over space only."""
    steps = min(2, x.shape[2])
    return functional.avg_pool3d(x, (steps, 2, 2), ceil_mode=True, count_include_pad=False)


def _beside(
    frames: Float[Tensor, "b n 3 h w"], x0: Float[Tensor, "b 3 h w"], *, stages: int
) -> Float[Tensor, "b n c _ _"]:
    """Concatenate x0 with each frame, and turn blocks of pixels into channels."""
    side = 2**stages
    if any(length % side for length in frames.shape[-2:]):
        raise UserError(
            f"discriminators of {stages} widths need height and width to be multiples of {side}, "
            f"got {frames.shape[-2]} and {frames.shape[-1]}: give fewer widths, or resize"
        )
    both = torch.cat([frames, x0[:, None].expand_as(frames)], dim=2)
    return functional.pixel_unshuffle(both, _BLOCK)
