"""The decoder rearranged for synthesis: the same function of x0 and z with less work."""

from functools import partial
from itertools import accumulate
from operator import mul
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.paper.clip_convs import ClipConv, DirectConv, WinogradConv, phase_filters
from cinnema.paper.decoder import Decoder, DecoderBlock
from cinnema.paper.spectral import SpectralWeight

_SLOPE = 0.2
_LAYOUT = torch.channels_last_3d  # in which convolutions are fastest

Modulation: TypeAlias = tuple[Float[Tensor, "b c 1 h w"], Float[Tensor, "b c 1 h w"]]
"""1 + gamma(x0) and beta(x0) of the `Spade` of a block."""


class FastDecoder:
    """A decoder with constant weights, in one number format.

    It differs from `Decoder.forward` in this:

    - Spectral norm is folded into the weights. What x0 contributes to the blocks is kept for the
      next call with the same x0.
    - Maps are doubled in time by `conv_0`, and normalised before they are upsampled; so is what the
      shortcut computes.
    - Instance norm, gamma(z) and beta(z) are one operation. The bias of `conv_0`, which the norm
      after it removes, is left out; that of `conv_1` is added on the shortcut.
    - On a CPU without AMX, convolutions are those of `WinogradConv`.

    Example:
        >>> fast = FastDecoder(decoder, dtype=torch.float32)
        >>> videos = [fast(x0, z) for z in latents]

    Args:
        decoder: In evaluation mode. It is not modified.
        dtype: Format of the blocks: float32 or bfloat16.
    """

    def __init__(self, decoder: Decoder, *, dtype: torch.dtype) -> None:
        self.decoder, self.dtype = decoder, dtype
        factors = ((1, 1, 1), *decoder.config.upsampling)
        lengths = accumulate((factor[0] for factor in factors), mul, initial=1)
        sizes = list(accumulate((factor[1] for factor in factors), mul, initial=4))[1:]
        with torch.no_grad():
            self._blocks = [
                _FastBlock(block, factor, length=length, size=size, dtype=dtype)
                for block, factor, length, size in zip(
                    decoder.blocks(), factors, lengths, sizes, strict=False
                )
            ]
            # Three filters of one frame: vectors of 16 channels are then better filled.
            taps = torch.cat(decoder.conv_img.weight.unbind(2))[:, :, None]
            self._taps = taps.to(dtype).contiguous(memory_format=_LAYOUT)

        self._x0: Tensor | None = None
        self._modulations: list[Modulation] = []

    @torch.no_grad()
    def __call__(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t 3 height width"]:
        """Return the frames that follow x0, in [-1, 1] and float32.

        Args:
            x0: First frames in [-1, 1], of any size.
            z: Latents.

        Raises:
            UserError: A shape does not match the decoder.
        """
        self.decoder.require_shapes(x0, z)
        if self._x0 is None or not torch.equal(self._x0, x0):
            self._modulations = [block.modulation(x0) for block in self._blocks]
            self._x0 = x0
        h = self.decoder.fc(z).unflatten(1, (-1, 1, 4, 4))
        h = h.to(self.dtype).contiguous(memory_format=_LAYOUT)
        for block, modulation in zip(self._blocks, self._modulations, strict=True):
            h = block(h, modulation, z)
        return self._video(functional.leaky_relu_(h, _SLOPE))

    def _video(self, h: Tensor) -> Tensor:
        """Return tanh(conv_img(h))."""
        products = functional.conv3d(h, self._taps, padding=(0, 1, 1)).float()
        before, video, after = products.unflatten(1, (3, 3)).unbind(1)
        video = video + _column(_bias(self.decoder.conv_img))
        video[:, :, 1:] += before[:, :, :-1]
        video[:, :, :-1] += after[:, :, 1:]
        frames: Tensor = video.tanh_().transpose(1, 2).contiguous()
        return frames


class _FastBlock:
    """A `DecoderBlock` that upsamples its input first.

    Args:
        block: The block.
        factors: Upsampling factors of (t, h, w).
        length: Frames of its input.
        size: Height and width of its result.
        dtype: Format of the result.
    """

    def __init__(
        self,
        block: DecoderBlock,
        factors: tuple[int, int, int],
        *,
        length: int,
        size: int,
        dtype: torch.dtype,
    ) -> None:
        self.block, self.size, self.dtype = block, size, dtype
        self.repeats, self.factor = factors[0], float(factors[1])
        self.groups = block.norm_0.norm.num_groups
        new: type[WinogradConv] | partial[DirectConv] = partial(DirectConv, layout=_LAYOUT)
        if _is_filtered(block.norm_1.linear.weight.device, dtype):
            new = WinogradConv
        filters = phase_filters(_weight(block.conv_0), factor=self.repeats)
        self.conv_0: ClipConv = new(filters, length=length, dtype=dtype)
        filters = [_weight(block.conv_1)]
        self.conv_1: ClipConv = new(filters, length=length * self.repeats, dtype=dtype)
        self.weight: Tensor | None = None
        bias = _bias(block.conv_1)
        if block.conv_s is not None and block.norm_s is not None:
            norm, weight = block.norm_s["bn"], _weight(block.conv_s).flatten(1)
            assert isinstance(norm, nn.GroupNorm)
            # conv(weight * normalised + bias), with the groups of the norm of `norm_0`
            self.weight = (weight * norm.weight).to(dtype)
            bias = bias + weight @ norm.bias
        self.bias = bias.to(dtype)

    def modulation(self, x0: Tensor) -> Modulation:
        """Return 1 + gamma and beta at the size of the result."""
        gamma, beta = self.block.norm_0.gamma_and_beta(x0, size=(self.size, self.size))
        scale, shift = ((1 + gamma)[:, :, None], beta[:, :, None])
        return self._cast(scale), self._cast(shift)

    def __call__(self, h: Tensor, modulation: Modulation, z: Tensor) -> Tensor:
        """Compute the block; see `DecoderBlock.forward`."""
        scale, shift = modulation
        normalised = functional.group_norm(h, self.groups)
        x = torch.addcmul(shift, self._enlarged(normalised), scale)
        dx = self.conv_0(functional.leaky_relu_(x, _SLOPE))
        dx = functional.leaky_relu_(self._modulated(dx, z), _SLOPE)
        dx = self.conv_1(dx)
        shortcut = self._enlarged(self._shortcut(h, normalised))
        dx.unflatten(2, (-1, self.repeats)).add_(shortcut.unsqueeze(3))
        return dx

    def _shortcut(self, h: Tensor, normalised: Tensor) -> Tensor:
        if self.weight is None:
            return h + _column(self.bias)
        rows = functional.linear(normalised.permute(0, 2, 3, 4, 1), self.weight, self.bias)
        return rows.permute(0, 4, 1, 2, 3).contiguous(memory_format=_LAYOUT)

    def _enlarged(self, x: Tensor) -> Tensor:
        if self.factor == 1:
            return x
        return functional.interpolate(x, scale_factor=(1.0, self.factor, self.factor))

    def _modulated(self, x: Tensor, z: Tensor) -> Tensor:
        """Return gamma(z) * norm(x) + beta(z); see `AdaIN`."""
        gamma, beta = self.block.norm_1.linear(z).to(self.dtype).chunk(2, dim=1)
        if len(z) == 1:  # one operation less
            return functional.group_norm(x, x.shape[1], gamma[0], beta[0])
        normalised = functional.group_norm(x, x.shape[1])
        return torch.addcmul(beta[..., None, None, None], normalised, gamma[..., None, None, None])

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous(memory_format=_LAYOUT)


def _weight(conv: nn.Conv3d) -> Tensor:
    """Return the weight of a convolution, with spectral norm folded in."""
    plain = conv.folded() if isinstance(conv, SpectralWeight) else conv
    return plain.weight.detach()


def _bias(conv: nn.Conv3d) -> Tensor:
    assert conv.bias is not None
    return conv.bias.detach()


def _column(bias: Tensor) -> Tensor:
    return bias[:, None, None, None]


def _is_filtered(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether fewer multiplications are faster: not where convolutions take less time than maps."""
    has_amx = dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    return device.type == "cpu" and not has_amx
