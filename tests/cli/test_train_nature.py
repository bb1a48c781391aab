"""`cinnema data label` and the training of a nature model, from clips to a weights file."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cinnema.cli.train_nature import nested_table
from cinnema.core.weights import load_weights, save_weights
from cinnema.data.labelled import LabelledPictures
from cinnema.media.videos import write_video
from cinnema.models.files import load_model
from cinnema.models.nature.kinds import KINDS, KindNetwork
from cinnema.models.nature.model import NatureModel
from cinnema.recipes.landscape import landscape
from cinnema.training import nature_recipe
from cinnema.training.kinds import KINDS_FILE, NUM_CLASSES
from cinnema.training.nature_recipe import CONSTANTS_FILE, save_constants
from cinnema.training.nature_validation import NestedScores

Run = Callable[..., Any]
SMALL = [
    "--model.kind-width", 16, "--model.kind-size", 96, "--model.num-frames", 4,
    "--model.narrow", 2,
    "--model.flow.num-blocks", 1, "--model.flow.hidden-dim", 8, "--flow.batch-size", 8,
    "--flow.clips", 16, "--flow.validate-every", 8, "--device", "cpu",
]  # fmt: skip
SPLITS = Path(__file__).parents[2] / "src/cinnema/weights/landscape.splits.json"


def all_sky(width: int = 16) -> KindNetwork:
    """A network to which everything is sky."""
    network = KindNetwork(width=width)
    torch.nn.init.zeros_(network.leave.weight)
    torch.nn.init.zeros_(network.leave.bias)
    with torch.no_grad():
        network.leave.bias[1 + KINDS.index("sky")] = 9
    return network


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five skies of 6 frames, two of them the same."""
    root = tmp_path_factory.mktemp("data") / "skies"
    for number in range(5):
        rng = np.random.default_rng(min(number, 3))
        coarse = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
        picture = coarse.repeat(16, axis=0).repeat(16, axis=1)
        frames = np.stack([np.roll(picture, (number % 3 + 1) * t, axis=1) for t in range(6)])
        write_video(root / f"sky{number}.npy", frames, fps=8)
    entries = [
        {"path": f"sky{k}.npy", "texture": "clouds", "suggested_stride": 1} for k in range(5)
    ]
    (root / "manifest.json").write_text(json.dumps(entries))
    lists = {"train": ["sky0", "sky1", "sky3"], "validation": ["sky2", "sky4"]}
    (root.parent / "splits.json").write_text(json.dumps(lists))
    return root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / KINDS_FILE
    save_weights(path, all_sky().state_dict(), {"width": 16}, dtype=torch.float32)
    return tmp_path / "run"


def test_a_flow_is_trained_into_a_weights_file_with_the_constants_of_the_run(
    cinnema: Run, clips: Path, run: Path, tmp_path: Path
) -> None:
    output, splits = tmp_path / "mine.safetensors", clips.parent / "splits.json"
    dynamics = list(landscape().model.dynamics)
    dynamics[0] = type(dynamics[0])(gain=1.25)
    save_constants(run, tuple(dynamics))
    options = ["--data", clips, "--splits", splits, "--run", run, *SMALL]
    result = cinnema("train", "flow", *options, "--output", output)
    assert result.code == 0, result.err
    assert "the same scene: sky3, sky4" in result.err
    model = load_model(output).model
    assert isinstance(model, NatureModel)
    assert model.config.dynamics[0].gain == 1.25
    video = model.decode(torch.zeros(1, 3, 128, 128), torch.randn(1, model.z_dim))
    assert video.shape == (1, 4, 3, 128, 128)
    again = cinnema("train", "flow", *options, "--output", output)
    assert again.code == 2
    assert "exists" in again.err[0]


def test_a_training_gives_the_same_bytes_again_and_nearly_the_same_on_two_threads(
    cinnema: Run, clips: Path, run: Path, tmp_path: Path
) -> None:
    trained = []
    for number, threads in enumerate((1, 1, 2)):
        shutil.rmtree(run / "flow", ignore_errors=True)
        output = tmp_path / f"{number}.safetensors"
        options = ["--data", clips, "--splits", clips.parent / "splits.json", "--run", run, *SMALL]
        result = cinnema("train", "flow", *options, "--threads", threads, "--output", output)
        torch.set_num_threads(1)
        assert result.code == 0, result.err
        trained.append(output)
    assert trained[0].read_bytes() == trained[1].read_bytes()
    first, other = (load_weights(path).state for path in (trained[0], trained[2]))
    for name, value in first.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-5)


def test_nested_cross_validation_needs_scenes_for_both_choices(
    cinnema: Run, clips: Path, run: Path, tmp_path: Path
) -> None:
    lists = {"train": ["sky0", "sky1", "sky3"], "validation": ["sky2"]}
    (tmp_path / "splits.json").write_text(json.dumps(lists))
    options = ["--data", clips, "--splits", tmp_path / "splits.json", "--run", run, *SMALL]
    result = cinnema("train", "flow", *options, "--nested", 3)
    # Two scenes are left to train on in each fold, and one of them chooses the steps.
    assert result.code == 2
    assert "no kind is seen in 2 or more scenes" in result.err[-1]


def test_constants_need_two_scenes_and_are_written_also_after_an_interruption(
    cinnema: Run,
    clips: Path,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def changes(_device: object) -> Callable[[Any], torch.Tensor]:
        def of(videos: Any) -> torch.Tensor:
            steps = np.abs(np.diff(videos.astype(np.float64), axis=1)).mean((2, 3))
            return torch.from_numpy(steps).flatten(1)

        return of

    monkeypatch.setattr("cinnema.cli.train_nature._i3d_logits", changes)
    options = ["--data", clips, "--splits", clips.parent / "splits.json", "--run", run, *SMALL]
    options += ["--search.clips-per-scene", 1, "--kinds", "sky", "water"]
    with monkeypatch.context() as patch:
        patch.setattr(nature_recipe, "save_constants", interrupted)
        result = cinnema("train", "constants", *options)
    assert result.code == 130
    assert any(line.startswith("sky: start: score") for line in result.err)
    assert not (run / CONSTANTS_FILE).exists()

    result = cinnema("train", "constants", *options)
    assert result.code == 0, result.err
    assert "sky: fitted before the interruption" in result.err
    assert "water: seen in fewer than 2 scenes, left as it is" in result.err
    assert result.out[-1].endswith(CONSTANTS_FILE)
    resumed = (run / CONSTANTS_FILE).read_text()
    assert set(json.loads(resumed)) == set(KINDS)

    result = cinnema("train", "constants", *options)
    assert any(line.startswith("sky: start: score") for line in result.err)
    assert (run / CONSTANTS_FILE).read_text() == resumed


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


TEACHERS = """
import torch
class Sky:
    def __init__(self, path): pass
    def __call__(self, x): return torch.ones_like(x[:, :1])
class Ade:
    def __init__(self, path): pass
    def __call__(self, x):
        logits = torch.zeros(1, 151, 33, 33)
        logits[:, 3] = 1
        return logits
"""


def test_clips_and_photographs_are_labelled_for_train_kinds(cinnema: Run, tmp_path: Path) -> None:
    teachers, stills = tmp_path / "teachers", tmp_path / "stills"
    teachers.mkdir()
    stills.mkdir()
    (teachers / "networks.py").write_text(TEACHERS)
    for name in ("sky_u2netp.npz", "ade20k_deeplab_mnv2.npz"):
        (teachers / name).write_bytes(b"weights")
    Image.new("RGB", (80, 60), (90, 90, 90)).save(stills / "room.jpg")
    (stills / "manifest.jsonl").write_text('{"file": "room.jpg", "sort": "interior"}\n')
    for seed, name in enumerate(("dawn", "dusk", "copy")):
        coarse = np.random.default_rng(seed % 2).integers(0, 256, (8, 9, 3), dtype=np.uint8)
        picture = coarse.repeat(8, axis=0).repeat(8, axis=1)
        frames = np.stack([np.roll(picture, t, axis=1) for t in range(18)])
        write_video(tmp_path / "skies" / f"{name}.npy", frames, fps=8)
    (tmp_path / "splits.json").write_text('{"train": ["copy", "dusk"], "validation": ["dawn"]}')
    options = ["--data", tmp_path / "skies", "--splits", tmp_path / "splits.json"]
    options += ["--stills", stills, "--output", tmp_path / "labels", "--teachers", teachers]
    result = cinnema("data", "label", *options)
    assert result.code == 0, result.err
    groups = json.loads((tmp_path / "labels/groups.json").read_text())
    assert groups["weights"]["stills/interior"] == 3
    assert set(groups["validation"]) - {"room"} == {"copy", "dawn"}  # they show the same
    pictures = LabelledPictures.open(tmp_path / "labels", size=64, num_classes=NUM_CLASSES)
    of_dusk = ["dusk@" in name for name in pictures.names]
    assert sum(of_dusk) == 2
    assert set(np.unique(pictures.labels[of_dusk])) == {1}


def test_the_table_of_a_cross_validation_has_a_line_for_each_kind() -> None:
    scores = NestedScores(
        flow=np.array([1.0, 1.2, 1.1, 0.9]),
        linear=np.array([1.1, 1.3, 1.2, 1.2]),
        scenes=("a", "b", "c", "a"),
        kinds=("sky", "sky", "sky", "water"),
        clips=(512, 0, 512),
    )
    lines = nested_table(scores).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["sky", "water", "all"]
    assert "-0.1000 (-0.1000 to -0.1000)  3 scenes" in lines[1]
    assert lines[2].endswith("-0.3000  1 scene")
    assert "512, 0, 512" in lines[-1]


@pytest.fixture
def skies(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The clips as `skies` in the present folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "skies").symlink_to(clips)
    return tmp_path / "skies"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "flow", "--data", "skies", "--run", "run"], "either --output .* or --nested"),
        (["train", "kinds", "--pictures", "nowhere", "--run", "run"], "nowhere"),
        (["train", "kinds", "--pictures", ".", "--run", "run"], "no labelled pictures"),
        (
            ["train", "constants", "--data", "skies", "--run", "run", "--kinds", "lava"],
            "no kind 'lava'",
        ),
        (
            ["train", "flow", "--data", "skies", "--run", "run", "--nested", "3"],
            "run `cinnema train kinds` first",
        ),
        (["train", "kinds", "--pictures", ".", "--run", "r", "--kinds.clip", "1"], "no field"),
        (
            ["train", "kinds", "--pictures", ".", "--run", "r", "--blend", "0.5"],
            "only with --weights",
        ),
        (["data", "label", "--teachers", ".", "--output", "out"], "--data.*--stills"),
    ],
)
def test_a_mistake_ends_with_2_and_one_line(
    cinnema: Run,
    skies: Path,
    arguments: list[str],
    message: str,
) -> None:
    assert (skies / "manifest.json").exists()
    result = cinnema(*arguments)
    assert result.code == 2
    assert len(result.err) == 1
    assert re.search(message, result.err[0])


def test_the_recipe_is_that_of_the_shipped_weights() -> None:
    assert landscape().model == load_model("landscape").model.config


def test_the_shipped_splits_list_each_scene_once() -> None:
    listed = json.loads(SPLITS.read_text())
    names = [*listed["train"], *listed["validation"]]
    assert len(names) == len(set(names))
    assert len(listed["validation"]) > 30
