"""Every command and every line of Python in the README runs."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cinnema.cli.main import main
from cinnema.core.bundled import bundled_names
from cinnema.evaluation import runner as engine
from cinnema.evaluation.results import Evaluation
from cinnema.media.videos import write_video
from cinnema.models.files import save_model
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.warping.model import WarpingModel, WarpingModelConfig
from cinnema.models.warping.stage1 import Stage1Config
from cinnema.recipes import assembly
from official_folder import write_official

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETUP = {"make demo", "make test", "pip install ."}  # what runs this very test, or comes before it


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> Iterator[str]:
    for block in blocks("sh"):
        yield from block.replace("\\\n", " ").strip().splitlines()


def tiny_model(name: str) -> WarpingModel:
    torch.manual_seed(0)
    return WarpingModel(
        WarpingModelConfig(
            name=name,
            stage1=Stage1Config(
                z_dim=16, encoder_width=8, motion_width=8, feature_dim=8, mask_width=16,
                painter_width=16,
            ),
            conditioner=ConditionerConfig(feature_dim=8, width=8, condition_dim=8),
            flow=FlowConfig(z_dim=16, condition_dim=8, num_blocks=1, hidden_dim=16),
        )
    )  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the README's commands name, and weights by the name of landscape."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    (tmp_path / "holiday").mkdir()
    for name in ("photo.jpg", "other.jpg", "holiday/beach.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    for name in ("start.png", "somebody.png"):
        Image.fromarray(pixels[:, :64]).save(tmp_path / name)
    Image.new("L", (96, 64)).save(tmp_path / "mask.png")
    (tmp_path / "clips").mkdir()
    for name in ("sea", "sky", "fire"):
        drift = np.stack([np.roll(pixels, t, axis=1) for t in range(20)])
        write_video(tmp_path / f"clips/{name}.mp4", drift, fps=8)
    if "landscape" not in bundled_names():
        save_model(tmp_path / "bundled/landscape.safetensors", tiny_model("landscape"))
        monkeypatch.setattr("cinnema.models.warping.model._BUNDLED", tmp_path / "bundled")
    return tmp_path


@pytest.fixture
def official(place: Path) -> Path:
    """The paper's checkpoints in small widths, where the README has a data set's folder."""
    return write_official(place / "models/landscape")


@pytest.fixture
def no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation takes minutes: only that its command reaches it is tested here."""
    found = Evaluation(
        weights={"name": "landscape"}, data={"name": "skies"},
        protocol={"name": "aligned", "about": "frames of the same times"},
        settings={}, backbones={}, columns=(), rows=(),
    )  # fmt: skip
    monkeypatch.setattr(engine, "evaluate_model", lambda *_, **__: found)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and validation take hours: only that their commands reach them is tested here."""

    class Report:
        def to_table(self) -> str:
            return "table"

        def to_dict(self) -> dict[str, float]:
            return {}

    def bundle(*_: object, output: Path, **__: object) -> Path:
        save_model(output, tiny_model("landscape"))
        return output

    replacements: dict[str, Callable[..., Any]] = {
        "train_stage1": lambda *_, run, **__: run,
        "train_stage2": lambda *_, run, **__: run,
        "bundle": bundle,
        "validate": lambda *_, **__: Report(),
    }
    for name, replacement in replacements.items():
        monkeypatch.setattr(assembly, name, replacement)


def test_the_first_two_commands_are_make_demo_and_make_test() -> None:
    assert list(commands())[:2] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test"} <= set(re.findall(r"^(\w+):", makefile, flags=re.MULTILINE))


@pytest.mark.usefixtures("no_training", "no_evaluation", "official")
def test_every_shell_command_runs() -> None:
    for command in commands():
        if command in SETUP:
            continue
        program, *arguments = shlex.split(command, comments=True)
        assert program == "cinnema", command
        assert main(arguments) == 0, command


def test_all_python_runs_from_top_to_bottom(place: Path) -> None:
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert (place / "future-3.mp4").exists()
    assert names["videos"][2].seed == 0


def test_every_file_that_is_linked_exists() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
