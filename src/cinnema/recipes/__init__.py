"""The full configurations of the shipped weights, one function each, and the clips they use."""

from collections.abc import Callable

from cinnema.recipes.person import person
from cinnema.recipes.robot import robot
from cinnema.training.recipe import KeypointRecipe

RECIPES: dict[str, Callable[[], KeypointRecipe]] = {"robot": robot, "person": person}
"""The recipes of keypoint models by the name of their weights."""

__all__ = ["RECIPES", "person", "robot"]
