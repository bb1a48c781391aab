"""Two models on the same clips: numbers of both with the interval of their difference, a picture.

Every clip is measured with both, so the difference is far surer than the two numbers are.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from cinnema.data.crops import Scene, SceneCrops
from cinnema.evaluation.likelihood import encode_scenes, negative_log_likelihood, with_noise
from cinnema.evaluation.reconstruction import score_flow, score_reconstruction
from cinnema.evaluation.samples import score_samples
from cinnema.evaluation.scores import ClipScore
from cinnema.evaluation.statistics.bootstrap import MIN_SOURCES, Estimate, finite, ratio, resampled
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.models.warping.model import WarpingModel
from cinnema.models.warping.motion import GRID
from cinnema.models.warping.stage1 import Stage1
from cinnema.simulators.sky.pool import SkyPool

Scores = dict[str, list[ClipScore]]
"""What was measured on each clip, by kind of measurement."""

_NUM_DRAWS = 4  # of noise on z, for a likelihood
_GAP, _GREY, _LABEL = 4, 128, 96


@dataclass(frozen=True)
class _Quantity:
    name: str
    kind: str
    top: str
    bottom: str | None = None


# Lower is better for all of them.
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
class Row:
    """One quantity before and after.

    Attributes:
        name: Of the quantity; lower is better.
        before: Of the first model.
        after: Of the second.
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
        names: Of the two.
        rows: Quantities.
        over: What is resampled for the intervals: "videos", or with fewer than three of them
            "clips of 2 video(s)".
    """

    names: tuple[str, str]
    rows: tuple[Row, ...]
    over: str

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; numbers that are not finite become None."""
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

    def row(self, name: str) -> Row:
        """Return the row of a quantity by the beginning of its name."""
        return next(row for row in self.rows if row.name.startswith(name))


@dataclass(frozen=True)
class Measuring:
    """How a model is measured on held-out clips, and on skies that it should not forget.

    Attributes:
        held_out: Clips never trained on, by source video, at least one.
        skies: Likewise, simulated; may be empty.
        lpips: The distance, where the models are.
        num_rendered: Clips of all videos together that are decoded and compared.
        num_started: Likewise, from which samples are drawn.
        num_samples: Samples of each.
        times: Frames that are compared.
        seed: Of the samples and the noise.
    """

    held_out: Sequence[SceneCrops]
    skies: Sequence[SceneCrops]
    lpips: LPIPS
    num_rendered: int = 8
    num_started: int = 4
    num_samples: int = 5
    times: tuple[int, ...] = (4, 8, 12, 16)
    seed: int = 0

    def stage1(self, stage1: Stage1) -> Scores:
        """Return what depends on stage 1 alone: flow and reconstruction.

        Args:
            stage1: In evaluation mode, float32.
        """
        num = self._each(self.num_rendered)
        return {
            "flow": [s for c in self.held_out for s in score_flow(stage1, c, num_clips=len(c))],
            "reconstruction": [
                score
                for crops in self.held_out
                for score in score_reconstruction(
                    stage1, self.lpips, crops, num_clips=num, times=self.times
                )
            ],
            "sky_flow": [s for c in self.skies for s in score_flow(stage1, c, num_clips=len(c))],
        }

    def stage2(self, model: WarpingModel) -> Scores:
        """Return what depends on both stages: samples and likelihood.

        Args:
            model: In evaluation mode, float32.
        """
        num = self._each(self.num_started)
        return {
            "samples": [
                score
                for crops in self.held_out
                for score in score_samples(
                    model, self.lpips, crops, num_clips=num, num_samples=self.num_samples,
                    times=self.times, seed=self.seed,
                )
            ],
            "likelihood": score_nll(model, self.held_out, seed=self.seed),
            "sky_likelihood": score_nll(model, self.skies, seed=self.seed),
        }  # fmt: skip

    def compared(self, names: tuple[str, str], before: Scores, after: Scores) -> Comparison:
        """Return two models' numbers side by side.

        Args:
            names: Of the models.
            before: `stage1` of the first, or that and `stage2` together.
            after: Of the second; what only one of them has is left out.
        """
        by_clip = len(self.held_out) < MIN_SOURCES
        return Comparison(
            names=names,
            rows=tuple(
                _row(quantity, before, after, num_samples=self.num_samples, by_clip=by_clip)
                for quantity in _QUANTITIES
                if before.get(quantity.kind) and after.get(quantity.kind)
            ),
            over=f"clips of {len(self.held_out)} video(s)" if by_clip else "videos",
        )

    def _each(self, num: int) -> int:
        return -(-num // len(self.held_out))


@torch.no_grad()
def score_nll(model: WarpingModel, crops: Sequence[SceneCrops], *, seed: int) -> list[ClipScore]:
    """Return the negative log-likelihood of each clip's z + noise, in nats a dimension.

    Where the model takes a control, it does without.

    Args:
        model: In evaluation mode, float32.
        crops: Clips by source video; none gives none.
        seed: Of the noise, the same for every model.
    """
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
        ClipScore(latents.scenes[group], latents.textures[group], {"nll": values[i]})
        for i, group in enumerate(latents.groups.tolist())
    ]


def simulated_skies(*, num: int, size: int, num_frames: int, seed: int) -> SceneCrops:
    """Draw skies whose flow is known exactly, one clip each, as crops with x0 alone.

    Args:
        num: How many.
        size: Width and height in pixels.
        num_frames: T.
        seed: Of the skies.
    """
    pool = SkyPool(
        size=size, num_frames=num_frames, grid=GRID, textures=None, seed=seed, rendered=0
    )
    items = [pool.sky(number) for number in range(num)]
    return SceneCrops(
        scene=Scene("skies", "skies", held_out=True),
        frames=np.stack([to_pixels(item.x0[None]) for item in items]),
        flow=torch.stack([item.flow for item in items]).numpy().astype(np.float32),
        motion=2 * torch.stack([item.moving for item in items]).numpy().astype(np.float32),
    )


@torch.no_grad()
def draw_strips(
    path: Path,
    models: Mapping[str, WarpingModel],
    crops: Sequence[SceneCrops],
    *,
    num_clips: int = 2,
    num_frames: int = 5,
    seed: int = 0,
) -> None:
    """Draw clips into a PNG file: the real frames, each model's reconstruction, and samples.

    Every row begins with x0; its other frames are spread evenly over the clip.

    Args:
        path: The file; one that is there is replaced.
        models: By the name that labels their rows.
        crops: Clips by source video, of which the first are taken in turn.
        num_clips: How many.
        num_frames: Of each, x0 among them.
        seed: Of the sample.
    """
    rows: list[UInt8[np.ndarray, "h _ 3"]] = []
    for number in range(num_clips):
        source = crops[number % len(crops)]
        index = number * len(source) // num_clips  # far apart, where they are of one video
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
) -> Row:
    first, second = before[quantity.kind], after[quantity.kind]
    tops = [_column(of, quantity.top) for of in (first, second)]
    bottom = np.ones_like(tops[0])
    if quantity.bottom is not None:
        bottom = _column(first, quantity.bottom)
    clusters = [str(i) if by_clip else s.scene for i, s in enumerate(first)]
    old, new, change = (
        resampled(np.stack([top, bottom], axis=1), clusters, ratio)
        for top in (*tops, tops[1] - tops[0])
    )
    return Row(quantity.name.format(k=num_samples), old.value, new.value, change)


def _column(scores: Sequence[ClipScore], name: str) -> Float64[np.ndarray, " n"]:
    return np.array([score.values[name] for score in scores], dtype=np.float64)


def _signed(change: Estimate) -> str:
    text = f"{change.value:+.3f}"
    if change.low is not None and change.high is not None:
        text += f" ({change.low:+.3f} to {change.high:+.3f})"
    return text
