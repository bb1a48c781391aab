"""From a recipe and a folder of clips to a weights file, for keypoint recipes."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cinnema.core.config import config_from_dict
from cinnema.core.errors import UserError
from cinnema.models.files import load_model
from cinnema.recipes.clips import KeypointClips
from cinnema.training.adversarial import DiscriminatorsConfig, DiscriminatorTraining
from cinnema.training.assembly import Validation, bundle, train_stage1, train_stage2
from cinnema.training.cost import estimate_stage1, estimate_stage2
from cinnema.training.recipe import KeypointRecipe
from tiny_recipes import KEYPOINT, points, write_squares

CPU = torch.device("cpu")
RECIPES = {"keypoint": KEYPOINT, "points": points()}
every_kind = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES, scope="module")
one_kind = pytest.mark.parametrize("recipe", [KEYPOINT], ids=["keypoint"], scope="module")


@pytest.fixture(scope="module")
def open_clips(tmp_path_factory: pytest.TempPathFactory) -> Callable[[KeypointRecipe], Any]:
    squares = write_squares(tmp_path_factory.mktemp("clips") / "squares")
    return lambda recipe: KeypointClips.open(recipe, squares)


@pytest.fixture(scope="module")
def run(
    recipe: KeypointRecipe,
    open_clips: Callable[[KeypointRecipe], Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a run of both stages."""
    folder, clips = tmp_path_factory.mktemp("runs") / "run", open_clips(recipe)
    validation = Validation(
        stage1=lambda stage1, training: {f"{training.phase}_score": float(not stage1.training)},
        latents=lambda _stage1: lambda conditioner, _flow: {"nll": float(conditioner.training)},
    )
    with pytest.raises(UserError, match="train the stage that writes it first"):
        train_stage2(recipe, clips, run=folder, device=CPU)
    options = {"run": folder, "device": CPU, "validation": validation}
    assert train_stage1(recipe, clips, **options) == folder / "stage1.safetensors"
    with pytest.raises(UserError, match=r"stage2\.safetensors does not exist"):
        bundle(recipe, run=folder, output=folder / "early.safetensors")
    assert train_stage2(recipe, clips, **options) == folder / "stage2.safetensors"
    return folder


@every_kind
def test_both_stages_become_a_weights_file_that_decodes(
    recipe: KeypointRecipe, run: Path, tmp_path: Path
) -> None:
    output = bundle(recipe, run=run, output=tmp_path / "model.safetensors")
    model = load_model(output).model
    assert model.config == recipe.new_model().config
    assert model.flow.is_initialised
    x0 = torch.zeros(1, 3, recipe.stage1.size, recipe.stage1.size)
    z, _ = model.to_latent(torch.zeros(1, recipe.flow.z_dim), model.condition(x0))
    assert model.decode(x0, z).shape[:2] == (1, 4)
    with pytest.raises(UserError, match="exists already"):
        bundle(recipe, run=run, output=output)


@every_kind
def test_a_run_keeps_its_recipe_numbers_grids_and_plots(recipe: KeypointRecipe, run: Path) -> None:
    pytest.importorskip("matplotlib")
    assert config_from_dict(type(recipe), json.loads((run / "recipe.json").read_text())) == recipe
    for training in recipe.phases:
        folder = run / training.phase
        assert f'"{training.phase}_score": 1.0' in (folder / "metrics.jsonl").read_text()
        (grid,) = (folder / "grids").iterdir()
        assert grid.name == f"{training.clips:09d}.png"
        assert (folder / "metrics.png").is_file()
    assert '"nll": 0.0' in (run / "stage2" / "metrics.jsonl").read_text()
    assert (run / "stage2" / "metrics.png").is_file()


@one_kind
def test_a_finished_run_is_not_repeated_and_one_of_another_recipe_refused(
    recipe: KeypointRecipe, run: Path, open_clips: Callable[[KeypointRecipe], Any], tmp_path: Path
) -> None:
    before = (run / "stage1.safetensors").read_bytes()
    clips = open_clips(recipe)
    train_stage1(recipe, clips, run=run, device=CPU)
    assert (run / "stage1.safetensors").read_bytes() == before
    motion = dataclasses.replace(recipe.motion, seed=9)
    other = dataclasses.replace(recipe, motion=motion)
    with pytest.raises(UserError, match="another configuration"):
        train_stage1(other, clips, run=run, device=CPU)
    with pytest.raises(UserError, match="another configuration"):
        estimate_stage1(other, clips, run=run, device=CPU)
    wider = dataclasses.replace(recipe, stage1=dataclasses.replace(recipe.stage1, code_dim=32))
    with pytest.raises(UserError, match="trained with another recipe"):
        bundle(wider, run=run, output=tmp_path / "wider.safetensors")


@every_kind
def test_costs_are_estimated_for_every_training_and_nothing_is_written(
    recipe: KeypointRecipe, run: Path, open_clips: Callable[[KeypointRecipe], Any], tmp_path: Path
) -> None:
    state = torch.random.get_rng_state()
    costs = estimate_stage1(recipe, open_clips(recipe), run=tmp_path / "new", device=CPU)
    costs.append(estimate_stage2(recipe, run=run, device=CPU))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [c.name for c in costs] == [*(t.phase for t in recipe.phases), "stage2"]
    for cost in costs:
        assert cost.hours == pytest.approx(cost.clips / cost.clips_per_second / 3600)
        assert cost.activation_bytes > 0
        assert cost.state_bytes > 4 * sum(cost.parameters.values()) + 8 * cost.trained
    stage1 = recipe.new_model().stage1
    assert sum(costs[0].parameters.values()) == sum(p.numel() for p in stage1.parameters())
    assert costs[0].trained > costs[1].trained  # the encoder is frozen in phase "picture"
    with pytest.raises(UserError, match="train the stage that writes it first"):
        estimate_stage2(recipe, run=tmp_path / "new", device=CPU)
    assert not (tmp_path / "new").exists()


def test_discriminators_are_counted_and_take_part_whenever_they_start(
    open_clips: Callable[[KeypointRecipe], Any], tmp_path: Path
) -> None:
    phases = (DiscriminatorTraining(module="spatial"), DiscriminatorTraining(module="temporal"))
    judges = DiscriminatorsConfig(phases=phases, widths=(8, 8), start=1_000_000)
    picture = KEYPOINT.picture
    costs = []
    for discriminators in (None, judges):
        recipe = dataclasses.replace(
            KEYPOINT, picture=dataclasses.replace(picture, discriminators=discriminators)
        )
        run = tmp_path / "run"
        costs.append(estimate_stage1(recipe, open_clips(recipe), run=run, device=CPU)[1])
    plain, adversarial = costs
    added = adversarial.parameters.keys() - plain.parameters.keys()
    assert added == {"spatial discriminator", "temporal discriminator"}
    num = sum(adversarial.parameters[name] for name in added)
    assert adversarial.trained - plain.trained == num > 1000
    assert adversarial.activation_bytes > 1.2 * plain.activation_bytes


def test_a_seed_decides_a_new_stage_1_and_no_other_stream() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second, other = (KEYPOINT.new_stage1(seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.decoder.last, second.decoder.last)
    assert not torch.equal(first.decoder.last, other.decoder.last)


def test_stage_2_is_trained_on_the_last_phase_that_changes_latents() -> None:
    assert KEYPOINT.latent_phase.phase == "motion"
    picture = dataclasses.replace(KEYPOINT.picture, train_encoder=True)
    assert dataclasses.replace(KEYPOINT, picture=picture).latent_phase.phase == "picture"
