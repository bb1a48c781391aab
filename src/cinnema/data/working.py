"""Making shards, here or in worker processes, and telling how far they are."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import cv2

from cinnema.core.errors import UserError
from cinnema.data.leftovers import write_document
from cinnema.data.manifest import (
    Plan,
    PlannedShard,
    Receipt,
    SkippedRecord,
    find_receipt,
)
from cinnema.data.records import BadRecord, ClipSource, RawClip
from cinnema.data.shards import write_shard

_SECONDS_BETWEEN = 0.2  # reports of progress while worker processes are busy


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a share of a preparation has come.

    Attributes:
        shards: Finished ones of the share, found or made.
        num_shards: All of the share.
        clips: In finished shards and those being made, skipped records included.
        num_clips: About how many there will be.
        skipped: What could not be read, up to now, in the order in which shards were finished.
    """

    shards: int
    num_shards: int
    clips: int
    num_clips: int
    skipped: tuple[SkippedRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a process has to know to make shards."""

    source: ClipSource
    folder: Path
    plan: Plan
    digest: str
    skip_bad: bool

    def find(self, shard: PlannedShard) -> Receipt | None:
        """Return the receipt of a shard that is ready, by the same plan; None if it is not."""
        return find_receipt(self.folder, shard, plan=self.digest)

    def make(self, shard: PlannedShard, count: Callable[[], None]) -> Receipt:
        """Make a shard; `count` is called after every clip."""
        try:
            entry, index = write_shard(
                self.folder / shard.file,
                self._records(shard, count),
                split=shard.split,
                size=self.plan.size,
                encoding=self.plan.encoding,
                control=self.plan.control,
            )
        except FileNotFoundError:
            # Another process may have made the same shard, and removed ours as a leftover.
            if (found := self.find(shard)) is None:
                raise
            return found
        receipt = Receipt(plan=self.digest, shard=entry, index=index)
        write_document(self.folder / shard.receipt, receipt)
        return receipt

    def _records(
        self, shard: PlannedShard, count: Callable[[], None]
    ) -> Iterator[RawClip | BadRecord]:
        for item in shard.items:
            for record in self.source.read(item):
                if isinstance(record, BadRecord) and not self.skip_bad:
                    raise UserError(
                        f"{record.name} cannot be read ({record.reason}): mend it, or leave out "
                        "such records with --skip-bad"
                    )
                yield record
                count()


class Tally:
    """Counts what is finished and tells the caller of `prepare`."""

    def __init__(
        self,
        progress: Callable[[Progress], None] | None,
        *,
        planned: Sequence[PlannedShard],
        found: Iterable[Receipt],
    ) -> None:
        self._progress = progress
        self._num_shards = len(planned)
        self._num_clips = sum(item.clips for shard in planned for item in shard.items)
        self._shards = self._found = self._made = 0
        self._skipped: list[SkippedRecord] = []
        for receipt in found:
            self._found += receipt.shard.clips + len(receipt.index.skipped)
            self._finish(receipt)
        self._tell()

    def finish(self, receipt: Receipt) -> None:
        """Count a shard."""
        self._finish(receipt)
        self._tell()

    def count(self, made: int | None = None) -> None:
        """Count one clip more, or say how many have been made by now."""
        self._made = self._made + 1 if made is None else made
        self._tell()

    def _finish(self, receipt: Receipt) -> None:
        self._shards += 1
        self._skipped += receipt.index.skipped

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(
                Progress(
                    shards=self._shards,
                    num_shards=self._num_shards,
                    clips=self._found + self._made,
                    num_clips=self._num_clips,
                    skipped=tuple(self._skipped),
                )
            )


def make_here(work: Work, todo: Sequence[PlannedShard], tally: Tally) -> dict[str, Receipt]:
    """Make shards in this process; return their receipts by file."""
    made = {}
    with _one_thread():
        for shard in todo:
            made[shard.file] = work.make(shard, tally.count)
            tally.finish(made[shard.file])
    return made


def make_in_processes(
    work: Work, todo: Sequence[PlannedShard], tally: Tally, *, workers: int
) -> dict[str, Receipt]:
    """Make shards in processes of their own; return their receipts by file.

    Raises:
        UserError: A record cannot be read, or a process came to a sudden end.
    """
    context = get_context("spawn")  # a fork would copy threads' locks, held for ever
    num_made, stop = context.Value("q", 0), context.Event()
    made: dict[str, Receipt] = {}
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin_worker, initargs=(work, num_made, stop)
    )
    try:
        with _environment(dict.fromkeys(_THREADS, "1")):  # submitting starts the processes
            pending = {pool.submit(_make_in_worker, shard) for shard in todo}
        while pending:
            done, pending = wait(pending, _SECONDS_BETWEEN, FIRST_COMPLETED)
            tally.count(num_made.value)
            for receipt in (future.result() for future in done):
                made[receipt.shard.file] = receipt
                tally.finish(receipt)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process came to a sudden end (was the memory full?): run the same command "
            "again with fewer workers, finished shards stay"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return made


class _Stopped(Exception):  # noqa: N818 - no error: another worker's has ended the work
    pass


@dataclass
class _Worker:
    """What a worker process has been given to work with."""

    given: "tuple[Work, Synchronized[int], Event] | None" = field(default=None)

    def make(self, shard: PlannedShard) -> Receipt:
        assert self.given is not None
        work, num_made, stop = self.given

        def count() -> None:
            if stop.is_set():
                raise _Stopped
            with num_made.get_lock():
                num_made.value += 1

        return work.make(shard, count)


_worker = _Worker()


def _begin_worker(work: Work, num_made: "Synchronized[int]", stop: Event) -> None:
    # Ctrl-C reaches all processes of a terminal: the first one then sets `stop`, and the others
    # end after the clip at hand.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    _worker.given = work, num_made, stop


def _end_with_parent() -> None:
    """End this process when the one that started it was killed and cannot say `stop`."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make_in_worker(shard: PlannedShard) -> Receipt:
    return _worker.make(shard)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute as a worker does, since sums over several threads differ in their last bits."""
    import torch

    threads, threads_cv = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads_cv)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
