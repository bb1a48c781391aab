"""BAIR robot pushing: 64x64, 30 frames per clip, with the position of the arm's end effector."""

import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float32

from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord, Control, Item, RawClip, Split
from cinnema.data.sources.frames import (
    Cutting,
    below,
    check_at_least_one,
    check_root,
    picture_frames,
    square,
    subfolders,
)
from cinnema.data.sources.tfrecords import Values, parse_example, read_records

Layout: TypeAlias = Literal["tfrecords", "png"]

_NUM_FRAMES = 30
_SIDE = 64
_INNER = "softmotion30_44k"  # folder in the archive
_TFRECORDS = ".tfrecords"
_POSITIONS = "endeffector_positions.csv"
_TRAJECTORIES = re.compile(r"traj_(\d+)_to_(\d+)")

# Not stated with the data. The published scripts with which the robot's data were recorded store
# 3.8 to 4.8 pictures per second.
_FPS = 4.0

_FOLDERS: dict[str, Split] = {
    "train": "train", "val": "validation", "eval": "validation", "validation": "validation",
    "test": "test",
}  # fmt: skip
# By convention, in any folder: the archive has the second one in train.
_HELD_OUT: dict[str, Split] = {"traj_0_to_255": "test", "traj_256_to_511": "validation"}

# The published normalisation subtracts the smallest position and divides by the range (its results
# are binned in ten bins of [0, 1]), so the centre of the workspace is half a range further.
_LEAST_Y, _RANGE_Y = -0.3080245, 0.54029283

# The arm extends along x; left and right are y. Mirroring a picture mirrors y about the centre of
# the workspace only if the camera is there and looks along x, with little perspective. We assume
# so, as the data set states neither camera's pose.
_CONTROL = Control(
    name="end_effector", kind="position", labels=("x", "y", "z"), unit="m",
    mirror_axis=1, mirror_centre=_LEAST_Y + _RANGE_Y / 2,
)  # fmt: skip


@dataclass(frozen=True)
class Bair:
    """BAIR robot pushing (Ebert et al. 2017), as published or converted to pictures.

    There are two layouts, recognised by their files:

    - `{train,test}/traj_A_to_B.tfrecords`, records of 30 frames of two cameras with positions and
      actions; `root` is their folder or its parent.
    - `{train,eval,test}/traj_A_to_B/{1,2,...}/{0,...,29}.png` with `endeffector_positions.csv` (30
      lines of x,y,z) beside the pictures; they are from the camera "aux1", without actions.

    traj_0_to_255 is the test split and traj_256_to_511 validation, in any folder. Clips are named
    traj_A_to_B/1, ... in both layouts. Tracks: "end_effector" (x, y, z in metres), and for
    tfrecords "action" (4 numbers).

    Args:
        root: The folder.
        size: Width and height of the frames in pixels.
        camera: "aux1", which the literature uses, or "main".

    Example:
        >>> source = Bair(Path("softmotion30_44k"))
        >>> clip = next(source.read(source.items()[0]))
    """

    root: Path
    _: KW_ONLY
    size: int = 64
    camera: Literal["aux1", "main"] = "aux1"

    def __post_init__(self) -> None:
        """Check the options."""
        check_at_least_one(size=self.size)

    @property
    def name(self) -> str:
        """Name of the packed data set."""
        return "bair"

    @property
    def control(self) -> Control:
        """The position of the arm's end effector."""
        return _CONTROL

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the clips, with the layout found in the folder."""
        return {
            "source": self.name, "root": self.root.resolve().name, "layout": self._find()[1],
            "camera": self.camera, "size": self.size,
        }  # fmt: skip

    def items(self) -> list[Item]:
        """List the tfrecord files, or the folders converted from them; nothing is opened.

        Raises:
            UserError: The folder is missing or has neither layout; trajectories are in two
                folders; pictures of the camera "main" are requested of the converted layout.
        """
        base, layout = self._find()
        if layout == "png" and self.camera != "aux1":
            raise UserError(
                f"{self.root} has the pictures of the camera aux1 only: use the tfrecords for "
                f"{self.camera}"
            )
        items, seen = [], dict[str, str]()
        for path in _trajectories(base, layout):
            name, folder = path.name.removesuffix(_TFRECORDS), path.parent.name
            if name in seen:
                raise UserError(
                    f"{base} has {name} in both {seen[name]} and {folder}: remove one of them"
                )
            seen[name] = folder
            split = _HELD_OUT.get(name, _FOLDERS[folder])
            items.append(Item(name=below(path, self.root), split=split, clips=_num_clips(name)))
        return items

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the clips of one file or folder of trajectories."""
        path = self.root / item.name
        if path.suffix == _TFRECORDS:
            yield from self._read_tfrecords(path, item.name)
        else:
            folders = [folder for folder in subfolders(path) if folder.name.isdecimal()]
            if not folders:
                yield BadRecord(name=item.name, reason="it has none of the folders 1, 2, ...")
            for folder in sorted(folders, key=lambda folder: int(folder.name)):
                yield self._read_folder(folder)

    def _find(self) -> tuple[Path, Layout]:
        """Return the folder that contains train and test, and their layout."""
        check_root(self.root)
        layouts: tuple[Layout, ...] = ("tfrecords", "png")
        for base in (self.root, self.root / _INNER):
            for layout in layouts:
                if _trajectories(base, layout):
                    return base, layout
        raise UserError(
            f"{self.root} is not a BAIR folder: it needs train/traj_<a>_to_<b>.tfrecords (and "
            "test), or train/traj_<a>_to_<b>/1/0.png (and eval, test)"
        )

    def _read_tfrecords(self, path: Path, name: str) -> Iterator[RawClip | BadRecord]:
        expected = _num_clips(path.stem)
        records = read_records(path, name=name, expected=expected)
        for number, record in enumerate(records, start=1):
            if isinstance(record, BadRecord):
                yield record
                continue
            try:
                yield self._parse(record, name=f"{path.stem}/{number}")
            except ValueError as error:
                yield BadRecord(name=f"{name} record {number}", reason=str(error))

    def _parse(self, record: bytes, *, name: str) -> RawClip:
        """Turn a record into a clip, or raise a ValueError with the reason."""
        example = parse_example(record)
        frames = [
            _pixels(example, f"{index}/image_{self.camera}/encoded") for index in range(_NUM_FRAMES)
        ]
        return RawClip(
            name=name,
            source=name,
            frames=np.stack([square(frame, self.size) for frame in frames]),
            fps=_FPS,
            tracks={
                "end_effector": _numbers(example, "endeffector_pos", 3),
                "action": _numbers(example, "action", 4),
            },
        )

    def _read_folder(self, folder: Path) -> RawClip | BadRecord:
        name = f"{folder.parent.name}/{folder.name}"
        positions = _read_positions(folder / _POSITIONS)
        if isinstance(positions, str):
            return BadRecord(name=below(folder / _POSITIONS, self.root), reason=positions)
        pictures = [folder / f"{index}.png" for index in range(_NUM_FRAMES)]
        frames = picture_frames(pictures, root=self.root)
        clip = next(Cutting(size=self.size).cut(frames, name=name, source=name, fps=_FPS))
        if isinstance(clip, BadRecord):
            return clip
        tracks = {"end_effector": positions}
        return RawClip(name=name, source=name, frames=clip.frames, fps=_FPS, tracks=tracks)


def _trajectories(base: Path, layout: Layout) -> list[Path]:
    """List the files or folders of trajectories, by folder and then by first number."""
    found: list[tuple[int, Path]] = []
    for folder in (base / name for name in _FOLDERS):
        if not folder.is_dir():
            continue
        try:
            paths = list(folder.iterdir()) if layout == "tfrecords" else subfolders(folder)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be listed ({error.strerror}): check its rights"
            ) from None
        suffix = _TFRECORDS if layout == "tfrecords" else ""
        for path in sorted(paths):
            match = _TRAJECTORIES.fullmatch(path.name.removesuffix(suffix))
            if match and path.name.endswith(suffix):
                found.append((int(match[1]), path))
    return [path for _, path in sorted(found, key=lambda pair: (pair[1].parent, pair[0]))]


def _num_clips(trajectories: str) -> int:
    match = _TRAJECTORIES.fullmatch(trajectories)
    return max(1, int(match[2]) - int(match[1]) + 1) if match else 1


def _feature(example: dict[str, Values], key: str) -> Values:
    if key not in example:
        raise ValueError(f"it has no {key}")
    return example[key]


def _pixels(example: dict[str, Values], key: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    values = _feature(example, key)
    if not isinstance(values, list) or len(values) != 1:
        raise ValueError(f"its {key} is not one string of bytes")
    if len(values[0]) != _SIDE * _SIDE * 3:
        raise ValueError(f"its {key} has {len(values[0])} bytes, not {_SIDE * _SIDE * 3}")
    return np.frombuffer(values[0], np.uint8).reshape(_SIDE, _SIDE, 3)


def _numbers(example: dict[str, Values], key: str, count: int) -> Float32[np.ndarray, "t _"]:
    rows = []
    for index in range(_NUM_FRAMES):
        values = _feature(example, f"{index}/{key}")
        if isinstance(values, list) or values.dtype != np.float32 or len(values) != count:
            raise ValueError(f"its {index}/{key} is not {count} floats")
        if not np.isfinite(values).all():
            raise ValueError(f"its {index}/{key} is not finite")
        rows.append(values)
    return np.stack(rows)


def _read_positions(path: Path) -> Float32[np.ndarray, "t 3"] | str:
    """Read the positions of a converted clip, or return the reason why they are invalid."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return "it does not exist"
    except (OSError, ValueError) as error:
        return f"it cannot be read ({error})"
    rows = [line.split(",") for line in lines if line.strip()]
    if len(rows) != _NUM_FRAMES or any(len(row) != 3 for row in rows):
        widths = sorted({len(row) for row in rows})
        found = f"{len(rows)} lines of {' or '.join(map(str, widths))} numbers"
        return f"it has {found}, not {_NUM_FRAMES} of 3"
    try:
        positions = np.array([[float(cell) for cell in row] for row in rows])
    except ValueError as error:
        return f"it contains something other than numbers ({error})"
    if not np.isfinite(positions).all() or np.abs(positions).max() > np.finfo(np.float32).max:
        return "it contains a number that is not finite"
    return positions.astype(np.float32)
