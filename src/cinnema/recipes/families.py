"""What a recipe can be made into, whichever kind it is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cinnema.core.errors import UserError
from cinnema.recipes import articulated_assembly, articulated_rehearsal, assembly, rehearsal
from cinnema.recipes.articulated import ArticulatedRecipe
from cinnema.recipes.landscape import Recipe

AnyRecipe: TypeAlias = Recipe | ArticulatedRecipe


@dataclass(frozen=True, kw_only=True)
class Family:
    """The functions for one kind of recipe; their arguments are those of the modules named.

    Attributes:
        train_stage1: Trains encoder and decoder.
        train_stage2: Trains the flow.
        bundle: Puts both into a weights file.
        rehearse_stage1: Says what the training of stage 1 would cost.
        rehearse_stage2: Likewise of stage 2.
    """

    train_stage1: Callable[..., Path]
    train_stage2: Callable[..., Path]
    bundle: Callable[..., Path]
    rehearse_stage1: Callable[..., list[rehearsal.Rehearsal]]
    rehearse_stage2: Callable[..., list[rehearsal.Rehearsal]]


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
        train_stage1=articulated_assembly.train_stage1,
        train_stage2=articulated_assembly.train_stage2,
        bundle=articulated_assembly.bundle,
        rehearse_stage1=articulated_rehearsal.rehearse_stage1,
        rehearse_stage2=articulated_rehearsal.rehearse_stage2,
    )


def _drifting(foregrounds: Path | None) -> Family:
    def with_ground(train: Callable[..., Path]) -> Callable[..., Path]:
        return lambda *args, **kwargs: train(*args, foregrounds=foregrounds, **kwargs)

    return Family(
        train_stage1=with_ground(assembly.train_stage1),
        train_stage2=with_ground(assembly.train_stage2),
        bundle=assembly.bundle,
        rehearse_stage1=rehearsal.rehearse_stage1,
        rehearse_stage2=rehearsal.rehearse_stage2,
    )
