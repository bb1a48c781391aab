"""All that is asked of a model, measured on scenes it was never trained on."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_class
from rich.console import Console
from rich.progress import track

from cinnema.backbones.lpips import LPIPS
from cinnema.core.errors import UserError
from cinnema.data.crops import SceneCrops
from cinnema.evaluation.inversion import Inversion, measure_inversion
from cinnema.evaluation.likelihood import (
    LIKELIHOOD_MEASURES,
    encode_scenes,
    fit_priors,
    score_likelihood,
)
from cinnema.evaluation.reconstruction import (
    FLOW_MEASURES,
    PIXEL_MEASURES,
    RECONSTRUCTION_MEASURES,
    score_flow,
    score_reconstruction,
)
from cinnema.evaluation.samples import (
    DIVERSITY_MEASURES,
    SAMPLE_MEASURES,
    score_diversity,
    score_samples,
)
from cinnema.evaluation.scores import Breakdown, ClipScore, break_down
from cinnema.evaluation.validation_tables import as_text
from cinnema.models.warping.model import WarpingModel


@config_class(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ValidationSettings:
    """How much is measured; the defaults take about five minutes on one CPU core.

    Attributes:
        num_reconstructed: Clips of each scene that are decoded and compared.
        num_flows: Clips of each scene whose flow is compared.
        num_started: Clips of each scene from which samples are drawn and compared.
        num_spread: Clips of each scene from which samples are drawn and only their flow is looked
            at.
        num_samples: K, samples of each start.
        num_latents: Clips of each scene whose likelihood is measured.
        num_fitted: Clips of each training scene on which the baselines are fitted.
        times: Frames that are compared, from 1 to T.
        seed: Of every draw.
    """

    num_reconstructed: int = Field(default=8, ge=1)
    num_flows: int = Field(default=48, ge=1)
    num_started: int = Field(default=3, ge=1)
    num_spread: int = Field(default=16, ge=1)
    num_samples: int = Field(default=10, ge=2)
    num_latents: int = Field(default=48, ge=1)
    num_fitted: int = Field(default=100, ge=2)
    times: tuple[int, ...] = (4, 8, 12, 16)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class ValidationReport:
    """What was measured.

    Attributes:
        reconstruction: LPIPS of decoded clips, of the frozen first frame, of the library's warp.
        pixels: L1 (of values in [0, 1]) and PSNR (dB) likewise.
        flow: Relative flow error of decoded clips.
        samples: LPIPS of the best of K samples, and of all, beside the frozen first frame.
        likelihood: Negative log-likelihood in nats a dimension of the flow and of two priors.
        diversity: How the samples of a start differ, and what moves that should not.
        inversion: Errors of the flow's round trips.
        settings: How much was measured.
        seconds: How long it took.
    """

    reconstruction: Breakdown
    pixels: Breakdown
    flow: Breakdown
    samples: Breakdown
    likelihood: Breakdown
    diversity: Breakdown
    inversion: Inversion
    settings: ValidationSettings
    seconds: float

    def breakdowns(self) -> dict[str, Breakdown]:
        """Return the measurements that are split by texture and scene, by name."""
        named = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in named if isinstance(value, Breakdown)}

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {name: part.to_dict() for name, part in self.breakdowns().items()} | {
            "inversion": self.inversion.to_dict(),
            "settings": asdict(self.settings),
            "seconds": round(self.seconds, 1),
        }

    def to_table(self) -> str:
        """Return tables for a terminal, as text."""
        tables = [as_text(part) for part in self.breakdowns().values()]
        errors = (
            f"Inversion, largest error of {self.inversion.num_rows} rows: "
            f"nu {self.inversion.residual:.1e}, z {self.inversion.latent:.1e}"
        )
        return "\n".join([*tables, errors, f"Measured in {self.seconds:.0f} s."])


def validate_model(
    model: WarpingModel,
    validation: Sequence[SceneCrops],
    *,
    train: Sequence[SceneCrops],
    lpips: LPIPS | None = None,
    settings: ValidationSettings | None = None,
    device: torch.device | None = None,
) -> ValidationReport:
    """Measure a model on validation scenes, in float32.

    The early stop of stage 2 looked at the likelihood on the same scenes; everything else in its
    training has not seen them.

    Args:
        model: Both stages; moved to the device and set to evaluation.
        validation: Scenes never trained on.
        train: Scenes trained on, for the priors that the flow has to beat; two at least.
        lpips: The distance; LPIPS with VGG16 if None.
        settings: How much is measured; see there for the default.
        device: Where to compute; where the model is if None.

    Raises:
        UserError: There are too few scenes, or a frame to compare does not exist.
    """
    settings = settings or ValidationSettings()
    _require(model, validation, train, settings)
    began = time.monotonic()
    device = device or next(model.parameters()).device
    model = model.to(device).float().eval()
    lpips = (lpips or LPIPS.load("vgg")).to(device)
    scores = _score_scenes(model, lpips, validation, settings)
    likelihood, inversion = _measure_flow(model, validation, train, settings)
    count = f"best of {settings.num_samples}"
    return ValidationReport(
        reconstruction=break_down(
            "Reconstruction, LPIPS", scores["reconstruction"], RECONSTRUCTION_MEASURES
        ),
        pixels=break_down("Reconstruction, pixels", scores["reconstruction"], PIXEL_MEASURES),
        flow=break_down("Reconstruction, flow", scores["flow"], FLOW_MEASURES),
        samples=break_down(f"Samples, LPIPS, {count}", scores["samples"], SAMPLE_MEASURES),
        likelihood=break_down(
            "Negative log-likelihood, nats a dimension", likelihood, LIKELIHOOD_MEASURES
        ),
        diversity=break_down(
            f"{settings.num_samples} samples of one start: degrees, and px a frame",
            scores["diversity"],
            DIVERSITY_MEASURES,
        ),
        inversion=inversion,
        settings=settings,
        seconds=time.monotonic() - began,
    )


def _score_scenes(
    model: WarpingModel,
    lpips: LPIPS,
    validation: Sequence[SceneCrops],
    settings: ValidationSettings,
) -> dict[str, list[ClipScore]]:
    stage1, times, seed = model.stage1, settings.times, settings.seed
    measurements: dict[str, Callable[[SceneCrops], list[ClipScore]]] = {
        "reconstruction": lambda crops: score_reconstruction(
            stage1, lpips, crops, num_clips=settings.num_reconstructed, times=times
        ),
        "flow": lambda crops: score_flow(stage1, crops, num_clips=settings.num_flows),
        "samples": lambda crops: score_samples(
            model,
            lpips,
            crops,
            num_clips=settings.num_started,
            num_samples=settings.num_samples,
            times=times,
            seed=seed,
        ),
        "diversity": lambda crops: score_diversity(
            model,
            crops,
            num_clips=settings.num_spread,
            num_samples=settings.num_samples,
            seed=seed,
        ),
    }
    console = Console(stderr=True)
    scores: dict[str, list[ClipScore]] = {name: [] for name in measurements}
    for crops in track(validation, "measuring", console=console, disable=not console.is_terminal):
        for name, measure in measurements.items():
            scores[name] += measure(crops)
    return scores


def _measure_flow(
    model: WarpingModel,
    validation: Sequence[SceneCrops],
    train: Sequence[SceneCrops],
    settings: ValidationSettings,
) -> tuple[list[ClipScore], Inversion]:
    noise = model.config.stage1.noise
    fitted = encode_scenes(model.stage1, train, num=settings.num_fitted)
    held_out = encode_scenes(model.stage1, validation, num=settings.num_latents)
    priors = fit_priors(fitted.pool, fitted.groups, noise=noise, seed=settings.seed)
    return (
        score_likelihood(model, priors, held_out, noise=noise, seed=settings.seed + 1),
        measure_inversion(model, held_out, noise=noise, seed=settings.seed + 2),
    )


def _require(
    model: WarpingModel,
    validation: Sequence[SceneCrops],
    train: Sequence[SceneCrops],
    settings: ValidationSettings,
) -> None:
    if not validation:
        raise UserError("validation: at least 1 scene is needed, got 0; give more clips")
    if len(train) < 2:
        raise UserError(
            f"train: at least 2 scenes are needed to fit the baselines, got {len(train)}; "
            "give more clips"
        )
    last = model.config.stage1.num_frames
    if not settings.times or not all(1 <= t <= last for t in settings.times):
        raise UserError(
            f"times: frames from 1 to {last} can be compared, got {settings.times}; "
            "choose among these"
        )
