"""Two models on the same clips, as before and after fine-tuning, with paired intervals.

Every clip is measured with both models, so the interval of their difference is much narrower than
those of the two numbers. `cinnema evaluate --against` compares any two models in the same way.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from PIL import Image, ImageDraw
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cinnema.backbones.lpips import LPIPS
from cinnema.core.files import atomic_path
from cinnema.core.randomness import generator_for
from cinnema.core.text import plural
from cinnema.data.crops import SceneCrops
from cinnema.evaluation.likelihood import encode_scenes, negative_log_likelihood, with_noise
from cinnema.evaluation.protocol import CropClips, RealClip
from cinnema.evaluation.statistics.bootstrap import (
    MIN_SOURCES,
    Estimate,
    finite,
    ratio,
    resampled,
)
from cinnema.evaluation.warping_scores import flow_scores, reconstruction_scores, sample_scores
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.models.warping.model import WarpingModel
from cinnema.models.warping.stage1 import Stage1
from cinnema.training.run import counted

_NUM_DRAWS = 4  # noise samples per clip, for its likelihood
_GAP, _GREY, _LABEL = 4, 128, 96


@dataclass(frozen=True)
class ClipScore:
    """Scores of one clip.

    Attributes:
        source: Name of the clip's source video.
        values: Scores by name.
    """

    source: str
    values: Mapping[str, float]


Scores = Mapping[str, Sequence[ClipScore]]
"""Scores of each clip, by kind ("reconstruction", "samples", "likelihood", ...)."""


@dataclass(frozen=True)
class _Quantity:
    """A row of the comparison: sum(top) / sum(bottom) over clips; lower is better for all."""

    name: str
    kind: str
    top: str
    bottom: str | None = None


_QUANTITIES = (
    _Quantity("relative flow error", "flow", "flow_error", "flow_motion"),
    _Quantity("LPIPS, reconstruction", "reconstruction", "lpips_model"),
    _Quantity("LPIPS, frozen first frame", "reconstruction", "lpips_frozen"),
    _Quantity("LPIPS, warped by the clip's own flow", "reconstruction", "lpips_warped"),
    _Quantity("LPIPS, best of {k} samples", "samples", "lpips_best"),
    _Quantity("LPIPS, mean of {k} samples", "samples", "lpips_mean"),
    _Quantity("LPIPS, frozen, of those clips", "samples", "lpips_frozen"),
    _Quantity("negative log-likelihood, nats a dimension", "likelihood", "nll"),
    _Quantity("synthetic skies: relative flow error", "sky_flow", "flow_error", "flow_motion"),
    _Quantity("synthetic skies: nats a dimension", "sky_likelihood", "nll"),
)


@dataclass(frozen=True)
class ChangedRow:
    """One quantity before and after.

    Attributes:
        name: Name of the quantity; lower is better.
        before: Its value for the first model.
        after: Its value for the second.
        change: The second less the first, with its 95 % interval.
    """

    name: str
    before: float
    after: float
    change: Estimate


@dataclass(frozen=True)
class Comparison:
    """Two models on the same clips.

    Attributes:
        names: Names of the two models.
        rows: The compared quantities.
        over: What is resampled for the intervals: "videos", or with fewer than three of them
            "clips of 2 videos".
    """

    names: tuple[str, str]
    rows: tuple[ChangedRow, ...]
    over: str

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values; numbers that are not finite become None."""
        return {
            "models": list(self.names),
            "intervals": f"95 %, over {self.over}",
            "rows": {
                row.name: {
                    "before": finite(row.before),
                    "after": finite(row.after),
                    "change": row.change.to_dict(),
                }
                for row in self.rows
            },
        }

    def to_table(self) -> str:
        """Return a table for a terminal, as text."""
        table = Table(box=SIMPLE_HEAD)
        table.add_column("lower is better", no_wrap=True)
        for name in (*self.names, f"change (95 %, over {self.over})", "clips"):
            table.add_column(name, justify="right")
        for row in self.rows:
            table.add_row(
                row.name, f"{row.before:.3f}", f"{row.after:.3f}", _signed(row.change),
                str(row.change.num_clips),
            )  # fmt: skip
        console = Console(file=io.StringIO(), width=140, markup=False, color_system=None)
        console.print(table)
        assert isinstance(console.file, io.StringIO)
        lines = console.file.getvalue().splitlines()
        return "\n".join(line.rstrip() for line in lines if line.strip())

    def row(self, name: str) -> ChangedRow:
        """Return the row of a quantity by the beginning of its name."""
        return next(row for row in self.rows if row.name.startswith(name))


@dataclass(frozen=True)
class BeforeAfter:
    """Computes and compares the scores of models on held-out clips and on synthetic skies.

    Attributes:
        held_out: Held-out clips by source video, at least one.
        skies: Simulated clips that a tuned model should not forget; may be empty.
        lpips: LPIPS network, on the models' device.
        times: Frames that are compared, from 1 to T.
        num_rendered: Total number of clips that are decoded and compared, over all videos.
        num_started: Total number of clips from which samples are drawn, over all videos.
        num_samples: Number of samples drawn for each of these clips.
        seed: Seed of the samples and of the noise.
    """

    held_out: Sequence[SceneCrops]
    skies: Sequence[SceneCrops]
    lpips: LPIPS
    times: tuple[int, ...] = (4, 8, 12, 16)
    num_rendered: int = 8
    num_started: int = 4
    num_samples: int = 5
    seed: int = 0

    def stage1(self, stage1: Stage1) -> dict[str, list[ClipScore]]:
        """Return the scores that depend on stage 1 alone: flow and reconstruction.

        Args:
            stage1: Stage 1 in evaluation mode, float32.
        """
        return {
            "flow": _flow(stage1, self.held_out),
            "reconstruction": [
                ClipScore(
                    clip.source, reconstruction_scores(stage1, self.lpips, clip, times=self.times)
                )
                for clip in _each(self._first(self.num_rendered), "reconstructing clips")
            ],
            "sky_flow": _flow(stage1, self.skies),
        }

    def stage2(self, model: WarpingModel) -> dict[str, list[ClipScore]]:
        """Return the scores that depend on both stages: samples and likelihood.

        Args:
            model: The model in evaluation mode, float32.
        """
        return {
            "samples": [
                ClipScore(
                    clip.source,
                    sample_scores(
                        model, self.lpips, clip, num_samples=self.num_samples, times=self.times,
                        seed=self.seed,
                    ),
                )
                for clip in _each(self._first(self.num_started), "drawing samples")
            ],
            "likelihood": _likelihood(model, self.held_out, seed=self.seed),
            "sky_likelihood": _likelihood(model, self.skies, seed=self.seed),
        }  # fmt: skip

    def compared(self, names: tuple[str, str], before: Scores, after: Scores) -> Comparison:
        """Return the scores of two models side by side.

        Args:
            names: Names of the models.
            before: Scores of the first model, from `stage1` or from both stages.
            after: Scores of the second model; only kinds that both models have are compared.
        """
        num_videos = len(self.held_out)
        by_clip = num_videos < MIN_SOURCES
        return Comparison(
            names=names,
            rows=tuple(
                _row(q, before, after, num_samples=self.num_samples, by_clip=by_clip)
                for q in _QUANTITIES
                if before.get(q.kind) and after.get(q.kind)
            ),
            over=f"clips of {plural(num_videos, 'video')}" if by_clip else "videos",
        )

    def dump(self, scores: Scores) -> dict[str, Any]:
        """Return scores as JSON values."""
        return {kind: [asdict(score) for score in of_kind] for kind, of_kind in scores.items()}

    def load(self, values: Mapping[str, Any]) -> dict[str, list[ClipScore]]:
        """Return the scores that `dump` has returned as JSON values."""
        return {kind: [ClipScore(**score) for score in of_kind] for kind, of_kind in values.items()}

    def _first(self, num: int) -> list[RealClip]:
        """Return the first clips of each video, `num` of all together or a few more."""
        each = -(-num // len(self.held_out))
        clips = _clips_of(self.held_out)
        return [clips.read(start) for start in clips.starts if start.sample < each]


def _each(clips: Sequence[RealClip], name: str) -> Iterator[RealClip]:
    """Yield clips, and show how many are done."""
    with counted(name, total=len(clips)) as count:
        for done, clip in enumerate(clips):
            count(done)
            yield clip
        count(len(clips))


def _clips_of(crops: Sequence[SceneCrops]) -> CropClips:
    return CropClips(crops, num_frames=crops[0].frames.shape[1] - 1, name="crops")


def _flow(stage1: Stage1, crops: Sequence[SceneCrops]) -> list[ClipScore]:
    return [
        ClipScore(source.scene.name, scores)
        for source in crops
        for scores in flow_scores(stage1, np.asarray(source.frames[:, 0]), source.flow)
    ]


@torch.no_grad()
def _likelihood(
    model: WarpingModel, crops: Sequence[SceneCrops], *, seed: int
) -> list[ClipScore]:  # fmt: skip
    """Return the negative log-likelihood of each clip's z without a control; may be empty."""
    if not crops:
        return []
    latents = encode_scenes(model.stage1, crops, num=max(map(len, crops)))
    device = next(model.parameters()).device
    c = model.conditioner(latents.pool.joint.float().to(device))
    noise = model.config.stage1.noise
    draws = [with_noise(latents.pool.z, noise=noise, draw=d, seed=seed) for d in range(_NUM_DRAWS)]
    nll = negative_log_likelihood(lambda z: model.flow.log_prob(z.to(device), c), draws)
    values = nll.mean(dim=0).tolist()
    return [
        ClipScore(latents.scenes[group], {"nll": values[i]})
        for i, group in enumerate(latents.groups.tolist())
    ]


@torch.no_grad()
def draw_grid(
    path: Path,
    models: Mapping[str, WarpingModel],
    crops: Sequence[SceneCrops],
    *,
    num_clips: int = 2,
    num_frames: int = 5,
    seed: int = 0,
) -> None:
    """Draw clips into a PNG file: the real frames, each model's reconstruction, and a sample.

    Every row begins with x0; its other frames are spread evenly over the clip.

    Args:
        path: Path of the file; an existing file is replaced.
        models: Models by the names that label their rows.
        crops: Clips by source video, which are taken in turn.
        num_clips: Number of clips.
        num_frames: Frames of each clip, x0 among them.
        seed: Seed of the samples.
    """
    rows: list[UInt8[np.ndarray, "h _ 3"]] = []
    for number in range(num_clips):
        source = crops[number % len(crops)]
        index = number * len(source) // num_clips  # far apart within one video
        real = np.asarray(source.frames[index])
        times = np.linspace(0, len(real) - 1, num_frames).round().astype(int)
        rows.append(_labelled("real", real[times]))
        flow = torch.from_numpy(source.flow[index : index + 1])
        for name, model in models.items():
            made = _made(model, real, model.stage1.encode(flow.to(_device(model))))
            rows.append(_labelled(f"{name}\nreconstructed", made[times]))
        for name, model in models.items():
            nu = torch.randn(1, model.z_dim, generator=generator_for(seed + index, 0))
            c = model.condition(to_tensor(real[:1]).to(_device(model)))
            made = _made(model, real, model.to_latent(nu.to(c), c)[0])
            rows.append(_labelled(f"{name}\na sample", made[times]))
    gap = np.full((_GAP, rows[0].shape[1], 3), _GREY, np.uint8)
    column = np.concatenate([part for row in rows for part in (gap, row)][1:])
    with atomic_path(path, overwrite=True) as part:
        Image.fromarray(column).save(part, "PNG")


def _made(model: WarpingModel, real: np.ndarray, z: torch.Tensor) -> UInt8[np.ndarray, "t h w 3"]:
    frames = model.decode(to_tensor(real[:1]).to(z.device), z)[0]
    return np.concatenate([real[:1], to_pixels(frames.cpu())])


def _labelled(text: str, frames: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "h _ 3"]:
    label = Image.new("RGB", (_LABEL, frames.shape[1]), "white")
    ImageDraw.Draw(label).multiline_text((4, 4), text, fill="black")
    gap = np.full((frames.shape[1], _GAP, 3), _GREY, np.uint8)
    parts = [part for frame in frames for part in (gap, frame)]
    return np.concatenate([np.asarray(label), *parts], axis=1)


def _device(model: WarpingModel) -> torch.device:
    return next(model.parameters()).device


def _row(
    quantity: _Quantity, before: Scores, after: Scores, *, num_samples: int, by_clip: bool
) -> ChangedRow:
    first, second = before[quantity.kind], after[quantity.kind]
    tops = [_values(of, quantity.top) for of in (first, second)]
    bottom = np.ones_like(tops[0])
    if quantity.bottom is not None:
        bottom = _values(first, quantity.bottom)
    clusters = [str(i) if by_clip else score.source for i, score in enumerate(first)]
    old, new, change = (
        resampled(np.stack([top, bottom], axis=1), clusters, ratio)
        for top in (*tops, tops[1] - tops[0])
    )
    return ChangedRow(quantity.name.format(k=num_samples), old.value, new.value, change)


def _values(scores: Sequence[ClipScore], name: str) -> Float64[np.ndarray, " n"]:
    return np.array([score.values[name] for score in scores], dtype=np.float64)


def _signed(change: Estimate) -> str:
    text = f"{change.value:+.3f}"
    if change.low is not None and change.high is not None:
        text += f" ({change.low:+.3f} to {change.high:+.3f})"
    return text
