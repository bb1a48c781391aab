"""`cinnema train`: recipes changed by name, rehearsals, and what a run keeps."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cinnema.core.config import config_to_dict
from cinnema.recipes import RECIPES, Recipe, assembly, cost, keypoint_assembly

Run = Callable[..., Any]
SMALL = [
    "--set", "stage1.size=64", "--set", "stage1.num_frames=4", "--set", "stage1.motion_width=8",
    "--set", "motion.batch_size=2", "--set", "picture.batch_size=1", "--set", "mask.batch_size=2",
]  # fmt: skip


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that reach training and bundling, which do nothing."""
    recipes: list[Recipe] = []

    def train(recipe: Recipe, **_: object) -> Path:
        recipes.append(recipe)
        return Path("made.safetensors")

    for name in ("train_stage1", "train_stage2", "bundle"):
        monkeypatch.setattr(assembly, name, train)
    return recipes


def test_fields_are_changed_by_options_and_by_a_file(
    cinnema: Run, trained: list[Recipe], tmp_path: Path
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"motion": {"clips": 5}, "flow": {"hidden_dim": 32}}))
    options = ["--data", tmp_path, "--run", tmp_path / "run", "--device", "cpu"]
    options += ["--config", file, "--set", "motion.clips=2000", "--set", "data.textures.sea=1"]
    assert cinnema("train", "stage1", *options).code == 0
    (recipe,) = trained
    assert (recipe.motion.clips, recipe.flow.hidden_dim) == (2000, 32)
    assert recipe.data.textures["sea"] == 1.0
    assert recipe.picture == RECIPES["landscape"]().picture


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("motion.clip=5", "did you mean motion.clips"),
        ("motion.clips=many", "motion.clips does not fit"),
        ("flow.z_dim=32", "flow.z_dim must be stage1.z_dim, 64, got 32"),
        ("motion.phase=mask", "motion.phase must be motion, got mask"),
    ],
)
def test_a_field_that_does_not_fit_ends_with_2_and_one_line(
    cinnema: Run, trained: list[Recipe], tmp_path: Path, setting: str, message: str
) -> None:
    result = cinnema("train", "stage1", "--data", ".", "--run", tmp_path / "r", "--set", setting)
    assert (result.code, len(result.err)) == (2, 1)
    assert message in result.err[0]
    assert trained == []
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_dry_run_prints_the_recipe_and_its_cost_and_touches_nothing(
    cinnema: Run, tmp_path: Path, stage: str
) -> None:
    options = ["--data", tmp_path / "none", "--run", tmp_path / "run", "--device", "cpu"]
    result = cinnema("train", stage, *options, "--dry-run", *SMALL)
    assert result.code == 0
    printed = json.loads("\n".join(result.out))
    assert printed["stage1"]["size"] == 64
    assert printed["stage2"] == config_to_dict(RECIPES["landscape"]())["stage2"]
    table = "\n".join(result.err)
    for word in ("Nothing has been trained", "clips/s", "MiB", "parameters of "):
        assert word in table
    assert ("picture" in table) == (stage == "stage1")
    assert list(tmp_path.iterdir()) == []


def test_what_a_dry_run_prints_is_a_config(
    cinnema: Run, trained: list[Recipe], tmp_path: Path
) -> None:
    options = ["--data", tmp_path, "--run", tmp_path / "run", "--device", "cpu"]
    result = cinnema("train", "stage2", *options, "--dry-run", "--set", "stage2.seed=7")
    file = tmp_path / "resolved.json"
    file.write_text("\n".join(result.out))
    assert cinnema("train", "stage2", *options, "--config", file).code == 0
    (recipe,) = trained
    assert recipe.stage2.seed == 7


def test_bundling_follows_the_recipe_that_the_run_keeps(
    cinnema: Run, trained: list[Recipe], tmp_path: Path
) -> None:
    kept = config_to_dict(RECIPES["landscape"]())
    kept["flow"]["hidden_dim"] = 48
    (tmp_path / "recipe.json").write_text(json.dumps(kept))
    options = ["--run", tmp_path, "--output", "a.safetensors"]
    assert cinnema("train", "bundle", *options).code == 0
    assert cinnema("train", "bundle", *options, "--set", "name=mine").code == 0
    assert [recipe.flow.hidden_dim for recipe in trained] == [48, 48]
    assert trained[1].name == "mine"


def test_a_run_of_another_kind_needs_not_be_named_when_it_is_bundled(
    cinnema: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipes: list[object] = []

    def bundle(recipe: object, **_: object) -> Path:
        recipes.append(recipe)
        return Path("made.safetensors")

    monkeypatch.setattr(keypoint_assembly, "bundle", bundle)
    kept = RECIPES["robot"]()
    (tmp_path / "recipe.json").write_text(json.dumps(config_to_dict(kept)))
    assert cinnema("train", "bundle", "--run", tmp_path, "--output", "a.safetensors").code == 0
    assert recipes == [kept]


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "robot", "motion": 3}'])
def test_a_recipe_that_was_damaged_is_named_when_it_is_bundled(
    cinnema: Run, trained: list[Recipe], tmp_path: Path, text: str
) -> None:
    (tmp_path / "recipe.json").write_text(text)
    result = cinnema("train", "bundle", "--run", tmp_path, "--output", "a.safetensors")
    assert (result.code, len(result.err)) == (2, 1)
    assert trained == []


def commands_of_the_page() -> list[list[str]]:
    """The arguments of every command of the page that trains."""
    page = (Path(__file__).parents[2] / "docs/guide/train.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    lines = [line.partition(" > ")[0] for block in blocks for line in block.splitlines()]
    words = [shlex.split(re.sub(r"^(cinnema|torchrun .* -m cinnema) ", "", x)) for x in lines]
    return [command for command in words if command[0] == "train"]


@pytest.mark.parametrize("command", commands_of_the_page(), ids=" ".join)
def test_every_command_of_the_page_on_training_runs(
    cinnema: Run,
    trained: list[Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cost, "estimate_stage1", lambda *_, **__: [])
    Path("overrides.json").write_text('{"motion": {"learning_rate": 5e-4}}')
    Path("adversaries.json").write_text('{"picture": {"adversaries": {"kind": "hinge"}}}')
    assert cinnema(*command).code == 0
    assert len(trained) == (0 if "--dry-run" in command else 1)
