"""The processes of one run, as torchrun starts them: their ranks, and what they exchange.

In training every rank holds the whole network, computes the gradient on its share of a batch and
averages it with those of the other ranks before the optimiser's step, so all ranks take the same
step. The loss is a mean over clips, so R ranks with B / R clips each compute what one process
computes with B clips. A loss that is not a plain mean (a gradient penalty on a mean score, a
weighted mean) has to average over all ranks itself, with `Ranks.average`.

torch's DistributedDataParallel is not used: it averages within `backward`, which leaves the
backward passes of a gradient penalty, and of several optimisers, unaveraged.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from cinnema.core.errors import UserError

_T = TypeVar("_T")

# The other ranks wait while the first one validates or encodes the latents of all clips.
_TIMEOUT = timedelta(hours=12)


@dataclass(frozen=True)
class Ranks:
    """The rank of this process and the number of processes.

    Methods that exchange values must be called on all ranks, in the same order. With one process
    they exchange nothing.

    Attributes:
        rank: Rank of this process, from 0 to size - 1.
        size: Number of processes, at least 1.

    Example:
        >>> ranks = Ranks()
        >>> ranks.is_first, ranks.share(32), ranks.shard("abc"), ranks.gather("a")
        (True, slice(0, 32, None), ['a', 'b', 'c'], ['a'])
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files, shows progress and validates."""
        return self.rank == 0

    def share(self, num: int) -> slice:
        """Return the slice of a batch that belongs to this rank; all slices have one length.

        Args:
            num: Number of clips in the batch of all ranks.

        Raises:
            UserError: `num` is not a positive multiple of `size`.
        """
        each, rest = divmod(num, self.size)
        if rest or not each:
            raise UserError(
                f"a batch of {num} clips cannot be shared evenly by {self.size} processes: change "
                "batch_size, or --nproc-per-node of torchrun"
            )
        return slice(self.rank * each, (self.rank + 1) * each)

    def shard(self, items: Sequence[_T]) -> list[_T]:
        """Return this rank's items: every `size`-th one, starting with number `rank`.

        Args:
            items: Any number of them; some ranks may get one more than others, or none.
        """
        return list(items[self.rank :: self.size])

    def own(self, drawn: Tensor) -> Tensor:
        """Return this rank's rows of random numbers drawn for the batch of all ranks.

        All ranks draw the same numbers, so a clip's draw does not depend on the number of ranks.

        Args:
            drawn: One row for each clip of the batch of all ranks.
        """
        return drawn[self.share(len(drawn))]

    @torch.no_grad()
    def joined(self, tensor: Tensor) -> Tensor:
        """Return the rows of all ranks, concatenated in the order of ranks.

        Args:
            tensor: This rank's rows, of the same shape on all ranks.
        """
        if self.size == 1:
            return tensor
        whole = tensor.detach().contiguous()
        parts = [torch.empty_like(whole) for _ in range(self.size)]
        distributed.all_gather(parts, whole)
        return torch.cat(parts)

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over all ranks, in place.

        Args:
            tensors: Tensors of one dtype and device, with the same shapes on all ranks.
        """
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat.div_(self.size)
        _scatter(flat, tensors)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their means over all ranks, in place.

        Args:
            parameters: Parameters of one dtype and device. A parameter without a gradient must
                have none on any rank; it is skipped.
        """
        self.average([p.grad for p in parameters if p.grad is not None])

    @torch.no_grad()
    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the first rank, in place.

        Args:
            tensors: Parameters, buffers or averages, with the same shapes on all ranks.
        """
        if self.size == 1:
            return
        for tensor in tensors:
            whole = tensor.detach().contiguous()  # possibly a copy
            distributed.broadcast(whole, src=0)
            tensor.copy_(whole)

    def gather(self, value: _T) -> list[_T]:
        """Return the values of all ranks, in the order of ranks, on all ranks.

        Args:
            value: This rank's value; it must be picklable.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def gather_on_first(self, value: _T) -> Iterator[_T]:
        """Send a value to the first rank, which receives those of the others one at a time.

        For large values, of which `gather` would hold all at once on every rank.

        Args:
            value: This rank's value; it must be picklable.

        Yields:
            On the first rank the values of the others, in the order of ranks; on others nothing.
        """
        if not self.is_first:
            distributed.send_object_list([value], dst=0)
            return
        for rank in range(1, self.size):
            received: list[Any] = [None]
            distributed.recv_object_list(received, src=rank)
            yield received[0]

    def from_first(self, make: Callable[[], _T]) -> _T:
        """Call a function on the first rank, and return its value on all; the others wait."""
        made = [make() if self.is_first else None]
        if self.size > 1:
            distributed.broadcast_object_list(made, src=0)
        return made[0]  # type: ignore[return-value]

    def first_then_all(self, make: Callable[[], _T]) -> _T:
        """Call a function on the first rank, then on the others, and return each rank's value.

        For functions that cache their result on disk: the others then read it from there.
        """
        if self.size == 1:
            return make()
        self.from_first(lambda: bool(make()))
        return make()


def ranks_of_environment(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Return the ranks that torchrun's environment variables name, without connecting to them.

    Args:
        environment: Holds RANK and WORLD_SIZE under torchrun; without them this is the only
            process.

    Raises:
        UserError: They are not whole numbers with 0 <= RANK < WORLD_SIZE.
    """
    rank, size = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise UserError(
            "RANK and WORLD_SIZE must be whole numbers with RANK below WORLD_SIZE, as torchrun "
            f"sets them, got {rank!r} and {size!r}: start this with torchrun, or unset them"
        )
    return Ranks(int(rank), int(size))


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """Connect to the other processes that torchrun has started, until the block ends.

    Without torchrun this is the only process.

    Args:
        device: Device that this process computes on.

    Yields:
        The ranks, which can exchange values inside the block.

    Raises:
        UserError: The processes cannot find each other.
    """
    if ranks_of_environment().size == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        # With both, tensors are exchanged between GPUs and Python objects between CPUs.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=_TIMEOUT)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"this process cannot join the others ({reason}): start all of them with torchrun, "
            "with the same --rdzv-endpoint on every machine"
        ) from error
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
        distributed.barrier()  # a rank that leaves early would break the last exchange
    finally:
        distributed.destroy_process_group()


def _scatter(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))
