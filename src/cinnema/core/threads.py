"""How many CPU threads torch computes on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one CPU thread inside the block or the decorated function.

    Its tensors are small in this room: more threads gain little on an idle machine and lose a
    factor of ten on a busy one. And the bits of a video then do not hang on the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
