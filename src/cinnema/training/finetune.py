"""Fine-tuning of a nature model to the motion of a few videos, in minutes.

The model goes on from its trained weights. For each kind that the videos show, the linear-Gaussian
layer is adapted in closed form, shrunk towards the trained one by the number of scenes. Where there
are scenes enough to choose by, the flow's network is then trained for some steps.
"""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from cinnema.core.config import config_to_dict
from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.core.text import plural
from cinnema.models.flow.priors import LinearGaussianPrior
from cinnema.models.nature.flow import LinearGaussian
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import GEOMETRY_DIM, STEERED, NatureModel
from cinnema.training.cost import measure
from cinnema.training.loop import Position
from cinnema.training.motion_pool import MotionPool
from cinnema.training.nature import (
    KindFlowTraining,
    KindRows,
    held_out_scores,
    kind_rows,
    shrunk_prior,
)
from cinnema.training.nature_flow import KindFlowStep, RowBatches, fit_flow
from cinnema.training.time_budget import TimeBudget

Report = Callable[[str], None]

# Every how many scenes one is left out to choose the number of steps, and scenes needed for it.
_LEFT_OUT_OF = 4
_DRIFT_DIM = 2
_CHOICE, _TRAINING = "choice", "training"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Finetuning:
    """The options of a fine-tuning.

    Attributes:
        minutes: Minutes of training, at most; it ends earlier where scenes that are left out get
            no better. Preparing clips and measuring before and after come on top.
        starts: Largest number of starts that are cut from each video.
        flow: Training of the flow; `clips` is the largest number of rows, `prior_scenes` the number
            of scenes that the trained linear-Gaussian layer counts for.

    Raises:
        UserError: `flow.keep` is not "best".
    """

    minutes: float = Field(default=20.0, gt=0)
    starts: int = Field(default=12, ge=1)
    flow: KindFlowTraining = Field(
        default_factory=lambda: KindFlowTraining(
            clips=51_200,
            learning_rate=2e-4,
            weight_decay=0.0,
            validate_every=2_560,
            patience=5,
            keep="best",
            prior_scenes=8.0,
            condition_noise=0.3,
            look_dropout=0.15,
        )
    )

    def __post_init__(self) -> None:
        if self.flow.keep != "best" or self.flow.patience is None:
            raise UserError(
                'flow.keep must be "best" and flow.patience a number, as scenes that are left out '
                "choose the number of steps: change them"
            )


@plain_dataclass(frozen=True, eq=False)
class FinetuneResult:
    """The outcome of a fine-tuning.

    Attributes:
        model: The adapted model, in evaluation mode, on the CPU.
        scenes: Number of training scenes that show each kind.
        clips: Rows that the flow's network was trained on; 0 if it is that of the base.
        about: Base, settings and times, as JSON values.
    """

    model: NatureModel
    scenes: dict[str, int]
    clips: int
    about: dict[str, Any]


def finetune(
    base: NatureModel,
    pool: MotionPool,
    config: Finetuning,
    *,
    run: Path,
    name: str,
    about: dict[str, Any],
    report: Report = print,
) -> FinetuneResult:
    """Adapt a model to the scenes of a pool that are not held out, or resume the run.

    Args:
        base: The trained model, on the CPU; it is not changed.
        pool: Measured motion, by the base's kind network.
        config: The options.
        run: Folder of the run, with checkpoints and numbers; the same call resumes.
        name: Name of the adapted weights.
        about: What determines the pool, as JSON values, for the record.
        report: Called with a sentence about each part of the work.

    Raises:
        UserError: The training scenes show no kind; `run` holds another fine-tuning or cannot be
            written to; a loss is not finite.
    """
    used, seen = ~pool.held_out, config.flow.uses(pool)
    if not bool(seen[used[pool.scene]].any()):
        raise UserError(
            "the videos to train on show no sky, water, fire, plants, rain or snow that the "
            f"weights {base.name} see: give other videos"
        )
    rows = kind_rows(base, pool, seen)
    trained = rows.where(used[rows.scene])
    source = {
        "base": {"name": base.name, "weights": _digest(base)},
        **about,
        "settings": config_to_dict(config),
    }
    budget = TimeBudget(
        run / "plan.json",
        about=source,
        shares={_CHOICE: 1.0, _TRAINING: 1.0},
        minutes=config.minutes,
        clips=None,
    )
    budget.begin()
    clips = _choose_clips(base, rows, used, config.flow, budget, run=run, report=report)
    model = _renamed(base, name)
    adapt_linear(model, trained, config.flow.prior_scenes)
    if clips:
        fixed = replace(config.flow, clips=clips, keep="last", patience=None)
        fit_flow(model, rows, used, fixed, folder=run / _TRAINING)
        budget.finish(_TRAINING, run / _TRAINING)
    return FinetuneResult(
        model=model.eval(),
        scenes=scenes_by_kind(trained),
        clips=clips,
        about={"name": name, **source, "seconds": budget.spent()},
    )


def scenes_by_kind(rows: KindRows) -> dict[str, int]:
    """Return the number of scenes of each kind that rows are of."""
    numbers = {name: len(rows.scene[rows.kind == kind].unique()) for kind, name in enumerate(KINDS)}
    return {name: number for name, number in numbers.items() if number}


@torch.no_grad()
def adapt_linear(model: NatureModel, rows: KindRows, prior_scenes: float) -> None:
    """Adapt the linear-Gaussian layer of each kind to rows, without and with the control.

    The layer maps z to standard normal numbers, as far as the rows are like those that it was
    fitted to. What the rows' own numbers are instead, given the condition, is fitted, shrunk by
    n / (n + prior_scenes) for n scenes, and becomes part of the layer.

    Args:
        model: Its `flow.linear` is changed; kinds without rows keep theirs.
        rows: Rows to adapt to.
        prior_scenes: Number of scenes that the layer counts for as it is.
    """
    described = list(range(model.config.narrow + GEOMETRY_DIM))
    first = model.config.condition_dim - _DRIFT_DIM - 1
    steered = described + list(range(first, first + _DRIFT_DIM))
    for kind, name in enumerate(KINDS):
        own = rows.where(rows.kind == kind)
        if not len(own):
            continue
        num_scenes = len(own.scene.unique())
        share = num_scenes / (num_scenes + prior_scenes)
        _adapt_set(model.flow.linear, 2 * kind, own, described, share)
        if name in STEERED:
            _adapt_set(model.flow.linear, 2 * kind + 1, replace(own, c=own.c_given), steered, share)


def _adapt_set(
    layer: LinearGaussian, index: int, rows: KindRows, columns: list[int], share: float
) -> None:
    """Adapt one set of the layer's parameters to the rows of one kind."""
    white, _ = layer.to_residual(rows.z, rows.c)
    # The windows of a single scene stand in for scenes where one is left out.
    groups = rows.scene if len(rows.scene.unique()) > 1 else None
    prior = LinearGaussianPrior.fit(white, rows.c[:, columns], groups=groups)
    found = shrunk_prior(prior, columns, share, condition_dim=rows.c.shape[1])
    old = layer.cholesky[index].clone()
    layer.mean[index] += old @ found.mean
    layer.weight[index] += found.weight @ old.T
    layer.cholesky[index] = old @ found.cholesky


def _choose_clips(
    base: NatureModel,
    rows: KindRows,
    used: Bool[Tensor, " s"],
    config: KindFlowTraining,
    budget: TimeBudget,
    *,
    run: Path,
    report: Report,
) -> int:
    """Return the number of rows after which scenes that are left out fare best; 0 for none."""
    scenes = rows.scene[used[rows.scene]].unique()
    if len(scenes) < _LEFT_OUT_OF:
        report(
            f"the videos to train on are of {plural(len(scenes), 'scene')}, and it takes "
            f"{_LEFT_OUT_OF} to train the flow's network: the linear-Gaussian layer is adapted"
        )
        return 0
    order = scenes[torch.randperm(len(scenes), generator=generator_for(config.seed, 0))]
    left_out = torch.zeros_like(used)
    left_out[order[: len(scenes) // _LEFT_OUT_OF]] = True
    model, seen = _renamed(base, base.name), used & ~left_out
    adapt_linear(model, rows.where(seen[rows.scene]), config.prior_scenes)
    before = held_out_scores(model, rows.where(left_out[rows.scene]))["nll"]
    most = budget.clips_of(
        _CHOICE, lambda seconds: min(config.clips, _rows_in(seconds, model, rows, config))
    )
    report(f"choosing the number of steps on {plural(int(left_out.sum()), 'scene')} left out")
    planned = replace(config, clips=max(most, config.batch_size))
    result = fit_flow(model, rows, seen, planned, folder=run / _CHOICE, validated=left_out)
    budget.finish(_CHOICE, run / _CHOICE)
    if result.nll is None or result.nll >= before:
        report("scenes left out get no better by training the flow's network: it stays as it is")
        return 0
    return result.clips


def _rows_in(
    seconds: float, model: NatureModel, rows: KindRows, config: KindFlowTraining
) -> int:  # fmt: skip
    """Return how many rows a training processes in a time, measured by steps of a copy."""
    batches = RowBatches(rows, config, narrow=model.config.narrow)
    step = KindFlowStep(copy.deepcopy(model), config, data=None)
    _, pace = measure(
        lambda number: step.take(next(batches), Position(number)),
        batch_size=config.batch_size,
        device=torch.device("cpu"),
    )
    return int(pace * seconds)


def _renamed(base: NatureModel, name: str) -> NatureModel:
    """Return a copy of a model under another name."""
    model = copy.deepcopy(base)
    model.config = replace(base.config, name=name)
    return model


def _digest(model: NatureModel) -> str:
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
