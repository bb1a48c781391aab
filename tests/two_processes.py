"""Two processes that train together, forked from the test, so that they start at once."""

import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import cv2
import torch
from torch import distributed

from cinnema.core.distributed import Ranks

_T = TypeVar("_T")


def in_two_processes(work: Callable[[Ranks], _T]) -> list[_T]:
    """Return what a function of the ranks gives on each; it must be tensors and plain values."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # a forked process would wait for OpenCV's threads, which it lacks
        children = [_start(work, rank, place) for rank in range(2)]
        cv2.setNumThreads(threads)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        problems = [path.read_text() for path in sorted(place.glob("error-*"))]
        assert codes == [0, 0], "\n".join(problems)
        return [torch.load(place / f"result-{rank}", weights_only=True) for rank in range(2)]


def _start(work: Callable[[Ranks], object], rank: int, place: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        torch.set_num_threads(1)
        distributed.init_process_group(
            "gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=2
        )
        result = work(Ranks(rank, 2))
        torch.save(result, place / f"result-{rank}")
        distributed.barrier()  # neither leaves before the other has got all
        os._exit(0)
    except BaseException:
        (place / f"error-{rank}").write_text(traceback.format_exc())
        os._exit(1)
