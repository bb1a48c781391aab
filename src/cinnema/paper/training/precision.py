"""What the networks of a training step compute in: float32, or bf16 with float32 masters.

A step asks for a network to be made `ready` and calls what it gets. In float32 that is the network
itself. Else it is a copy in bf16 whose weights are made of the network's own, in the graph: the
network stays in float32, takes the gradients, and is what optimisers, checkpoints and validation
see, so that nothing else of a training knows.
"""

import copy
import os
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from cinnema.core.errors import UserError
from cinnema.core.precision import fast_dtype
from cinnema.paper.spectral import SpectralWeight, fold_spectral_norm
from cinnema.training.losses import PerceptualDistance

Precision: TypeAlias = Literal["float32", "fast", "compiled"]

_SPECTRAL = {"weight_orig", "weight_u", "weight_v"}  # what a folded convolution has not


class Arithmetic:
    """How the networks of a training compute.

    With "fast", weights and activations are bf16. Spectral norm is computed on the float32 weights,
    once each time that a network is made ready, however often it is called then; batch norms keep
    their statistics and weights in float32. "compiled" compiles what steps call heavy as well,
    where there is a compiler: the first step takes minutes for it.

    Args:
        precision: "float32", "fast" or "compiled".
        device: Where the networks are.

    Raises:
        UserError: The device does not multiply bf16 in hardware.

    Example:
        >>> network = nn.Conv2d(3, 8, 3)
        >>> Arithmetic("float32", device=torch.device("cpu")).ready(network) is network
        True
    """

    def __init__(self, precision: Precision, *, device: torch.device) -> None:
        self.precision, self.device = precision, device
        if precision != "float32" and fast_dtype(device) == torch.float32:
            raise UserError(
                f'precision "{precision}" computes in bf16, which this {device.type} does not '
                'multiply in hardware: use "float32", which is faster here'
            )
        self._compiles = precision == "compiled" and _has_compiler()
        self._copies: dict[nn.Module, _Copy] = {}

    def ready(self, network: nn.Module, *, is_heavy: bool = False) -> Callable[..., Any]:
        """Return what computes a network's forward pass, with its weights as they are now.

        It takes and gives float32 tensors, whatever it computes in. Gradients go to the network's
        own weights, unless these are frozen now.

        Args:
            network: In float32. In training mode, its spectral norms take a step of power
                iteration: now, or at each call where it is returned itself.
            is_heavy: Whether it is worth compiling. What is compiled can be gone through backwards
                once only, and has no gradients of gradients.
        """
        if self.precision == "float32":
            return network
        if network not in self._copies:
            self._copies[network] = _Copy(network, compiles=is_heavy and self._compiles)
        return self._copies[network].ready()

    def ready_distance(
        self, perceptual: PerceptualDistance, *, is_heavy: bool = False
    ) -> PerceptualDistance:
        """Return a distance of pictures that computes likewise, if it is a frozen network.

        Args:
            perceptual: LPIPS; or a plain function, which is returned as it is.
            is_heavy: As of `ready`.
        """
        if not isinstance(perceptual, nn.Module):
            return perceptual
        return self.ready(perceptual, is_heavy=is_heavy)


class _Copy:
    """A network's forward pass in bf16, without weights of its own.

    Compiled, and on CUDA, tensors have channels last. On the CPU eager norms take several times as
    long with that, backwards, and convolutions no less than with channels first.
    """

    def __init__(self, network: nn.Module, *, compiles: bool) -> None:
        self.network = network
        whole = nn.ModuleDict({"network": copy.deepcopy(network).to("meta")})
        fold_spectral_norm(whole)
        _pad_apart(whole)
        self._hollow = whole["network"]
        self._forward = torch.compile(self._call, dynamic=False) if compiles else self._call
        device = next(network.parameters()).device
        self._channels_last = compiles or device.type == "cuda"

    def ready(self) -> Callable[..., Any]:
        """Return the forward pass with the weights that the network has now."""
        self._hollow.train(self.network.training)
        weights = dict(self._weights())

        def forward(*inputs: Tensor) -> Any:  # noqa: ANN401 - what the network gives
            return _to_float32(self._forward(weights, *map(self._cast, inputs)))

        return forward

    def _call(self, weights: dict[str, Tensor], *inputs: Tensor) -> Any:  # noqa: ANN401
        return functional_call(self._hollow, weights, inputs, strict=True)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield parameters and buffers of the copy, by name."""
        for path, module in self.network.named_modules():
            prefix = f"{path}." if path else ""
            own = {
                **dict(module.named_parameters(recurse=False)),
                **dict(module.named_buffers(recurse=False)),
            }
            if isinstance(module, SpectralWeight):
                own = {name: value for name, value in own.items() if name not in _SPECTRAL}
                own["weight"] = module.normalised_weight()
            for name, value in own.items():
                yield prefix + name, value if isinstance(module, _BatchNorm) else self._cast(value)

    def _cast(self, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
        layout = layouts.get(value.ndim) if self._channels_last else None
        return value.to(torch.bfloat16, memory_format=layout or torch.preserve_format)


class _PaddedApart(nn.Conv3d):
    """A 3-D convolution that adds its zeros before and after in time itself, where there are few.

    oneDNN 3.12, of torch 2.13, leaves parts of a bf16 weight's gradient unwritten on a CPU where
    the clip has two steps and the kernel three, so that it holds whatever was in memory.
    """

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d _ _ _"]:
        padding = self.padding
        if isinstance(padding, tuple) and 1 < x.shape[2] < self.kernel_size[0]:
            x = functional.pad(x, (0, 0, 0, 0, padding[0], padding[0]))
            padding = (0, *padding[1:])
        return functional.conv3d(x, self.weight, self.bias, stride=self.stride, padding=padding)


def _pad_apart(network: nn.Module) -> None:
    """Let the 3-D convolutions of a network pad time themselves; its weights keep their names."""
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = _PaddedApart  # what it holds stays the same


def _to_float32(made: Any) -> Any:  # noqa: ANN401 - any nest of tensors
    if isinstance(made, Tensor):
        return made.float()
    return type(made)(_to_float32(part) for part in made)


def _has_compiler() -> bool:
    """Whether torch can compile here; say so where it cannot."""
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    missing = [
        what
        for what, is_there in (
            (f"the compiler {name}", shutil.which(name)),
            (str(header), header.exists()),
        )
        if not is_there
    ]
    if missing:
        warnings.warn(
            f'precision "compiled" needs {" and ".join(missing)}: going on as "fast", uncompiled',
            stacklevel=3,
        )
    return not missing
