"""Fractal noise, and how it is sampled: what clouds, hills and rocks are drawn with."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

TILE = 256
"""Width and height of a tile of noise, in texels."""

# Periods a tile, at each frequency of a real Fourier transform.
_RADIUS = torch.hypot(torch.fft.fftfreq(TILE)[:, None], torch.fft.rfftfreq(TILE)[None]) * TILE
# Each level is blurred over four times as many texels as the one before.
_BLURS = torch.exp(
    -0.5 * (torch.pi * _RADIUS * torch.tensor([4.0, 16, 64])[:, None, None] / TILE) ** 2
)


@dataclass(frozen=True)
class Draws:
    """Draws from one generator, in the order in which they are asked for.

    Attributes:
        generator: Source of randomness.

    Example:
        >>> draws = Draws(torch.Generator().manual_seed(0))
        >>> 2 <= draws.uniform(2, 3) <= 3, draws.choice(["hill", "roof"]) in ("hill", "roof")
        (True, True)
    """

    generator: torch.Generator

    def uniform(self, low: float, high: float) -> float:
        """Return a number from `low` to `high`."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def chance(self, probability: float) -> bool:
        """Return whether something of this probability happens."""
        return self.uniform(0, 1) < probability

    def integer(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both counted."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def choice(self, names: list[str], weights: list[float] | None = None) -> str:
        """Return one of the names, by weight."""
        shares = torch.tensor(weights or [1.0] * len(names))
        return names[int(torch.multinomial(shares, 1, generator=self.generator))]

    def vector(self, low: float, high: float, *, num: int) -> Float[Tensor, " num"]:
        """Return `num` numbers from `low` to `high`."""
        return low + (high - low) * torch.rand(num, generator=self.generator)

    def tile(self, *, exponent: float, lowest: float = 1.5) -> Float[Tensor, "n n"]:
        """Draw periodic noise of mean 0.5 and deviation 0.25.

        Args:
            exponent: The amplitude falls as 1 / frequency^exponent.
            lowest: Periods a tile below which it no longer grows: the number of clumps across.
        """
        noise = torch.fft.rfft2(torch.randn(TILE, TILE, generator=self.generator))
        spectrum = noise * _RADIUS.clamp_min(lowest) ** -exponent
        tile: Tensor = torch.fft.irfft2(spectrum, s=(TILE, TILE))
        return 0.5 + 0.25 * (tile - tile.mean()) / tile.std()

    def line(self, num: int, *, exponent: float) -> Float[Tensor, " num"]:
        """Draw noise along a line, not periodic, of mean 0 and deviation 1."""
        radius = (torch.fft.rfftfreq(2 * num) * 2 * num).clamp_min(1.0)
        white = torch.fft.rfft(torch.randn(2 * num, generator=self.generator))
        line: Tensor = torch.fft.irfft(white * radius**-exponent, n=2 * num)[:num]
        return (line - line.mean()) / (line.std() + 1e-6)


def blur_levels(tile: Float[Tensor, "n n"]) -> Float[Tensor, "l m m"]:
    """Blur a periodic tile more and more, so that what is far away can be drawn without flicker.

    Level k is blurred by a Gaussian of 4^k / 2 texels; level 0 is the tile itself. The first row
    and column come again after the last.
    """
    levels = tile.new_empty(1 + len(_BLURS), TILE + 1, TILE + 1)
    levels[0, :-1, :-1] = tile
    levels[1:, :-1, :-1] = torch.fft.irfft2(torch.fft.rfft2(tile) * _BLURS, s=(TILE, TILE))
    levels[:, -1] = levels[:, 0]
    levels[:, :, -1] = levels[:, :, 0]
    return levels


def sample_tile(
    levels: Float[Tensor, "l m m"], at: Float[Tensor, "2 h w"], *, blur: Float[Tensor, "h w"]
) -> Float[Tensor, "h w"]:
    """Sample a periodic tile, linearly between texels and between levels.

    Args:
        levels: As `blur_levels` returns them.
        at: Coordinates (x, y) in tiles; 1 is where the tile begins anew.
        blur: Level at each point; beyond the last it is the last.
    """
    grid = (at - at.floor()).mul_(2).sub_(1).permute(1, 2, 0)[None]
    # Levels as channels, weighted by a tent: torch's own three-dimensional sampling takes ten times
    # as long.
    samples = functional.grid_sample(levels[None], grid, mode="bilinear", align_corners=True)[0]
    numbers = torch.arange(len(levels))[:, None, None]
    weights = (1 - (blur.clamp(0, len(levels) - 1) - numbers).abs_()).clamp_min_(0)
    blended: Tensor = (samples * weights).sum(dim=0)
    return blended


def blur_of(at: Float[Tensor, "2 h w"]) -> Float[Tensor, "h w"]:
    """Return the level at which neighbouring samples miss nothing between them.

    Args:
        at: Coordinates in tiles of each pixel; a pixel spans what lies up to its neighbours.
    """
    across = at[:, :-1, 1:] - at[:, :-1, :-1]
    down = at[:, 1:, :-1] - at[:, :-1, :-1]
    texels = (across[0] * down[1] - across[1] * down[0]).abs() * TILE**2
    levels = 0.25 * torch.log2(texels.clamp_min(1e-6))
    padded: Tensor = functional.pad(levels[None], (0, 1, 0, 1), mode="replicate")[0]
    return padded


def pixel_centres(size: int) -> Float[Tensor, "2 size size"]:
    """Return the coordinates (x, y) of the pixels of a square picture, in [0, 1]."""
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y])
