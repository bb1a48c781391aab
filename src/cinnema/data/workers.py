"""Processes that prepare batches: which clips are whose, and how a process behaves."""

import itertools
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import cv2
import torch

_T = TypeVar("_T")


def batch_ranges(first: int, *, length: int, step: int) -> Iterator[range]:
    """Yield the numbers of the clips of each batch, without end.

    Args:
        first: Of the first batch's first clip.
        length: Clips in a batch.
        step: From a batch's first clip to the next one's: more than `length` under several ranks.
    """
    # No part of a loader: holding it, the iterator would keep the workers alive after it.
    for start in itertools.count(first, step):
        yield range(start, start + length)


def unchanged(batch: _T) -> _T:
    """Return a batch as a worker made it."""
    return batch


def begin_worker(_: int) -> None:
    """Set a process up that prepares batches."""
    # An interrupt is for the training to handle, which may still want a batch to end well; workers
    # end with the process that started them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)  # OpenCV's pool of threads does not survive a fork


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: the bits then do not hang on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
