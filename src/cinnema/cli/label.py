"""`cinnema data label`: labelled pictures for the kind network, from clips and photographs."""

import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinnema.cli.console import DONE, Progress
from cinnema.cli.ranges import Threads
from cinnema.core.documents import parse_json
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path, check_input_file, check_input_folder, path_inside

if TYPE_CHECKING:
    from cinnema.data.dataset import PackedDataset
    from cinnema.data.scenes import Scene
    from cinnema.training.kind_labels import Teachers

MANIFEST = "manifest.jsonl"
"""File in the folder of photographs: one JSON object a line, with "file" and "sort"."""

# Weights of the groups in training: how often pictures of a sort are seen, whatever their number.
_WEIGHTS = {
    "clips/clouds": 5, "clips/aurora": 0.6, "clips/fog": 0.6, "clips/smoke": 1.5,
    "clips/water": 8, "clips/rain": 5, "clips/snow": 4, "clips/fire": 8, "clips/vegetation": 4,
    "clips/other": 1.5, "stills/people": 4, "stills/animal": 4, "stills/building": 5,
    "stills/object": 4, "stills/city": 3, "stills/interior": 3, "stills/food": 2,
    "stills/mountain": 3, "stills/snow_mountain": 2.5, "stills/snow_ground": 3, "stills/snow": 2,
    "stills/beach_sea": 3, "stills/lake_river": 3, "stills/waterfall": 2, "stills/forest": 2,
    "stills/field": 2, "stills/sky": 2, "stills/sunset": 2, "stills/night": 2, "stills/text": 2,
    "stills/fire": 1.5, "stills/smoke_fog": 0.7, "stills/flower": 2, "stills/other": 0.5,
}  # fmt: skip
_FPS, _STEPS = 8.0, 16
_HELD_OUT_OF = 5  # every fifth photograph is held out, by a hash of its name


@dataclass(frozen=True, kw_only=True)
class Label:
    """Label pictures for `cinnema train kinds`: still, sky, water, fire, plants, falling.

    Of each clip two frames are labelled, by teacher networks and by what changes over time; of a
    folder of photographs each one, by teacher networks and by what it is listed to be of. The
    teachers are trained networks of yours, and the code in their folder is run.
    """

    output: Path
    """Folder to write pictures, labels and groups.json into."""
    teachers: Path
    """Folder with networks.py, sky_u2netp.npz and ade20k_deeplab_mnv2.npz."""
    data: tuple[Path, ...] = ()
    """Packed data sets, or folders of videos; the label of a video tells what it is of."""
    splits: Path | None = None
    """JSON file {"train": [...], "validation": [...]} of video names; others are left out."""
    stills: Path | None = None
    """Folder of photographs, listed in manifest.jsonl: {"file": "a.jpg", "sort": "interior"}."""
    threads: Threads = None
    """Threads on the CPU; by default as many as there are cores."""

    def run(self) -> int:
        """Label all pictures, and print the folder."""
        if not self.data and self.stills is None:
            raise UserError("give clips with --data, or photographs with --stills, or both")
        for folder in self.data:
            check_input_folder(folder, kind="clips")
        stills = [] if self.stills is None else read_stills(self.stills)
        from cinnema.core.devices import use_threads
        from cinnema.training.kind_labels import Teachers

        use_threads(self.threads)
        teachers = Teachers(self.teachers)
        groups, held_out = set[str](), set[str]()
        with Progress(total=0) as bar:
            if self.data:
                groups, held_out = self._label_clips(teachers, bar)
        with Progress(total=0) as bar:
            for number, (file, sort) in enumerate(stills):
                bar.report("labelling photographs", number, len(stills))
                name = _flat(file.relative_to(self.stills or file.parent))
                if _label_still(teachers, file, sort, self.output, name):
                    groups.add(f"stills/{sort}")
                    if zlib.crc32(name.encode()) % _HELD_OUT_OF == 0:
                        held_out.add(name)
        self._write_groups(groups, held_out)
        print(self.output, flush=True)
        return DONE

    def _label_clips(self, teachers: "Teachers", bar: Progress) -> tuple[set[str], set[str]]:
        import numpy as np

        from cinnema.data.windows import find_duplicates, held_out_together
        from cinnema.recipes.nature_clips import open_scenes

        found = open_scenes(self.data, splits=self.splits, progress=bar.report)
        scenes = [(dataset, scene) for dataset, own in found for scene in own]
        groups, first = set[str](), dict[str, Any]()
        for number, (dataset, scene) in enumerate(scenes):
            bar.report("labelling clips", number, len(scenes))
            for name, picture in label_scene(teachers, dataset, scene, self.output):
                groups.add(str(Path(name).parent))
                key = _flat(Path(scene.name))
                first[key] = np.concatenate([*([first[key]] if key in first else []), picture])
        held_out = {_flat(Path(scene.name)) for _, scene in scenes if scene.held_out}
        return groups, held_out_together(held_out, find_duplicates(first))

    def _write_groups(self, groups: set[str], held_out: set[str]) -> None:
        from cinnema.data.labelled import GROUPS_FILE

        weights = {group: _WEIGHTS.get(group, 1.0) for group in sorted(groups)}
        values: dict[str, Any] = {"weights": weights, "validation": sorted(held_out)}
        self.output.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.output / GROUPS_FILE, overwrite=True) as part:
            part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_stills(folder: Path) -> list[tuple[Path, str]]:
    """Return the photographs of a folder and what each is of.

    Raises:
        UserError: The list is missing or damaged, or a photograph is missing.
    """
    check_input_folder(folder, kind="photographs")
    path = check_input_file(folder / MANIFEST, kind="a list of photographs")
    out = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            values = parse_json(line)
            file, sort = path_inside(folder, values["file"]), str(values["sort"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f'{path}, line {number}: must be an object with "file" and "sort" ({error}): '
                "correct it"
            ) from error
        out.append((check_input_file(file, kind="a photograph"), sort))
    return out


def label_scene(
    teachers: "Teachers", dataset: "PackedDataset", scene: "Scene", output: Path
) -> Iterator[tuple[str, Any]]:
    """Label the first and the last frame from which a scene has a clip.

    Yields:
        The name of each labelled picture, and the picture as an array of one.
    """
    from cinnema.data.labelled import save_labelled
    from cinnema.data.windows import natural_stride, read_distinct
    from cinnema.training.kind_labels import change_over_time, label_clip, square_picture

    video = read_distinct(dataset, scene)
    stride = min(natural_stride(dataset, scene, _FPS), max(1, (len(video) - 1) // _STEPS))
    span = _STEPS * stride + 1
    if span > len(video):
        return
    for start in sorted({0, len(video) - span}):
        frames = video[start : start + span : stride]
        picture = square_picture(frames[0])
        labels = label_clip(
            picture, teachers.see(frames[0]), change_over_time(frames), scene.texture
        )
        name = f"clips/{_flat(Path(scene.texture or 'other'))}/{_flat(Path(scene.name))}@{start}"
        save_labelled(output, name, picture, labels)
        yield name, picture[None]


def _label_still(teachers: "Teachers", file: Path, sort: str, output: Path, name: str) -> bool:
    """Label a photograph; return whether it could be read."""
    from cinnema.data.labelled import save_labelled
    from cinnema.media.pictures import read_photograph
    from cinnema.training.kind_labels import label_still, square_picture

    try:
        photograph = read_photograph(file)
    except UserError as error:
        print(f"left out: {error}", file=sys.stderr)
        return False
    picture = square_picture(photograph)
    labels = label_still(picture, teachers.see(photograph), sort)
    save_labelled(output, f"stills/{sort}/{name}", picture, labels)
    return True


def _flat(path: Path) -> str:
    """Return a path as one name, without its suffix."""
    return str(path.with_suffix("")).replace("/", "__").replace("@", "_at_")
