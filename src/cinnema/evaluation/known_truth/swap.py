"""Tests that z and nu encode motion and not appearance: exchanged x0 and linear probes."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional

from cinnema.core.errors import UserError
from cinnema.evaluation.baselines import encoded, first_frames
from cinnema.evaluation.known_truth.decoding import (
    Controls,
    TaskMetric,
    all_partners,
    conditioned,
    decode_latent,
    required_controls,
)
from cinnema.evaluation.metrics.base import Entry, Task
from cinnema.evaluation.protocol import RealClip
from cinnema.evaluation.results import Cells, Column, Row, Target
from cinnema.evaluation.statistics.bootstrap import (
    ClusteredRows,
    Estimate,
    Rows,
    mean,
    ratio,
    resampled,
)
from cinnema.media.pictures import to_tensor
from cinnema.models.base import VideoModel
from cinnema.models.flow.priors import LinearGaussianPrior

_NUM_FOLDS = 5
_LAYOUT = 4  # rows and columns of the luminance
_LUMA = torch.tensor([0.299, 0.587, 0.114])

LATENT, RESIDUAL, MOVED, SAME, OTHER = (
    "z of (x0', z)",
    "nu of (x0', z)",
    "nu of (x0', T(nu; x0'))",
    "nu of (x0, z)",
    "nu of another clip",
)
NU, Z = "regression on nu", "regression on z"
_ROWS = (
    Row(name=LATENT, kind="model", about="z of the clip decoded from z and another x0"),
    Row(name=RESIDUAL, kind="model", about="nu of that clip given the other x0, compared with nu"),
    Row(name=MOVED, kind="model", about="nu of the clip decoded from nu and another x0"),
    Row(name=SAME, kind="baseline", about="nu of the clip decoded from nu and its own x0"),
    Row(name=OTHER, kind="baseline", about="nu of another clip, compared with nu: unrelated codes"),
    Row(name=NU, kind="model", about="ridge regression on nu"),
    Row(name=Z, kind="baseline", about="ridge regression on z, from which x0 is not removed"),
)
_NUM_PAIRS = 5
_COSINE = Column(
    name="cosine of codes",
    better="higher",
    group="swap",
    about="mean cosine of a code and the code that it is compared with, from -1 to 1",
)
_ERROR = Column(
    name="relative error of codes",
    better="lower",
    group="swap",
    about="root of the summed squared differences over those of the code; 0 is equal, about 1.4 "
    "are unrelated codes",
)


class Swap(TaskMetric):
    """Change of codes when the first frame is exchanged, and what they contain of x0.

    Each z is decoded with the first frame of another source, encoded again, and compared. What nu
    and z contain of x0 is the R^2 of a linear regression on source videos left out of its fit. The
    control is left out; a model that needs it gets the clip's own everywhere.

    Args:
        task: The evaluation, of clips of five sources at least.

    Raises:
        UserError: There are fewer sources, or the model needs a control that clips do not have.
    """

    rows = _ROWS

    def __init__(self, task: Task) -> None:
        super().__init__(task, length=3 * _NUM_PAIRS)
        starts = task.clips.starts
        num_sources = len({start.source for start in starts})
        if num_sources < _NUM_FOLDS:
            raise UserError(
                f"swaps and probes need {_NUM_FOLDS} source videos, got {num_sources}: give more"
            )
        self._partners = all_partners(starts)
        self._dim = task.model.flow_dim
        tracks = [task.clips.track(start) for start in starts]
        has_hand = all(track is not None and track.shape[1] == 3 for track in tracks)
        self._targets = {"x0's colours": 3, "x0's layout": _LAYOUT**2}
        if has_hand:
            self._targets["where the hand starts"] = 3
        length = 2 * self._dim + sum(self._targets.values())
        self._codes: ClusteredRows = self.sums.setdefault(("", "codes"), ClusteredRows(length))
        self.columns = (_COSINE, _ERROR, *map(_probe_column, self._targets))
        pairs = (LATENT, RESIDUAL, MOVED, SAME, OTHER)
        cosines = {(r, _COSINE.name): Entry(mean, (3 * i,)) for i, r in enumerate(pairs)}
        errors = {
            (r, _ERROR.name): Entry(_root_ratio, (3 * i + 1, 3 * i + 2))
            for i, r in enumerate(pairs)
        }
        self.entries = cosines | errors

    def measure(self, clips: Sequence[RealClip]) -> list[list[float]]:
        """Return cosine, squared difference and squared length of each pair of codes."""
        model = self._model
        others = [self._clips.read(self._partners[clip.start.key]) for clip in clips]
        x0, other = first_frames(model, clips), first_frames(model, others)
        etas, theirs = required_controls(model, clips), required_controls(model, others)
        z, c = encoded(model, clips), conditioned(model, x0, etas)
        nu, there = model.to_residual(z, c)[0], conditioned(model, other, etas)
        swapped = _round_trip(model, other, z)
        pairs = [
            (z, swapped),
            (nu, model.to_residual(swapped, there)[0]),
            (nu, _residual_again(model, other, model.to_latent(nu, there)[0], etas)),
            (nu, _residual_again(model, x0, z, etas)),
            (nu, model.to_residual(encoded(model, others), conditioned(model, other, theirs))[0]),
        ]
        end = self._dim  # the flow leaves the rest of z as it is
        self._keep_codes(clips, nu[:, :end], z[:, :end])
        compared = [_compared(a[:, :end], b[:, :end]) for a, b in pairs]
        return list(np.concatenate(compared, axis=1).tolist())

    def _keep_codes(self, clips: Sequence[RealClip], nu: Tensor, z: Tensor) -> None:
        parts = [nu.double().cpu(), z.double().cpu(), *_targets_of(clips, self._targets)]
        for clip, row in zip(clips, torch.cat(parts, dim=1).numpy(), strict=True):
            self._codes.add(clip.start.key, clip.source, row)

    def cells_of(self, row: str, keys: Sequence[str]) -> Cells:
        """Return the cosines and errors of codes, or of a regression its explained variance."""
        if row not in (NU, Z):
            return super().cells_of(row, keys)
        table, sources = self._codes.table(keys)
        if len(set(sources)) < _NUM_FOLDS:
            return {}
        widths = [self._dim, self._dim, *self._targets.values()]
        nu, z, *wanted = torch.from_numpy(table).split(widths, dim=1)
        codes = nu if row == NU else z
        return {
            _probe_column(name).name: explained(codes, values, sources)
            for name, values in zip(self._targets, wanted, strict=True)
        }

    def notes(self) -> list[str]:
        """Return what explained variance means."""
        return [
            "swap: regressions are tested on source videos left out of their fit; noise gives 0 or "
            "less"
        ]


def _probe_column(target: str) -> Column:
    return Column(
        name=f"explained variance of {target}",
        better="lower",
        group="swap",
        about="R^2 of a ridge regression on source videos left out of its fit, at most 1",
        target=Target(kind="at most", limit=0.05, row=NU),
    )


def _root_ratio(rows: Rows) -> float:
    return float(ratio(rows) ** 0.5)


def _round_trip(
    model: VideoModel, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
) -> Float[Tensor, "b z"]:
    """Decode z to an 8-bit video, and return the z of that video."""
    video = to_tensor(np.stack(decode_latent(model, x0, z))).to(x0)
    return model.encode(video)


def _residual_again(
    model: VideoModel,
    x0: Float[Tensor, "b 3 h w"],
    z: Float[Tensor, "b z"],
    etas: Controls | None,
) -> Float[Tensor, "b z"]:
    """Decode z to an 8-bit video, and return the nu of that video."""
    return model.to_residual(_round_trip(model, x0, z), conditioned(model, x0, etas))[0]


def _compared(a: Tensor, b: Tensor) -> Float64[np.ndarray, "b 3"]:
    """Return the cosine, squared difference and squared length of the first, of each row."""
    a, b = a.double().cpu(), b.double().cpu()
    columns = [
        functional.cosine_similarity(a, b, dim=1),
        (a - b).square().sum(dim=1),
        a.square().sum(dim=1),
    ]
    return np.asarray(torch.stack(columns, dim=1).numpy())


def _targets_of(
    clips: Sequence[RealClip], names: Mapping[str, int]
) -> list[Float64[Tensor, "n k"]]:  # fmt: skip
    """Return what a code should not contain of x0: colours, layout, where a hand starts."""
    x0 = to_tensor(np.stack([clip.frames[0] for clip in clips])).double()
    grey = torch.einsum("c,bchw->bhw", _LUMA.double(), x0)
    layout = functional.adaptive_avg_pool2d(grey[:, None], _LAYOUT).flatten(1)
    targets = [x0.mean(dim=(2, 3)), layout]
    if len(names) > len(targets):
        starts = [np.asarray(clip.track)[0] for clip in clips]
        targets.append(torch.from_numpy(np.stack(starts)).double())
    return targets


def explained(
    codes: Float[Tensor, "n z"], wanted: Float[Tensor, "n k"], sources: Sequence[str]
) -> Estimate:
    """Return R^2 of a linear regression on sources that are left out of its fit.

        R^2 = 1 - sum |y - y^|^2 / sum |y - m|^2

    with every column of y divided by its deviation, y^ the ridge regression fitted to the other
    folds and m their mean. A regression that has learnt nothing is not above 0; its penalty is
    chosen on sources left out within the other folds.

    Args:
        codes: Regressors, one row for each clip.
        wanted: Targets y, one row for each clip.
        sources: Source of each row; a source is in one fold of five.

    Returns:
        R^2 with an interval from resampling held-out sources; regressions are not refitted.
    """
    names = sorted(set(sources))
    groups = torch.tensor([names.index(source) for source in sources])
    y = wanted.double()
    y = (y - y.mean(dim=0)) / y.std(dim=0).clamp_min(1e-9)
    rows = torch.zeros(len(y), 2, dtype=torch.float64)
    for fold in range(_NUM_FOLDS):
        out = groups % _NUM_FOLDS == fold
        fitted = LinearGaussianPrior.fit(y[~out], codes[~out], groups=groups[~out])
        predicted = fitted.sample(codes[out].double(), temperature=0.0)
        rows[out, 0] = (y[out] - predicted).square().sum(dim=1)
        rows[out, 1] = (y[out] - y[~out].mean(dim=0)).square().sum(dim=1)
    return resampled(rows.numpy(), sources, _one_less)


def _one_less(rows: Rows) -> float:
    return 1 - ratio(rows)
