"""Sharpness and colour over three clips, each decoded from the last frame of the one before."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cinnema.evaluation.baselines import condition, draws, first_frames
from cinnema.evaluation.metrics.base import Metric, RealBatch, Task
from cinnema.evaluation.metrics.quality import curve_of, estimates_along
from cinnema.evaluation.protocol import RealClip
from cinnema.evaluation.results import MODEL, REAL, Cells, Column, Curve
from cinnema.evaluation.statistics.bootstrap import ClusteredSums, hash_of
from cinnema.media.pictures import to_pixels

_ROUNDS = 3
_NUM_STARTS = 16
_TITLES = ("Sharpness over frames", "Colour shift over frames")


class LongVideos(Metric):
    """Sharpness and colour of long videos relative to x0; values like the real clips' are best.

    A long video is extended as in the paper: the next clip is decoded from the last frame of the
    one before, with the same nu. 16 starts are measured, and the real clips that are long enough.

    Args:
        task: The evaluation.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._model, self._clips, self._seed = task.model, task.clips, task.seed
        self.chosen = frozenset(sorted(task.order, key=hash_of)[:_NUM_STARTS])
        self._last = _ROUNDS * self._model.num_frames
        self.columns = _columns(self._last)

    def see_real(self, real: RealBatch) -> None:
        """Extend the chosen starts with the model, and add real clips that are long enough."""
        own = self.own(real)
        if own is None:
            return
        for clip, frames in zip(own.clips, self._extended(own.clips), strict=True):
            self._add(MODEL, clip.source, frames)
        for clip in own.clips:
            longer = self._clips.continuation(clip.start, num_frames=self._last)
            if longer is not None:
                self._add(REAL, clip.source, longer)

    @torch.inference_mode()
    def _extended(self, clips: Sequence[RealClip]) -> list[UInt8[np.ndarray, "t h w 3"]]:
        x = first_frames(self._model, clips)
        nu = draws(self._model, clips, seed=self._seed, purpose="nu 0").to(x)
        parts = [x[:, None]]
        for _ in range(_ROUNDS):
            c = condition(self._model, clips, x)
            parts.append(self._model.decode(x, self._model.to_latent(nu, c)[0]))
            x = parts[-1][:, -1]
        return list(to_pixels(torch.cat(parts, dim=1)))

    def _add(self, row: str, source: str, frames: UInt8[np.ndarray, "t h w 3"]) -> None:
        sharpness, colour = sharpness_and_colour(frames)
        for title, values in zip(_TITLES, (sharpness, colour), strict=True):
            sums = self.sums.setdefault((row, title), ClusteredSums(len(values) + 1))
            sums.add(source, np.append(values, 1.0))

    def cells(self, row: str) -> Cells:
        """Return both numbers at the last frame."""
        found = {
            column.name: self.sums.get((row, title))
            for column, title in zip(self.columns, _TITLES, strict=True)
        }
        return {
            name: sums.estimate(lambda s: s[..., -2] / s[..., -1])
            for name, sums in found.items()
            if sums is not None
        }

    def curves(self, rows: Sequence[str]) -> Iterator[Curve]:
        """Yield both numbers along the frames."""
        for title, column in zip(_TITLES, self.columns, strict=True):
            known = {r: self.sums[r, title] for r in rows if (r, title) in self.sums}
            if known:
                yield curve_of(
                    {row: estimates_along(sums) for row, sums in known.items()},
                    title=title,
                    y_label=title.partition(" over")[0],
                    first=0,
                    about=column.about,
                )


def _columns(last: int) -> tuple[Column, Column]:
    clips = f"of {_ROUNDS} clips, each decoded from the last frame of the one before, same nu"
    return (
        Column(
            name=f"sharpness at frame {last}",
            better="real",
            digits=2,
            group="long videos",
            about=f"mean absolute Laplacian over that of x0, {clips}",
        ),
        Column(
            name=f"colour shift at frame {last}",
            better="real",
            unit="levels of 255",
            digits=1,
            group="long videos",
            about=f"mean absolute difference of the mean colour from that of x0, {clips}",
        ),
    )


def sharpness_and_colour(
    frames: UInt8[np.ndarray, "t h w 3"],
) -> tuple[Float64[np.ndarray, " t"], Float64[np.ndarray, " t"]]:
    """Return the sharpness of each frame over that of the first, and its shift of colour.

    Args:
        frames: x0 and what follows it.

    Returns:
        Mean absolute Laplacian over that of x0 (1 for x0, NaN where x0 is flat), and mean absolute
        difference of the mean colour, in levels of 255 (0 for x0).
    """
    x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    edges: Tensor = functional.conv2d(x, kernel.expand(3, 1, 3, 3), groups=3).abs()
    sharpness = edges.mean(dim=(1, 2, 3)).double().numpy()
    colour = x.mean(dim=(2, 3)).double()
    with np.errstate(invalid="ignore", divide="ignore"):
        relative: NDArray[np.float64] = sharpness / sharpness[0]
    return relative, (colour - colour[0]).abs().mean(dim=1).numpy()
