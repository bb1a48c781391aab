"""The Inception-v3 of FID: pictures to 2048 features.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (CVPR 2016), in the
version of TensorFlow's graph of 2015-12-05, which published FIDs use. It differs from the usual
port in three respects: average pools do not count their padding, the last block uses a max pool,
and there are 1008 classes. The weights are not in a pip package: they are read from a file that the
user provides, with the names of pt_inception-2015-12-05, the file of the package `pytorch-fid`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.state_dicts import read_state_dict, require_entries

FEATURE_DIM = 2048

_SIZE = 299  # height and width of the network's input, in pixels
_NUM_CLASSES = 1008

Kernel = tuple[int, int]
Pool = Literal["average", "maximum", "halving"]


@dataclass(frozen=True)
class _Conv:
    """One convolution of a branch."""

    name: str
    width: int
    kernel: Kernel = (1, 1)
    stride: int = 1


_Step = _Conv | tuple[_Conv, _Conv]  # two have the same input, and their outputs are concatenated


@dataclass(frozen=True)
class _Mixed:
    """Branches whose outputs are concatenated, that of the pool last."""

    branches: tuple[tuple[_Step, ...], ...]
    pool: Pool
    pool_width: int = 0  # of the convolution after the pool; "halving" has none


def _block_a(pool_width: int) -> _Mixed:
    return _Mixed(
        (
            (_Conv("branch1x1", 64),),
            (_Conv("branch5x5_1", 48), _Conv("branch5x5_2", 64, (5, 5))),
            (
                _Conv("branch3x3dbl_1", 64),
                _Conv("branch3x3dbl_2", 96, (3, 3)),
                _Conv("branch3x3dbl_3", 96, (3, 3)),
            ),
        ),
        pool="average",
        pool_width=pool_width,
    )


def _block_c(width: int) -> _Mixed:
    return _Mixed(
        (
            (_Conv("branch1x1", 192),),
            (
                _Conv("branch7x7_1", width),
                _Conv("branch7x7_2", width, (1, 7)),
                _Conv("branch7x7_3", 192, (7, 1)),
            ),
            (
                _Conv("branch7x7dbl_1", width),
                _Conv("branch7x7dbl_2", width, (7, 1)),
                _Conv("branch7x7dbl_3", width, (1, 7)),
                _Conv("branch7x7dbl_4", width, (7, 1)),
                _Conv("branch7x7dbl_5", 192, (1, 7)),
            ),
        ),
        pool="average",
        pool_width=192,
    )


def _block_e(pool: Pool) -> _Mixed:
    return _Mixed(
        (
            (_Conv("branch1x1", 320),),
            (
                _Conv("branch3x3_1", 384),
                (_Conv("branch3x3_2a", 384, (1, 3)), _Conv("branch3x3_2b", 384, (3, 1))),
            ),
            (
                _Conv("branch3x3dbl_1", 448),
                _Conv("branch3x3dbl_2", 384, (3, 3)),
                (_Conv("branch3x3dbl_3a", 384, (1, 3)), _Conv("branch3x3dbl_3b", 384, (3, 1))),
            ),
        ),
        pool=pool,
        pool_width=192,
    )


# The convolutions before the blocks: name, width, kernel, stride, and whether they keep the size.
_STEM: tuple[tuple[str, int, int, int, bool], ...] = (
    ("Conv2d_1a_3x3", 32, 3, 2, False),
    ("Conv2d_2a_3x3", 32, 3, 1, False),
    ("Conv2d_2b_3x3", 64, 3, 1, True),
    ("Conv2d_3b_1x1", 80, 1, 1, False),
    ("Conv2d_4a_3x3", 192, 3, 1, False),
)
_POOLED_AFTER = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")

_BLOCKS: dict[str, _Mixed] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _Mixed(
        (
            (_Conv("branch3x3", 384, (3, 3), 2),),
            (
                _Conv("branch3x3dbl_1", 64),
                _Conv("branch3x3dbl_2", 96, (3, 3)),
                _Conv("branch3x3dbl_3", 96, (3, 3), 2),
            ),
        ),
        pool="halving",
    ),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _Mixed(
        (
            (_Conv("branch3x3_1", 192), _Conv("branch3x3_2", 320, (3, 3), 2)),
            (
                _Conv("branch7x7x3_1", 192),
                _Conv("branch7x7x3_2", 192, (1, 7)),
                _Conv("branch7x7x3_3", 192, (7, 1)),
                _Conv("branch7x7x3_4", 192, (3, 3), 2),
            ),
        ),
        pool="halving",
    ),
    "Mixed_7b": _block_e("average"),
    "Mixed_7c": _block_e("maximum"),
}


class Inception(nn.Module):
    """The network whose 2048 features FID compares, frozen.

    `Inception.from_file` returns the trained network; the constructor gives random weights. The
    state dict has the keys of the published file.

    Example:
        >>> inception = Inception().eval()
        >>> inception.features(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 2048])
    """

    def __init__(self) -> None:
        super().__init__()
        width = 3
        for name, out, kernel, stride, keeps in _STEM:
            padding = (kernel // 2, kernel // 2) if keeps else (0, 0)
            self.add_module(name, _Unit(width, out, (kernel, kernel), stride, padding))
            width = out
        for name, block in _BLOCKS.items():
            self.add_module(name, _Block(width, block))
            width = _width_of(width, block)
        self.fc = nn.Linear(width, _NUM_CLASSES)  # in the file, though FID does not use it
        self.requires_grad_(False)

    @classmethod
    def from_file(cls, path: str | Path) -> "Inception":
        """Build the network from the published state dict.

        Args:
            path: pt_inception-2015-12-05-6726825d.pth (read without running code), or the same as
                .safetensors.

        Returns:
            The network in evaluation mode, on the CPU, in float32.

        Raises:
            UserError: The file is missing, damaged, needs more than tensors, or holds another
                network.
        """
        network = cls()
        expected = network.state_dict()
        # The published file is older than the counters, which evaluation does not use.
        counters = {k: v for k, v in expected.items() if k.endswith(".num_batches_tracked")}
        state = counters | read_state_dict(path, kind="the weights of FID's Inception")
        require_entries(state, expected, path=Path(path), network="FID's Inception")
        network.load_state_dict(state)
        return network.eval()

    def features(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 2048"]:
        """Return the features of pictures: the mean of the last map.

        Args:
            pictures: Pictures in [-1, 1] of any size; they are resized bilinearly to 299 x 299
                without a low-pass filter, as in `pytorch-fid`.
        """
        size = (_SIZE, _SIZE)
        x = functional.interpolate(pictures, size, mode="bilinear", align_corners=False)
        for name, *_ in _STEM:
            x = self.get_submodule(name)(x)
            if name in _POOLED_AFTER:
                x = functional.max_pool2d(x, 3, stride=2)
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
        return x.mean(dim=(2, 3))


class _Unit(nn.Module):
    """A convolution, batch norm and ReLU."""

    def __init__(
        self, width: int, out: int, kernel: Kernel, stride: int, padding: tuple[int, int]
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class _Block(nn.Module):
    """A block of branches."""

    def __init__(self, width: int, spec: _Mixed) -> None:
        super().__init__()
        self._spec = spec
        for branch in spec.branches:
            before = width
            for step in branch:
                for conv in _convs(step):
                    self.add_module(conv.name, _unit(before, conv))
                before = sum(conv.width for conv in _convs(step))
        if spec.pool_width:
            self.branch_pool = _Unit(width, spec.pool_width, (1, 1), 1, (0, 0))

    def forward(self, x: Tensor) -> Tensor:
        branches = [self._run(branch, x) for branch in self._spec.branches]
        return torch.cat([*branches, self._pool(x)], dim=1)

    def _run(self, branch: tuple[_Step, ...], x: Tensor) -> Tensor:
        for step in branch:
            x = torch.cat([self.get_submodule(conv.name)(x) for conv in _convs(step)], dim=1)
        return x

    def _pool(self, x: Tensor) -> Tensor:
        if self._spec.pool == "halving":
            return functional.max_pool2d(x, 3, stride=2)
        if self._spec.pool == "maximum":
            pooled = functional.max_pool2d(x, 3, stride=1, padding=1)
        else:
            pooled = functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        out: Tensor = self.branch_pool(pooled)
        return out


def _convs(step: _Step) -> tuple[_Conv, ...]:
    return (step,) if isinstance(step, _Conv) else step


def _unit(width: int, conv: _Conv) -> _Unit:
    """Return a convolution that keeps the size, or with stride 2 one without padding."""
    rows, columns = conv.kernel
    padding = (rows // 2, columns // 2) if conv.stride == 1 else (0, 0)
    return _Unit(width, conv.width, conv.kernel, conv.stride, padding)


def _width_of(width: int, block: _Mixed) -> int:
    branches = sum(sum(conv.width for conv in _convs(branch[-1])) for branch in block.branches)
    return branches + (block.pool_width or width)
