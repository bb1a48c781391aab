"""`cinnema train paper`: its recipe, its cost estimate, and what both refuse."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cinnema.cli.main import main
from cinnema.cli.parser import parse
from cinnema.cli.train_paper import TrainPaper
from cinnema.core.config import config_to_dict
from cinnema.core.errors import UserError
from cinnema.paper.recipes import bair, tiny
from cinnema.paper.training import assembly, precision
from cinnema.paper.training.assembly import estimate_paper, train_paper
from paper.training.moving_squares import pack
from paper.training.small_networks import distance

CPU = torch.device("cpu")


class Distance(torch.nn.Module):
    """Stands in for LPIPS."""

    @staticmethod
    def load(_: str) -> "Distance":
        return Distance()

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return distance(a, b)


def test_costs_of_the_three_trainings_are_estimated_with_their_discriminators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "LPIPS", Distance)
    recipe = tiny(bair())
    recipe = dataclasses.replace(
        recipe, autoencoding=dataclasses.replace(recipe.autoencoding, epochs=3, windows=2)
    )
    dataset = pack(tmp_path / "squares")
    stage1, conditioning, flow = estimate_paper(
        recipe, data=tmp_path / "squares", run=tmp_path / "run", device=CPU
    )
    assert stage1.clips == 3 * 2 * len(dataset.indices("train"))
    assert set(stage1.parameters) == {"encoder", "decoder", "temporal", "patch"}
    assert stage1.trained == sum(stage1.parameters.values())
    assert set(conditioning.parameters) == {"encoder", "decoder", "patch"}
    assert flow.trained == sum(flow.parameters.values())
    for each in (stage1, conditioning, flow):
        assert each.hours > 0
        assert each.activation_bytes > 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("refuses", [train_paper, estimate_paper])
def test_an_estimate_refuses_what_the_training_refuses(
    tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"data": tmp_path / "squares", "run": tmp_path / "run", "device": CPU}
    with pytest.raises(UserError):
        refuses(tiny(bair()), **options)
    pack(tmp_path / "squares")
    with pytest.raises(UserError, match=r"is conditioned on the end point.*has no control"):
        refuses(tiny(bair(control=True)), **options)
    monkeypatch.setattr(precision, "fast_dtype", lambda _: torch.float32)
    with pytest.raises(UserError, match='precision "fast" computes in bf16'):
        refuses(dataclasses.replace(tiny(bair()), precision="fast"), **options)
    assert not (tmp_path / "run").exists()


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
    options: list[str], expected: str
) -> None:
    words = ["bair", "--data", "a", "--run", "b", *options, "--autoencoding.epochs", "2"]
    recipe = parse(TrainPaper, words, prog="cinnema train paper").chosen()
    assert recipe.precision == expected
    assert recipe.autoencoding.epochs == 2
    assert recipe.flow_training == bair().flow_training


def test_a_run_of_before_there_were_precisions_is_recognised() -> None:
    recipe = tiny(bair())
    assert "precision" not in recipe.about()
    about = json.loads(json.dumps(config_to_dict(recipe)))
    assert about.pop("precision") == "float32"
    assert about.pop("recompute_activations") is False
    assert json.loads(json.dumps(recipe.about())) == about


def test_a_mistyped_field_is_refused_and_a_dry_run_prints_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assembly, "LPIPS", Distance)
    pack(tmp_path / "squares")
    options = ["--data", str(tmp_path / "squares"), "--run", str(tmp_path / "run"), "--tiny"]
    assert main(["train", "paper", "bair", *options, "--autoencoding.epoch", "2"]) == 2
    assert "did you mean --autoencoding.epochs" in capsys.readouterr().err
    assert main(["train", "paper", "bair", *options, "--device", "cpu", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["name"] == tiny(bair()).name
    assert "conditioning" in printed.err
    assert not (tmp_path / "run").exists()
