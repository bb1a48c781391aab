"""The full configurations of the shipped weights, one function each, and the clips they use."""

from collections.abc import Callable

from cinnema.recipes.drift import drift
from cinnema.recipes.person import person
from cinnema.recipes.robot import robot
from cinnema.training.keypoint import KeypointRecipe
from cinnema.training.warping import WarpingRecipe

RECIPES: dict[str, Callable[[], WarpingRecipe | KeypointRecipe]] = {
    "drift": drift,
    "robot": robot,
    "person": person,
}
"""The recipes by the name of their weights."""

__all__ = ["RECIPES", "drift", "person", "robot"]
