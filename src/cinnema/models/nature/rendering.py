"""From the layers of a photograph and their warps to frames, at the networks' size.

Each kind is a layer: its share alpha of each pixel, and a plate, which is the photograph with
everything else filled in from pixels that surely are of this kind. A frame is

    x_t = x0 + sum_k alpha_k (render_k(t) - plate_k),
    render_k(t) = sum_i w_i warp(plate_k, d_i),   with its detail divided by sqrt(r),

where r is the share of the detail's variance that the mean keeps, see `retained`. x_t is x0 where
nothing has moved: what the plate does not show stays where it is. To calm water, the mirrored
change of the sky is added, see `cinnema.models.nature.reflection`.
`cinnema.synthesis.nature_renderer` does the same at the photograph's own size.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cinnema.models.layers import fill, warp
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.motion import KindMotion, Warp
from cinnema.models.nature.reflection import find_reflection, mirrors, reflected

DETAIL = 6 / 128
"""Standard deviation, in picture sizes, of the blur that separates detail from the rest."""

STREAK = 5 / 128
"""Largest width of drops and flakes, in picture sizes."""

# Distance in picture sizes beyond which detail is hardly correlated.
_RELATED = 1.5 / 128

_SURE = (0.3, 0.7)
"""Probabilities that are taken as 0 and 1. Between them is a rim where a pixel may be both."""


@dataclass(frozen=True)
class Layer:
    """One kind in a photograph.

    Attributes:
        kind: Index in `KINDS`.
        alpha: Its share of each pixel.
        plate: What is warped, in [-1, 1].
        base: What is under the warped plate, for things that fall in front of a scene; else 0.
        mirror: What of the sky's change it shows, from `mirrors`; None for nothing.
    """

    kind: int
    alpha: Float[Tensor, "b 1 h w"]
    plate: Float[Tensor, "b 3 h w"]
    base: Float[Tensor, "b 3 h w"]
    mirror: Float[Tensor, "b h h"] | None = None


def shares(probabilities: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return the share of each class in each pixel: 0 or 1 where the network is sure.

    Args:
        probabilities: Of all classes, still first.
    """
    low, high = _SURE
    sharp = ((probabilities - low) / (high - low)).clamp(0, 1)
    return sharp / sharp.sum(dim=1, keepdim=True).clamp_min(1)


def cut_layers(x0: Float[Tensor, "b 3 h w"], alphas: Float[Tensor, "b k h w"]) -> list[Layer]:
    """Split a photograph into the layers of the kinds that it shows.

    Args:
        x0: The photograph, in [-1, 1].
        alphas: Share of each of `KINDS` in each pixel.
    """
    layers = []
    for kind, name in enumerate(KINDS):
        alpha = alphas[:, kind : kind + 1]
        if not bool((alpha > 0).any()):
            continue
        base = torch.zeros_like(x0)
        if name == "falling":
            base = _opened(x0)
            plate = x0 - base
        else:
            # The plate's colours come from pixels well inside; `fill` continues them outside.
            inside = -functional.max_pool2d(-alpha, 5, stride=1, padding=2)
            plate = fill(x0, 0.98 * inside.square() + 0.02 * alpha.square())
        mirror = None
        if name == "water":
            mirror = mirrors(list(map(find_reflection, x0, alphas)), x0.shape[-2])
        layers.append(Layer(kind, alpha, plate, base, mirror))
    return layers


def retained(warps: list[Warp]) -> Float[Tensor, "b 1 g g"]:
    """Return the share of the variance of detail that the mean of displaced copies keeps.

        r = sum_ij w_i w_j exp(-|d_i - d_j|^2 / (2 s^2))

    is 1 where all displacements agree, and sum_i w_i^2 where they are far apart.

    Args:
        warps: Displacements and weights, which add up to 1.
    """
    out = torch.zeros_like(warps[0].weight)
    for i, (displacement, weight) in enumerate(warps):
        out = out + weight.square()
        for other, share in warps[:i]:
            away = (displacement - other).square().sum(1, keepdim=True)
            out = out + 2 * weight * share * torch.exp(-away / (2 * _RELATED**2))
    return out


def render_frame(
    x0: Float[Tensor, "b 3 h w"],
    layers: list[Layer],
    motions: list[KindMotion],
    times: list[float],
) -> Float[Tensor, "b 3 h w"]:
    """Return the frame at a time, in [-1, 1].

    Args:
        x0: The photograph, in [-1, 1].
        layers: Its layers.
        motions: Motion of each of `KINDS`.
        times: Time of each of `KINDS`, in steps.
    """
    frame, sky = x0, torch.zeros_like(x0)
    for layer in layers:
        motion, time = motions[layer.kind], times[layer.kind]
        warps = motion.at(time)
        mean = torch.zeros_like(x0)
        for displacement, weight in warps:
            mean = mean + _to(weight, x0) * warp(layer.plate, displacement, mode="bicubic")
        low = torch.zeros_like(mean) if KINDS[layer.kind] == "falling" else low_pass(mean)
        drawn = layer.base + low + (mean - low) / _to(retained(warps), x0).sqrt()
        lit = ((drawn + 1) * _to(motion.churn.gain(time), x0) - 1).clamp(-1, 1)
        change = lit - layer.base - layer.plate
        if layer.mirror is not None:
            change = change + reflected(layer.mirror, sky)
        frame = frame + layer.alpha * change
        if KINDS[layer.kind] == "sky":
            sky = layer.alpha * change
    return frame


def _opened(x: Tensor) -> Tensor:
    """Remove bright things narrower than `STREAK`: an erosion, then a dilation."""
    radius = max(1, round(STREAK * x.shape[-1] / 2))
    size = 2 * radius + 1
    eroded = -functional.max_pool2d(-x, size, stride=1, padding=radius)
    return functional.max_pool2d(eroded, size, stride=1, padding=radius)


def low_pass(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Blur with about the standard deviation `DETAIL`: three box filters."""
    radius = max(1, round(DETAIL * x.shape[-1]))
    down, across = (_boxes(side, radius).to(x) for side in x.shape[-2:])
    return down @ x @ across.T


@lru_cache(maxsize=8)
def _boxes(side: int, radius: int) -> Float[Tensor, "s s"]:
    """Return the matrix of three box filters with reflected edges, as torch pools slowly."""
    with torch.inference_mode(False), torch.no_grad():  # it is used in any mode later on
        columns = torch.eye(side)[None]
        for _ in range(3):
            padded = functional.pad(columns, (radius, radius), mode="reflect")
            columns = functional.avg_pool1d(padded, 2 * radius + 1, stride=1)
        return columns[0].T.contiguous()


def _to(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
