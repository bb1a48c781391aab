"""Random numbers that depend only on the seed and the number of the sample."""

import numpy as np
import torch

from cinnema.core.errors import UserError

_STEP = 0x9E3779B1  # odd, so that sample -> sample * _STEP is a bijection modulo 2^32


def generator_for(seed: int, sample: int) -> torch.Generator:
    """Return the random generator of one sample.

    Its numbers do not depend on how many samples there are, their order, or the batch that they are
    computed in: sample 3 of 4 is sample 3 of 100. torch seeds its CPU generator with 32 bits, which
    differ for all samples of one seed.

    Args:
        seed: The user's seed, at least 0, of any size.
        sample: Number of the sample, from 0 to 2^32 - 1.

    Returns:
        A new CPU generator. Draw on the CPU and move the result, as the generators of other devices
        give other numbers.

    Raises:
        UserError: The seed or the number is out of range.

    Example:
        >>> nu = torch.randn(64, generator=generator_for(seed=0, sample=3))
    """
    if seed < 0:
        raise UserError(f"the seed must be at least 0, got {seed}: choose another one")
    if not 0 <= sample < 2**32:
        raise UserError(f"a sample's number must be from 0 to {2**32 - 1}, got {sample}")
    start = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return torch.Generator().manual_seed((start + sample * _STEP) % 2**32)


class NumberedStreams:
    """Random streams by kind and number, no two of which share bits.

    Args:
        seed: Seed of all streams, at least 0, of any size.

    Example:
        >>> streams = NumberedStreams(0)
        >>> float(streams.of(1, 7).random()) == float(streams.of(1, 7).random())
        True
    """

    def __init__(self, seed: int) -> None:
        self._key = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])

    def of(self, kind: int, number: int) -> np.random.Generator:
        """Return the stream of a kind and a number, both at least 0."""
        # Philox maps each key and counter to bits of their own.
        key = np.array([self._key, number], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, kind]))
