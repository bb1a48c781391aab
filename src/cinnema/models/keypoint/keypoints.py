"""Landmarks as points of the picture: seen as maps, drawn as maps, and what moves with them."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.models.warping.motion import ResidualBlock

Limb: TypeAlias = tuple[int, ...]
Twins: TypeAlias = tuple[tuple[Limb, Limb], ...]
"""Pairs of limbs that look alike, each the numbers of its points, in the same order."""

_HIDDEN_DIM = 64
# Standard deviation of a drawn point, in picture sizes: 2 pixels at 64.
_SPREAD = 0.03


def sides_apart(
    track: Float[Tensor, "b t l"], twins: Twins
) -> Float[Tensor, "b t l"]:  # fmt: skip
    """Let the first limb of each pair be the one that lies further left in x0, as a whole.

    A small picture does not show which hand is the left one, so that asking for it would teach
    the mean of both.

    Args:
        track: Points frame by frame, x and y in turn; none where none are known.
        twins: Pairs of limbs.
    """
    if not twins or not track.shape[2]:
        return track
    points = track.unflatten(2, (-1, 2)).clone()
    for first, second in twins:
        crossed = points[:, 0, first, 0].sum(dim=1) > points[:, 0, second, 0].sum(dim=1)
        both = points[:, :, [*first, *second]]
        points[:, :, [*first, *second]] = torch.where(
            crossed[:, None, None, None], points[:, :, [*second, *first]], both
        )
    out: Tensor = points.flatten(2)
    return out


def draw_points(points: Float[Tensor, "*n k 2"], *, size: int) -> Float[Tensor, "*n k s s"]:
    """Draw each point as a Gaussian of height 1 on a map of its own.

    Args:
        points: x and y, in picture widths and heights.
        size: Rows and columns of the maps.
    """
    places = (torch.arange(size, device=points.device, dtype=torch.float32) + 0.5) / size
    apart = (places - points.float()[..., None]) / _SPREAD
    across, down = torch.exp(-0.5 * apart.square()).unbind(dim=-2)
    return (down[..., :, None] * across[..., None, :]).to(points.dtype)


def expected_points(maps: Float[Tensor, "*n k s s"]) -> Float[Tensor, "*n k 2"]:
    """Return the mean place under each map's softmax, x and y in picture widths and heights.

    Source: spatial soft arg max (Levine et al., 2016).

    Args:
        maps: Logarithms of probabilities, up to a constant.
    """
    size = maps.shape[-1]
    share = maps.float().flatten(-2).softmax(dim=-1).unflatten(-1, (size, size))
    places = (torch.arange(size, device=maps.device, dtype=torch.float32) + 0.5) / size
    x, y = share.sum(dim=-2) @ places, share.sum(dim=-1) @ places
    return torch.stack([x, y], dim=-1).to(maps.dtype)


def map_distance(maps: Float[Tensor, "*n k s s"], points: Float[Tensor, "*n k 2"]) -> Tensor:
    """Return how far maps are from seeing points where they are: a divergence, nats a point.

        KL(p || softmax(maps)),   p the point, shared out among the four cells about it

    Where two limbs look alike a map can say that it is one or the other, which no pair of numbers
    can.

    Args:
        maps: Logarithms of probabilities, up to a constant.
        points: x and y, in picture widths and heights; what is outside counts at the edge.
    """
    size = maps.shape[-1]
    cells = torch.arange(size, device=maps.device, dtype=torch.float32)
    place = (points.float() * size - 0.5).clamp(0, size - 1)
    across, down = (1 - (place[..., None] - cells).abs()).clamp_min(0).unbind(dim=-2)
    true = (down[..., :, None] * across[..., None, :]).flatten(-2)
    told = maps.float().flatten(-2).log_softmax(dim=-1)
    return functional.kl_div(told, true, reduction="none").sum(dim=-1).mean()


class PointFinder(nn.Module):
    """Features at three scales to a map of each point, at the finest: where it may be.

    Args:
        widths: Channels at the finest, the middle and the coarsest of three scales, each half of
            the last.
        num_points: k.
    """

    def __init__(self, *, widths: Sequence[int], num_points: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(sum(widths), _HIDDEN_DIM, 1)
        self.block = ResidualBlock(_HIDDEN_DIM)
        self.norm = nn.GroupNorm(8, _HIDDEN_DIM)
        self.leave = nn.Conv2d(_HIDDEN_DIM, num_points, 1)

    def forward(
        self,
        fine: Float[Tensor, "b _ s s"],
        middle: Float[Tensor, "b _ _ _"],
        coarse: Float[Tensor, "b _ _ _"],
    ) -> Float[Tensor, "b k s s"]:
        """Return logarithms of probabilities, up to a constant."""
        size = fine.shape[-2:]
        enlarged = [functional.interpolate(h, size, mode="nearest") for h in (middle, coarse)]
        h = self.block(self.mix(torch.cat([fine, *enlarged], dim=1)))
        out: Tensor = self.leave(functional.silu(self.norm(h)))
        return out


class PointMotion(nn.Module):
    """The flow of what moves with points: every place follows one of them, some, or none.

        flow(p) = sum_k m_k(p) (x0's point k - point k),   m = softmax(layer(h)), one m for "none"

    Source: the sparse motions of Siarohin et al., "First Order Motion Model" (2019), without
    their local turns: between the two ends of a limb the mixture turns by itself.

    Args:
        in_dim: Channels of the features.
        num_points: k.
    """

    def __init__(self, *, in_dim: int, num_points: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_dim, num_points + 1, 3, padding=1)
        nn.init.normal_(self.layer.weight, std=1e-2)
        nn.init.zeros_(self.layer.bias)  # type: ignore[arg-type]

    def forward(
        self,
        h: Float[Tensor, "n c i j"],
        start: Float[Tensor, "n k 2"],
        now: Float[Tensor, "n k 2"],
    ) -> Float[Tensor, "n 2 i j"]:
        """Return a backward flow in picture widths and heights."""
        share = self.layer(h).softmax(dim=1)[:, :-1]
        return torch.einsum("nkij,nkd->ndij", share, (start - now).to(share))
