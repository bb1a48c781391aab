"""The layers of I3D, their order, and what the published state dicts call them."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.errors import UserError

I3DPort: TypeAlias = Literal["kinetics", "dtdb"]


@dataclass(frozen=True)
class Port:
    """The names that a published state dict has, and its batch norms' epsilon.

    Attributes:
        capitals: Whether the names of layers begin with a capital.
        norm: Name of the batch norms.
        eps: Epsilon of the batch norms.
        branches: Names of the six convolutions of an Inception block: 1x1; 1x1, 3x3; 1x1, 3x3; the
            one after the pool.
        head: Name of the last layer.
    """

    capitals: bool
    norm: str
    eps: float
    branches: tuple[str, str, str, str, str, str]
    head: str

    def name_of(self, layer: str) -> str:
        """Return the published name of a layer of the trunk.

        Args:
            layer: Its key in `TRUNK`, in lower case.
        """
        return layer.capitalize() if self.capitals else layer


PORTS: dict[I3DPort, Port] = {
    "kinetics": Port(
        capitals=False,
        norm="batch3d",
        eps=1e-3,
        branches=("branch_0", "branch_1.0", "branch_1.1", "branch_2.0", "branch_2.1", "branch_3.1"),
        head="conv3d_0c_1x1",
    ),
    "dtdb": Port(
        capitals=True,
        norm="bn",
        eps=1e-5,
        branches=("b0", "b1a", "b1b", "b2a", "b2b", "b3b"),
        head="logits",
    ),
}

KINETICS_CLASSES = 400

_STRIDE = 8  # in time: frames for each step of the last map
_FINAL_SIZE = 7  # height and width of the last map


@dataclass(frozen=True, kw_only=True)
class I3DConfig:
    """Configuration of an I3D.

    Attributes:
        num_classes: Number of classes, the length of the logits.
        frames: Number of frames of the clips that it was trained on, a multiple of 8 from 16 on.
            The last average pool covers the `frames / 8` steps that remain of them.
        port: Which published state dict it loads, `"kinetics"` or `"dtdb"`. They differ in the
            names of the layers and in the epsilon of the batch norms (1e-3, 1e-5).

    Raises:
        UserError: A value is out of range.

    Example:
        >>> I3DConfig(num_classes=18, frames=32, port="dtdb").pool
        (4, 7, 7)
    """

    num_classes: int = KINETICS_CLASSES
    frames: int = 16
    port: I3DPort = "kinetics"

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise UserError(f"I3D needs at least 1 class, got num_classes={self.num_classes}")
        if self.frames < 2 * _STRIDE or self.frames % _STRIDE:
            raise UserError(
                f"I3D takes clips of 16, 24, 32, ... frames, got frames={self.frames}: "
                "use 16, or 32 for the long clips of DTDB"
            )
        if self.port not in PORTS:
            raise UserError(f'I3D\'s port must be "kinetics" or "dtdb", got {self.port!r}')

    @property
    def pool(self) -> tuple[int, int, int]:
        """Steps, rows and columns of the last average pool."""
        return self.frames // _STRIDE, _FINAL_SIZE, _FINAL_SIZE

    @property
    def min_frames(self) -> int:
        """Length of the shortest clip with enough steps to pool: 9 frames of 16, 25 of 32."""
        return self.frames - _STRIDE + 1


@dataclass(frozen=True)
class Convolution:
    """A convolution of the trunk, with the same kernel size and stride in time and space.

    Attributes:
        out_channels: Number of output channels.
        kernel: Length, height and width of the kernel.
        stride: Stride of the kernel.
    """

    out_channels: int
    kernel: int
    stride: int = 1

    def build(self, in_channels: int, port: Port) -> nn.Module:
        """Return the layer, with submodules named as in the port."""
        return Unit(in_channels, self.out_channels, self.kernel, stride=self.stride, port=port)


@dataclass(frozen=True)
class Pooling:
    """A max pooling of the trunk, over time and space.

    Attributes:
        kernel: Length, height and width of the window.
        stride: Stride in time, height and width.
        out_channels: 0, which stands for the number of input channels.
    """

    kernel: tuple[int, int, int]
    stride: tuple[int, int, int]
    out_channels: int = 0

    def build(self, in_channels: int, port: Port) -> nn.Module:  # noqa: ARG002 - as the others
        """Return the layer."""
        return MaxPoolSame(self.kernel, self.stride)


@dataclass(frozen=True)
class Inception:
    """An Inception block of the trunk.

    Attributes:
        widths: Output channels of its convolutions: 1x1; 1x1, 3x3; 1x1, 3x3; after the pool.
    """

    widths: tuple[int, int, int, int, int, int]

    @property
    def out_channels(self) -> int:
        """Number of output channels of all branches."""
        only, _, wide, _, narrow, pooled = self.widths
        return only + wide + narrow + pooled

    def build(self, in_channels: int, port: Port) -> nn.Module:
        """Return the layer, with submodules named as in the port."""
        return Mixed(in_channels, self.widths, port=port)


# The paper's network up to its last average pool (Figure 3), in order.
TRUNK: dict[str, Convolution | Pooling | Inception] = {
    "conv3d_1a_7x7": Convolution(64, kernel=7, stride=2),
    "max_pool3d_2a_3x3": Pooling((1, 3, 3), (1, 2, 2)),
    "conv3d_2b_1x1": Convolution(64, kernel=1),
    "conv3d_2c_3x3": Convolution(192, kernel=3),
    "max_pool3d_3a_3x3": Pooling((1, 3, 3), (1, 2, 2)),
    "mixed_3b": Inception((64, 96, 128, 16, 32, 32)),
    "mixed_3c": Inception((128, 128, 192, 32, 96, 64)),
    "max_pool3d_4a_3x3": Pooling((3, 3, 3), (2, 2, 2)),
    "mixed_4b": Inception((192, 96, 208, 16, 48, 64)),
    "mixed_4c": Inception((160, 112, 224, 24, 64, 64)),
    "mixed_4d": Inception((128, 128, 256, 24, 64, 64)),
    "mixed_4e": Inception((112, 144, 288, 32, 64, 64)),
    "mixed_4f": Inception((256, 160, 320, 32, 128, 128)),
    "max_pool3d_5a_2x2": Pooling((2, 2, 2), (2, 2, 2)),
    "mixed_5b": Inception((256, 160, 320, 32, 128, 128)),
    "mixed_5c": Inception((384, 192, 384, 48, 128, 128)),
}


class Unit(nn.Module):
    """A convolution with SAME padding, batch norm unless it is folded in, and ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, port: Port
    ) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride=stride, bias=False)
        self._norm: str | None = port.norm
        # TensorFlow's decay of 0.999 is a momentum of 0.001 here.
        self.add_module(port.norm, nn.BatchNorm3d(out_channels, eps=port.eps, momentum=1e-3))

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d _ _ _"]:
        """Convolve, normalise, rectify."""
        x = self._convolve(x)
        if self._norm is not None:
            x = self.get_submodule(self._norm)(x)
        # In place, as nothing else uses the convolution's output and memory is the bottleneck.
        return functional.relu(x, inplace=not x.requires_grad)

    def _convolve(self, x: Tensor) -> Tensor:
        weight, bias = self.conv3d.weight, self.conv3d.bias
        is_pointwise = weight.shape[2:].numel() == 1
        if is_pointwise and x.is_contiguous(memory_format=torch.channels_last_3d):
            # On a CPU, the same as a matrix product is up to six times faster.
            return functional.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
        kernel, stride = self.conv3d.kernel_size, self.conv3d.stride
        pads = [_same_padding(*each) for each in zip(x.shape[2:], kernel, stride, strict=True)]
        padding = tuple(before for before, _ in pads)
        if any(before != after for before, after in pads):
            # functional.pad begins with the last axis.
            x = functional.pad(x, [amount for pair in reversed(pads) for amount in pair])
            padding = (0, 0, 0)
        x = functional.conv3d(x, weight, bias, stride, padding)
        if not is_pointwise and weight.is_contiguous(memory_format=torch.channels_last_3d):
            # Small convolutions of single clips lose this layout on a CPU, and poolings need it.
            x = x.contiguous(memory_format=torch.channels_last_3d)
        return x

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the batch norm (mean m, variance v, scale g, shift c) into the convolution.

        w' = w g / sqrt(v + eps),   b' = c - m g / sqrt(v + eps)
        """
        if self._norm is None:
            return
        norm = self.get_submodule(self._norm)
        assert isinstance(norm, nn.BatchNorm3d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        self.conv3d.weight.mul_(gain[:, None, None, None, None])
        self.conv3d.bias = nn.Parameter(
            norm.bias - norm.running_mean * gain, requires_grad=self.conv3d.weight.requires_grad
        )
        delattr(self, self._norm)
        self._norm = None


class Mixed(nn.Module):
    """Inception's four branches: 1x1; 1x1 then 3x3; 1x1 then a narrower 3x3; pool then 1x1."""

    def __init__(self, in_channels: int, widths: tuple[int, ...], *, port: Port) -> None:
        super().__init__()
        only, reduce1, wide, reduce2, narrow, pooled = widths
        self._names = port.branches
        self._pool = MaxPoolSame((3, 3, 3), (1, 1, 1))
        units = (
            Unit(in_channels, only, 1, port=port),
            Unit(in_channels, reduce1, 1, port=port),
            Unit(reduce1, wide, 3, port=port),
            Unit(in_channels, reduce2, 1, port=port),
            Unit(reduce2, narrow, 3, port=port),
            Unit(in_channels, pooled, 1, port=port),
        )
        for name, unit in zip(self._names, units, strict=True):
            _add_at(self, name, unit)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h w"]:
        """Return the channels of all branches, one after the other."""
        only, reduce1, wide, reduce2, narrow, last = map(self.get_submodule, self._names)
        branches = (only(x), wide(reduce1(x)), narrow(reduce2(x)), last(self._pool(x)))
        return torch.cat(branches, dim=1)


class MaxPoolSame(nn.Module):
    """Max pooling with SAME padding, of values of at least 0.

    The published networks pad with zeros. As no value is below zero, torch's padding, which a
    maximum ignores, gives the same. torch pads alike on both sides; where SAME pads one more at the
    end, `ceil_mode` lets the last window exceed the input.
    """

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c _ _ _"]:
        """Return the largest value of each window."""
        sizes = zip(x.shape[2:], self.kernel, self.stride, strict=True)
        before = [_same_padding(*each)[0] for each in sizes]
        return functional.max_pool3d(x, self.kernel, self.stride, before, ceil_mode=True)


class Head(nn.Module):
    """The last layer, a convolution by name and shape, applied to pooled features."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, num_classes, 1)

    def forward(self, features: Float[Tensor, "b c"]) -> Float[Tensor, "b k"]:
        """Return the logits of features."""
        return functional.linear(features, self.conv3d.weight.flatten(1), self.conv3d.bias)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after for ceil(size / stride) outputs, an odd one after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _add_at(module: nn.Module, path: str, child: nn.Module) -> None:
    """Add `child` under a dotted path, and the modules in between."""
    *folders, leaf = path.split(".")
    for folder in folders:
        if not hasattr(module, folder):
            module.add_module(folder, nn.Module())
        module = module.get_submodule(folder)
    module.add_module(leaf, child)
