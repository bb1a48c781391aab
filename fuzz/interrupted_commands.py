"""The commands that `interruptions.py` disturbs, with the files that they read."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # small models and folders of the tests


@dataclass
class Case:
    """A command, the files that it reads, and patterns of its results, in a folder of its own."""

    inputs: Callable[[Path], None]
    arguments: str
    results: tuple[str, ...]


def write_photograph(folder: Path) -> None:
    from PIL import Image

    y, x = np.mgrid[:64, :96]
    Image.fromarray(np.stack([40 + x, 60 + y, 200 - x], -1).astype("u1")).save(folder / "a.png")


def write_weights(folder: Path) -> None:
    from cinnema.models.files import save_model
    from small_models import tiny_model

    save_model(folder / "tiny.safetensors", tiny_model(size=64))


def write_videos(folder: Path, *, count: int = 5, length: int = 20) -> None:
    """Write videos of textures that drift."""
    from cinnema.media.videos import write_video

    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (8, 9, 3), dtype=np.uint8)
        picture = coarse.repeat(8, axis=0).repeat(8, axis=1)
        frames = [np.roll(picture, (number % 3 + 1) * t, axis=1) for t in range(length)]
        write_video(folder / "videos" / f"{number}.npy", np.stack(frames), fps=8)


def write_kinds(folder: Path) -> None:
    """Write the run of `train kinds` to which everything is sky."""
    import torch

    from cinnema.core.weights import save_weights
    from small_models import tiny_model

    (folder / "run").mkdir()
    state = tiny_model().kinds.state_dict()
    save_weights(folder / "run/kinds.safetensors", state, {"width": 16}, dtype=torch.float32)


def write_labels(folder: Path) -> None:
    from cinnema.data.labelled import UNKNOWN, save_labelled

    for number in range(6):
        picture = np.full((64, 64, 3), 90, np.uint8)
        labels = np.zeros((64, 64), np.uint8)
        height = 16 + 6 * number
        picture[:height], labels[:height] = (90, 150, 250), 1
        labels[height : height + 4] = UNKNOWN
        save_labelled(folder / "labels", f"clips/clouds/sky{number}@0", picture, labels)


def write_search(folder: Path) -> None:
    """Write the configuration of a short search for constants."""
    options = {"sky": {"gain": [2.0]}}
    (folder / "search.json").write_text(json.dumps({"search": {"options": options}}))


def write_packed(folder: Path) -> None:
    write_videos(folder, count=3)
    code, text = call(folder, "data prepare folder videos packed --size 64 --encoding raw")
    assert code == 0, text


def write_published(folder: Path) -> None:
    from official_folder import write_official

    write_official(folder / "published")


def several(*makers: Callable[[Path], None]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for maker in makers:
            maker(folder)

    return make


_SMALL = (
    "--model.kind-width 16 --model.kind-size 96 --model.num-frames 4 --model.size 64 "
    "--model.narrow 2 "
    "--model.flow.num-blocks 1 --model.flow.hidden-dim 8 --flow.batch-size 8 --flow.clips 16 "
    "--flow.validate-every 8 --threads 1 --device cpu"
)
CASES = {
    "animate": Case(
        several(write_photograph, write_weights),
        "animate a.png --weights tiny.safetensors -n 3 --frames 6 -o out --grid --overwrite "
        "--device cpu",
        ("out/*",),
    ),
    "prepare": Case(
        write_videos,
        "data prepare folder videos packed --size 48 --clips-per-shard 1",
        ("packed/*",),
    ),
    "import": Case(
        write_published,
        "import official published -o arm.safetensors --overwrite",
        ("arm.safetensors",),
    ),
    "kinds": Case(
        several(write_labels, write_weights),
        "train kinds --pictures labels --run run --weights tiny.safetensors --kinds.clips 8 "
        "--kinds.batch-size 4 --kinds.size 64 --kinds.validate-every 4 --kinds.frozen-blocks 14 "
        "--model.kind-width 16 --threads 1 --device cpu",
        ("run/kinds.safetensors",),
    ),
    "constants": Case(
        several(partial(write_videos, count=3), write_kinds, write_search),
        f"train constants --data videos --run run --kinds sky --search.clips-per-scene 1 {_SMALL} "
        "--model.num-frames 9 --config search.json",
        ("run/constants.json",),
    ),
    "flow": Case(
        several(write_videos, write_kinds),
        f"train flow --data videos --run run -o mine.safetensors --overwrite {_SMALL}",
        ("mine.safetensors",),
    ),
    "paper": Case(
        write_packed,
        "train paper bair --tiny --data packed --run run --workers 0 --threads 1 --device cpu",
        ("run/*.safetensors",),
    ),
    "finetune": Case(
        several(partial(write_videos, count=8), write_weights),
        "finetune tiny.safetensors --data videos -o mine.safetensors --set starts=2 --flow.clips 16"
        " --overwrite --threads 1 --device cpu",
        ("mine.safetensors", "mine.json", "mine.png", "mine.md"),
    ),
    "evaluate": Case(
        several(write_videos, write_weights),
        "evaluate tiny.safetensors videos --only latents --clips 2 --json numbers.json -n 1 "
        "--threads 1 --device cpu",
        ("numbers.json",),
    ),
}
