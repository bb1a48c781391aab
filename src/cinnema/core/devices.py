"""Which device torch computes on, and on how many CPU threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cinnema.core.errors import UserError

_KINDS = ("cpu", "cuda", "mps")


def choose_device(name: str) -> torch.device:
    """Return the device of a name.

    Under torchrun, each process on a machine gets a GPU of its own for auto and cuda.

    Args:
        name: auto (a GPU if this machine has one, else the CPU), cpu, cuda, cuda:1, ..., or mps.

    Returns:
        The device; torch can use it.

    Raises:
        UserError: The name is not one of these, or this machine has no such device.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        name = next((kind for kind in ("cuda", "mps") if _is_available(torch.device(kind))), "cpu")
    local_rank = os.environ.get("LOCAL_RANK", "0")  # set by torchrun
    if name == "cuda" and local_rank != "0":
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in _KINDS:
        raise UserError(f"--device must be auto, cpu, cuda, cuda:1 or mps, got {name!r}")
    if not _is_available(device):
        raise UserError(f"--device {name}: torch finds no such device here: use --device cpu")
    return device


def _is_available(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or torch.backends.mps.is_available()


def use_threads(threads: int | None) -> None:
    """Set the number of CPU threads that torch computes on.

    Args:
        threads: At least 1; None keeps torch's default (all cores).

    Raises:
        UserError: It is less than 1.
    """
    if threads is None:
        return
    if threads < 1:
        raise UserError(f"--threads must be at least 1, got {threads}")
    torch.set_num_threads(threads)


@contextmanager
def one_thread() -> Iterator[None]:
    """Make torch compute on one CPU thread inside the block or the decorated function.

    For work on small tensors: more threads gain little on an idle machine and cost a factor of ten
    on a busy one. The results then do not depend on the number of cores either.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
