"""A lack of memory: the limit on this process, and the errors that libraries then raise."""

import errno

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

LEAST_MEMORY = 2 << 30
"""Bytes of address space that any command that computes gets along with."""

_SIGNS = (
    "allocate memory",  # torch, on the CPU, and threads of C libraries
    "out of memory",  # torch, on a GPU
    "not enough memory",
    "bad_alloc",
    "insufficient memory",  # OpenCV
    "can't start new thread",
    "map segment from shared object",  # a library that cannot be loaded
)
_NUMBERS = frozenset({errno.ENOMEM, errno.EAGAIN})  # EAGAIN: no thread, in FFmpeg


def memory_limit() -> int | None:
    """Return the limit of this process' address space (`ulimit -v`) in bytes; None for no limit."""
    if resource is None:
        return None
    limit: int = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether an error comes of a lack of memory.

    Under a limit below `LEAST_MEMORY` this is said of any unforeseen error, as libraries fail in
    all ways there.

    Args:
        error: Of Python or of a library, which have no type in common.
    """
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS):
        return True
    if isinstance(error, OSError):
        return error.errno in _NUMBERS
    limit = memory_limit()
    return limit is not None and limit < LEAST_MEMORY
