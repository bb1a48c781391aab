"""Random streams that depend on nothing but the seed and the sample."""

import numpy as np
import torch

from cinnema.core.errors import UserError

_SPREAD = 0x9E3779B1  # odd, so that sample -> sample * _SPREAD is a bijection modulo 2^32


def generator_for(seed: int, sample: int) -> torch.Generator:
    """Return the random stream of one sample.

    The stream is the same whatever the number of samples, their order, or the batch they are
    computed in, so sample 3 of 4 is sample 3 of 100. torch seeds its CPU generator with 32 bits
    only: within one seed no two samples share them.

    Args:
        seed: the user's seed, at least 0, of any size.
        sample: the sample's number, from 0 to 2^32 - 1.

    Returns:
        A CPU generator of its own. Draw on the CPU and move the draw, as other devices' streams
        differ.

    Raises:
        UserError: the seed or the sample's number is negative or the latter too large.

    Example:
        >>> nu = torch.randn(64, generator=generator_for(seed=0, sample=3))
    """
    if seed < 0:
        raise UserError(f"the seed must be at least 0, got {seed}: choose another one")
    if not 0 <= sample < 2**32:
        raise UserError(f"a sample's number must be from 0 to {2**32 - 1}, got {sample}")
    start = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return torch.Generator().manual_seed((start + sample * _SPREAD) % 2**32)
