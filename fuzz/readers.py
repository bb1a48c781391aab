"""Give damaged files to every reader.

`python fuzz/readers.py --count 200` is the size for CI, 10000 that for a night.

Real files are made, then mutated with some knowledge of their structure: bits, lengths and counts
of 1 to 8 bytes set to extremes, parts cut out, doubled, exchanged or taken from another file,
values of JSON replaced. A reader may only refuse with a documented error, and leave nothing behind.
It may take 10 s of the processor and 1 GB for a file. Inputs of faults are kept in --keep, and the
exit code is then 1.
"""

import argparse
import io
import json
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

Seeds = dict[str, bytes]
_SECONDS, _MEGABYTES = 10, 1024
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 2**63 - 1, 2**64 - 1)
_VALUES = (
    None,
    True,
    -1,
    0,
    1e999,
    2**70,
    10**12,
    "",
    "../../x",
    "\0",
    "x" * 5000,
    [],
    {},
    [[]] * 9,
)


@dataclass
class Reader:
    """A kind of file, real examples of it, and what reads it from a path."""

    seeds: Callable[[Path], Seeds]
    read: Callable[[Path], object]
    is_json: bool = False


def frames(count: int = 6) -> np.ndarray:
    t, y, x = np.ogrid[:count, :32, :48]
    return np.stack([5 * (x + t) + 0 * y, 7 * y + 0 * (x + t), 40 * t + 0 * (x + y)], -1).astype(
        "u1"
    )


def pictures(_: Path) -> Seeds:
    from PIL import Image, ImageCms, PngImagePlugin

    image, found = Image.fromarray(frames(1)[0]), Seeds()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"gAMA", (100_000).to_bytes(4, "big"))
    chunks.add(b"cICP", bytes((9, 16, 0, 1)))
    for suffix, options in {
        "jpg": {"icc_profile": profile, "exif": exif},
        "png": {"pnginfo": chunks},
        "webp": {"icc_profile": profile},
        "bmp": {}, "tiff": {"compression": "tiff_lzw"}, "gif": {}, "ppm": {}, "avif": {},
    }.items():  # fmt: skip
        file = io.BytesIO()
        image.save(file, "JPEG" if suffix == "jpg" else suffix.upper(), **options)
        found[f"a.{suffix}"] = file.getvalue()
    return found


def videos(folder: Path) -> Seeds:
    import av

    from cinnema.media.videos import write_video

    found = Seeds()
    for suffix in ("mp4", "gif", "webp", "npy"):
        path = write_video(folder / f"a.{suffix}", frames(), fps=8)
        found[path.name] = path.read_bytes()
    for name, codec, pixel_format in (
        ("a.mkv", "libx264", "yuv420p10le"), ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.avi", "mjpeg", "yuvj420p"), ("a.mov", "qtrle", "argb"),
        ("a.ts", "mpeg2video", "yuv420p"),
    ):  # fmt: skip
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(25))
            stream.width, stream.height, stream.pix_fmt = 48, 32, pixel_format
            for pixels in frames():
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(picture.reformat(format=pixel_format)))
            container.mux(stream.encode(None))
        found[name] = (folder / name).read_bytes()
    return found


def weights(_: Path) -> Seeds:
    from cinnema.core.bundled import find_weights

    return {"a.safetensors": find_weights("landscape").read_bytes()}


def motions(_: Path) -> Seeds:
    import torch
    from safetensors.torch import save

    about = {"format": 1, "weights": "", "seed": 0, "sample": 0, "settings": {"eta": [0.1, 0.2]}}
    tensors = {"nu": torch.zeros(64), "z": torch.ones(64)}
    return {"a.nu.safetensors": save(tensors, metadata={"cinnema-nu": json.dumps(about)})}


def states(folder: Path) -> Seeds:
    import torch

    torch.save(
        {"state_dict": {"a.weight": torch.ones(3, 4), "b": torch.zeros(2)}}, folder / "a.pth"
    )
    return {"a.pth": (folder / "a.pth").read_bytes()}


def packed(folder: Path) -> Path:
    from cinnema.data.prepare import prepare
    from cinnema.data.sources.folder import Folder
    from cinnema.media.videos import write_video

    for number in range(3):
        write_video(folder / "in" / f"{number}.npy", frames(20), fps=8)
    prepare(Folder(folder / "in", size=16), folder / "out")
    return folder / "out"


def shards(folder: Path) -> Seeds:
    shard = next(packed(folder).glob("train-*.npz"))
    return {shard.name: shard.read_bytes()}


def manifests(folder: Path) -> Seeds:
    return {"manifest.json": (packed(folder) / "manifest.json").read_bytes()}


def splits(_: Path) -> Seeds:
    return {"splits.json": b'{"train": ["a.mp4", "b.mp4"], "validation": ["c.mp4"], "test": []}'}


def fields(_: Path) -> Seeds:
    from cinnema.core.config import config_to_dict
    from cinnema.recipes.landscape import landscape

    return {"fields.json": json.dumps(config_to_dict(landscape())).encode()}


def clip_lists(_: Path) -> Seeds:
    entry = {"path": "sea/a.mp4", "texture": "sea", "suggested_stride": 2, "duplicate_share": 0.1}
    return {"manifest.json": json.dumps([entry, {**entry, "path": "b.mp4"}]).encode()}


def tfrecords(_: Path) -> Seeds:
    from cinnema.data.sources.tfrecords import _masked_crc32c

    feature = bytes((0x0A, 3, 0x0A, 1, 120))  # a list of bytes with one entry, "x"
    entry = bytes((0x0A, 1, 97, 0x12, len(feature))) + feature
    payload = bytes((0x0A, len(entry) + 2, 0x0A, len(entry))) + entry
    length = len(payload).to_bytes(8, "little")
    crc = [_masked_crc32c(part).to_bytes(4, "little") for part in (length, payload)]
    return {"a.tfrecords": 3 * (length + crc[0] + payload + crc[1]), "a.example": payload}


def read_shard(path: Path) -> None:
    from cinnema.data.shards import Shard

    shard = Shard(path)
    assert shard.index
    for number in range(len(shard)):
        shard.frames(number)


def read_recipe(path: Path) -> None:
    from cinnema.cli.fields import check_file_of_fields, read_fields, with_fields
    from cinnema.recipes.landscape import landscape

    check_file_of_fields(path, "cinnema.training.nature_recipe:NatureRecipe")
    with_fields(landscape(), values=read_fields(path))


def read_video(path: Path) -> None:
    from cinnema.media import videos as reading

    for _ in reading.iterate_frames(path, max_frames=20):
        pass


def read_records(path: Path) -> None:
    from cinnema.core.errors import UserError
    from cinnema.data.sources import tfrecords as reading

    list(reading.read_records(path, name="a"))  # damage is a record of its own
    if path.suffix == ".example":
        try:
            reading.parse_example(path.read_bytes())
        except ValueError as error:  # documented
            raise UserError(str(error)) from error


def call(module: str, name: str, **options: Any) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        found = __import__(module, fromlist=["_"])
        for part in name.split("."):
            found = getattr(found, part)
        return found(path, **options)

    return read


READERS = {
    "pictures": Reader(pictures, call("cinnema.media.pictures", "read_photograph")),
    "videos": Reader(videos, read_video),
    "weights": Reader(weights, call("cinnema.models.files", "load_model")),
    "motions": Reader(motions, call("cinnema.synthesis.residual", "load_motion")),
    "states": Reader(states, call("cinnema.core.state_dicts", "read_state_dict", kind="weights")),
    "shards": Reader(shards, read_shard),
    "tfrecords": Reader(tfrecords, read_records),
    "manifests": Reader(manifests, call("cinnema.data.manifest", "Manifest.read"), is_json=True),
    "splits": Reader(
        splits,
        call("cinnema.data.sources.splits", "read_splits", names=["a.mp4", "b.mp4", "c.mp4"]),
        True,
    ),
    "fields": Reader(fields, read_recipe, is_json=True),
    "clip lists": Reader(
        clip_lists,
        lambda path: call("cinnema.data.sources.folder", "_read_manifest")(path.parent),
        True,
    ),
}


def mutated(content: bytes, other: bytes, chance: random.Random, *, is_json: bool) -> bytes:
    """Return a file with one to four faults."""
    if is_json and chance.random() < 0.6:
        return json.dumps(_other_values(json.loads(content), chance)).encode()
    data = bytearray(content)
    # Half of the faults lie in the header, where lengths and counts are.
    reach = [len(data), min(len(data), 256)]
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(max(1, min(chance.choice(reach), len(data))))
        length = chance.choice((1, 2, 4, 8, chance.randint(1, 64)))
        kind = chance.randrange(7)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            size = chance.choice((1, 2, 4, 8))
            value = chance.choice(_EXTREMES) % (1 << 8 * size)
            data[at : at + size] = value.to_bytes(size, chance.choice(("big", "little")))
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length] * chance.randint(1, 3)
        elif kind == 4:
            start = chance.randrange(max(1, len(other)))
            data[at : at + length] = other[start : start + length]
        elif kind == 5:
            data[at : at + length] = chance.randbytes(length)
        else:
            del data[chance.randrange(max(1, len(data))) :]
    return bytes(data)


def _other_values(value: Any, chance: random.Random, share: float = 0.1) -> Any:
    if chance.random() < share:
        return chance.choice(_VALUES)
    if isinstance(value, dict):
        return {
            (chance.choice(list(value)) if chance.random() < share / 3 else key): _other_values(
                item, chance
            )
            for key, item in value.items()
        }
    return [_other_values(item, chance) for item in value] if isinstance(value, list) else value


@dataclass
class Outcome:
    """What came of the inputs of one reader."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    megabytes: float = 0.0
    faults: list[str] = field(default_factory=list)


def expired(*_: object) -> None:
    raise TimeoutError(f"over {_SECONDS} s")


def read_one(reader: Reader, path: Path) -> str:
    """Return "read" or "refused", or what was wrong."""
    from cinnema.core.errors import UserError

    signal.setitimer(signal.ITIMER_PROF, _SECONDS)  # of the processor, which others use, too
    signal.alarm(12 * _SECONDS)
    try:
        reader.read(path)
    except UserError as error:
        return "refused" if "\n" not in str(error) else f"several lines: {error}"
    except Exception as error:  # what is looked for
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "read"


def work(name: str, start: int, stop: int, seed: int, pipe: Any) -> None:
    """Read inputs `start` to `stop` in a process of its own, which a crash may end."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, expired)
    signal.signal(signal.SIGPROF, expired)
    import cinnema.models.files
    import cinnema.synthesis.pipeline  # noqa: F401 - imports count for no input

    reader = READERS[name]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for part in ("seeds", "in"):
            (folder / part).mkdir()
        found = reader.seeds(folder / "seeds")
        for file, content in found.items():  # what is imported and cached does not count
            (folder / "in" / file).write_bytes(content)
            if (result := read_one(reader, folder / "in" / file)) != "read":
                raise RuntimeError(f"{name}: the file itself is not read: {result}")
            (folder / "in" / file).unlink()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(start, stop):
            file, content = input_of(found, seed, number, is_json=reader.is_json)
            path = folder / "in" / file
            path.write_bytes(content)
            pipe.send((number, None, 0.0, 0.0))
            begin = time.process_time()
            result = read_one(reader, path)
            peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            left = [entry.name for entry in (folder / "in").iterdir() if entry != path]
            result = f"left {left}" if left else result
            result = f"took {peak:.0f} MB" if peak > _MEGABYTES else result
            pipe.send((number, result, time.process_time() - begin, peak))
            path.unlink()


def input_of(found: Seeds, seed: int, number: int, *, is_json: bool) -> tuple[str, bytes]:
    """Return name and content of an input, which depend on the seed and its number alone."""
    chance = random.Random(f"{seed}/{number}")
    file = chance.choice(sorted(found))
    other = found[chance.choice(sorted(found))]
    return file, mutated(found[file], other, chance, is_json=is_json)


def run(name: str, count: int, seed: int, keep: Path) -> Outcome:
    outcome, number = Outcome(), 0
    while number < count:
        for index, result, seconds, peak in results_of(name, number, count, seed):
            number = index + 1
            outcome.counts[result if result in ("read", "refused") else "fault"] += 1
            outcome.slowest = max(outcome.slowest, seconds)
            outcome.megabytes = max(outcome.megabytes, peak)
            if result not in ("read", "refused"):
                outcome.faults.append(f"{name} {index}: {result}")
                keep_input(name, index, seed, keep)
    return outcome


def results_of(
    name: str, start: int, stop: int, seed: int
) -> Iterator[tuple[int, str, float, float]]:
    """Yield the results of one process; of an input that ended it, that it did."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=work, args=(name, start, stop, seed, theirs))
    process.start()
    theirs.close()
    begun = start
    try:
        while True:
            if not ours.poll(6 * _SECONDS + 60):
                process.kill()
            begun, result, seconds, peak = ours.recv()
            if result is not None:
                begun += 1
                yield begun - 1, result, seconds, peak
    except EOFError:
        process.join()
        if process.exitcode == 1:  # its traceback is printed
            raise SystemExit(f"{name} could not be tried") from None
        if begun < stop:
            yield begun, f"the process ended with {process.exitcode}", 0.0, 0.0


def keep_input(name: str, number: int, seed: int, keep: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = READERS[name].seeds(Path(folder))
    file, content = input_of(found, seed, number, is_json=READERS[name].is_json)
    keep.mkdir(parents=True, exist_ok=True)
    (keep / f"{name}-{number}-{file}").write_bytes(content)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="inputs of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(READERS), choices=list(READERS))
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"), help="faulty inputs")
    options = parser.parse_args()
    print(
        f"{'reader':<12}{'inputs':>8}{'read':>8}{'refused':>9}{'faults':>8}{'slowest':>9}{'peak':>9}"
    )
    faults = []
    for name in options.only:
        outcome = run(name, options.count, options.seed, options.keep)
        counts = outcome.counts
        print(
            f"{name:<12}{sum(counts.values()):>8}{counts['read']:>8}{counts['refused']:>9}"
            f"{counts['fault']:>8}{outcome.slowest:>7.2f} s{outcome.megabytes:>6.0f} MB",
            flush=True,
        )
        faults += outcome.faults
    for fault in faults:
        print(fault[:300])
    return 1 if faults else 0


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn" if sys.platform == "win32" else "fork")
    sys.exit(main())
