"""Packing a source of clips, by any number of processes on any number of machines.

The first process writes the plan, every process makes its share of the shards, and whoever
finishes last writes the manifest. Whatever is interrupted goes on when the same command is run
again, and the files are the same to the byte however the work was split.
"""

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
from typing import TypeVar

import cv2

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path
from cinnema.data.packing.manifest import (
    ENCODINGS,
    MANIFEST,
    PLAN,
    ClipEntry,
    Document,
    Encoding,
    Manifest,
    Plan,
    PlannedShard,
    Receipt,
    SkippedRecord,
    find_missing,
    find_receipt,
    list_names,
)
from cinnema.data.packing.shards import write_shard
from cinnema.data.records import SPLITS, BadRecord, ClipSource, Item, RawClip

_T = TypeVar("_T")
_SECONDS_BETWEEN = 0.2  # reports of progress while worker processes are busy
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Share:
    """Which part of a work is this process's: every `count`-th piece, from number `index` on.

    Attributes:
        index: From 0 to count - 1.
        count: How many processes share the work, at least 1.

    Raises:
        UserError: The numbers are out of their range.

    Example:
        >>> Share.parse("1/3").of(["a", "b", "c", "d", "e"])
        ['b', 'e']
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        if self.count < 1 or not 0 <= self.index < self.count:
            last = max(self.count, 1) - 1
            raise UserError(
                f"there is no share {self.index}/{self.count}: of {last + 1} the first is "
                f"0/{last + 1}, the last {last}/{last + 1}"
            )

    def of(self, pieces: Sequence[_T]) -> list[_T]:
        """Return this share of a list."""
        return list(pieces[self.index :: self.count])

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Return the share that a text such as "2/8" names.

        Raises:
            UserError: It is not two whole numbers with a stroke, or they are out of range.
        """
        index, stroke, count = text.partition("/")
        if not (stroke and index.strip().isdecimal() and count.strip().isdecimal()):
            raise UserError(f"a share is written i/n, as 0/8 or 7/8, got {text!r}")
        return cls(int(index), int(count))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Share":
        """Return the share that torchrun or a scheduler gives this process, else all.

        The first of these that is set counts: torchrun's RANK and WORLD_SIZE; the task of a
        Slurm array (--array=0-7); the task of a Slurm step (srun -n 8).

        Args:
            environment: The process's variables.

        Raises:
            UserError: Those variables are no numbers, or the array's numbers have gaps.
        """
        if {"RANK", "WORLD_SIZE"} <= environment.keys():
            return cls(_number(environment, "RANK"), _number(environment, "WORLD_SIZE"))
        if "SLURM_ARRAY_TASK_ID" in environment:
            return cls._of_array(environment)
        if {"SLURM_PROCID", "SLURM_NTASKS"} <= environment.keys():
            return cls(_number(environment, "SLURM_PROCID"), _number(environment, "SLURM_NTASKS"))
        return cls()

    @classmethod
    def _of_array(cls, environment: Mapping[str, str]) -> "Share":
        first, step = 0, 1
        if "SLURM_ARRAY_TASK_MIN" in environment:
            first = _number(environment, "SLURM_ARRAY_TASK_MIN")
        if "SLURM_ARRAY_TASK_STEP" in environment:
            step = max(1, _number(environment, "SLURM_ARRAY_TASK_STEP"))
        count = _number(environment, "SLURM_ARRAY_TASK_COUNT")
        task = _number(environment, "SLURM_ARRAY_TASK_ID")
        index, rest = divmod(task - first, step)
        if rest or not 0 <= index < count:
            raise UserError(
                f"task {task} is none of {count} Slurm array tasks in a row from {first}: "
                "number them without gaps (--array=0-7), or name the share yourself (--shard 2/8)"
            )
        return cls(index, count)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.strip().isdecimal():
        raise UserError(
            f"{name} must be a whole number, got {text!r}: set it right, or name the share "
            "yourself (--shard 2/8)"
        )
    return int(text)


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
class Preparation:
    """What came of a share of a preparation.

    Attributes:
        num_made: Shards of the share that were made now.
        num_found: Shards of the share that were ready.
        num_clips: In both.
        skipped: What their items held besides and could not be read.
        num_missing: Shards, of all shares, that are still to be made.
    """

    num_made: int
    num_found: int
    num_clips: int
    skipped: tuple[SkippedRecord, ...]
    num_missing: int

    @property
    def is_complete(self) -> bool:
        """Whether the data set is, with its manifest."""
        return self.num_missing == 0


def prepare(
    source: ClipSource,
    folder: Path,
    *,
    encoding: Encoding = "png",
    workers: int = 1,
    share: Share = Share(),
    skip_bad: bool = False,
    clips_per_shard: int = 256,
    progress: Callable[[Progress], None] | None = None,
) -> Preparation:
    """Pack the clips of a source, or go on where an earlier run has ended.

    Shards that are ready are left alone, so to make damaged ones again, delete them. In memory
    are, for each worker, one shard's encoded pictures and one clip.

    Args:
        source: Of the clips.
        folder: Of the packed data set; it need not exist.
        encoding: Of the pictures.
        workers: Processes on this machine, at least 1, each of one thread. 1 works in this
            process; more are spawned, so that a script that calls this has to do so below
            `if __name__ == "__main__"`.
        share: Which shards are made here; others are left to other processes.
        skip_bad: Whether to go on after a record that cannot be read; it is listed in the
            manifest.
        clips_per_shard: At about how many clips a shard is full, at least 1.
        progress: Told how far this share has come, now and then.

    Raises:
        UserError: An option is out of its range; the folder was begun with other settings; a
            record cannot be read (its message says `--skip-bad`); a clip is not what its source
            promises; the disk is full. Finished shards stay, and nothing is half-written.
    """
    _check_options(encoding=encoding, workers=workers, clips_per_shard=clips_per_shard)
    plan = _plan_of(source, encoding=encoding, clips_per_shard=clips_per_shard)
    _settle_plan(folder, plan)
    work = _Work(source=source, folder=folder, plan=plan, digest=plan.digest(), skip_bad=skip_bad)
    mine = share.of(plan.shards)
    found = {s.file: r for s in mine if (r := work.find(s)) is not None}
    todo = [shard for shard in mine if shard.file not in found]
    tally = _Tally(progress, planned=mine, found=found.values())
    if workers == 1 or len(todo) < 2:
        made = _make_here(work, todo, tally)
    else:
        made = _make_in_processes(work, todo, tally, workers=min(workers, len(todo)))
    missing = find_missing(folder, plan)
    if not missing:
        merge(folder)
    receipts = [(found | made)[shard.file] for shard in mine]
    return Preparation(
        num_made=len(made),
        num_found=len(found),
        num_clips=sum(receipt.shard.clips for receipt in receipts),
        skipped=tuple(record for receipt in receipts for record in receipt.index.skipped),
        num_missing=len(missing),
    )


def merge(folder: Path) -> Manifest:
    """Write the manifest of a data set whose shards are all made.

    It is written from the shards' receipts, so however many terabytes they have, little is read.
    A second call changes nothing.

    Args:
        folder: Of the data set.

    Returns:
        The manifest.

    Raises:
        UserError: The folder is none that `prepare` has begun; shards are missing (the message
            names them); two clips share a name; clips of one source video are in two splits, or
            clips have different tracks.
    """
    plan = Plan.read(folder / PLAN)
    digest = plan.digest()
    receipts = {s.file: find_receipt(folder, s, plan=digest) for s in plan.shards}
    if missing := [file for file, receipt in receipts.items() if receipt is None]:
        raise UserError(
            f"{folder}: {len(missing)} of {len(receipts)} shards are missing "
            f"({list_names(missing)}): run the command that began it again, on every machine "
            "that has a share in it"
        )
    manifest = _manifest_of(plan, [receipt for receipt in receipts.values() if receipt])
    path, content = folder / MANIFEST, manifest.to_json()
    if not path.is_file() or path.read_bytes() != content:
        _write(path, manifest)
    _remove_leftovers(folder, plan)
    return manifest


# The plan


def _check_options(*, encoding: str, workers: int, clips_per_shard: int) -> None:
    if encoding not in ENCODINGS:
        raise UserError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding}")
    if workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    if clips_per_shard < 1:
        raise UserError(f"clips_per_shard must be at least 1, got {clips_per_shard}")


def _plan_of(source: ClipSource, *, encoding: Encoding, clips_per_shard: int) -> Plan:
    items = source.items()
    names: set[str] = set()
    for item in items:
        if item.name in names:
            raise UserError(f"two items of {source.name} are named {item.name}: rename one")
        names.add(item.name)
    plan = Plan(
        name=source.name,
        size=source.size,
        encoding=encoding,
        control=source.control,
        clips_per_shard=clips_per_shard,
        settings=source.settings(),
        shards=tuple(_group(items, clips_per_shard=clips_per_shard)),
    )
    # As it will be read, tuples as lists, to be compared with what an earlier run has written.
    return Plan.from_json(plan.to_json(), source="the plan")


def _group(items: Sequence[Item], *, clips_per_shard: int) -> Iterator[PlannedShard]:
    """Fill one shard after the other; an item is never divided."""
    for split in SPLITS:
        groups: list[list[Item]] = []
        room = 0
        for item in (item for item in items if item.split == split):
            if not groups or item.clips > room:
                groups.append([])
                room = clips_per_shard
            groups[-1].append(item)
            room -= item.clips
        for number, group in enumerate(groups):
            yield PlannedShard(file=f"{split}-{number:05d}.npz", split=split, items=tuple(group))


def _settle_plan(folder: Path, plan: Plan) -> None:
    """Write the plan, or check that the one that is there is the same."""
    path = folder / PLAN
    if not path.exists():
        _write(path, plan, overwrite=False)
    # Read in either case: of several processes that start together, one's plan is there.
    begun = Plan.read(path)
    for name, old, new in _differences(begun, plan):
        raise UserError(
            f"{folder} was begun with {name} {old}, not {new}: go on with the same options and "
            "files, or name another folder"
        )


def _differences(begun: Plan, plan: Plan) -> Iterator[tuple[str, object, object]]:
    for name in ("name", "size", "encoding", "clips_per_shard", "control"):
        if getattr(begun, name) != getattr(plan, name):
            yield name, getattr(begun, name), getattr(plan, name)
    for name in sorted(begun.settings.keys() | plan.settings.keys()):
        old, new = (p.settings.get(name, "not set") for p in (begun, plan))
        if old != new:
            yield f"the setting {name}", old, new
    old_items, new_items = ([i for s in p.shards for i in s.items] for p in (begun, plan))
    if len(old_items) != len(new_items):
        yield "the number of items", len(old_items), len(new_items)
    for old_item, new_item in zip(old_items, new_items, strict=False):
        if old_item != new_item:
            yield "the item", _describe(old_item), _describe(new_item)


def _describe(item: Item) -> str:
    return f"{item.name} ({item.split}, {item.clips} clips)"


# The work


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What a process has to know to make shards."""

    source: ClipSource
    folder: Path
    plan: Plan
    digest: str
    skip_bad: bool

    def find(self, shard: PlannedShard) -> Receipt | None:
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
        _write(self.folder / shard.receipt, receipt)
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


class _Tally:
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


def _make_here(work: _Work, todo: Sequence[PlannedShard], tally: _Tally) -> dict[str, Receipt]:
    made = {}
    with _one_thread():
        for shard in todo:
            made[shard.file] = work.make(shard, tally.count)
            tally.finish(made[shard.file])
    return made


def _make_in_processes(
    work: _Work, todo: Sequence[PlannedShard], tally: _Tally, *, workers: int
) -> dict[str, Receipt]:
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


# In a worker process


class _Stopped(Exception):  # noqa: N818 - no error: another worker's has ended the work
    pass


@dataclass
class _Worker:
    """What a worker process has been given to work with."""

    given: "tuple[_Work, Synchronized[int], Event] | None" = field(default=None)

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


def _begin_worker(work: _Work, num_made: "Synchronized[int]", stop: Event) -> None:
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


# The manifest


def _manifest_of(plan: Plan, receipts: Sequence[Receipt]) -> Manifest:
    clips = tuple(
        ClipEntry(**vars(clip), shard=number, index=index)
        for number, receipt in enumerate(receipts)
        for index, clip in enumerate(receipt.index.clips)
    )
    _check_clips(clips, receipts)
    return Manifest(
        name=plan.name,
        size=plan.size,
        encoding=plan.encoding,
        control=plan.control,
        settings=plan.settings,
        tracks=_common_tracks(receipts),
        shards=tuple(receipt.shard for receipt in receipts),
        clips=clips,
        skipped=tuple(record for receipt in receipts for record in receipt.index.skipped),
    )


def _check_clips(clips: Sequence[ClipEntry], receipts: Sequence[Receipt]) -> None:
    names: dict[str, ClipEntry] = {}
    sources: dict[str, ClipEntry] = {}
    for clip in clips:
        first = names.setdefault(clip.clip, clip)
        if first is not clip:
            files = [receipts[c.shard].shard.file for c in (first, clip)]
            raise UserError(
                f"two clips are named {clip.clip}, in {files[0]} and {files[1]}: rename the file "
                "of one of them and prepare another folder"
            )
        first = sources.setdefault(clip.source, clip)
        if first.split != clip.split:
            raise UserError(
                f"{clip.source} has clips in {first.split} ({first.clip}) and in {clip.split} "
                f"({clip.clip}), which would be tested on what it has seen: put all clips of a "
                "source video in one split"
            )


def _common_tracks(receipts: Sequence[Receipt]) -> dict[str, int]:
    with_clips = [receipt for receipt in receipts if receipt.index.clips]
    for receipt in with_clips[1:]:
        first, other = with_clips[0], receipt
        if first.index.tracks != other.index.tracks:
            raise UserError(
                f"{first.shard.file} has the tracks {first.index.tracks} (numbers a frame), "
                f"{other.shard.file} has {other.index.tracks}: prepare clips of different tracks "
                "apart"
            )
    return with_clips[0].index.tracks if with_clips else {}


# Files


def _write(path: Path, document: Document, *, overwrite: bool = True) -> None:
    """Write a document, or accept the one that another process has written meanwhile.

    That process may have the same work, and remove our unfinished file as a leftover.
    """
    content = document.to_json()
    try:
        with atomic_path(path, overwrite=overwrite) as partial:
            partial.write_bytes(content)
    except UserError:
        if overwrite or not path.is_file():
            raise
    except FileNotFoundError:
        if not path.is_file():
            raise


def _remove_leftovers(folder: Path, plan: Plan) -> None:
    """Remove the unfinished files that processes have left when they were killed."""
    names = [PLAN, MANIFEST, *(n for s in plan.shards for n in (s.file, s.receipt))]
    stems = {Path(name).stem for name in names}
    for path in folder.glob(".*.partial-*"):
        if path.name[1:].partition(".partial-")[0] in stems:
            path.unlink(missing_ok=True)
