"""The discriminators beside stage 1: one looks at each frame, the other at frames in a row.

Both see x0 beside every frame. The decoder makes its frames of x0, and every real frame has an x0
that it came from; so a discriminator that knows x0 can ask whether this frame goes on from this
picture. One that does not would take x0 itself, unmoved, for the most real frame of all.
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

_SLOPE = 0.2  # of the leaky ReLUs
_BLOCK = 2  # pixels on a side of what becomes one point: the first map has half of the full size
_CHANNELS = 2 * 3 * _BLOCK**2  # of a frame and x0


class Judgement(NamedTuple):
    """What a discriminator makes of clips.

    Attributes:
        logits: High where a clip looks real; the same number P of them for each clip.
        features: The map after each stage, from fine to coarse.
    """

    logits: Float[Tensor, "b ..."]
    features: list[Tensor]


class SpatialDiscriminator(nn.Module):
    """Scores each patch of each frame, frames apart.

    Pictures are cut into 2 x 2 blocks, and then go through a stage for each width: a residual block
    without normalisation, half the height and width of the stage before. The last layer of a block
    is zero at first, so that the untrained network is no deeper than its downsampling; nothing
    relates one clip of a batch to another, which gradient penalties rest on.

    Source: The blocks are those of Huang et al., "The GAN is dead; long live the GAN! A Modern GAN
    Baseline" (R3GAN), 2024, section 4, narrower and without groups; patches are those of Isola et
    al., "Image-to-Image Translation with Conditional Adversarial Networks", 2017.

    Args:
        widths: Channels of each stage; with s stages a patch is 2^s pixels apart from the next.

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
        """Return the logits, `b n i j`, and the features, each `(b n) c i j`.

        Args:
            frames: Frames about [-1, 1], at least one of each clip.
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
    """Scores each patch of a clip, frames together: what it can see is how they follow one another.

    As `SpatialDiscriminator`, in three dimensions: blocks mix over the picture and then over time,
    and each stage halves time as well, as long as there is more than one step of it.

    Source: As there; mixing over the picture and over time in turn is from Tran et al., "A Closer
    Look at Spatiotemporal Convolutions for Action Recognition", 2018.

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
        """Return the logits, `b t i j`, and the features, each `b c t i j`.

        Args:
            frames: At least 2 frames in a row of each clip, about [-1, 1].
            x0: The first frames of their clips.

        Raises:
            UserError: There is one frame only, or height or width is not a multiple of 2^s.
        """
        if frames.shape[1] < 2:
            raise UserError(
                f"a temporal discriminator needs at least 2 frames in a row, got {frames.shape[1]}:"
                " render more, or leave it out"
            )
        seen = _beside(frames, x0, stages=len(self.blocks))
        features = [self.blocks[0](self.enter(seen.transpose(1, 2)))]
        for widen, block in zip(self.widen, self.blocks[1:], strict=True):
            features.append(block(widen(_halve(features[-1]))))
        logits = self.leave(functional.leaky_relu(features[-1], _SLOPE))
        return Judgement(logits[:, 0], features)


@contextmanager
def resting(*networks: nn.Module) -> Iterator[None]:
    """Keep networks as they are while a block runs: neither weights nor buffers change.

    Gradients still pass through them to what they are given.

    Args:
        networks: Each all in training mode or all in evaluation.
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
    """x + W_last a(... a(W_1 a(x))): a 1 x 1 layer, those that mix, and a 1 x 1 layer of zeros."""

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
    """He's deviations, so that signals keep their size from layer to layer; no biases at first."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    for block in network.modules():
        if isinstance(block, _Block):
            nn.init.zeros_(block.layers[-1].weight)  # type: ignore[arg-type]


def _halve(x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c _ _ _"]:
    """Average over 2 x 2 points and 2 times; a time that is left over stays as it is."""
    steps = min(2, x.shape[2])
    return functional.avg_pool3d(x, (steps, 2, 2), ceil_mode=True, count_include_pad=False)


def _beside(
    frames: Float[Tensor, "b n 3 h w"], x0: Float[Tensor, "b 3 h w"], *, stages: int
) -> Float[Tensor, "b n c _ _"]:
    """Put x0 beside each frame, blocks of pixels as channels."""
    side = 2**stages
    if any(length % side for length in frames.shape[-2:]):
        raise UserError(
            f"discriminators of {stages} widths need height and width to be multiples of {side}, "
            f"got {frames.shape[-2]} and {frames.shape[-1]}: name fewer widths, or resize"
        )
    both = torch.cat([frames, x0[:, None].expand_as(frames)], dim=2)
    return functional.pixel_unshuffle(both, _BLOCK)
