"""Nested cross-validation of the nature model's flow over scenes."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import NatureModel, NatureModelConfig
from cinnema.training.motion_pool import MotionPool
from cinnema.training.nature import (
    KindFlowTraining,
    KindRows,
    fit_closed_form,
    held_out_scores,
    negative_log_likelihood,
)
from cinnema.training.nature_flow import fit_flow


@dataclass(frozen=True)
class NestedScores:
    """Negative log-likelihoods of held-out scenes, in nats per dimension, given x0.

    Each scene was held out of everything that its numbers depend on, and also of the choice of the
    number of steps.

    Attributes:
        flow: Of the flow, for each scene and kind.
        linear: Of the linear-Gaussian layer alone.
        scenes: Name of each row's scene.
        kinds: Kind of each row.
        clips: Rows that each fold was trained on, as chosen inside it.
    """

    flow: Float64[np.ndarray, " n"]
    linear: Float64[np.ndarray, " n"]
    scenes: tuple[str, ...]
    kinds: tuple[str, ...]
    clips: tuple[int, ...]


def cross_validate(
    config: NatureModelConfig,
    pool: MotionPool,
    training: KindFlowTraining,
    *,
    num_folds: int,
    folder: Path,
) -> NestedScores:
    """Score flow and linear-Gaussian layer by nested cross-validation over scenes.

    In each fold, a further part of the training scenes is held out to choose the number of steps;
    then both are fitted to all training scenes of the fold. Where no number of steps beats the
    linear-Gaussian layer, the flow's network stays the identity.

    Args:
        config: Sizes of the model.
        pool: Measured motion; scenes that are held out of it are not used.
        training: The training; `clips` is the largest number of rows.
        num_folds: Number of folds, at least 3.
        folder: Folder of the run, with one for each fold.

    Raises:
        UserError: There are fewer scenes than folds, or fewer than 3 folds; and as `fit_flow`.
    """
    fold = fold_of_scenes(pool, num_folds=num_folds, seed=training.seed)
    parts, clips = [], []
    for number in range(num_folds):
        place = folder / f"fold-{number}"
        outer = (fold >= 0) & (fold != number)
        inner = outer & (fold != (number + 1) % num_folds)
        seen = replace(training, keep="best")
        model, rows = _fitted(config, pool, inner, training)
        validated = outer & ~inner
        best = fit_flow(model, rows, inner, seen, folder=place / "inner", validated=validated)
        chosen = held_out_scores(model, rows.where(validated[rows.scene]))
        clips.append(best.clips if chosen["nll"] < chosen["nll_linear"] else 0)
        model, rows = _fitted(config, pool, outer, training)
        if clips[-1]:
            fixed = replace(training, clips=clips[-1], keep="last", patience=None)
            fit_flow(model, rows, outer, fixed, folder=place / "outer")
        parts.append(_scored(model, rows.where((fold == number)[rows.scene] & rows.original)))
    flow, linear, scene, kind = (torch.cat(column) for column in zip(*parts, strict=True))
    return NestedScores(
        flow=flow.numpy(),
        linear=linear.numpy(),
        scenes=tuple(pool.scenes[s] for s in scene.tolist()),
        kinds=tuple(KINDS[k] for k in kind.tolist()),
        clips=tuple(clips),
    )


def fold_of_scenes(pool: MotionPool, *, num_folds: int, seed: int) -> Int64[Tensor, " s"]:
    """Return the fold of each scene, at random; -1 for scenes that the pool holds out.

    Raises:
        UserError: There are fewer scenes than folds, or fewer than 3 folds.
    """
    free = (~pool.held_out).nonzero()[:, 0]
    if not 3 <= num_folds <= len(free):
        raise UserError(
            f"nested cross-validation needs from 3 to {len(free)} folds, as many as scenes that "
            f"are trained on, got {num_folds}: change it, or give more scenes"
        )
    order = torch.randperm(len(free), generator=generator_for(seed, 0))
    fold = torch.full((len(pool.held_out),), -1)
    fold[free[order]] = torch.arange(len(free)) % num_folds
    return fold


def _fitted(
    config: NatureModelConfig,
    pool: MotionPool,
    used: Bool[Tensor, " s"],
    training: KindFlowTraining,
) -> tuple[NatureModel, KindRows]:
    with torch.random.fork_rng(devices=[]):
        model = NatureModel(config).eval()
    return model, fit_closed_form(model, pool, used, training)


def _scored(model: NatureModel, rows: KindRows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the mean over the clips of each scene and kind: flow, linear, scene, kind."""
    model.eval()
    flow, linear = (
        negative_log_likelihood(f, rows.z, rows.c) for f in (model.flow, model.flow.linear)
    )
    key = rows.scene * len(KINDS) + rows.kind
    keys = key.unique()
    means = [torch.stack([x[key == k].mean() for k in keys]) for x in (flow, linear) if len(keys)]
    if not means:
        empty = torch.zeros(0, dtype=torch.float64)
        return empty, empty, keys, keys
    return means[0], means[1], keys // len(KINDS), keys % len(KINDS)
