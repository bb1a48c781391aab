"""Several processes that measure together, as torchrun starts them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from cinnema.core.errors import UserError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Processes:
    """This process among others.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that gathers and writes."""
        return self.rank == 0

    def share(self, items: Sequence[_T]) -> list[_T]:
        """Return this process's part: every count-th, from its rank on."""
        return list(items[self.rank :: self.count])

    def gather(self, state: Any) -> Iterator[Any]:  # noqa: ANN401 - whatever can be pickled
        """Send a state to the first process, which is handed those of the others, one by one.

        Args:
            state: Of this process.

        Yields:
            In the first process the states of all others; in the others nothing.
        """
        if not self.is_first:
            dist.send_object_list([state], dst=0)
            return
        for rank in range(1, self.count):
            received: list[Any] = [None]
            dist.recv_object_list(received, src=rank)
            yield received[0]


@contextmanager
def joined_processes(environment: Mapping[str, str] = os.environ) -> Iterator[Processes]:
    """Find out from torchrun's environment who else is there, and talk to them inside the block.

    Args:
        environment: RANK and WORLD_SIZE; alone without them.

    Raises:
        UserError: They are no numbers.
    """
    try:
        rank, count = int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))
    except ValueError:
        raise UserError(
            "RANK and WORLD_SIZE must be whole numbers, as torchrun sets them: start it by "
            "torchrun, or unset them"
        ) from None
    if count < 2:
        yield Processes()
        return
    dist.init_process_group("gloo", rank=rank, world_size=count)
    try:
        yield Processes(rank, count)
        dist.barrier()
    finally:
        dist.destroy_process_group()
