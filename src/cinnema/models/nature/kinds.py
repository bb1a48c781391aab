"""What each pixel of a photograph is: still, or one of the kinds of things that move in nature."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.backbones.efficientnet import FEATURE_CHANNELS, EfficientNetLite0
from cinnema.models.layers import ResidualBlock

KINDS = ("sky", "water", "fire", "plants", "falling")
"""Kinds that move. "fire" includes smoke; "falling" is rain and snow in front of the scene."""

STILL = 0
"""Class of pixels that stand still; class k + 1 is `KINDS[k]`."""

KIND_SIZE = 384
"""Width and height in pixels of the pictures in which kinds are recognised, by default."""

# Standard deviations of the backbone's five feature maps on photographs.
_FEATURE_DEVIATIONS = (8.5, 9.0, 6.3, 4.0, 1.5)

# Exponent of the kinds' probabilities before they divide what moves.
_SHARPNESS = 3.0


class SceneFeatures(NamedTuple):
    """What the networks know about a photograph.

    Attributes:
        logits: Logits of the classes, still first, at half of the pictures' size.
        deep: Features of stride 16 and 32, joined at stride 32.
    """

    logits: Float[Tensor, "b 6 i j"]
    deep: Float[Tensor, "b f m n"]

    @property
    def probabilities(self) -> Float[Tensor, "b 6 i j"]:
        """Probabilities of the classes, still first.

        What moves is divided among the kinds nearly by the most probable one: where the network
        is sure that something moves, and not what, it does move.
        """
        p = torch.softmax(self.logits, dim=1)
        kinds = p[:, 1:].pow(_SHARPNESS)
        kinds = kinds / kinds.sum(dim=1, keepdim=True).clamp_min(1e-12)
        return torch.cat([p[:, :1], (1 - p[:, :1]) * kinds], dim=1)


class KindNetwork(nn.Module):
    """Classifies each pixel of a photograph: an ImageNet backbone with a pyramid of features.

    The backbone is built with random weights; code that builds a model for training loads the
    ImageNet weights.

    Args:
        width: Channels of the pyramid, a multiple of 16.

    Example:
        >>> network = KindNetwork(width=48).eval()
        >>> network(torch.zeros(1, 3, 384, 384)).logits.shape
        torch.Size([1, 6, 192, 192])
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0(folded=True)
        self.laterals = nn.ModuleList(nn.Conv2d(dim, width, 1) for dim in FEATURE_CHANNELS)
        self.global_context = nn.Linear(FEATURE_CHANNELS[-1], width)
        self.joins = nn.ModuleList(ResidualBlock(width) for _ in FEATURE_CHANNELS)
        self.leave = nn.Conv2d(width, 1 + len(KINDS), 3, padding=1)

    def forward(self, x0: Float[Tensor, "b 3 h w"]) -> SceneFeatures:
        """Classify each pixel.

        Args:
            x0: Pictures in [-1, 1], height and width multiples of 32.
        """
        maps = [
            feature / deviation
            for feature, deviation in zip(self.backbone(x0), _FEATURE_DEVIATIONS, strict=True)
        ]
        context = self.global_context(maps[-1].mean((2, 3)))[:, :, None, None]
        h = self.joins[-1](self.laterals[-1](maps[-1]) + context)
        for lateral, join, finer in zip(
            reversed(self.laterals[:-1]),
            reversed(self.joins[:-1]),
            reversed(maps[:-1]),
            strict=True,
        ):
            h = functional.interpolate(h, finer.shape[-2:], mode="bilinear", align_corners=False)
            h = join(h + lateral(finer))
        at16 = functional.avg_pool2d(maps[3], 2)
        return SceneFeatures(self.leave(h), torch.cat([at16, maps[4]], dim=1))
