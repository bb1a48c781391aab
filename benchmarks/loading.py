"""Speed of loading packed data, compared with the released code's folders of PNG frames.

The same synthetic skies are packed in every encoding and written as folders of PNG frames. The
reference reads such a folder with cv2.imread and resizes each frame in floats, in torch's
DataLoader. All loaders produce the same tensors (checked first): batches of floats in [-1, 1],
random windows of 17 frames of clips of 30. All files are in the page cache, so decoding is measured
and not the disk. "CPU ms" is processor time per clip without workers, which depends little on other
programs; the last column compares two workers each.

    python benchmarks/loading.py [--clips 24] [--seconds 1] [--rounds 3]

A second row of the reference reads frames of 256 pixels, as in iPER; packed data are stored at the
training size.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cinnema.bench.machine import num_cores
from cinnema.data.augmentation import PAPER, Augmentation
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import ClipLoader
from cinnema.data.manifest import ENCODINGS, Encoding
from cinnema.data.prepare import prepare
from cinnema.data.records import Control, Item, RawClip
from cinnema.simulators.sky import Skies

_LENGTH, _WINDOW, _BATCH = 30, 17, 10
_LARGE = 256
_WORKERS = (0, 1, 2)
_SEED = 0
_FRAME = Control(name="frame", kind="position", labels=("t",), unit="frames")

Start = Callable[[int], Iterator[object]]
"""Starts an endless iterator of batches with a number of workers."""


@dataclass(frozen=True)
class _Folders:
    """A source of clips in folders of frames; its control is the number of the frame."""

    root: Path
    size: int
    name: str = "folders"
    control: Control = _FRAME

    def settings(self) -> dict[str, Any]:
        return {"size": self.size}

    def items(self) -> list[Item]:
        return [Item(name=path.name, split="train") for path in sorted(self.root.iterdir())]

    def read(self, item: Item) -> Iterator[RawClip]:
        frames = []
        for number in range(_LENGTH):
            picture = _read_rgb(self.root / item.name / f"{number}.png")
            frames.append(cv2.resize(picture, (self.size, self.size), interpolation=cv2.INTER_AREA))
        track = np.arange(_LENGTH, dtype=np.float32)[:, None]
        yield RawClip(
            name=item.name,
            source=item.name,
            frames=np.stack(frames),
            fps=30.0,
            tracks={"frame": track},
        )


class Speed(NamedTuple):
    """Clips per second of wall-clock time, and milliseconds of processor time per clip."""

    rate: float
    cost: float


class _FrameFolders(Dataset[Float[Tensor, "t 3 s s"]]):
    """Folders of PNG frames, read as in the released code.

    Args:
        root: Folder with one folder per clip.
        size: Height and width to which frames are resized, in pixels.
    """

    def __init__(self, root: Path, *, size: int) -> None:
        self.folders, self.size = sorted(root.iterdir()), size

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> Float[Tensor, "t 3 s s"]:
        return self.window(index, int(torch.randint(_LENGTH - _WINDOW + 1, ())))

    def window(self, index: int, first: int) -> Float[Tensor, "t 3 s s"]:
        frames = []
        for number in range(first, first + _WINDOW):
            levels = _read_rgb(self.folders[index] / f"{number}.png").astype(np.float32)
            frames.append(cv2.resize(levels, (self.size, self.size)) / 127.5 - 1)
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of each measurement")
    parser.add_argument(
        "--rounds", type=int, default=3, help="number of measurements, of which the median is shown"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large"
        _write_skies(large, clips=options.clips)
        for size in options.sizes:
            loaders, bytes_of = _loaders(Path(folder) / str(size), large, size=size)
            speeds = _measure(loaders, seconds=options.seconds, rounds=options.rounds)
            Console(width=100).print(_table(speeds, bytes_of, size=size))
    return 0


def _loaders(root: Path, large: Path, *, size: int) -> tuple[dict[str, Start], dict[str, int]]:
    """Return every loader of the clips by name, and the size of its data in bytes."""
    packed = {}
    for encoding in ENCODINGS:
        prepare(_Folders(large, size), root / encoding, encoding=encoding)
        packed[encoding] = PackedDataset(root / encoding)
    for index, entry in enumerate(packed["raw"].manifest.clips):
        _write_frames(packed["raw"].read(index).frames, root / "folders" / entry.clip)
    _check(packed, root / "folders", size=size)
    places = {"reference": root / "folders", f"reference, {_LARGE} px": large}
    loaders = {name: _reference(place, size) for name, place in places.items()}
    for encoding, dataset in packed.items():
        places[f"packed {encoding}"] = root / encoding
        loaders[f"packed {encoding}"] = _packed(dataset)
    places["packed png, augmented"] = root / "png"
    loaders["packed png, augmented"] = _packed(packed["png"], augmentation=PAPER["landscape"])
    return loaders, {name: _bytes_in(place) for name, place in places.items()}


def _packed(dataset: PackedDataset, augmentation: Augmentation | None = None) -> Start:
    def start(num_workers: int) -> Iterator[object]:
        return ClipLoader(
            dataset,
            batch_size=_BATCH,
            num_frames=_WINDOW,
            augmentation=augmentation,
            seed=_SEED,
            num_workers=num_workers,
        )

    return start


def _reference(root: Path, size: int) -> Start:
    def start(num_workers: int) -> Iterator[object]:
        folders = _FrameFolders(root, size=size)
        # An endless sampler, so that workers are not restarted for each epoch.
        order = np.random.default_rng(_SEED).permutation(len(folders)).tolist()
        return iter(
            DataLoader(
                folders,
                batch_size=_BATCH,
                sampler=itertools.cycle(order),
                num_workers=num_workers,
                worker_init_fn=_one_thread,
            )
        )

    return start


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)


def _check(packed: Mapping[Encoding, PackedDataset], folders: Path, *, size: int) -> None:
    """Check that all loaders produce the same numbers, or nearly the same for JPEG."""
    reference = _FrameFolders(folders, size=size)
    for encoding, dataset in packed.items():
        loader = ClipLoader(dataset, batch_size=_BATCH, num_frames=_WINDOW, num_workers=0)
        batch = next(loader)
        for video, index, last in zip(batch.video, batch.index, batch.control[:, 0], strict=True):
            expected = reference.window(int(index), int(last) - _WINDOW + 1)
            error = (video - expected).abs()
            if (encoding == "jpeg" and error.mean() > 0.05) or (
                encoding != "jpeg" and error.max() > 1e-6
            ):
                raise SystemExit(f"{encoding} does not contain the frames of the folders")


def _measure(
    loaders: Mapping[str, Start], *, seconds: float, rounds: int
) -> dict[tuple[str, int], Speed]:
    """Return the median speed of each loader and number of workers; loaders take turns."""
    speeds: dict[tuple[str, int], list[Speed]] = {}
    for _ in range(rounds):
        for name, num_workers in itertools.product(loaders, _WORKERS):
            speed = _speed(loaders[name](num_workers), warm=2 + 2 * num_workers, seconds=seconds)
            speeds.setdefault((name, num_workers), []).append(speed)
    return {
        key: Speed(*(statistics.median(values) for values in zip(*of_rounds, strict=True)))
        for key, of_rounds in speeds.items()
    }


def _speed(batches: Iterator[object], *, warm: int, seconds: float) -> Speed:
    """Return the speed after the prefetched batches have been used up."""
    for _ in range(warm):
        next(batches)
    begin, processor, clips = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < seconds:
        next(batches)
        clips += _BATCH
    took = time.perf_counter() - begin
    return Speed(clips / took, 1e3 * (time.process_time() - processor) / clips)


def _table(
    speeds: Mapping[tuple[str, int], Speed], bytes_of: Mapping[str, int], *, size: int
) -> Table:
    table = Table(title=f"Clips per second: {_WINDOW} frames of {size} px, {num_cores()} cores")
    names = ["MB", "CPU ms", *(f"{num} workers" for num in _WORKERS), "against reference"]
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    reference = speeds["reference", _WORKERS[-1]].rate
    for name, size_in_bytes in bytes_of.items():
        mine = [speeds[name, num_workers] for num_workers in _WORKERS]
        table.add_row(
            name,
            f"{size_in_bytes / 1e6:.1f}",
            f"{mine[0].cost:.2f}",
            *(f"{speed.rate:.0f}" for speed in mine),
            f"{mine[-1].rate / reference:.2f} x",
        )
    return table


def _write_skies(root: Path, *, clips: int) -> None:
    skies = Skies(clips, futures=1, seed=0, size=_LARGE, num_frames=_LENGTH)
    for number, item in enumerate(skies.items()):
        (clip,) = skies.read(item)
        _write_frames(clip.frames, root / f"{number:03}")


def _write_frames(frames: UInt8[np.ndarray, "t h w 3"], folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))


def _read_rgb(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    picture = cv2.imread(str(path))
    if picture is None:
        raise SystemExit(f"cannot read {path}")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
