"""The closed-form parts of a nature model, and the likelihood of measured motion.

From a pool of measured motion follow, in closed form, the normalisation of z, the projection of a
kind's look, and a linear-Gaussian layer for each kind. The flow's network starts at the identity
behind that layer; `nature_flow` trains it. Everything is counted by scene: clips of one scene
predict each other too well.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_class
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.models.flow.priors import LinearGaussianPrior
from cinnema.models.flow.transforms import Transform
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import (
    GEOMETRY_DIM,
    STEERED,
    Z_DIM,
    NatureModel,
)
from cinnema.models.nature.motion import NUM_FUNCTIONS, NUM_WAVES
from cinnema.training.loop import (
    Schedule,
)
from cinnema.training.motion_pool import MotionPool

# Scale of a velocity's coefficients, in medians of their absolute value.
_BEND = 1.5
_LEAST_SCALE, _LEAST_DEVIATION = 1e-5, 1e-3
# Kinds that move as plausibly backwards in time. Their mean motion is then level, whatever the few
# scenes of the training set did.
_REVERSIBLE = ("sky",)
_CONTROL_DIM = 3  # last columns of the condition: the drift, and whether it is given


@config_class(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KindFlowTraining:
    """The training of the flow of each kind's motion.

    Attributes:
        clips: Rows drawn before the training ends, at most. A row is one kind of one clip.
        batch_size: Rows a step.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        noise: Standard deviation of the noise on z.
        condition_noise: Standard deviation of the noise on look and place, in standard deviations
            of each number.
        look_dropout: Share of rows whose look is left out, from 0 to 1.
        control_share: Share of rows that are conditioned on the control where there is one.
        least_area: Share of the picture below which a kind in a clip is not used.
        prior_scenes: Number of scenes that the standard normal prior counts for: with n scenes of
            a kind, the linear-Gaussian layer has a share of n / (n + prior_scenes).
        validate_every: Rows between two validations.
        patience: Validations without a lower negative log-likelihood after which the training ends;
            None trains on all `clips`.
        keep: Which weights are kept, those "best" in validation or the "last".
        closer: Kinds that are learned from closer views as well, as few scenes show them.
        seed: Seed of all random draws.
    """

    clips: int = Field(default=204_800, ge=0)
    batch_size: int = Field(default=512, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    noise: float = Field(default=0.08, ge=0)
    condition_noise: float = Field(default=0.6, ge=0)
    look_dropout: float = Field(default=0.4, ge=0, le=1)
    control_share: float = Field(default=0.4, ge=0, le=1)
    least_area: float = Field(default=0.02, ge=0, lt=1)
    prior_scenes: float = Field(default=16.0, ge=0)
    validate_every: int = Field(default=25_600, ge=1)
    patience: int | None = Field(default=None, ge=1)
    keep: Literal["best", "last"] = "last"
    closer: tuple[str, ...] = ("fire", "plants", "falling")
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.closer) - set(KINDS))
        if unknown:
            raise UserError(f"closer: there is no kind {unknown[0]!r}: use {', '.join(KINDS)}")

    def uses(self, pool: MotionPool) -> Bool[Tensor, "n k"]:
        """Return which kinds of which clips are learned from."""
        allowed = torch.tensor([kind in self.closer for kind in KINDS])
        return (pool.area > self.least_area) & (allowed | ~pool.closer[:, None])

    def schedule(self) -> Schedule:
        """Return the schedule of the training; validations fall on whole steps."""
        steps = -(-self.validate_every // self.batch_size)
        return Schedule(
            clips=self.clips,
            batch_size=self.batch_size,
            validate_every=steps * self.batch_size,
            patience=10**9 if self.patience is None and self.keep == "best" else self.patience,
            keep_best=self.keep == "best",
            record_every=50,
        )


@dataclass(frozen=True)
class KindRows:
    """The motion of one kind in one clip, in each row.

    Attributes:
        z: Normalised motion.
        c: Condition without the control.
        c_given: Condition with the control; equal to `c` for kinds without one.
        kind: Index in `KINDS`.
        scene: Index of the scene.
        original: Whether the row is of the clip itself, neither mirrored nor backwards, and no
            closer view.
    """

    z: Float[Tensor, "n z"]
    c: Float[Tensor, "n c"]
    c_given: Float[Tensor, "n c"]
    kind: Int64[Tensor, " n"]
    scene: Int64[Tensor, " n"]
    original: Bool[Tensor, " n"]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.z)

    def where(self, chosen: Bool[Tensor, " n"]) -> "KindRows":
        """Return some of the rows."""
        return KindRows(**{name: value[chosen] for name, value in vars(self).items()})


def mirrored_motion(raw: Float[Tensor, "*b r"]) -> Float[Tensor, "*b r"]:
    """Return the measured motion of mirrored clips: cosines change sign with their odd columns."""
    sign = torch.tensor([1.0, -1.0]).repeat(NUM_FUNCTIONS // 2).to(raw)
    assert NUM_WAVES % 2 == 0  # the columns of each row of functions begin with an even one
    out = raw.clone()
    out[..., :NUM_FUNCTIONS] *= -sign
    out[..., NUM_FUNCTIONS:-1] *= sign
    return out


def reversed_motion(raw: Float[Tensor, "*b r"]) -> Float[Tensor, "*b r"]:
    """Return the measured motion of clips that are played backwards."""
    return torch.cat([-raw[..., :-1], raw[..., -1:]], -1)


def fit_closed_form(
    model: NatureModel, pool: MotionPool, used: Bool[Tensor, " s"], config: KindFlowTraining
) -> KindRows:
    """Fit everything but the networks, and return the rows of all scenes.

    Args:
        model: Its buffers are set: normalisation of z, look, and linear-Gaussian layers.
        pool: Measured motion.
        used: Scenes to fit on.
        config: Smallest area and weight of the standard normal prior.

    Raises:
        UserError: No kind is seen in two of the scenes.
    """
    seen = config.uses(pool)
    trained = seen & used[pool.scene][:, None]
    fit_normalisation(model, pool.raw, trained)
    fit_look(model, pool.look, trained)
    rows = kind_rows(model, pool, seen)
    if not fit_linear(model, rows.where(used[rows.scene]), config.prior_scenes):
        raise UserError(
            "no kind is seen in 2 or more scenes: give more clips, or train the kind network longer"
        )
    return rows


@torch.no_grad()
def fit_normalisation(
    model: NatureModel, raw: Float[Tensor, "n k r"], used: Bool[Tensor, "n k"]
) -> None:
    """Set scale, mean and deviation of each kind's motion from clips and their mirror images.

    Args:
        model: Its `z_scale`, `z_mean` and `z_deviation` are set; kinds without clips keep theirs.
        raw: Measured motion.
        used: Clips of each kind that are fitted to.
    """
    for kind in range(len(KINDS)):
        own = raw[used[:, kind], kind]
        if len(own) < 2:
            continue
        both = torch.cat([own, mirrored_motion(own)])
        if KINDS[kind] in _REVERSIBLE:
            both = torch.cat([both, reversed_motion(both)])
        scale = _BEND * both[:, :-1].abs().median(0).values + _LEAST_SCALE
        bent = torch.cat([(both[:, :-1] / scale).asinh(), both[:, -1:]], 1)
        model.z_scale[kind] = scale
        model.z_mean[kind] = bent.mean(0)
        model.z_deviation[kind] = bent.std(0).clamp_min(_LEAST_DEVIATION)


@torch.no_grad()
def fit_look(model: NatureModel, look: Float[Tensor, "n k f"], used: Bool[Tensor, "n k"]) -> None:
    """Set the projection of looks: principal components, scaled to deviation 1.

    Args:
        model: Its `look_mean` and `look_projection` are set.
        look: Looks of the kinds in the clips.
        used: Clips of each kind that are fitted to.
    """
    rows = look[used].to(model.look_mean)
    narrow = model.config.narrow
    model.look_projection.zero_()
    model.look_mean.copy_(rows.mean(0))
    _, singular, axes = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    deviation = singular[:narrow] / len(rows) ** 0.5
    kept = int((deviation > _LEAST_DEVIATION).sum())
    model.look_projection[:, :kept] = axes[:kept].T / deviation[:kept]


@torch.no_grad()
def kind_rows(model: NatureModel, pool: MotionPool, seen: Bool[Tensor, "n k"]) -> KindRows:
    """Return a row for each kind that each clip shows, for its mirror image, and backwards.

    Only the sky is also played backwards.

    Args:
        model: Its normalisation and look are fitted.
        pool: Measured motion.
        seen: Kinds that each clip shows.
    """
    z = model.normalised(pool.raw)
    empty = z.new_zeros(len(z), Z_DIM - z[0].numel())
    eta = model.drift_in(torch.cat([z.flatten(1), empty], 1), pool.cells)
    c, c_given = (model.describe_summary(pool.summary, control) for control in (None, eta))
    flipped = mirrored_motion(pool.raw)
    narrow = model.config.narrow
    clip, kind = seen.nonzero(as_tuple=True)
    backwards = torch.tensor([KINDS[k] in _REVERSIBLE for k in kind.tolist()])
    mirror = _mirrored(c, narrow), _mirrored(c_given, narrow)
    parts = [(z, c, c_given), (model.normalised(flipped), *mirror)]
    chosen = [torch.ones_like(backwards)] * 2 + [backwards] * 2
    for raw, (free, given) in ((pool.raw, (c, c_given)), (flipped, mirror)):
        turned = given.clone()
        turned[..., -_CONTROL_DIM:-1] *= -1
        parts.append((model.normalised(reversed_motion(raw)), free, turned))
    rows = [
        torch.cat([part[column][seen][keep] for part, keep in zip(parts, chosen, strict=True)])
        for column in range(3)
    ]
    return KindRows(
        z=rows[0],
        c=rows[1],
        c_given=rows[2],
        kind=torch.cat([kind[keep] for keep in chosen]),
        scene=torch.cat([pool.scene[clip[keep]] for keep in chosen]),
        original=torch.cat(
            [~pool.closer[clip[keep]] & (index == 0) for index, keep in enumerate(chosen)]
        ),
    )


def fit_linear(model: NatureModel, rows: KindRows, prior_scenes: float) -> int:
    """Set the linear-Gaussian layer of each kind, without and with the control.

    Without a control, mean, slope and covariance of n scenes are shrunk by n / (n + prior_scenes)
    towards the standard normal; with one they are not, since the control explains the scale.

    Args:
        model: Its `flow.linear` is set; kinds of fewer than 2 scenes become standard normal.
        rows: Rows to fit to.
        prior_scenes: Number of scenes that the standard normal counts for.

    Returns:
        Number of kinds that were fitted.
    """
    layer, fitted = model.flow.linear, 0
    described = list(range(model.config.narrow + GEOMETRY_DIM))
    drift = [rows.c.shape[1] - _CONTROL_DIM, rows.c.shape[1] - _CONTROL_DIM + 1]
    for kind, name in enumerate(KINDS):
        own = rows.where(rows.kind == kind)
        _set_linear(layer, 2 * kind, None, [], 0.0)
        _set_linear(layer, 2 * kind + 1, None, [], 0.0)
        num_scenes = len(own.scene.unique())
        if num_scenes < 2:
            continue
        share = num_scenes / (num_scenes + prior_scenes)
        prior = LinearGaussianPrior.fit(own.z, own.c[:, described], groups=own.scene)
        _set_linear(layer, 2 * kind, prior, described, share)
        fitted += 1
        if name in STEERED:
            columns = described + drift
            prior = LinearGaussianPrior.fit(own.z, own.c_given[:, columns], groups=own.scene)
            _set_linear(layer, 2 * kind + 1, prior, columns, 1.0)
    return fitted


def _set_linear(
    layer: Any,  # noqa: ANN401 - a LinearGaussian, whose buffers are typed as tensors
    index: int,
    prior: LinearGaussianPrior | None,
    columns: list[int],
    share: float,
) -> None:
    """Set one set of parameters: `share` of a prior, and the rest standard normal."""
    if prior is None:
        layer.mean[index], layer.weight[index] = 0.0, 0.0
        layer.cholesky[index] = torch.eye(layer.mean.shape[1])
        return
    shrunk = shrunk_prior(prior, columns, share, condition_dim=layer.weight.shape[1])
    layer.mean[index], layer.weight[index], layer.cholesky[index] = shrunk


class ShrunkPrior(NamedTuple):
    """The distribution of mean + c weight + cholesky nu, for standard normal nu."""

    mean: Float[Tensor, " z"]
    weight: Float[Tensor, "c z"]
    cholesky: Float[Tensor, "z z"]


def shrunk_prior(
    prior: LinearGaussianPrior, columns: list[int], share: float, *, condition_dim: int
) -> ShrunkPrior:
    """Return `share` of a prior, and the rest standard normal.

    Args:
        prior: The prior, fitted to some columns of the condition.
        columns: Those columns.
        share: From 0 to 1.
        condition_dim: Columns of the condition.
    """
    mean, cholesky = prior.residual.mean, prior.residual.cholesky
    weight = torch.zeros(condition_dim, len(mean), dtype=torch.float64)
    weight[columns] = share * prior.weight
    covariance = share * cholesky @ cholesky.T
    covariance = covariance + (1 - share) * torch.eye(len(mean), dtype=torch.float64)
    return ShrunkPrior(
        (share * mean - prior.centre @ weight[columns]).float(),
        weight.float(),
        torch.linalg.cholesky(covariance).float(),
    )


def _mirrored(c: Float[Tensor, "n k c"], narrow: int) -> Float[Tensor, "n k c"]:
    """Return conditions of mirrored pictures: x of the place and of the drift change sign."""
    c = c.clone()
    c[..., narrow + 1] *= -1
    c[..., -_CONTROL_DIM] *= -1
    return c


@torch.no_grad()
def negative_log_likelihood(
    flow: Transform, z: Float[Tensor, "n z"], c: Float[Tensor, "n c"]
) -> Float64[Tensor, " n"]:
    """Return -log p(z | c) of each row, in nats per dimension.

    Args:
        flow: A flow, or one of its layers, in evaluation mode.
        z: Latents.
        c: Conditions.
    """
    nu, log_det = flow.to_residual(z, c)
    log_prob = log_det.double() - 0.5 * (nu.double().square() + math.log(2 * math.pi)).sum(1)
    return -log_prob / z.shape[1]


def mean_by_scene(values: Float64[Tensor, " n"], rows: KindRows) -> float:
    """Return the mean over scenes and kinds, each of which counts once; NaN without rows."""
    key = rows.scene * len(KINDS) + rows.kind
    means = [float(values[key == k].mean()) for k in key.unique()]
    return float(np.mean(means)) if means else math.nan


def held_out_scores(model: NatureModel, rows: KindRows) -> dict[str, float]:
    """Return "nll" of the flow and "nll_linear" of its linear-Gaussian layer alone, given x0.

    Args:
        model: In evaluation mode.
        rows: Held-out rows; mirror images are left out.
    """
    own = rows.where(rows.original)
    out = {"nll": _nll(model, own), "nll_linear": _nll(model, own, linear=True)}
    for kind, name in enumerate(KINDS):
        part = own.where(own.kind == kind)
        if len(part):
            out[f"nll_{name}"] = _nll(model, part)
    return out


def _nll(model: NatureModel, rows: KindRows, *, linear: bool = False) -> float:
    flow = model.flow.linear if linear else model.flow
    return mean_by_scene(negative_log_likelihood(flow, rows.z, rows.c), rows)
