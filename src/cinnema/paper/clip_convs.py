"""3x3x3 convolutions of clips with constant weights, in one way for each kind of processor.

Both ways take a list of filters, whose results alternate in time: of two filters, the results for
frame k are the frames 2 k and 2 k + 1. So a clip is convolved and doubled in length at once.
"""

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# Lengths of tiles in time: of longer ones, errors of rounding are larger.
_TILES = {torch.float32: (8, 4, 2, 1), torch.bfloat16: (4, 2, 1)}
# The finite points of F(m, 3) are the first m + 1. Small numbers and their inverses round least.
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 1.5, -1.5)


class ClipConv(Protocol):
    """A convolution of clips with zero padding and without a bias."""

    def __call__(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d _ h w"]:
        """Convolve clips; the result is as many times longer as there are filters."""
        ...


def phase_filters(
    weight: Float[Tensor, "d c 3 3 3"], *, factor: int
) -> list[Float[Tensor, "d c 3 3 3"]]:
    """Return the filters of a clip that a convolution sees with every frame repeated.

    Repeated frames meet sums of taps: with a factor of 2, frame 2 k of the result is
    w0 x[k - 1] + (w1 + w2) x[k], and frame 2 k + 1 is (w0 + w1) x[k] + w2 x[k + 1].

    Args:
        weight: Weights of the convolution.
        factor: How often each frame is repeated.
    """
    filters = []
    for phase in range(factor):
        taps = torch.zeros_like(weight)
        for tap in range(3):
            taps[:, :, 1 + (phase + tap - 1) // factor] += weight[:, :, tap]
        filters.append(taps)
    return filters


def doubling_filters(
    weight: Float[Tensor, "d c 3 3 3"],
) -> tuple[Float[Tensor, "d c 1 3 3"], Float[Tensor, "e c 1 3 3"]]:
    """Return the filters of `convolve_doubled`: w0 + w1 + w2, and -w0 and w2 one after the other.

    Args:
        weight: Weights of the convolution.
    """
    first, _, last = weight.split(1, dim=2)
    return weight.sum(2, keepdim=True), torch.cat([-first, last])


def convolve_doubled(
    x: Float[Tensor, "b c t h w"],
    total: Float[Tensor, "d c 1 3 3"],
    outer: Float[Tensor, "e c 1 3 3"],
    bias: Float[Tensor, " d"] | None = None,
) -> Float[Tensor, "b d _ h w"]:
    """Convolve clips with every frame repeated once, in half of the multiplications.

    With e[k] = x[k] - x[k - 1], zero frames before and after the clip, and s = w0 + w1 + w2,

        y[2 k] = s x[k] - w0 e[k],    y[2 k + 1] = s x[k] + w2 e[k + 1],

    which takes three products for two frames instead of six.

    Args:
        x: Clips.
        total: s, the first of `doubling_filters`.
        outer: -w0 and w2, the second of them.
        bias: Added to each frame.

    Returns:
        Clips of twice as many frames.

    Example:
        >>> weight = torch.ones(1, 1, 3, 3, 3)
        >>> made = convolve_doubled(torch.ones(1, 1, 2, 3, 3), *doubling_filters(weight))
        >>> made[0, 0, :, 1, 1].tolist()
        [18.0, 27.0, 27.0, 18.0]
    """
    depth, padding = len(total), (0, 1, 1)
    if x.shape[2] == 1:  # each of both frames has but one neighbour, which equals it
        both = torch.cat([total + outer[:depth], total - outer[depth:]])
        bias = None if bias is None else bias.repeat(2)
        pair = functional.conv3d(x, both, bias, padding=padding)
        return torch.cat(pair.split(depth, dim=1), dim=2)
    same = functional.conv3d(x, total, bias, padding=padding)
    changes = functional.pad(x, (0, 0, 0, 0, 0, 1)) - functional.pad(x, (0, 0, 0, 0, 1, 0))
    before, after = functional.conv3d(changes, outer, padding=padding).split(depth, dim=1)
    pairs = torch.stack([same + before[:, :, :-1], same + after[:, :, 1:]], dim=3)
    return torch.flatten(pairs, 2, 3)


class DirectConv:
    """A convolution that leaves out the taps that are zero.

    Args:
        filters: Weights of each filter; those of a frame before and after may be zero.
        length: Number of frames of the clips.
        dtype: Format of weights and clips.
        layout: Memory format of weights and clips.

    Example:
        >>> conv = DirectConv([torch.ones(1, 1, 3, 3, 3)], length=2)
        >>> conv(torch.ones(1, 1, 2, 3, 3))[0, 0, :, 1, 1].tolist()
        [18.0, 18.0]
    """

    def __init__(
        self,
        filters: list[Float[Tensor, "d c 3 3 3"]],
        *,
        length: int,
        dtype: torch.dtype = torch.float32,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self._parts = []
        for weight in filters:
            first, last = _outer_taps(weight) if length > 1 else (1, 1)
            part = weight[:, :, first : last + 1].to(dtype).contiguous(memory_format=layout)
            # Two taps with a zero at both ends give one frame too many, at the side without a tap.
            shown = slice(int(first == 1 and last == 2), -1 if (first, last) == (0, 1) else None)
            self._parts.append((part, int(first != last), shown))

    def __call__(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d _ h w"]:
        """Convolve clips."""
        made = [
            functional.conv3d(x, weight, padding=(padding, 1, 1))[:, :, shown]
            for weight, padding, shown in self._parts
        ]
        return made[0] if len(made) == 1 else torch.stack(made, dim=3).flatten(2, 3)


def _outer_taps(weight: Tensor) -> tuple[int, int]:
    """Return the first and the last tap in time that is not zero, the middle one included."""
    before, after = bool(weight[:, :, 0].any()), bool(weight[:, :, 2].any())
    return (0 if before else 1), (2 if after else 1)


class Filtering(NamedTuple):
    """The matrices of F(m, 3), in float64.

    Attributes:
        frames: B^T, applied to m + 2 frames.
        taps: G, applied to 3 taps.
        results: A^T, applied to m + 2 products.
    """

    frames: Float[Tensor, "n n"]
    taps: Float[Tensor, "n 3"]
    results: Float[Tensor, "m n"]


def minimal_filtering(num_results: int) -> Filtering:
    """Return F(m, 3), by the construction of Toom and Cook.

    Polynomials are evaluated at m + 1 finite points and at infinity.

    Args:
        num_results: m, from 1 to 8.

    Example:
        >>> minimal_filtering(1).results.tolist()
        [[1.0, 1.0, 1.0]]
    """
    points = torch.tensor(_POINTS[: num_results + 1], dtype=torch.float64)
    frames = torch.zeros(num_results + 2, num_results + 2, dtype=torch.float64)
    taps = torch.zeros(num_results + 2, 3, dtype=torch.float64)
    results = torch.zeros(num_results, num_results + 2, dtype=torch.float64)
    for row, point in enumerate(points):
        others = torch.cat([points[:row], points[row + 1 :]])
        frames[row, :-1] = _coefficients(others)
        taps[row] = point ** torch.arange(3) / (point - others).prod()
        results[:, row] = point ** torch.arange(num_results)
    frames[-1] = _coefficients(points)
    taps[-1, -1] = 1
    results[-1, -1] = 1
    return Filtering(frames, taps, results)


def _coefficients(roots: Tensor) -> Tensor:
    """Return the coefficients of prod(x - root), the constant one first."""
    product = roots.new_ones(1)
    for root in roots:
        zero = roots.new_zeros(1)
        product = torch.cat([zero, product]) - root * torch.cat([product, zero])
    return product


class WinogradConv:
    """A convolution with fewer multiplications, on a CPU.

    Frames are convolved in two dimensions. In time, m results of a filter of three taps g of the
    frames d are computed from m + 2 products, taken element by element, instead of 3 m:

        A^T [(G g) * (B^T d)].

    With m = 8, the errors are 1e-5 of the results' standard deviation in float32. In bfloat16, m is
    at most 4, with errors of 1 %; those of a direct convolution are 0.2 %.

    Source: Winograd, "Arithmetic Complexity of Computations", 1980; Lavin and Gray, "Fast
    Algorithms for Convolutional Neural Networks", 2016, section 4, for images.

    Args:
        filters: Weights of each filter.
        length: Number of frames of the clips, which are cut into tiles of 8, 4, 2 or 1.
        dtype: Format of weights and clips: float32 or bfloat16.

    Example:
        >>> conv = WinogradConv([torch.ones(1, 1, 3, 3, 3)], length=2)
        >>> conv(torch.ones(1, 1, 2, 3, 3))[0, 0, :, 1, 1].tolist()
        [18.0, 18.0]
    """

    def __init__(
        self,
        filters: list[Float[Tensor, "d c 3 3 3"]],
        *,
        length: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._tile = next(size for size in _TILES[dtype] if length % size == 0)
        matrices = minimal_filtering(self._tile)
        if length == 1:  # both other taps meet zeros
            one = torch.ones(1, 1)
            matrices = Filtering(frames=one, taps=torch.tensor([[0.0, 1.0, 0.0]]), results=one)
        self._frames, self._results = matrices.frames.to(dtype), matrices.results.to(dtype)
        spread = [_spread_taps(weight, matrices.taps) for weight in filters]
        self._weights = [[part.to(dtype) for part in parts] for parts in spread]

    def __call__(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d _ h w"]:
        """Convolve clips; these and the result are in the format channels-last."""
        x = x.permute(0, 2, 3, 4, 1).contiguous()
        num, length, height, width, _ = x.shape
        spread = self._spread(x)
        depth = len(self._weights[0][0])
        result = x.new_empty(num, length, len(self._weights), height, width, depth)
        for phase, weights in enumerate(self._weights):
            products = x.new_empty(*spread.shape[:-1], depth)
            for product, frames, weight in zip(products, spread, weights, strict=True):
                made = functional.conv2d(frames.permute(0, 3, 1, 2), weight, padding=1)
                product.copy_(made.permute(0, 2, 3, 1))
            self._gather(products, result[:, :, phase])
        return result.flatten(1, 2).permute(0, 4, 1, 2, 3)

    def _spread(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "n tiles h w c"]:
        """Apply B^T to the frames of each tile, which overlap by two; beyond the ends are zeros."""
        clips, (size, margin) = x.flatten(2), self._window()
        tiles = x.shape[1] // self._tile
        spread = x.new_empty(size, len(x) * tiles, clips.shape[-1])
        for index in range(len(x) * tiles):
            clip, tile = divmod(index, tiles)
            begin = tile * self._tile - margin
            start, stop = max(begin, 0), min(begin + size, x.shape[1])
            matrix = self._frames[:, start - begin : stop - begin]
            torch.mm(matrix, clips[clip, start:stop], out=spread[:, index])
        return spread.view(size, -1, *x.shape[2:])

    def _gather(
        self, products: Float[Tensor, "n tiles h w d"], result: Float[Tensor, "b t h w d"]
    ) -> None:
        """Write A^T times the products of each tile to its frames of the result."""
        rows, clips = products.flatten(2), result.flatten(2)
        tiles = clips.shape[1] // self._tile
        for index in range(rows.shape[1]):
            clip, tile = divmod(index, tiles)
            frames = clips[clip, tile * self._tile : (tile + 1) * self._tile]
            torch.mm(self._results, rows[:, index], out=frames)

    def _window(self) -> tuple[int, int]:
        """Return the number of frames that a tile reads, and how many of them come before it."""
        size = len(self._frames)
        return size, (size - self._tile) // 2


def _spread_taps(
    weight: Float[Tensor, "d c 3 3 3"], taps: Float[Tensor, "n 3"]
) -> list[Float[Tensor, "d c 3 3"]]:
    """Apply G to a filter."""
    spread = torch.tensordot(taps.to(weight), weight, dims=([1], [2]))
    return [part.contiguous(memory_format=torch.channels_last) for part in spread]
