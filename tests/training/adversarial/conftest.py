"""Small discriminators that learn in seconds, and clips that a decoder gets nearly right."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cinnema.core.distributed import Ranks
from cinnema.training.adversarial import (
    Discriminators,
    DiscriminatorsConfig,
    DiscriminatorTraining,
)


class Clips(NamedTuple):
    """Real clips, what a decoder makes of them, and their first frames."""

    real: Tensor
    fake: Tensor
    x0: Tensor


@pytest.fixture
def clips() -> Callable[..., Clips]:
    """Make some that drift; the decoder's are washed out, unless it is told what to do."""

    def make(
        *, seed: int = 0, num: int = 4, frames: int = 4, size: int = 32,
        decode: Callable[[Tensor, Tensor], Tensor] = lambda real, _: 0.5 * real,
    ) -> Clips:  # fmt: skip
        generator = torch.Generator().manual_seed(seed)
        x0 = torch.rand(num, 3, size // 4, size // 4, generator=generator) * 2 - 1
        x0 = functional.interpolate(x0, (size, size), mode="bilinear")
        real = torch.stack([x0.roll(2 * t, dims=-1) for t in range(1, frames + 1)], dim=1)
        return Clips(real, decode(real, x0), x0)

    return make


@pytest.fixture
def adversaries() -> Callable[..., Discriminators]:
    """Make some of the modules named; options are fields of their configuration."""

    def make(
        *modules: str, seed: int = 0, ranks: Ranks | None = None, batch_size: int = 4,
        phase: dict[str, Any] | None = None, **options: Any,
    ) -> Discriminators:  # fmt: skip
        phases = tuple(DiscriminatorTraining(module=module, **(phase or {})) for module in modules)
        config = DiscriminatorsConfig(phases=phases, **{"widths": (8, 16), **options})
        return Discriminators(
            config, batch_size=batch_size, device=torch.device("cpu"), seed=seed, ranks=ranks
        )

    return make
