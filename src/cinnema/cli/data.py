"""`cinnema data`: packs data sets and simulations; contact sheets and checksums."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cinnema.cli.console import DONE, Progress
from cinnema.cli.ranges import Range, Seed
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from cinnema.data.dataset import PackedDataset
    from cinnema.data.manifest import Manifest
    from cinnema.data.prepare import Prepared
    from cinnema.data.records import ClipSource, Split

DataSet = Literal["bair", "landscape", "iper", "dtdb", "folder"]
World = Literal["push", "walk", "sky"]

_STARTS_FOR_ONE = 10  # of ten starts, every split has at least one


@dataclass(frozen=True, kw_only=True)
class _Packing:
    """Options of packing clips from any source."""

    size: Annotated[int | None, Range(1, 4096)] = None
    """Width and height of the frames, in pixels; by default that of the data set in the
    literature."""
    encoding: Literal["png", "jpeg", "webp", "raw"] = "png"
    """Format of the frames: png and webp are lossless, jpeg (quality 95) is smaller, raw is read
    fastest."""
    split: Literal["train", "validation", "test"] | None = None
    """Pack only this split; by default all."""
    workers: Annotated[int, Range(1, 1024)] = 1
    """Number of processes on this machine."""
    clips_per_shard: Annotated[int, Range(1, 1_000_000)] = 64
    """Largest number of clips in a file. Files are divided among processes: start the command with
    torchrun to use several machines."""

    def pack(
        self,
        source: "ClipSource",
        folder: Path,
        *,
        skip_bad: bool = False,
        finish: "Callable[[Manifest], Manifest] | None" = None,
    ) -> int:
        """Pack a source, and print what was packed.

        Args:
            source: Source of the clips.
            folder: Folder of the packed data set.
            skip_bad: Whether to leave out records that cannot be read.
            finish: Called with the manifest before it is written; returns the one to write.

        Returns:
            The exit code.
        """
        import torch

        from cinnema.core.distributed import joined_ranks
        from cinnema.data.prepare import prepare

        with joined_ranks(torch.device("cpu")) as ranks, Progress(total=0) as bar:
            bar.begin("packing clips")
            result = prepare(
                source,
                folder,
                encoding=self.encoding,
                workers=self.workers,
                ranks=ranks,
                skip_bad=skip_bad,
                clips_per_shard=self.clips_per_shard,
                finish=finish,
                progress=lambda done, total: bar.reach(done, total=total),
            )
        if ranks.is_first:
            for record in result.manifest.skipped:
                print(f"skipped {record.record}: {record.reason}", flush=True)
            for note in result.manifest.notes:
                print(note, flush=True)
            print(f"{folder}: {_sum_up(result)}", flush=True)
        return DONE


@dataclass(frozen=True, kw_only=True)
class Prepare(_Packing):
    """Pack a data set, or a folder of your own clips, into a few plain files.

    The same command run again continues where it stopped.
    """

    data_set: Annotated[DataSet, tyro.conf.Positional]
    """Kind of the source: BAIR (tfrecords or converted), Landscape, iPER or DTDB as published, or
    any folder of videos, GIFs, arrays (npz, npy) and folders of frames."""
    source: Annotated[Path, tyro.conf.Positional]
    """Folder to pack."""
    destination: Annotated[Path, tyro.conf.Positional]
    """Folder of the packed data set."""
    skip_bad: bool = False
    """Leave out damaged records and list them, instead of stopping at the first one."""
    control: Literal["wind"] | None = None
    """Add a control to the clips. wind: the drift of clouds, estimated from optical flow."""
    texture: str | None = None
    """dtdb only: texture to pack, such as fire; by default all."""
    camera: Literal["aux1", "main"] | None = None
    """bair only: the camera; by default aux1, as in the paper."""
    fit: Literal["stretch", "crop"] | None = None
    """folder only: stretch (the default) or crop frames to squares."""
    stride: Annotated[int | None, Range(1, 10_000)] = None
    """folder only: pack every N-th frame; defaults to the stride in a manifest.json, or 1."""
    photographs: Literal["error", "frames", "ignore"] | None = None
    """folder only: ignore numbered pictures beside videos (the default; said in a warning), treat
    them as the frames of one more video, or as an error."""
    splits: Path | None = None
    """folder only: JSON file {"train": [...], "validation": [...], "test": [...]} of video
    names; others are left out."""

    def run(self) -> int:
        """Pack the folder, and print what was packed."""
        check_input_folder(self.source, kind="clips")
        from cinnema.data.sources.splits import divide_in_time

        decides = self.data_set == "folder" and self.splits is None and self.split is None
        return self.pack(
            self.find_source(),
            self.destination,
            skip_bad=self.skip_bad,
            finish=divide_in_time if decides else None,
        )

    def find_source(self) -> "ClipSource":
        """Return the source of the folder's clips.

        Raises:
            UserError: An option belongs to another kind of data set, or one is missing.
        """
        options = self._options()
        source = self._reader(options)
        if self.control == "wind":
            from cinnema.data.wind import WithWind

            source = WithWind(source)
        return source if self.split is None else _one_split(source, self.split)

    def _options(self) -> dict[str, Any]:
        """Return the options that were given; a UserError refuses those of other data sets."""
        takes = {
            "dtdb": ["texture"],
            "bair": ["camera"],
            "folder": ["fit", "stride", "splits", "photographs"],
        }
        for kind, names in takes.items():
            for name in names:
                if kind != self.data_set and getattr(self, name) is not None:
                    raise UserError(f"--{name} is an option of {kind}, not of {self.data_set}")
        names = ["size", *takes.get(self.data_set, [])]
        return {n: getattr(self, n) for n in names if getattr(self, n) is not None}

    def _reader(self, options: dict[str, Any]) -> "ClipSource":
        from cinnema.data.sources.bair import Bair
        from cinnema.data.sources.dtdb import DTDB
        from cinnema.data.sources.folder import Folder
        from cinnema.data.sources.iper import IPer
        from cinnema.data.sources.landscape import Landscape

        readers = {
            "bair": Bair,
            "landscape": Landscape,
            "iper": IPer,
            "dtdb": DTDB,
            "folder": Folder,
        }
        source: ClipSource = readers[self.data_set](self.source, **options)
        return source


@dataclass(frozen=True, kw_only=True)
class Simulate(_Packing):
    """Simulate clips whose motion and control are known, and pack them.

    One start in ten is for validation and one for testing (of fewer than ten, the last ones). The
    same seed gives the same clips. push and walk need the extra `sim`.
    """

    world: Annotated[World, tyro.conf.Positional]
    """push: a robot arm among objects; walk: a walking person; sky: clouds that drift."""
    destination: Annotated[Path, tyro.conf.Positional]
    """Folder of the packed data set."""
    num_starts: Annotated[
        int, Range(1, 10_000_000), tyro.conf.arg(name="num-starts", aliases=["-n"])
    ]
    """Number of start states; with --split, of that split."""
    futures: Annotated[int, Range(1, 10_000)] = 1
    """Number of clips that share a start state and continue differently."""
    seed: Seed = 0
    """Seed of all random numbers."""
    foregrounds: Path | None = None
    """sky only: folder of photographs without motion, for the ground."""

    def run(self) -> int:
        """Simulate and pack, and print what was packed."""
        if self.foregrounds is not None:
            check_input_folder(self.foregrounds, kind="photographs")
        return self.pack(self.find_source(), self.destination)

    def find_source(self) -> "ClipSource":
        """Return the simulator as a source of clips.

        Raises:
            UserError: An option belongs to another simulator, or is out of range.
        """
        from cinnema.simulators.push import Push
        from cinnema.simulators.sky import Skies
        from cinnema.simulators.walk import Walk

        options: dict[str, Any] = {"futures": self.futures, "seed": self.seed}
        if self.size is not None:
            options["size"] = self.size
        if self.foregrounds is not None:
            if self.world != "sky":
                raise UserError(f"--foregrounds is an option of sky, not of {self.world}")
            options["foregrounds"] = self.foregrounds
        worlds = {"push": Push, "walk": Walk, "sky": Skies}
        count = self.num_starts * (1 if self.split is None else _STARTS_FOR_ONE)
        source: ClipSource = worlds[self.world](num_starts=count, **options)
        return source if self.split is None else _one_split(source, self.split, self.num_starts)


@dataclass(frozen=True, kw_only=True)
class Check:
    """Read every shard of a packed data set and compare it with its checksum."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The packed data set."""

    def run(self) -> int:
        """Check all shards, and print the result."""
        check_input_folder(self.folder, kind="packed clips")
        from cinnema.data.dataset import PackedDataset

        dataset = PackedDataset(self.folder)
        with Progress(total=len(dataset.manifest.shards)) as progress:
            progress.begin("checking shards")
            dataset.verify(lambda done, _: progress.advance(done - progress.count))
        print(f"{self.folder}: {len(dataset)} clips, no shard is damaged", flush=True)
        return DONE


@dataclass(frozen=True, kw_only=True)
class Show:
    """Draw a contact sheet of a packed data set, and an animated one."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The packed data set."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The sheet to write (.png); the animated one has the same name with .gif. By default
    sheet.png in the folder of the data set."""
    num_clips: Annotated[int, Range(1, 1000), tyro.conf.arg(name="num-clips", aliases=["-n"])] = 12
    """Number of clips, spread over the data set."""
    split: Literal["train", "validation", "test"] | None = None
    """Show only clips of this split; by default of all."""
    overwrite: bool = False
    """Replace existing sheets."""

    def run(self) -> int:
        """Write both sheets and print their paths."""
        check_input_folder(self.folder, kind="packed clips")
        from PIL import Image

        from cinnema.core.files import atomic_path
        from cinnema.data.dataset import PackedDataset
        from cinnema.data.sheets import choose_clips, contact_sheet, moving_sheet
        from cinnema.media.videos import write_video

        dataset = PackedDataset(self.folder)
        chosen = choose_clips(dataset, num=self.num_clips, split=self.split)
        if not chosen:
            raise UserError(f"{self.folder} has no clips in the split {self.split or 'at all'}")
        path = self.output or self.folder / "sheet.png"
        sheet = Image.fromarray(contact_sheet(dataset, chosen))
        with atomic_path(path, overwrite=self.overwrite) as part:
            sheet.save(part)
        print(path, flush=True)
        fps = min(dataset.manifest.clips[p].fps for p in chosen)
        moving = moving_sheet(dataset, chosen)
        gif = path.with_suffix(".gif")
        print(write_video(gif, moving, fps=fps, overwrite=self.overwrite), flush=True)
        return DONE


def open_data(path: Path, progress: "Callable[[str, int, int], None]") -> "PackedDataset":
    """Open a packed data set or a folder of videos, and print its notes to standard error.

    Args:
        path: The folder.
        progress: Called with a description, a count and the total, while videos are packed.
    """
    from cinnema.data.dataset import open_dataset

    dataset = open_dataset(path, progress=progress)
    for note in dataset.manifest.notes:
        print(f"cinnema: {path}: {note}", file=sys.stderr, flush=True)
    return dataset


def _sum_up(result: "Prepared") -> str:
    parts = [f"{len(result.manifest.clips)} clips", f"{result.num_made} shards made"]
    if result.num_found:
        parts.append(f"{result.num_found} found")
    if result.manifest.skipped:
        parts.append(f"{len(result.manifest.skipped)} records skipped")
    return ", ".join(parts)


def _one_split(source: "ClipSource", split: "Split", most: int | None = None) -> "ClipSource":
    from cinnema.data.sources.splits import OneSplit

    return OneSplit(source, split, most)
