"""Full configurations, one for each set of weights, and what makes networks of them."""

from collections.abc import Callable

from cinnema.recipes.keypoint import KeypointRecipe, person, robot
from cinnema.recipes.landscape import DataConfig, Recipe, landscape

RECIPES: dict[str, Callable[[], Recipe | KeypointRecipe]] = {
    "landscape": landscape,
    "robot": robot,
    "person": person,
}
"""Every recipe, by the name of the weights that it makes."""

__all__ = [
    "RECIPES",
    "DataConfig",
    "KeypointRecipe",
    "Recipe",
    "landscape",
    "person",
    "robot",
]
