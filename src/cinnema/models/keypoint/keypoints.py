"""Keypoints of a picture: finding them on maps, drawing them on maps, and the flow they cause."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.models.layers import ResidualBlock

Limb: TypeAlias = tuple[int, ...]
SymmetricLimbs: TypeAlias = tuple[tuple[Limb, Limb], ...]
"""Pairs of symmetric limbs, each the indices of its keypoints, in the same order."""

_HIDDEN_DIM = 64
# Standard deviation of a drawn keypoint, in picture sizes: 2 pixels at 64.
_DRAWN_STD = 0.03


def sort_symmetric(
    track: Float[Tensor, "b t l"], limbs: SymmetricLimbs
) -> Float[Tensor, "b t l"]:  # fmt: skip
    """Exchange symmetric limbs so that the first of each pair lies further left in x0.

    A small picture does not show which hand is the left one; trained on true labels, a model would
    predict the mean of both.

    Args:
        track: Keypoints of each frame, x and y in turn; may be empty.
        limbs: Pairs of symmetric limbs.
    """
    if not limbs or not track.shape[2]:
        return track
    points = track.unflatten(2, (-1, 2)).clone()
    for first, second in limbs:
        crossed = points[:, 0, first, 0].sum(dim=1) > points[:, 0, second, 0].sum(dim=1)
        both = points[:, :, [*first, *second]]
        points[:, :, [*first, *second]] = torch.where(
            crossed[:, None, None, None], points[:, :, [*second, *first]], both
        )
    out: Tensor = points.flatten(2)
    return out


def draw_points(points: Float[Tensor, "*n k 2"], *, size: int) -> Float[Tensor, "*n k s s"]:
    """Draw each keypoint as a Gaussian of height 1 on its own map.

    Args:
        points: x and y, in picture widths and heights.
        size: Rows and columns of the maps.
    """
    places = (torch.arange(size, device=points.device, dtype=torch.float32) + 0.5) / size
    apart = (places - points.float()[..., None]) / _DRAWN_STD
    across, down = torch.exp(-0.5 * apart.square()).unbind(dim=-2)
    return (down[..., :, None] * across[..., None, :]).to(points.dtype)


def expected_points(maps: Float[Tensor, "*n k s s"]) -> Float[Tensor, "*n k 2"]:
    """Return the mean position under each map's softmax, x and y in picture widths and heights.

    Source: spatial soft arg max (Levine et al., 2016).

    Args:
        maps: Log-probabilities, up to a constant.
    """
    size = maps.shape[-1]
    share = maps.float().flatten(-2).softmax(dim=-1).unflatten(-1, (size, size))
    places = (torch.arange(size, device=maps.device, dtype=torch.float32) + 0.5) / size
    x, y = share.sum(dim=-2) @ places, share.sum(dim=-1) @ places
    return torch.stack([x, y], dim=-1).to(maps.dtype)


def map_distance(maps: Float[Tensor, "*n k s s"], points: Float[Tensor, "*n k 2"]) -> Tensor:
    """Return the mean divergence of maps from the true keypoints, in nats a keypoint.

        KL(p || softmax(maps)),   p the keypoint, distributed over the four nearest cells

    Unlike a pair of coordinates, a map can express that a keypoint is at one of two positions, as
    for symmetric limbs.

    Args:
        maps: Log-probabilities, up to a constant.
        points: x and y, in picture widths and heights; moved to the edge if outside.
    """
    size = maps.shape[-1]
    cells = torch.arange(size, device=maps.device, dtype=torch.float32)
    place = (points.float() * size - 0.5).clamp(0, size - 1)
    across, down = (1 - (place[..., None] - cells).abs()).clamp_min(0).unbind(dim=-2)
    true = (down[..., :, None] * across[..., None, :]).flatten(-2)
    predicted = maps.float().flatten(-2).log_softmax(dim=-1)
    return functional.kl_div(predicted, true, reduction="none").sum(dim=-1).mean()


class PointFinder(nn.Module):
    """Maps features at three scales to a log-probability map of each keypoint, at the finest scale.

    Args:
        widths: Channels at the finest, the middle and the coarsest scale; each scale has half the
            size of the one before.
        num_points: k, number of keypoints.
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
        """Return log-probabilities, up to a constant."""
        size = fine.shape[-2:]
        enlarged = [functional.interpolate(h, size, mode="nearest") for h in (middle, coarse)]
        h = self.block(self.mix(torch.cat([fine, *enlarged], dim=1)))
        out: Tensor = self.leave(functional.silu(self.norm(h)))
        return out


class PointMotion(nn.Module):
    """Backward flow as a mixture of the motions of keypoints.

        flow(p) = sum_k m_k(p) (keypoint k in x0 - keypoint k now),   m = softmax(layer(h)),

    with one more m for no motion.

    Source: the sparse motions of Siarohin et al., "First Order Motion Model" (2019), without
    their local rotations: between the two ends of a limb the mixture rotates by itself.

    Args:
        in_dim: Channels of the features.
        num_points: k, number of keypoints.
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
