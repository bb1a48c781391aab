"""Whether z and nu hold motion and no picture: exchanged first frames, and linear probes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional

from cinnema.core.errors import UserError
from cinnema.evaluation.baselines import encoded, first_frames
from cinnema.evaluation.known_truth.clips import (
    Etas,
    KnownClip,
    Progress,
    batches,
    developed,
    own_etas,
    partners_of,
    say_nothing,
    told,
)
from cinnema.evaluation.known_truth.results import Aim, Number, TaskResult
from cinnema.evaluation.statistics.bootstrap import Estimate, Rows, mean, ratio, resampled
from cinnema.media.pictures import to_tensor
from cinnema.models.base import VideoModel
from cinnema.models.flow.priors import LinearGaussianPrior

_NUM_FOLDS = 5
_LAYOUT = 4  # rows and columns of the luminance that is probed for
_LUMA = torch.tensor([0.299, 0.587, 0.114])

_LATENT, _RESIDUAL, _MOVED, _SAME, _RANDOM = range(5)  # pairs that are compared


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How near some codes are to others.

    Attributes:
        cosine: Mean cosine.
        error: Root of the summed squares of their difference over those of the first: 0 is equal,
            about 1.4 are codes that have nothing to do with each other.
    """

    cosine: Estimate
    error: Estimate


@dataclass(frozen=True, kw_only=True)
class SwapResult(TaskResult):
    """What of a code survives another first frame, and what it knows of its own.

    Attributes:
        latent: z of the decoded (x0', z) beside z.
        residual: nu of the decoded (x0', z) given x0', beside nu of (x0, z) given x0.
        moved: nu of the decoded (x0', T(nu; x0')) beside nu, as transfer has it.
        same: nu of the decoded (x0, z) beside nu: what a round trip leaves with no swap.
        random: nu of other clips beside nu.
        probes: Explained variance on held-out sources, by target, then by code (nu, z).
    """

    title: ClassVar[str] = "Another picture for a code"

    latent: Agreement
    residual: Agreement
    moved: Agreement
    same: Agreement
    random: Agreement
    probes: Mapping[str, Mapping[str, Estimate]]

    def numbers(self) -> Sequence[Number]:
        """Return cosines, errors and probes."""
        rows = (
            ("z of (x0', z), beside z", self.latent),
            ("nu of (x0', z), beside nu of (x0, z)", self.residual),
            ("nu of (x0', T(nu; x0')), beside nu", self.moved),
            ("nu of (x0, z), no swap", self.same),
            ("nu of another clip", self.random),
        )
        cosines = [Number(what="cosine", of=of, estimate=a.cosine) for of, a in rows]
        errors = [Number(what="relative error", of=of, estimate=a.error) for of, a in rows]
        aim = Aim(way="at most", limit=0.05)
        probes = [
            Number(
                what=f"explained variance of {target}",
                of=f"ridge regression on {code}",
                estimate=estimate,
                aim=aim if code == "nu" else None,
            )
            for target, by_code in self.probes.items()
            for code, estimate in by_code.items()
        ]
        return [*cosines, *errors, *probes]

    def notes(self) -> Sequence[str]:
        """Return what the probes are worth."""
        return ["probes are on source videos that the regression has not seen: noise gives <= 0"]


@dataclass
class _Codes:
    """What was found of each clip, row by row."""

    z: list[Tensor]
    nu: list[Tensor]
    pairs: list[Float64[np.ndarray, "5 3"]]


@torch.inference_mode()
def measure_swap(
    model: VideoModel,
    clips: Sequence[KnownClip],
    *,
    batch_size: int = 8,
    progress: Progress = say_nothing,
) -> SwapResult:
    """Decode each z with the first frame of another source, encode it again, and compare.

    The control is left out; a model that cannot do without is told the clip's own everywhere.

    Args:
        model: In evaluation mode.
        clips: Of five sources at least.
        batch_size: Clips at once.
        progress: Told how many are done.

    Raises:
        UserError: There are fewer sources.
    """
    sources = [clip.source for clip in clips]
    if len(set(sources)) < _NUM_FOLDS:
        raise UserError(
            f"swaps and probes need {_NUM_FOLDS} source videos, got {len(set(sources))}: give more"
        )
    others = dict(zip([c.start.key for c in clips], partners_of(clips), strict=True))
    codes = _Codes([], [], [])
    for batch in batches(clips, batch_size, text="swapping first frames", progress=progress):
        _swap(model, batch, [others[c.start.key] for c in batch], codes)
    table = np.stack(codes.pairs)
    parts = [_agreement(table[:, i], sources) for i in range(_RANDOM + 1)]
    return SwapResult(
        latent=parts[_LATENT],
        residual=parts[_RESIDUAL],
        moved=parts[_MOVED],
        same=parts[_SAME],
        random=parts[_RANDOM],
        probes=_probes({"nu": torch.stack(codes.nu), "z": torch.stack(codes.z)}, clips),
    )


def _swap(
    model: VideoModel, clips: Sequence[KnownClip], others: Sequence[KnownClip], codes: _Codes
) -> None:
    x0, other = first_frames(model, clips), first_frames(model, others)
    etas, theirs = own_etas(model, clips), own_etas(model, others)
    z, c = encoded(model, clips), told(model, x0, etas)
    nu, there = model.to_residual(z, c)[0], told(model, other, etas)
    swapped = _round_trip(model, other, z)
    pairs = [
        (z, swapped),
        (nu, model.to_residual(swapped, there)[0]),
        (nu, _again(model, other, model.to_latent(nu, there)[0], etas)),
        (nu, _again(model, x0, z, etas)),
        (nu, model.to_residual(encoded(model, others), told(model, other, theirs))[0]),
    ]
    codes.z += list(z.double().cpu())
    codes.nu += list(nu.double().cpu())
    rows = np.stack([_compared(a, b) for a, b in pairs], axis=1)
    codes.pairs += list(rows)


def _round_trip(
    model: VideoModel, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
) -> Float[Tensor, "b z"]:
    """Return z of what is decoded, seen as a video of 8 bits."""
    video = to_tensor(np.stack(developed(model, x0, z))).to(x0)
    return model.encode(video)


def _again(
    model: VideoModel,
    x0: Float[Tensor, "b 3 h w"],
    z: Float[Tensor, "b z"],
    etas: Etas | None,
) -> Float[Tensor, "b z"]:
    """Return nu of what is decoded."""
    return model.to_residual(_round_trip(model, x0, z), told(model, x0, etas))[0]


def _compared(a: Tensor, b: Tensor) -> Float64[np.ndarray, "b 3"]:
    """Cosine, squared length of the difference, squared length of the first, of each row."""
    a, b = a.double().cpu(), b.double().cpu()
    columns = [
        functional.cosine_similarity(a, b, dim=1),
        (a - b).square().sum(dim=1),
        a.square().sum(dim=1),
    ]
    return np.asarray(torch.stack(columns, dim=1).numpy())


def _agreement(table: Float64[np.ndarray, "n 3"], sources: Sequence[str]) -> Agreement:
    return Agreement(
        cosine=resampled(table[:, :1], sources, mean),
        error=resampled(table[:, 1:], sources, lambda rows: ratio(rows) ** 0.5),
    )


def _probes(
    codes: Mapping[str, Float[Tensor, "n z"]], clips: Sequence[KnownClip]
) -> dict[str, dict[str, Estimate]]:
    sources = [clip.source for clip in clips]
    return {
        target: {code: explained(values, wanted, sources) for code, values in codes.items()}
        for target, wanted in _targets(clips).items()
    }


def _targets(clips: Sequence[KnownClip]) -> dict[str, Float64[Tensor, "n k"]]:
    """What a code should not know of x0, by name."""
    x0 = to_tensor(np.stack([clip.frames[0] for clip in clips])).double()
    grey = torch.einsum("c,bchw->bhw", _LUMA.double(), x0)
    layout = functional.adaptive_avg_pool2d(grey[:, None], _LAYOUT).flatten(1)
    targets = {"x0's colours": x0.mean(dim=(2, 3)), "x0's layout": layout}
    starts = [clip.track[0] for clip in clips if clip.track is not None]
    if len(starts) == len(clips) and starts[0].shape == (3,):
        targets["where the hand starts"] = torch.from_numpy(np.stack(starts)).double()
    return targets


def explained(
    codes: Float[Tensor, "n z"], wanted: Float[Tensor, "n k"], sources: Sequence[str]
) -> Estimate:
    """Return R^2 of a linear probe on sources that it has not seen.

        R^2 = 1 - sum |y - y^|^2 / sum |y - m|^2

    with every column of y divided by its deviation, y^ the ridge regression of the other folds and
    m their mean. A probe that has learnt nothing is not above 0, as the mean costs nothing; its
    penalty is chosen on sources left out within the other folds.

    Args:
        codes: What is looked at.
        wanted: What is looked for.
        sources: Of each row; whole sources are in one fold of five.

    Returns:
        The share, and its interval over other held-out sources, at the regressions as they are.
    """
    names = sorted(set(sources))
    groups = torch.tensor([names.index(source) for source in sources])
    y = wanted.double()
    y = (y - y.mean(dim=0)) / y.std(dim=0).clamp_min(1e-9)
    rows = torch.zeros(len(y), 2, dtype=torch.float64)
    for fold in range(_NUM_FOLDS):
        out = groups % _NUM_FOLDS == fold
        fitted = LinearGaussianPrior.fit(y[~out], codes[~out], groups=groups[~out])
        said = fitted.sample(codes[out].double(), temperature=0.0)
        rows[out, 0] = (y[out] - said).square().sum(dim=1)
        rows[out, 1] = (y[out] - y[~out].mean(dim=0)).square().sum(dim=1)
    return resampled(rows.numpy(), sources, _explained)


def _explained(rows: Rows) -> float:
    return 1 - ratio(rows)
