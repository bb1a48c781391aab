"""The motion of a clip: optical flow on a basis in time, at any time, and its latent code z.

The encoder reads the optical flow of a video, not its pixels, so that z describes motion and not
appearance. The flow of every point is a combination of K functions of time that are 0 at time 0:

    F(p, s) = sum_k c_k(p) B_k(s),   B_0(s) = s,  B_k(s) = sin(pi k s),   s = t / T

Four functions keep most of the motion of clouds, drop the jitter of the flow estimator, and can be
evaluated at any time, so that any frame rate is possible.
"""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.models.layers import ResidualBlock

# Coefficients are compressed by asinh(c / _UNIT) before the encoder, for slow and fast clips.
_UNIT = 0.02

GRID = 16
"""Rows and columns of the flow that z encodes."""


class TemporalBasis(nn.Module):
    """Basis functions of time for optical flow; all are 0 at time 0.

    Args:
        num_basis: K, 1 or more: constant velocity and K - 1 sines.
        num_frames: T, frames of a clip after x0. Time is measured in clips.

    Example:
        >>> basis = TemporalBasis(num_basis=4, num_frames=16)
        >>> coefficients = torch.randn(1, 4, 2, 16, 16)
        >>> torch.allclose(basis.fit(basis.clip(coefficients)), coefficients, atol=0.01)
        True
    """

    samples: Tensor
    inverse: Tensor

    def __init__(self, *, num_basis: int, num_frames: int) -> None:
        super().__init__()
        self.num_basis = num_basis
        times = torch.arange(1, num_frames + 1, dtype=torch.float64) / num_frames
        samples = self._functions(times)
        # Least squares with a slight preference for small coefficients.
        gram = samples.T @ samples + 1e-3 * torch.eye(num_basis, dtype=torch.float64)
        self.register_buffer("samples", samples.float(), persistent=False)
        self.register_buffer(
            "inverse", torch.linalg.solve(gram, samples.T).float(), persistent=False
        )

    def fit(self, flow: Float[Tensor, "b 2 t h w"]) -> Float[Tensor, "b k 2 h w"]:
        """Return the least-squares coefficients of a flow at the T frames."""
        return torch.einsum("kt,bcthw->bkchw", self.inverse.to(flow.dtype), flow)

    def clip(self, coefficients: Float[Tensor, "b k 2 h w"]) -> Float[Tensor, "b 2 t h w"]:
        """Return the flow at the T frames."""
        samples = self.samples.to(coefficients.dtype)
        return torch.einsum("tk,bkchw->bcthw", samples, coefficients)

    def at(
        self, coefficients: Float[Tensor, "b k 2 h w"], times: Float[Tensor, " b"]
    ) -> Float[Tensor, "b 2 h w"]:
        """Return the flow of each clip at its own time, in clips (1 is the last frame)."""
        weights = self._functions(times.double()).to(coefficients.dtype)
        return torch.einsum("bk,bkchw->bchw", weights, coefficients)

    def _apply(
        self,
        fn: Callable[[Tensor], Tensor],
        recurse: bool = True,  # noqa: FBT001, FBT002 - torch's own
    ) -> "TemporalBasis":
        """Move with the module to a device, but stay float32: rounding could not be undone."""
        samples, inverse = self.samples, self.inverse
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.samples, self.inverse = (
            samples.to(self.samples.device),
            inverse.to(self.inverse.device),
        )
        return self

    def _functions(self, times: Tensor) -> Tensor:
        sines = [torch.sin(math.pi * k * times) for k in range(1, self.num_basis)]
        return torch.stack([times, *sines], dim=-1)


class Trajectory:
    """Backward flow at any time, from the coefficients of one clip.

    Within the clip, |s| <= 1, it is that of the basis. After it the motion is repeated from where
    it has led to:

        F_{1+s}(p) = F_s(p) + F_1(p + F_s(p)),

    and the same before x0, as the basis is odd in time. F is continuous where clips meet.

    Args:
        basis: The basis functions of time.
        coefficients: Coefficients of one sample; scaled ones give slower or faster motion.
    """

    def __init__(self, basis: TemporalBasis, coefficients: Float[Tensor, "1 k 2 i j"]) -> None:
        self._basis = basis
        self._coefficients = coefficients
        self._wholes: dict[int, Tensor] = {}

    def at(self, time: float) -> Float[Tensor, "1 2 i j"]:
        """Return the flow in picture widths and heights at a time in clips, 1 the last frame."""
        # (0, 1] rather than [0, 1): the end of a clip belongs to that clip, to the bit.
        whole = max(math.ceil(abs(time)) - 1, 0)
        sign = -1 if time < 0 else 1
        flow = self._within(sign * (abs(time) - whole))
        return _follow(flow, self._clips(sign * whole)) if whole else flow

    def _clips(self, count: int) -> Tensor:
        """Return F at a whole number of clips other than 0."""
        if count not in self._wholes:
            one = self._within(math.copysign(1, count))
            before = count - int(math.copysign(1, count))
            self._wholes[count] = _follow(one, self._clips(before)) if before else one
        return self._wholes[count]

    def _within(self, time: float) -> Tensor:
        return self._basis.at(self._coefficients, self._coefficients.new_tensor([time]))


def _follow(first: Tensor, then: Tensor) -> Tensor:
    """Return first(p) + then(p + first(p)); `then` is constant beyond the edges."""
    rows, columns = first.shape[-2:]
    y, x = torch.meshgrid(
        (torch.arange(rows, device=first.device) + 0.5) / rows,
        (torch.arange(columns, device=first.device) + 0.5) / columns,
        indexing="ij",
    )
    grid = torch.stack([x + first[:, 0], y + first[:, 1]], dim=-1).mul(2).sub(1)
    return first + functional.grid_sample(
        then, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


class MotionEncoder(nn.Module):
    """q(z | X): maps flow coefficients to z on a 4 x 4 grid, with unit root mean square.

    Args:
        num_basis: K of the temporal basis.
        z_dim: Length of z, a multiple of 16.
        width: Channels of its layers.
    """

    def __init__(self, *, num_basis: int, z_dim: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(2 * num_basis, width, 3, padding=1)
        self.fine = nn.Sequential(ResidualBlock(width), ResidualBlock(width))
        self.down0 = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.middle = nn.Sequential(ResidualBlock(width), ResidualBlock(width))
        self.down1 = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.coarse = nn.Sequential(ResidualBlock(width), ResidualBlock(width))
        self.leave = nn.Conv2d(width, z_dim // 16, 1)

    def forward(self, coefficients: Float[Tensor, "b k 2 16 16"]) -> Float[Tensor, "b z"]:
        """Return the mean of q(z | X)."""
        x = torch.asinh(rearrange(coefficients, "b k c h w -> b (k c) h w") / _UNIT)
        h = self.fine(self.enter(x))
        h = self.middle(self.down0(h))
        h = self.leave(self.coarse(self.down1(h)))
        z: Tensor = rearrange(h, "b c h w -> b (c h w)")
        return z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-6)


class MotionDecoder(nn.Module):
    """Maps z and the features of x0 to flow coefficients on a 16 x 16 grid.

    At initialisation the flow is almost 0.

    Args:
        num_basis: K of the temporal basis.
        z_dim: Length of z, a multiple of 16.
        feature_dim: Channels of the features of x0.
        width: Channels of its layers.
    """

    def __init__(self, *, num_basis: int, z_dim: int, feature_dim: int, width: int) -> None:
        super().__init__()
        self.num_basis = num_basis
        self.from_z = nn.Conv2d(z_dim // 16, width, 3, padding=1)
        self.from_features = nn.Conv2d(feature_dim, width, 1)
        self.coarse = nn.Sequential(ResidualBlock(width), ResidualBlock(width))
        self.middle = nn.Sequential(ResidualBlock(width), ResidualBlock(width))
        self.join = nn.Conv2d(2 * width, width, 1)
        self.fine = nn.Sequential(ResidualBlock(width), ResidualBlock(width))
        self.leave = nn.Conv2d(width, 2 * num_basis, 3, padding=1)
        self.gain = nn.Conv2d(width, 1, 1)
        nn.init.normal_(self.leave.weight, std=1e-3)
        nn.init.zeros_(self.gain.weight)

    def forward(
        self, z: Float[Tensor, "b z"], features: Float[Tensor, "b f _ _"]
    ) -> Float[Tensor, "b k 2 16 16"]:
        """Return the coefficients of the backward flow, in picture widths and heights.

        Args:
            z: Latents.
            features: Features of x0; 16 x 16 for pictures of 128 x 128, other sizes are pooled.
        """
        code = rearrange(z, "b (c h w) -> b c h w", h=4, w=4)
        seen = functional.adaptive_avg_pool2d(self.from_features(features), GRID)
        h = self.from_z(code) + functional.adaptive_avg_pool2d(seen, 4)
        h = self.coarse(h)
        # One gain for the whole clip: slow and fast motions share the shape of their flow fields.
        gain = torch.exp(2 * torch.tanh(self.gain(h).mean(dim=(2, 3))))[..., None, None]
        h = self.middle(_double(h) + functional.adaptive_avg_pool2d(seen, 8))
        h = self.fine(self.join(torch.cat([_double(h), seen], dim=1)))
        shape = self.leave(functional.silu(h))
        out: Tensor = rearrange(shape * (gain * _UNIT * 2), "b (k c) h w -> b k c h w", c=2)
        return out


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
