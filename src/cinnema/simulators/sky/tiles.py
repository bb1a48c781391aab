"""Fractal noise for clouds, hills and rocks, and how it is sampled."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

TILE = 256
"""Height and width of a noise tile, in texels."""

# Periods per tile at each frequency of a real Fourier transform.
_RADIUS = torch.hypot(torch.fft.fftfreq(TILE)[:, None], torch.fft.rfftfreq(TILE)[None]) * TILE
# Each level is blurred four times as much as the previous one.
_BLURS = torch.exp(
    -0.5 * (torch.pi * _RADIUS * torch.tensor([4.0, 16, 64])[:, None, None] / TILE) ** 2
)


@dataclass(frozen=True)
class Draws:
    """Random draws from one generator.

    Attributes:
        generator: Source of randomness.

    Example:
        >>> draws = Draws(torch.Generator().manual_seed(0))
        >>> 2 <= draws.uniform(2, 3) <= 3, draws.choice(["hill", "roof"]) in ("hill", "roof")
        (True, True)
    """

    generator: torch.Generator

    def uniform(self, low: float, high: float) -> float:
        """Return a uniform number from `low` to `high`."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.uniform(0, 1) < probability

    def integer(self, low: int, high: int) -> int:
        """Return a uniform integer from `low` to `high`, inclusive."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def choice(self, names: list[str], weights: list[float] | None = None) -> str:
        """Return one of the names.

        Args:
            names: Names to choose from.
            weights: Their relative frequencies. Defaults to equal ones.
        """
        shares = torch.tensor(weights or [1.0] * len(names))
        return names[int(torch.multinomial(shares, 1, generator=self.generator))]

    def vector(self, low: float, high: float, *, num: int) -> Float[Tensor, " num"]:
        """Return `num` uniform numbers from `low` to `high`."""
        return low + (high - low) * torch.rand(num, generator=self.generator)

    def tile(self, *, exponent: float, lowest: float = 1.5) -> Float[Tensor, "n n"]:
        """Draw periodic noise of mean 0.5 and standard deviation 0.25.

        Args:
            exponent: Exponent of the amplitude, which is 1 / frequency^exponent.
            lowest: Periods per tile below which the amplitude is constant; about the number of
                clumps across a tile.
        """
        noise = torch.fft.rfft2(torch.randn(TILE, TILE, generator=self.generator))
        spectrum = noise * _RADIUS.clamp_min(lowest) ** -exponent
        tile: Tensor = torch.fft.irfft2(spectrum, s=(TILE, TILE))
        return 0.5 + 0.25 * (tile - tile.mean()) / tile.std()

    def line(self, num: int, *, exponent: float) -> Float[Tensor, " num"]:
        """Draw non-periodic noise along a line, of mean 0 and standard deviation 1.

        Args:
            num: Number of points.
            exponent: Exponent of the amplitude, which is 1 / frequency^exponent.
        """
        radius = (torch.fft.rfftfreq(2 * num) * 2 * num).clamp_min(1.0)
        white = torch.fft.rfft(torch.randn(2 * num, generator=self.generator))
        line: Tensor = torch.fft.irfft(white * radius**-exponent, n=2 * num)[:num]
        return (line - line.mean()) / (line.std() + 1e-6)


def blur_levels(tile: Float[Tensor, "n n"]) -> Float[Tensor, "l m m"]:
    """Return increasingly blurred copies of a periodic tile, for sampling without aliasing.

    Level k is blurred by a Gaussian of 4^k / 2 texels; level 0 is the tile itself. The first row
    and column are repeated after the last.

    Args:
        tile: Noise of `TILE` rows and columns.
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
        levels: Result of `blur_levels`.
        at: Coordinates (x, y) in tiles; the tile has period 1.
        blur: Level at each point, clamped to the existing ones.
    """
    grid = (at - at.floor()).mul_(2).sub_(1).permute(1, 2, 0)[None]
    # Levels are channels, interpolated with triangular weights: torch's three-dimensional sampling
    # takes ten times as long.
    samples = functional.grid_sample(levels[None], grid, mode="bilinear", align_corners=True)[0]
    numbers = torch.arange(len(levels))[:, None, None]
    weights = (1 - (blur.clamp(0, len(levels) - 1) - numbers).abs_()).clamp_min_(0)
    blended: Tensor = (samples * weights).sum(dim=0)
    return blended


def blur_of(at: Float[Tensor, "2 h w"]) -> Float[Tensor, "h w"]:
    """Return the blur level that matches the distance between neighbouring samples.

    Args:
        at: Coordinates of the pixels, in tiles.
    """
    across = at[:, :-1, 1:] - at[:, :-1, :-1]
    down = at[:, 1:, :-1] - at[:, :-1, :-1]
    texels = (across[0] * down[1] - across[1] * down[0]).abs() * TILE**2
    levels = 0.25 * torch.log2(texels.clamp_min(1e-6))
    padded: Tensor = functional.pad(levels[None], (0, 1, 0, 1), mode="replicate")[0]
    return padded


def pixel_centres(size: int) -> Float[Tensor, "2 size size"]:
    """Return the coordinates (x, y) of the pixels of a square picture, in [0, 1].

    Args:
        size: Height and width of the picture, in pixels.
    """
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y])
