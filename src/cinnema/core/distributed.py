"""Several processes that train one network: who they are, and gradients averaged in plain sight.

Every rank holds the whole network, computes the gradient on its share of a batch, and averages it
with those of the others before the optimiser moves; so all take the same step. As the loss is a
mean over clips, R ranks on B / R clips each do what one process does on B. A loss that is no plain
mean (a gradient penalty on a mean score, a weighted mean) has to count over all ranks itself:
`average` is there for that.

torch's DistributedDataParallel is not used: it averages within `backward` and so leaves the
backward passes of a gradient penalty, and of several optimisers, unaveraged.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from cinnema.core.errors import UserError

_T = TypeVar("_T")

# While the first rank validates or encodes a pool, the others wait for it.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, seen from one of them.

    What is called on one rank must be called on all, in the same order. Alone, nothing is sent.

    Attributes:
        rank: r, of this process, from 0.
        size: R, how many there are.

    Example:
        >>> ranks = Ranks()
        >>> ranks.is_first, ranks.share(32), ranks.gather("a")
        (True, slice(0, 32, None), ['a'])
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes, shows and validates."""
        return self.rank == 0

    def share(self, num: int) -> slice:
        """Return which of `num` clips of a batch are this rank's.

        Raises:
            UserError: They cannot be shared evenly.
        """
        each, rest = divmod(num, self.size)
        if rest or not each:
            raise UserError(
                f"a batch of {num} clips cannot be shared evenly by {self.size} processes: change "
                "batch_size, or --nproc-per-node of torchrun"
            )
        return slice(self.rank * each, (self.rank + 1) * each)

    def own(self, drawn: Tensor) -> Tensor:
        """Return this rank's rows of what has been drawn for all clips of a batch.

        So that clips get the same draw whatever the number of ranks.

        Args:
            drawn: A row for each clip, of all ranks.
        """
        return drawn[self.share(len(drawn))]

    @torch.no_grad()
    def joined(self, tensor: Tensor) -> Tensor:
        """Return the rows of all ranks, by rank.

        Args:
            tensor: Of the same shape on all ranks.
        """
        if self.size == 1:
            return tensor
        whole = tensor.detach().contiguous()
        parts = [torch.empty_like(whole) for _ in range(self.size)]
        distributed.all_gather(parts, whole)
        return torch.cat(parts)

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type and device by their means over all ranks.

        Args:
            tensors: Of the same shapes on all ranks.
        """
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat.div_(self.size)
        _scatter(flat, tensors)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their means over all ranks.

        Args:
            parameters: Of one type and device; what has no gradient here has none on any rank.
        """
        self.average([p.grad for p in parameters if p.grad is not None])

    @torch.no_grad()
    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the first rank.

        Args:
            tensors: Of the same shapes on all ranks: parameters, buffers, averages.
        """
        if self.size == 1:
            return
        for tensor in tensors:
            whole = tensor.detach().contiguous()  # where that is a copy, it is copied back
            distributed.broadcast(whole, src=0)
            tensor.copy_(whole)

    def gather(self, value: _T) -> list[_T]:
        """Return every rank's value, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], _T]) -> _T:
        """Let the first rank make a value, and return it on all; the others wait."""
        made = [make() if self.is_first else None]
        if self.size > 1:
            distributed.broadcast_object_list(made, src=0)
        return made[0]  # type: ignore[return-value]

    def first_then_all(self, make: Callable[[], _T]) -> _T:
        """Let the first rank make a value, then all: the others find what it left on the disk."""
        if self.size == 1:
            return make()
        self.from_first(lambda: bool(make()))
        return make()


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that torchrun has started, for the time of a `with` block.

    Without torchrun this is one process.

    Args:
        device: Where this process computes.

    Yields:
        Who is there.

    Raises:
        UserError: The processes cannot find each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"this process cannot join the others ({reason}): start all of them with torchrun, "
            "with the same --rdzv-endpoint on every machine"
        ) from error
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def local_rank() -> int:
    """Return this process's number on its machine, from 0: its accelerator's, too."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _scatter(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))
