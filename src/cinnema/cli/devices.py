"""Where to compute, as the user names it."""

import torch

from cinnema.core.errors import UserError

_KINDS = ("cpu", "cuda", "mps")


def choose_device(name: str) -> torch.device:
    """Return the device of a name.

    Args:
        name: auto (an accelerator where there is one, else the CPU), cpu, cuda, cuda:1, ..., mps.

    Returns:
        The device; it is there.

    Raises:
        UserError: the name is none of these, or this machine has no such device.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        found = [kind for kind in ("cuda", "mps") if _is_there(torch.device(kind))]
        return torch.device(found[0] if found else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in _KINDS:
        raise UserError(f"--device must be auto, cpu, cuda, cuda:1 or mps, got {name!r}")
    if not _is_there(device):
        raise UserError(f"--device {name}: this machine has none that torch can use: use cpu")
    return device


def use_threads(threads: int | None) -> None:
    """Set the number of threads on the CPU.

    Args:
        threads: at least 1; None leaves torch its choice.

    Raises:
        UserError: it is below 1.
    """
    if threads is None:
        return
    if threads < 1:
        raise UserError(f"--threads must be at least 1, got {threads}")
    torch.set_num_threads(threads)


def _is_there(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return True
