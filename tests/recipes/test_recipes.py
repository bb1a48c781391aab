"""Recipes: full configurations that can be stored, read and built."""

import dataclasses
import json
from collections.abc import Callable

import pytest

from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.errors import UserError
from cinnema.recipes import RECIPES
from cinnema.training.recipe import KeypointRecipe, with_present_names
from tiny_recipes import KEYPOINT

every_recipe = pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES.keys())


@every_recipe
def test_a_recipe_survives_json(make: Callable[[], KeypointRecipe]) -> None:
    values = json.loads(json.dumps(config_to_dict(make())))
    assert config_from_dict(type(make()), values) == make()


@every_recipe
def test_a_recipe_makes_a_model_of_at_most_30_million_parameters(
    make: Callable[[], KeypointRecipe],
) -> None:
    num_parameters = sum(p.numel() for p in make().new_model().parameters())
    assert num_parameters <= 30e6
    assert 2 * num_parameters <= 20e6  # bytes in the package


@every_recipe
def test_a_recipe_has_its_name(make: Callable[[], KeypointRecipe]) -> None:
    assert RECIPES[make().name] is make


def test_a_field_that_is_unknown_is_named_at_any_depth() -> None:
    values = config_to_dict(RECIPES["robot"]())
    values["picture"]["momnets"] = 4
    with pytest.raises(UserError, match=r"picture\.momnets"):
        config_from_dict(KeypointRecipe, values)


def test_a_training_under_the_name_of_another_phase_is_refused() -> None:
    recipe = RECIPES["robot"]()
    with pytest.raises(ValueError, match=r"motion\.phase must be motion, got picture"):
        dataclasses.replace(recipe, motion=recipe.picture)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"motion": {"phase": "picture"}}, r"motion\.phase must be motion, got picture"),
        ({"stage1": {"landmarks": 0}}, "name a track and its length, or neither"),
        ({"end_point": None}, "conditioner.control_dim and the numbers of end_point"),
        ({"stage1": {"widht": 8}}, "stage1.widht"),
    ],
)
def test_a_recipe_whose_parts_do_not_fit_is_refused(
    change: dict[str, object], message: str
) -> None:
    values = config_to_dict(KEYPOINT)
    for name, value in change.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    with pytest.raises(UserError, match=message):
        config_from_dict(KeypointRecipe, values)


def test_a_recipe_that_an_earlier_version_wrote_is_read() -> None:
    values = config_to_dict(RECIPES["person"]())
    names = {"discriminators": "adversaries", "symmetric_keypoints": "twins",
             "teacher_forcing": "guided"}  # fmt: skip
    for phase in ("motion", "picture"):
        values[phase] = {names.get(name, name): value for name, value in values[phase].items()}
    assert config_from_dict(KeypointRecipe, with_present_names(values)) == RECIPES["person"]()
