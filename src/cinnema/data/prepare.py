"""Packing a source of clips into shards, with any number of processes.

The items of a source are grouped into shards. Each process writes its part of the shards; the
first one writes the manifest when all are there. An interrupted packing continues when the same
command is run again, and the files are identical for any division of the work.
"""

import hashlib
import os
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.context import BaseContext
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TypeAlias

import cv2

from cinnema.core.devices import one_thread
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path
from cinnema.data.manifest import (
    ENCODINGS,
    MANIFEST,
    SHARD_NAME,
    Encoding,
    Manifest,
    ShardEntry,
    ShardIndex,
    ShardPlan,
    join_shards,
)
from cinnema.data.records import SPLITS, BadRecord, ClipSource, Item, RawClip
from cinnema.data.shards import Shard, write_shard

Progress: TypeAlias = Callable[[int, int], None]
"""Callback with the number of clips packed so far and the expected total."""

_Packed: TypeAlias = tuple[ShardEntry, ShardIndex]

_SECONDS_BETWEEN = 0.2  # between reports of progress while workers are busy
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Result of packing a source.

    Attributes:
        manifest: The packed data set.
        num_made: Shards written by this call, on all ranks.
        num_found: Complete shards that existed already.
    """

    manifest: Manifest
    num_made: int
    num_found: int


def prepare(
    source: ClipSource,
    folder: Path,
    *,
    encoding: Encoding = "png",
    workers: int = 1,
    ranks: Ranks | None = None,
    skip_bad: bool = False,
    clips_per_shard: int = 256,
    finish: Callable[[Manifest], Manifest] | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Pack the clips of a source, or continue where an earlier run stopped.

    Complete shards are kept. Each worker holds one clip in memory.

    Args:
        source: Source of the clips.
        folder: Folder of the packed data set; created if missing.
        encoding: Format of pictures: "png", "jpeg", "webp" or "raw".
        workers: Processes on this machine, at least 1, with one thread each. 1 works in this
            process; more are started, so a script that calls this must do so below
            `if __name__ == "__main__"`.
        ranks: The processes that share the work; defaults to this one alone. All need access to
            `folder`.
        skip_bad: Whether to continue after a record that cannot be read; it is then listed in the
            manifest.
        clips_per_shard: Number of clips at which a shard counts as full, at least 1.
        finish: Called with the manifest before it is written; returns the one to write.
        progress: Called regularly with the clips packed and the clips expected on this rank.

    Raises:
        UserError: An option is out of range; the folder was begun with other settings; a record
            cannot be read (the message mentions `--skip-bad`); a clip does not match what its
            source states; the disk is full. Complete shards are kept, partial files are not.
    """
    _check_options(encoding=encoding, workers=workers, clips_per_shard=clips_per_shard)
    ranks = ranks or Ranks()
    plans = _plan(source, encoding=encoding, clips_per_shard=clips_per_shard)
    ranks.from_first(lambda: _clean(folder, plans))
    mine = ranks.shard(plans)
    found = _find_shards(folder, mine)
    todo = [plan for plan in mine if plan.file not in found]
    counts = _Counts(progress, mine, found)
    work = _Work(source, folder, skip_bad=skip_bad)
    with _removing_if_empty(folder):
        if workers == 1 or len(todo) < 2:
            made = _make_here(work, todo, counts)
        else:
            made = _make_in_processes(work, todo, counts, workers=min(workers, len(todo)))
    packed = {name: s for part in ranks.gather(found | made) for name, s in part.items()}
    num_made = sum(ranks.gather(len(made)))
    return Prepared(
        manifest=ranks.from_first(lambda: _write_manifest(folder, plans, packed, finish)),
        num_made=num_made,
        num_found=len(plans) - num_made,
    )


def _check_options(*, encoding: str, workers: int, clips_per_shard: int) -> None:
    if encoding not in ENCODINGS:
        raise UserError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding}")
    if workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    if clips_per_shard < 1:
        raise UserError(f"clips_per_shard must be at least 1, got {clips_per_shard}")


# --- Assigning items to shards --------------------------------------------------------------------


def _plan(source: ClipSource, *, encoding: Encoding, clips_per_shard: int) -> list[ShardPlan]:
    items = source.items()
    if not items:
        raise UserError(f"{source.name} has no clips: choose another source or split")
    names: set[str] = set()
    for item in items:
        if item.name in names:
            raise UserError(f"two items of {source.name} are named {item.name}: rename one")
        names.add(item.name)
    blank = ShardPlan(
        file="",
        name=source.name,
        size=source.size,
        encoding=encoding,
        control=source.control,
        clips_per_shard=clips_per_shard,
        settings=source.settings(),
        items=(),
    )
    plans = [
        replace(blank, file=f"{split}-{number:05d}.npz", items=tuple(group))
        for split in SPLITS
        for number, group in enumerate(
            group_items([i for i in items if i.split == split], clips_per_shard)
        )
    ]
    # As a shard's index states them, with lists for tuples, so that they can be compared.
    return [_as_read(plan) for plan in plans]


def group_items(items: Sequence[Item], clips_per_shard: int) -> list[list[Item]]:
    """Divide items into groups of at most `clips_per_shard` clips; an item is never divided."""
    groups: list[list[Item]] = []
    room = 0
    for item in items:
        if not groups or item.clips > room:
            groups.append([])
            room = clips_per_shard
        groups[-1].append(item)
        room -= item.clips
    return groups


def _as_read(plan: ShardPlan) -> ShardPlan:
    index = ShardIndex(encoding=plan.encoding, tracks={}, clips=(), skipped=(), plan=plan)
    read = ShardIndex.from_json(index.to_json(), source="the plan").plan
    assert read is not None
    return read


# --- Existing shards ------------------------------------------------------------------------------


def _clean(folder: Path, plans: Sequence[ShardPlan]) -> None:
    """Remove partial files of processes that were killed; refuse shards of another packing."""
    files = {plan.file for plan in plans}
    stems = {Path(name).stem for name in (*files, MANIFEST)}
    for path in folder.glob(".*.partial-*"):
        if path.name[1:].partition(".partial-")[0] in stems:
            path.unlink(missing_ok=True)
    for path in sorted(folder.glob("*.npz")):
        if SHARD_NAME.fullmatch(path.name) and path.name not in files:
            raise UserError(
                f"{folder} was begun with more clips or other splits, as it contains {path.name}: "
                "use the same options and files, or name another folder"
            )


def _find_shards(folder: Path, plans: Sequence[ShardPlan]) -> dict[str, _Packed]:
    path = folder / MANIFEST
    try:
        known = {entry.file: entry for entry in Manifest.read(path).shards}
    except UserError:  # missing or damaged
        known = {}
    found = ((plan.file, _find_shard(folder, plan, known.get(plan.file))) for plan in plans)
    return {file: packed for file, packed in found if packed is not None}


def _find_shard(folder: Path, plan: ShardPlan, known: ShardEntry | None) -> _Packed | None:
    """Return a shard that is complete; None if it is missing or damaged.

    Args:
        folder: Folder of the data set.
        plan: What the shard is made from.
        known: Its entry in the manifest; if None, the whole file is checked.

    Raises:
        UserError: The shard was made from another plan.
    """
    path = folder / plan.file
    if not path.is_file():
        return None
    try:
        index = Shard(path).index()
    except UserError:
        return None
    _check_same_plan(folder, index.plan, plan)
    if known is not None and known.bytes == path.stat().st_size:
        return known, index
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        if archive.testzip() is not None:
            return None
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    num_bytes = path.stat().st_size
    return ShardEntry(file=path.name, sha256=digest, bytes=num_bytes, clips=len(index.clips)), index


def _check_same_plan(folder: Path, begun: ShardPlan | None, plan: ShardPlan) -> None:
    if begun is None:
        raise UserError(
            f"{folder} was packed by an earlier version, which did not note what from: use it as "
            "it is, or name another folder"
        )
    for name, old, new in _differences(begun, plan):
        raise UserError(
            f"{folder} was begun with {name} {old}, not {new}: use the same options and files, or "
            "name another folder"
        )


def _differences(begun: ShardPlan, plan: ShardPlan) -> Iterator[tuple[str, object, object]]:
    for name in ("name", "size", "encoding", "clips_per_shard", "control"):
        if getattr(begun, name) != getattr(plan, name):
            yield name, getattr(begun, name), getattr(plan, name)
    for name in sorted(begun.settings.keys() | plan.settings.keys()):
        old, new = (p.settings.get(name, "not set") for p in (begun, plan))
        if old != new:
            yield f"the setting {name}", old, new
    for old_item, new_item in zip(begun.items, plan.items, strict=False):
        if old_item != new_item:
            yield "the item", _describe(old_item), _describe(new_item)
    if len(begun.items) != len(plan.items):
        yield f"a number of items in {plan.file} of", len(begun.items), len(plan.items)


def _describe(item: Item) -> str:
    return f"{item.name} ({item.split}, {item.clips} clips)"


def _write_manifest(
    folder: Path,
    plans: Sequence[ShardPlan],
    packed: Mapping[str, _Packed],
    finish: Callable[[Manifest], Manifest] | None,
) -> Manifest:
    manifest = join_shards([packed[plan.file] for plan in plans])
    manifest = manifest if finish is None else finish(manifest)
    path, content = folder / MANIFEST, manifest.to_json()
    if not path.is_file() or path.read_bytes() != content:
        with atomic_path(path, overwrite=True) as partial:
            partial.write_bytes(content)
    return manifest


@contextmanager
def _removing_if_empty(folder: Path) -> Iterator[None]:
    """Remove the folder after an error if nothing was packed into it."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


# --- Making shards --------------------------------------------------------------------------------


class _Counts:
    """Counts packed clips. The total is corrected if items have another number of clips."""

    def __init__(
        self, progress: Progress | None, plans: Sequence[ShardPlan], found: Mapping[str, _Packed]
    ) -> None:
        self._progress = progress
        self._expected = {plan.file: sum(item.clips for item in plan.items) for plan in plans}
        self._finished = self._made = self._in_made_shards = 0
        self._reported: tuple[int, int] | None = None
        for entry, index in found.values():
            self._expected.pop(entry.file)
            self._finished += len(index.clips) + len(index.skipped)
        self._report()

    def finish(self, packed: _Packed) -> None:
        """Count a complete shard."""
        entry, index = packed
        self._expected.pop(entry.file)
        num = len(index.clips) + len(index.skipped)
        self._finished += num
        self._in_made_shards += num
        self._made = max(self._made, self._in_made_shards)
        self._report()

    def count(self, made: int | None = None) -> None:
        """Count one more clip, or set the number of clips made so far."""
        self._made = self._made + 1 if made is None else max(made, self._made)
        self._report()

    def _report(self) -> None:
        begun = self._made - self._in_made_shards
        rest = max(begun, sum(self._expected.values()))
        counts = self._finished + begun, self._finished + rest
        if self._progress is not None and counts != self._reported:
            self._reported = counts
            self._progress(*counts)


@dataclass(frozen=True)
class _Work:
    """The inputs that a process needs to make shards."""

    source: ClipSource
    folder: Path
    skip_bad: bool

    def make(self, plan: ShardPlan, count: Callable[[], None]) -> _Packed:
        """Make a shard; `count` is called after every clip."""
        return write_shard(self.folder, plan, self._records(plan, count))

    def _records(self, plan: ShardPlan, count: Callable[[], None]) -> Iterator[RawClip | BadRecord]:
        for item in plan.items:
            for record in self.source.read(item):
                if isinstance(record, BadRecord) and not self.skip_bad:
                    raise UserError(
                        f"{record.name} cannot be read ({record.reason}): repair it, or leave out "
                        "such records with --skip-bad"
                    )
                yield record
                count()


def _make_here(work: _Work, todo: Sequence[ShardPlan], counts: _Counts) -> dict[str, _Packed]:
    made = {}
    with one_thread():  # as in a worker: sums over several threads differ in their last bits
        for plan in todo:
            made[plan.file] = work.make(plan, counts.count)
            counts.finish(made[plan.file])
    return made


def _make_in_processes(
    work: _Work, todo: Sequence[ShardPlan], counts: _Counts, *, workers: int
) -> dict[str, _Packed]:
    context = _context()
    num_made, stop = context.Value("q", 0), context.Event()
    made: dict[str, _Packed] = {}
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin_worker, initargs=(work, num_made, stop)
    )
    try:
        with _environment(dict.fromkeys(_THREADS, "1")):  # processes start at submission
            pending = {pool.submit(_make_in_worker, plan) for plan in todo}
        while pending:
            done, pending = wait(pending, _SECONDS_BETWEEN, FIRST_COMPLETED)
            counts.count(num_made.value)
            for packed in (future.result() for future in done):
                made[packed[0].file] = packed
                counts.finish(packed)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process ended suddenly (was the memory full?): run the same command again "
            "with fewer workers; complete shards are kept"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return made


def _context() -> BaseContext:
    """Return the start method of processes; a plain fork copies locks held by other threads."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imports once for all workers
    return context


class _Stopped(Exception):  # noqa: N818 - not an error: another worker's has ended the work
    pass


_given: "list[tuple[_Work, Synchronized[int], Event]]" = []  # in a worker: its inputs


def _begin_worker(work: _Work, num_made: "Synchronized[int]", stop: Event) -> None:
    # Ctrl-C reaches all processes of a terminal: the first one then sets `stop`, and the others
    # end after the current clip.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    _given.append((work, num_made, stop))


def _end_with_parent() -> None:
    """End this process when the one that started it was killed and cannot set `stop`."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make_in_worker(plan: ShardPlan) -> _Packed:
    work, num_made, stop = _given[0]

    def count() -> None:
        if stop.is_set():
            raise _Stopped
        with num_made.get_lock():
            num_made.value += 1

    return work.make(plan, count)


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
