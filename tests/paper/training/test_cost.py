"""What the trainings of the paper's model will cost, and how their recipes are changed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cinnema.cli.main import main
from cinnema.paper.recipes import PaperRecipe, bair, tiny
from cinnema.paper.training import assembly as paper_training
from cinnema.paper.training import cost as paper_rehearsal
from cinnema.paper.training.cost import estimate_paper
from paper.training.moving_squares import pack
from paper.training.small_networks import distance


class Distance(torch.nn.Module):
    """Stands in for LPIPS."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return distance(a, b)


@pytest.fixture
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stand:
        @staticmethod
        def load(_: str) -> Distance:
            return Distance()

    monkeypatch.setattr(paper_rehearsal, "LPIPS", Stand)


def test_the_three_trainings_are_rehearsed_with_their_discriminators(
    tmp_path: Path, no_lpips: None
) -> None:
    recipe = tiny(bair())
    recipe = dataclasses.replace(
        recipe, autoencoding=dataclasses.replace(recipe.autoencoding, epochs=3, windows=2)
    )
    dataset = pack(tmp_path / "squares")
    stage1, conditioning, flow = estimate_paper(
        recipe, data=tmp_path / "squares", device=torch.device("cpu")
    )
    assert stage1.clips == 3 * 2 * len(dataset.indices("train"))
    assert set(stage1.parameters) == {"encoder", "decoder", "temporal", "patch"}
    assert stage1.trained == sum(stage1.parameters.values())
    assert set(conditioning.parameters) == {"encoder", "decoder", "patch"}
    assert set(flow.parameters) == {"flow"}
    for each in (stage1, conditioning, flow):
        assert each.hours > 0
        assert each.activation_bytes > 0


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def train(recipe: PaperRecipe, **options: Any) -> Path:
        calls.append({"recipe": recipe, **options})
        return Path("made.safetensors")

    monkeypatch.setattr(paper_training, "train_paper", train)
    return calls


def test_fields_of_a_recipe_are_changed_by_name(
    trained: list[dict[str, Any]], tmp_path: Path
) -> None:
    options = ["--data", str(tmp_path), "--run-folder", str(tmp_path), "--device", "cpu"]
    options += ["--set", "autoencoding.epochs=2", "--tensorboard"]
    assert main(["train", "paper", "bair", *options]) == 0
    (call,) = trained
    assert call["recipe"].autoencoding.epochs == 2
    assert call["recipe"].flow_training == bair().flow_training
    assert call["tensorboard"]
    assert call["ranks"].size == 1


def test_a_field_that_does_not_exist_is_told(
    trained: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(tmp_path), "--run", str(tmp_path), "--set", "autoencoding.epoch=2"]
    assert main(["train", "paper", "bair", *options]) == 2
    assert "did you mean autoencoding.epochs?" in capsys.readouterr().err
    assert trained == []


def test_a_dry_run_prints_a_config(
    no_lpips: None,
    trained: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pack(tmp_path / "squares")
    options = ["--data", str(tmp_path / "squares"), "--run", str(tmp_path / "run"), "--tiny"]
    assert main(["train", "paper", "bair", *options, "--device", "cpu", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["name"] == tiny(bair()).name
    assert "conditioning" in printed.err
    assert trained == []
    assert not (tmp_path / "run").exists()
