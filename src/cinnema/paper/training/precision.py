"""The format in which the networks of a training step compute: float32, or bf16.

A step calls `ready` on a network, and then the result. In float32 that is the network itself. In
bf16 it is a copy whose weights are cast from the network's own within the graph: the network stays
in float32 and receives the gradients, so optimisers, checkpoints and validation are not affected.
"""

import copy
import os
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from cinnema.core.errors import UserError
from cinnema.core.precision import fast_dtype
from cinnema.paper.spectral import SpectralWeight, fold_spectral_norm
from cinnema.training.losses import PerceptualDistance

Precision: TypeAlias = Literal["float32", "fast", "compiled"]

_NORMS = nn.GroupNorm | _BatchNorm | nn.modules.instancenorm._InstanceNorm
_SPECTRAL = {"weight_orig", "weight_u", "weight_v"}  # replaced by "weight" in a folded layer


class Arithmetic:
    """The format in which the networks of a training compute.

    With "fast", weights and activations are bf16. Spectral norms are computed from the float32
    weights, once per call of `ready`; statistics and weights of batch norms stay in float32.
    "compiled" also compiles the heavy networks, if there is a compiler, which takes minutes in the
    first step.

    Args:
        precision: "float32", "fast" or "compiled".
        device: The device of the networks.

    Raises:
        UserError: The device does not multiply bf16 faster than float32.

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
                'multiply faster: use "float32"'
            )
        self._compiles = precision == "compiled" and _has_compiler()
        self._copies: dict[nn.Module, _Copy] = {}

    def ready(self, network: nn.Module, *, is_heavy: bool = False) -> Callable[..., Any]:
        """Return a function that computes a network's forward pass with its present weights.

        Inputs and outputs are float32. Gradients go to the network's own weights, unless these are
        frozen at this time.

        Args:
            network: A network in float32. In training mode, its spectral norms take a step of power
                iteration: in this call, or in each forward pass if the network itself is returned.
            is_heavy: Whether to compile it with "compiled". A compiled network allows one backward
                pass, and no second derivatives.
        """
        if self.precision == "float32":
            return network
        if network not in self._copies:
            self._copies[network] = _Copy(network, compiles=is_heavy and self._compiles)
        return self._copies[network].ready()

    def ready_distance(
        self, perceptual: PerceptualDistance, *, is_heavy: bool = False
    ) -> PerceptualDistance:
        """Return a distance of images that computes in the same format.

        Args:
            perceptual: LPIPS, frozen; a plain function is returned unchanged.
            is_heavy: As in `ready`.
        """
        if not isinstance(perceptual, nn.Module):
            return perceptual
        return self.ready(perceptual, is_heavy=is_heavy)


class _Copy:
    """The forward pass of a network in bf16, without weights of its own.

    Compiled, and on CUDA, tensors are in channels-last format. On the CPU that makes the backward
    pass of norms several times slower and convolutions in 3-D no faster, so only networks without
    either have it there: of LPIPS, it saves a quarter of the time.
    """

    def __init__(self, network: nn.Module, *, compiles: bool) -> None:
        self.network = network
        whole = nn.ModuleDict({"network": copy.deepcopy(network).to("meta")})
        fold_spectral_norm(whole)
        _pad_apart(whole)
        self._hollow = whole["network"]
        self._compiled = torch.compile(self._call, dynamic=False) if compiles else None
        device = next(network.parameters()).device
        is_plain = not any(isinstance(m, _NORMS | nn.Conv3d) for m in network.modules())
        self._channels_last = compiles or device.type == "cuda" or is_plain

    def ready(self) -> Callable[..., Any]:
        """Return the forward pass with the present weights of the network."""
        self._hollow.train(self.network.training)
        weights = dict(self._weights())
        compute: Callable[..., Any] = self._hollow
        if self._compiled is not None:
            compute = partial(self._compiled, weights)
        else:
            self._install(weights)

        def forward(*inputs: Tensor) -> Any:  # noqa: ANN401 - the output of the network
            return _to_float32(compute(*map(self._cast, inputs)))

        return forward

    def _install(self, weights: dict[str, Tensor]) -> None:
        """Give the copy weights until the next call: a backward pass may compute parts again."""
        for path, module in self._hollow.named_modules():
            prefix = f"{path}." if path else ""
            for own in (module._parameters, module._buffers):
                own.update({name: weights[prefix + name] for name in own if own[name] is not None})

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
                if module.training:
                    module.iterate()
                vectors = module.weight_u, module.weight_v
                own["weight"] = _NormalisedWeight.apply(  # type: ignore[no-untyped-call]
                    module.weight_orig, *vectors
                )
            for name, value in own.items():
                yield prefix + name, value if isinstance(module, _BatchNorm) else self._cast(value)

    def _cast(self, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
        layout = layouts.get(value.ndim) if self._channels_last else None
        return value.to(torch.bfloat16, memory_format=layout or torch.preserve_format)


class _NormalisedWeight(torch.autograd.Function):
    """The weight of a convolution with spectral norm in bf16, in few passes over large weights.

    With sigma = u^T W v, the gradient of W is (G - <G, W / sigma> u v^T) / sigma.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:  # noqa: ANN401
        sigma = torch.dot(u, weight.flatten(1) @ v)
        ctx.save_for_backward(weight, u, v, sigma)
        return (weight / sigma).to(torch.bfloat16)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        weight, u, v, sigma = ctx.saved_tensors
        found = gradient.float().contiguous().div_(sigma)
        share = torch.dot(found.flatten(), weight.flatten()) / sigma
        found.flatten(1).addr_(u, v * -share)
        return found, None, None


class _PaddedApart(nn.Conv3d):
    """A 3-D convolution that pads short clips in time explicitly.

    oneDNN 3.12, in torch 2.13, leaves parts of the gradient of a bf16 weight uninitialised on a CPU
    if the clip is shorter than the kernel, for example with two steps and a kernel of three.
    """

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d _ _ _"]:
        padding = self.padding
        if isinstance(padding, tuple) and 1 < x.shape[2] < self.kernel_size[0]:
            x = functional.pad(x, (0, 0, 0, 0, padding[0], padding[0]))
            padding = (0, *padding[1:])
        return functional.conv3d(x, self.weight, self.bias, stride=self.stride, padding=padding)


def _pad_apart(network: nn.Module) -> None:
    """Replace the 3-D convolutions of a network by `_PaddedApart`; weights keep their names."""
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = _PaddedApart  # the state of the module stays the same


def _to_float32(made: Any) -> Any:  # noqa: ANN401 - any nest of tensors
    if isinstance(made, Tensor):
        return made.float()
    return type(made)(_to_float32(part) for part in made)


def _has_compiler() -> bool:
    """Return whether torch can compile here; warn if it cannot."""
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
            f'precision "compiled" needs {" and ".join(missing)}: computing as "fast", uncompiled',
            stacklevel=3,
        )
    return not missing
