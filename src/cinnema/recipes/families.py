"""What a recipe can be made into, whichever kind it is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cinnema.core.errors import UserError
from cinnema.recipes import assembly, cost, keypoint_assembly, keypoint_cost
from cinnema.recipes.keypoint import KeypointRecipe
from cinnema.recipes.landscape import Recipe

AnyRecipe: TypeAlias = Recipe | KeypointRecipe


@dataclass(frozen=True, kw_only=True)
class Family:
    """The functions for one kind of recipe; their arguments are those of the modules named.

    Attributes:
        train_stage1: Trains encoder and decoder.
        train_stage2: Trains the flow.
        bundle: Puts both into a weights file.
        estimate_stage1: Says what the training of stage 1 would cost.
        estimate_stage2: Likewise of stage 2.
    """

    train_stage1: Callable[..., Path]
    train_stage2: Callable[..., Path]
    bundle: Callable[..., Path]
    estimate_stage1: Callable[..., list[cost.CostEstimate]]
    estimate_stage2: Callable[..., list[cost.CostEstimate]]


def family_of(recipe: AnyRecipe, *, foregrounds: Path | None = None) -> Family:
    """Return what to make of a recipe.

    Args:
        recipe: Of any kind.
        foregrounds: Of synthetic skies, which only landscapes have.

    Raises:
        UserError: Foregrounds are given for another kind.
    """
    if isinstance(recipe, Recipe):
        return _drifting(foregrounds)
    if foregrounds is not None:
        raise UserError(
            f"foregrounds: the recipe {recipe.name} draws no synthetic skies: leave them out"
        )
    return Family(
        train_stage1=keypoint_assembly.train_stage1,
        train_stage2=keypoint_assembly.train_stage2,
        bundle=keypoint_assembly.bundle,
        estimate_stage1=keypoint_cost.estimate_stage1,
        estimate_stage2=keypoint_cost.estimate_stage2,
    )


def _drifting(foregrounds: Path | None) -> Family:
    def with_ground(train: Callable[..., Path]) -> Callable[..., Path]:
        return lambda *args, **kwargs: train(*args, foregrounds=foregrounds, **kwargs)

    return Family(
        train_stage1=with_ground(assembly.train_stage1),
        train_stage2=with_ground(assembly.train_stage2),
        bundle=assembly.bundle,
        estimate_stage1=cost.estimate_stage1,
        estimate_stage2=cost.estimate_stage2,
    )
