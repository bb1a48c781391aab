"""Packing a source of clips, by any number of processes on any number of machines.

The first process writes the plan, every process makes its share of the shards, and whoever
finishes last writes the manifest. Whatever is interrupted goes on when the same command is run
again, and the files are the same to the byte however the work was split.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cinnema.core.errors import UserError
from cinnema.data.leftovers import write_document
from cinnema.data.manifest import (
    ENCODINGS,
    PLAN,
    Encoding,
    Plan,
    PlannedShard,
    SkippedRecord,
    find_missing,
)
from cinnema.data.merging import merge
from cinnema.data.records import SPLITS, ClipSource, Item
from cinnema.data.sharing import EVERYTHING, Share
from cinnema.data.working import Progress, Tally, Work, make_here, make_in_processes


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
    share: Share = EVERYTHING,
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
    work = Work(source=source, folder=folder, plan=plan, digest=plan.digest(), skip_bad=skip_bad)
    mine = share.of(plan.shards)
    found = {s.file: r for s in mine if (r := work.find(s)) is not None}
    todo = [shard for shard in mine if shard.file not in found]
    tally = Tally(progress, planned=mine, found=found.values())
    if workers == 1 or len(todo) < 2:
        made = make_here(work, todo, tally)
    else:
        made = make_in_processes(work, todo, tally, workers=min(workers, len(todo)))
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
        write_document(path, plan, overwrite=False)
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
