"""The manifest, from the receipts of all shards."""

from collections.abc import Sequence
from pathlib import Path

from cinnema.core.errors import UserError
from cinnema.data.leftovers import remove_leftovers, write_document
from cinnema.data.manifest import (
    MANIFEST,
    PLAN,
    ClipEntry,
    Manifest,
    Plan,
    Receipt,
    find_receipt,
    list_names,
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
        write_document(path, manifest)
    remove_leftovers(folder, plan)
    return manifest


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
