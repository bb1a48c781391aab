"""The precision of the paper's trainings as recipe and command have it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cinnema.cli.main import main
from cinnema.core.config import config_to_dict
from cinnema.paper.recipes import PaperRecipe, bair, tiny
from cinnema.paper.training import assembly as paper_training
from cinnema.paper.training import precision
from paper.training.moving_squares import pack


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[PaperRecipe]:
    recipes: list[PaperRecipe] = []

    def train(recipe: PaperRecipe, **_: Any) -> Path:
        recipes.append(recipe)
        return Path("made.safetensors")

    monkeypatch.setattr(paper_training, "train_paper", train)
    return recipes


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "float32"),
        (["--precision", "fast"], "fast"),
        (["--set", "precision=compiled"], "compiled"),
        (["--set", "precision=fast", "--precision", "float32"], "float32"),
    ],
)
def test_the_command_takes_a_precision_and_float32_is_the_default(
    options: list[str], expected: str, trained: list[PaperRecipe], tmp_path: Path
) -> None:
    folders = ["--data", str(tmp_path), "--run", str(tmp_path)]
    assert main(["train", "paper", "bair", "--device", "cpu", *folders, *options]) == 0
    assert [recipe.precision for recipe in trained] == [expected]


def test_what_was_trained_before_there_was_a_choice_is_known_again() -> None:
    recipe = tiny(bair())
    assert "precision" not in recipe.about()
    about = json.loads(json.dumps(config_to_dict(recipe)))
    assert about.pop("precision") == "float32"
    assert json.loads(json.dumps(recipe.about())) == about


def test_a_device_that_is_slow_in_bf16_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "fast_dtype", lambda _: torch.float32)
    pack(tmp_path / "squares")
    folders = ["--data", str(tmp_path / "squares"), "--run", str(tmp_path / "run")]
    options = ["--tiny", "--device", "cpu", "--precision", "fast"]
    assert main(["train", "paper", "bair", *folders, *options]) == 2
    assert 'precision "fast" computes in bf16' in capfd.readouterr().err
    assert not (tmp_path / "run" / "stage1.safetensors").exists()
