"""The ablation study: rows that differ in one choice, a file that is appended to, and tables."""

import argparse
import dataclasses
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from cinnema.core.weights import save_weights
from cinnema.data.prepare import prepare
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.keypoint.stage1 import KeypointConfig
from cinnema.paper.flow import PaperFlow
from cinnema.training.keypoint_losses import KeypointTraining
from cinnema.training.recipe import KeypointData, KeypointRecipe
from cinnema.training.stage2 import Stage2Training
from walking_square import WalkingSquare

FOLDER = Path(__file__).parents[2] / "benchmarks"
STAGE1 = KeypointConfig(
    size=32, num_frames=4, z_dim=8, encoder_width=8, width=8, code_dim=16, landmarks=3
)


def square() -> KeypointRecipe:
    conditioner = ConditionerConfig(feature_dim=STAGE1.feature_dim, width=8, condition_dim=4)
    return KeypointRecipe(
        name="square",
        data=KeypointData(landmarks="where"),
        stage1=STAGE1,
        motion=KeypointTraining(),
        picture=KeypointTraining(phase="picture"),
        conditioner=conditioner,
        flow=FlowConfig(z_dim=8, condition_dim=4),
        stage2=Stage2Training(),
    )


@pytest.fixture
def ladder(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("ablations")


@pytest.fixture
def small(ladder: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The ladder on walking squares, with few windows to read landmarks off."""
    monkeypatch.setitem(ladder.RECIPES, "person", square)
    monkeypatch.setattr(importlib.import_module("ablation_stage1"), "_PROBED", 8)
    return ladder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    @dataclasses.dataclass(frozen=True)
    class Tested(WalkingSquare):
        def items(self) -> list[Any]:
            splits = ("train", "train", "validation", "test")
            return [
                dataclasses.replace(item, split=splits[n % 4])
                for n, item in enumerate(super().items())
            ]

    folder = tmp_path_factory.mktemp("squares") / "packed"
    prepare(Tested(), folder, encoding="raw")
    return folder


def run(
    ladder: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object
) -> tuple[int, list[dict[str, Any]]]:
    monkeypatch.setattr("sys.argv", ["ablations", *map(str, words)])
    code = ladder.main()
    out = Path(str(words[words.index("--out") + 1]))
    lines = out.read_text().splitlines() if out.exists() else []
    return code, [json.loads(line) for line in lines]


def test_rows_of_stage_1_are_scored_once_and_shown_together(
    small: ModuleType,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["stage1", "--data", data, "--out", tmp_path / "s.jsonl", "--clips", 8, "--width", 8]
    words += ["--held-out", 4, "--rows"]
    _, first = run(small, monkeypatch, *words, "ours", "no landmarks")
    code, lines = run(small, monkeypatch, *words, "ours", "warps only")
    assert code == 0
    assert lines[:3] == first
    names = ["frozen first frame", "ours", "no landmarks", "warps only"]
    assert [line["row"] for line in lines] == names
    assert lines[2]["scores"]["predicted"] == [None] * 4
    assert len(lines[1]["scores"]["lpips"]) == len(set(lines[1]["clips"])) == 4
    shown = capsys.readouterr().out
    assert "| minus ours |" in shown
    assert shown.count("| warps only |") == 2  # its scores, and what they differ by


def test_rows_of_stage_2_are_scored_on_the_same_latents(
    small: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "motion.safetensors"
    save_weights(weights, square().new_stage1().state_dict(), {}, dtype=torch.float32)
    code, lines = run(
        small, monkeypatch, "stage2", "--data", data, "--out", tmp_path / "s.jsonl", "--stage1",
        weights, "--clips", 256, "--held-out", 4, "--pool", 12,
        "--rows", "ours", "rectified flow", "paper's block",
    )  # fmt: skip
    assert code == 0
    assert len(lines) == 5
    for line in lines:
        assert line["clips"] == lines[0]["clips"]
        assert set(line["scores"]) == {"nll", "energy", "best"}


def test_an_unknown_row_is_named(
    ladder: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("stage1", "--data", tmp_path, "--out", tmp_path / "s.jsonl", "--rows", "paint")
    code, _ = run(ladder, monkeypatch, *words)
    assert code == 1
    assert "--rows: there is no paint, rows are ours, paints only" in capsys.readouterr().err


def test_every_row_of_stage_1_changes_the_recipe_and_builds(ladder: ModuleType) -> None:
    options = argparse.Namespace(
        recipe="person", size=32, width=8, clips=64, batch=4, held_out=8, seed=0
    )
    stage1 = importlib.import_module("ablation_stage1")
    base = stage1.small_recipe(options, seed=3)
    for name, change in ladder.STAGE1_ROWS.items():
        recipe = change(base)
        assert (recipe == base) == (name == "ours"), name
        recipe.new_stage1()


def test_priors_that_are_trained_are_of_about_equal_size(ladder: ModuleType) -> None:
    priors = {name: build(64, 48, 0) for name, build in ladder.STAGE2_ROWS.items()}
    sizes = {name: sum(p.numel() for p in prior.parameters()) for name, prior in priors.items()}
    for name, size in sizes.items():
        assert size == pytest.approx(sizes["ours"], rel=0.1), name


def test_the_published_log_determinant_needs_no_row_as_it_has_the_same_gradient(
    ladder: ModuleType,
) -> None:
    flow = ladder.STAGE2_ROWS["paper's block"](64, 48, 0)
    other = PaperFlow(dataclasses.replace(flow.config, log_det="published"))
    other.load_state_dict(flow.state_dict())
    z, c = torch.randn(3, 64), torch.randn(3, 48)
    losses = [-one.log_prob(z, c).mean() for one in (flow, other)]
    assert losses[0] > losses[1] + 1  # the reported likelihoods differ
    for loss in losses:
        loss.backward()
    for a, b in zip(flow.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def line_of(row: str, seed: int, values: list[float], *, bottom: float = 1.0) -> dict[str, Any]:
    pairs = [[v * bottom, bottom] for v in values]
    clips = [f"clip {i}" for i in range(len(values))]
    return {
        "row": row, "seed": seed, "parameters": 2_000_000, "seconds": 10.0, "clips": clips,
        "scores": {"lpips": pairs},
    }  # fmt: skip


def test_differences_are_taken_clip_by_clip(ladder: ModuleType) -> None:
    scores = importlib.import_module("ablation_scores")
    values = [0.1, 0.5, 0.9, 0.3]
    lines = [
        line_of("ours", 0, values),
        line_of("ours", 1, values),
        line_of("other", 0, [v + 0.25 for v in values]),
        line_of("other", 1, [v + 0.15 for v in values]),
    ]
    found = {(line["row"], line["seed"]): line for line in lines}
    measures = [scores.Metric("lpips", "LPIPS", 2)]
    text = scores.table(found, ["ours", "other"], measures, against="ours")
    assert "| other | 2 | 2.00 M | 10 | 0.65 [" in text
    # Whatever clips are drawn, the difference is the same: the interval is a point.
    assert "| other | +0.20 [+0.20, +0.20] | +0.25, +0.15 |" in text


def test_lines_of_other_settings_do_not_count(ladder: ModuleType, tmp_path: Path) -> None:
    scores = importlib.import_module("ablation_scores")
    path = tmp_path / "s.jsonl"
    lines = [line_of("ours", 0, [0.1]) | {"settings": {"clips": n}} for n in (8, 16)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert scores.read(path, {"clips": 16}) == {("ours", 0): lines[1]}
    assert scores.read(tmp_path / "none.jsonl", {}) == {}
