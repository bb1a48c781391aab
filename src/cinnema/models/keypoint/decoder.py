"""The decoder p(x0, z) of single frames: x0 is warped, and a pixel decoder fills in the rest.

Each frame is decoded from its time, so training can decode a few frames of each clip.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.models.keypoint.keypoints import PointMotion, draw_points
from cinnema.models.layers import ResidualBlock, warp

# Unit of the flow in picture sizes, so that the output of its layer has unit scale.
_FLOW_UNIT = 0.1
_NUM_FREQUENCIES = 8
# Channels of the map of z and time that is added to the coarsest features.
_LAID_DIM = 48
# Bias of the gate: at initialisation the pixel decoder has a share of an eighth.
_GATE_BIAS = -2.0


DecoderMode = Literal["warp and paint", "paint", "warp"]
"""How frames are made: by warping x0 and painting pixels, mixed by a gate, or by one of the two.

The names are those of weights files.
"""


class SceneFeatures(NamedTuple):
    """First frames and their features.

    Attributes:
        x0: The first frames.
        maps: Features at a half, a quarter, an eighth and a sixteenth of the size.
    """

    x0: Float[Tensor, "b 3 h w"]
    maps: tuple[Float[Tensor, "b _ _ _"], ...]

    def repeated(self, num: int) -> "SceneFeatures":
        """Return the scene of each clip `num` times in a row."""
        return SceneFeatures(_repeated(self.x0, num), tuple(_repeated(m, num) for m in self.maps))


class Posture(NamedTuple):
    """Positions of keypoints, x and y in picture widths and heights.

    Attributes:
        start: In x0.
        now: In the frame to be decoded.
    """

    start: Float[Tensor, "n k 2"]
    now: Float[Tensor, "n k 2"]


class Rendering(NamedTuple):
    """A decoded frame and its parts.

    Attributes:
        frame: (1 - gate) * warped + gate * painted.
        warped: x0, warped by the flow; x0 itself for a decoder that only paints.
        flow: Backward flow in picture sizes, at half of the frame's size; 0 for a decoder that
            only paints.
    """

    frame: Float[Tensor, "n 3 h w"]
    warped: Float[Tensor, "n 3 h w"]
    flow: Float[Tensor, "n 2 _ _"]


class SceneEncoder(nn.Module):
    """Maps x0 to features at four scales, by learned convolutions.

    Args:
        widths: Channels at a half, a quarter, an eighth and a sixteenth of the size, multiples
            of 8.
    """

    def __init__(self, *, widths: Sequence[int]) -> None:
        super().__init__()
        self.enter = nn.Conv2d(12, widths[0], 3, padding=1)
        self.halve = nn.ModuleList(
            nn.Conv2d(wide, wider, 3, stride=2, padding=1) for wide, wider in pairwise(widths)
        )
        self.blocks = nn.ModuleList(ResidualBlock(width) for width in widths)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths)

    def forward(self, x0: Float[Tensor, "b 3 h w"]) -> SceneFeatures:
        """Return the features of pictures in [-1, 1]."""
        h = self.enter(functional.pixel_unshuffle(x0, 2))
        maps: list[Tensor] = []
        for level, (block, norm) in enumerate(zip(self.blocks, self.norms, strict=True)):
            if level:
                h = self.halve[level - 1](functional.silu(maps[-1]))
            h = norm(block(h))
            maps.append(h)
        return SceneFeatures(x0, tuple(maps))


class MomentCode(nn.Module):
    """Maps z, keypoints and a time to the code that modulates the decoder.

    The time enters as sines and cosines of half waves, so that the code changes smoothly from
    frame to frame.

    Args:
        in_dim: Length of its input at each time: z and the displacement of the keypoints.
        hidden_dim: Width of its layers.
        code_dim: Length of the code.
    """

    frequencies: Tensor

    def __init__(self, *, in_dim: int, hidden_dim: int, code_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_dim + 2 * _NUM_FREQUENCIES, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, code_dim),
        )
        waves = math.pi / 2 * torch.arange(_NUM_FREQUENCIES, dtype=torch.float32)
        self.register_buffer("frequencies", waves, persistent=False)

    def forward(
        self, known: Float[Tensor, "b n k"], times: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b n g"]:
        """Return the code of each clip at each of its times.

        Args:
            known: z and the displacement of the keypoints at each time.
            times: In clips: 0 is x0, 1 the last frame.
        """
        phase = times.float()[..., None] * self.frequencies.float()
        waves = torch.cat([phase.sin(), phase.cos()], dim=-1).to(known)
        code: Tensor = self.layers(torch.cat([known, waves], dim=-1))
        return code


class ModulatedBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice; the second norm is scaled and shifted by a code.

    Source: FiLM (Perez et al., 2018), placed as in ADM (Dhariwal and Nichol, 2021).

    Args:
        in_dim: Number of input channels, a multiple of 8.
        out_dim: Number of output channels, a multiple of 8.
        code_dim: Length of the code.
    """

    def __init__(self, in_dim: int, out_dim: int, *, code_dim: int) -> None:
        super().__init__()
        self.norm0 = nn.GroupNorm(8, in_dim)
        self.conv0 = nn.Conv2d(in_dim, out_dim, 3, padding=1)
        self.norm1 = nn.GroupNorm(8, out_dim)
        self.conv1 = nn.Conv2d(out_dim, out_dim, 3, padding=1)
        self.pass_on = nn.Conv2d(in_dim, out_dim, 1)
        self.modulate = nn.Linear(code_dim, 2 * out_dim)
        nn.init.zeros_(self.conv1.weight)

    def forward(
        self, x: Float[Tensor, "n c h w"], code: Float[Tensor, "n g"]
    ) -> Float[Tensor, "n d h w"]:
        """Return the output for feature maps, each modulated by its own code."""
        scale, shift = self.modulate(code)[..., None, None].chunk(2, dim=1)
        h = self.norm1(self.conv0(functional.silu(self.norm0(x))))
        h = self.conv1(functional.silu(h * (1 + scale) + shift))
        out: Tensor = self.pass_on(x) + h
        return out


class MomentDecoder(nn.Module):
    """Decodes the features of x0 and the code of a time to the frame at that time.

    From the coarsest features up, every scale is modulated by the code and joined with x0's
    features. At half of the size it outputs a backward flow, by which x0 is warped, and a last
    layer outputs pixels and a gate: frame = (1 - gate) * warped + gate * painted. The last layers
    work on 2 x 2 blocks of pixels.

    Args:
        widths: Channels of the scene's maps.
        code_dim: Length of the code.
        mode: "warp and paint", "paint" (a gate of 1, no flow) or "warp" (a gate of 0); layers that
            are not needed are left out.
        num_points: Number of keypoints. Each is drawn on a map at every scale but the coarsest, at
            its position in x0 and at its position now, and the flow may follow it.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        code_dim: int,
        mode: DecoderMode = "warp and paint",
        num_points: int = 0,
    ) -> None:
        super().__init__()
        self.mode, self.num_points = mode, num_points
        coarsest, rest = widths[-1], list(widths[-2::-1])
        self.lay = nn.Linear(code_dim, _LAID_DIM * 16)
        self.bottom = ModulatedBlock(coarsest + _LAID_DIM, coarsest, code_dim=code_dim)
        self.blocks = nn.ModuleList(
            ModulatedBlock(below + here, here, code_dim=code_dim)
            for below, here in zip([coarsest, *rest[:-1]], rest, strict=True)
        )
        self.drawn = nn.ModuleList(
            nn.Conv2d(2 * num_points, here, 3, padding=1) for here in rest if num_points
        )
        finest = widths[0]
        last = []
        if mode != "paint":
            self.flow = nn.Conv2d(finest, 2, 3, padding=1)
            last.append(self.flow)
            if num_points:
                self.follow = PointMotion(in_dim=finest, num_points=num_points)
        if mode != "warp":
            num_seen, num_made = (1, 3) if mode == "paint" else (2, 4)
            self.join = nn.Conv2d(finest + num_seen * 12, 2 * finest, 3, padding=1)
            self.leave = nn.Conv2d(2 * finest, 4 * num_made, 3, padding=1)
            last.append(self.leave)
        for layer in last:
            nn.init.normal_(layer.weight, std=1e-2)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @property
    def last(self) -> Tensor:
        """The weight of the output layer."""
        return self.flow.weight if self.mode == "warp" else self.leave.weight

    def forward(
        self, scene: SceneFeatures, code: Float[Tensor, "n g"], posture: Posture | None = None
    ) -> Rendering:
        """Return one frame for each row of scene, code and, with keypoints, posture."""
        h = self._features(scene, functional.silu(code), posture)
        if self.mode == "paint":
            painted = self._painted(h, scene.x0)
            still = h.new_zeros(len(h), 2, *h.shape[-2:])
            return Rendering(torch.tanh(painted), scene.x0, still)
        flow = self.flow(h) * _FLOW_UNIT
        if posture is not None:
            flow = flow + self.follow(h, *posture)
        large = functional.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=False)
        warped = warp(scene.x0, large)
        if self.mode == "warp":
            return Rendering(warped, warped, flow)
        out = self._painted(h, warped, scene.x0)
        gate = torch.sigmoid(out[:, 3:] + _GATE_BIAS)
        return Rendering(torch.lerp(warped, torch.tanh(out[:, :3]), gate), warped, flow)

    def _painted(self, h: Tensor, *pictures: Tensor) -> Float[Tensor, "n _ h w"]:
        seen = [functional.pixel_unshuffle(picture, 2) for picture in pictures]
        out = self.leave(functional.silu(self.join(torch.cat([h, *seen], dim=1))))
        return functional.pixel_shuffle(out, 2)

    def _features(
        self, scene: SceneFeatures, code: Tensor, posture: Posture | None
    ) -> Float[Tensor, "n c h2 w2"]:
        *finer, coarsest = scene.maps
        laid = self.lay(code).view(-1, _LAID_DIM, 4, 4)
        if laid.shape[-1] != coarsest.shape[-1]:
            laid = functional.interpolate(laid, coarsest.shape[-2:], mode="bilinear")
        h: Tensor = self.bottom(_last(torch.cat([coarsest, laid], dim=1)), code)
        for level, (block, here) in enumerate(zip(self.blocks, reversed(finer), strict=True)):
            below = functional.interpolate(h, scale_factor=2, mode="nearest")
            known = here
            if posture is not None:
                known = here + self.drawn[level](_drawn(posture, like=here))
            h = block(torch.cat([below, known], dim=1), code)
        return functional.silu(h)


def _drawn(posture: Posture, *, like: Tensor) -> Float[Tensor, "n _ i j"]:
    """Draw the keypoints, in x0 and now, on maps of the size of `like`."""
    return _last(draw_points(torch.cat(posture, dim=1), size=like.shape[-1]).to(like))


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _repeated(x: Tensor, num: int) -> Tensor:
    return x if num == 1 else _last(x.repeat_interleave(num, dim=0))
