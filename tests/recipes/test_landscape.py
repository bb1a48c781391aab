"""Recipes: full configurations that can be stored, read and built."""

import dataclasses
import json
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.errors import UserError
from cinnema.models.keypoint.model import KeypointModel
from cinnema.models.warping.model import WarpingModel, WarpingModelConfig
from cinnema.recipes import RECIPES, DataConfig, KeypointRecipe, Recipe
from cinnema.recipes.families import AnyRecipe

every_recipe = pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES.keys())


def _model_of(recipe: AnyRecipe) -> WarpingModel | KeypointModel:
    if isinstance(recipe, KeypointRecipe):
        return KeypointModel(recipe.model_config())
    return WarpingModel(
        WarpingModelConfig(
            name=recipe.name,
            stage1=recipe.stage1,
            conditioner=recipe.conditioner,
            flow=recipe.flow,
        )
    )


@every_recipe
def test_a_recipe_survives_json(make: Callable[[], AnyRecipe]) -> None:
    values = json.loads(json.dumps(config_to_dict(make())))
    assert config_from_dict(type(make()), values) == make()


@every_recipe
def test_a_recipe_makes_a_model_of_at_most_30_million_parameters(
    make: Callable[[], AnyRecipe],
) -> None:
    num_parameters = sum(p.numel() for p in _model_of(make()).parameters())
    assert num_parameters <= 30e6
    assert 2 * num_parameters <= 20e6  # bytes in the package


@every_recipe
def test_a_recipe_has_its_name(make: Callable[[], AnyRecipe]) -> None:
    assert RECIPES[make().name] is make


def test_a_field_that_is_unknown_is_named_at_any_depth() -> None:
    values = config_to_dict(RECIPES["landscape"]())
    values["picture"]["widnow"] = 64
    with pytest.raises(UserError, match=r"picture\.widnow"):
        config_from_dict(Recipe, values)


@pytest.mark.parametrize(
    "options",
    [{"sky_share": 1.5}, {"textures": {"clouds": -1.0}}, {"crops": 0}, {"exclude": ("a",)}],
)
def test_data_that_cannot_be_drawn_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        DataConfig(**{"textures": {"clouds": 1.0}, **options})


def test_a_training_under_the_name_of_another_phase_is_refused() -> None:
    recipe = RECIPES["landscape"]()
    with pytest.raises(ValueError, match=r"motion\.phase must be motion, got picture"):
        dataclasses.replace(recipe, motion=recipe.picture)
