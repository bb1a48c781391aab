"""Memory of large tensors: kept by the process between uses, where glibc allocates it."""

import ctypes
import os
import platform

# Parameters of mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_OWN_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def release_freed_memory() -> None:
    """Return freed memory to the system, where glibc allocates it: it keeps what lies between."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> bool:
    """Let this process keep freed memory and use it again, instead of returning it.

    By default glibc returns blocks above 32 MiB to the system at once and gets them back page by
    page, each filled with zeros, which costs a quarter of the time of networks with large maps.
    Call it before such work begins. The process then stays as large as it was at its peak.

    Returns:
        Whether it does so. It does not with another C library, nor if the environment sets
        MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_ or GLIBC_TUNABLES, which then decide.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _OWN_SETTINGS):
        return False
    set_option = ctypes.CDLL(None).mallopt
    settings = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1))
    # Older versions refuse thresholds above 32 MiB.
    return all(set_option(option, value) == 1 for option, value in settings)
