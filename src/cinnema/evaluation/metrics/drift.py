"""What becomes of a picture over three clips in a row: each goes on from the last frame."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cinnema.data.dataset import PackedDataset
from cinnema.evaluation.baselines import condition, draws, first_frames
from cinnema.evaluation.metrics.base import REAL, Futures, Metric, RealBatch
from cinnema.evaluation.protocols import RealClip
from cinnema.evaluation.results import Cell, Column, Curve
from cinnema.evaluation.statistics.bootstrap import ClusteredSums, Estimate
from cinnema.media.pictures import to_pixels
from cinnema.models.base import VideoModel

_ROUNDS = 3
_TITLES = ("Sharpness over frames", "Colour shift over frames")


class Drift(Metric):
    """Sharpness and colour of long videos, beside x0's, with no need of a real video as long.

    A long video goes on as in the paper: the next clip is decoded from the last frame of the one
    before, with the same nu. The real clips that are long enough are measured too.

    Args:
        model: In evaluation mode.
        row: Its row.
        dataset: That the clips are of.
        chosen: The keys of the starts that are measured: a few suffice.
        seed: Of nu.
    """

    def __init__(
        self,
        model: VideoModel,
        *,
        row: str,
        dataset: PackedDataset,
        chosen: frozenset[str],
        seed: int,
    ) -> None:
        super().__init__()
        self._model, self._row, self._dataset = model, row, dataset
        self._chosen, self._seed = chosen, seed
        self._last = _ROUNDS * model.num_frames
        self.columns = drift_columns(self._last)

    def see_real(self, real: RealBatch) -> None:
        """Let the model go on and on from the chosen starts."""
        clips = [clip for clip in real.clips if clip.start.key in self._chosen]
        if not clips:
            return
        for clip, frames in zip(clips, self._go_on(clips), strict=True):
            self._add(self._row, clip.start.source, frames)
        for clip in clips:
            start, stride = clip.start, clip.start.stride
            times = range(start.first, start.first + self._last * stride + 1, stride)
            if times[-1] < self._dataset.manifest.clips[start.position].frames:
                frames = self._dataset.read(start.position, list(times)).frames
                self._add(REAL, start.source, frames)

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Look away: the model is asked for longer videos."""

    @torch.inference_mode()
    def _go_on(self, clips: Sequence[RealClip]) -> list[UInt8[np.ndarray, "t h w 3"]]:
        x = first_frames(self._model, clips)
        nu = draws(self._model, clips, seed=self._seed, purpose="nu 0").to(x)
        parts = [x[:, None]]
        for _ in range(_ROUNDS):
            c = condition(self._model, clips, x)
            parts.append(self._model.decode(x, self._model.to_latent(nu, c)[0]))
            x = parts[-1][:, -1]
        return list(to_pixels(torch.cat(parts, dim=1)))

    def _add(self, row: str, source: str, frames: UInt8[np.ndarray, "t h w 3"]) -> None:
        sharpness, colour = drift_of(frames)
        for title, values in zip(_TITLES, (sharpness, colour), strict=True):
            sums = self.sums.setdefault((row, title), ClusteredSums(len(values) + 1))
            sums.add(source, np.append(values, 1.0))

    def cells(self, row: str) -> Mapping[str, Cell]:
        """Return both at the last frame."""
        found = {
            column.name: self.sums.get((row, title))
            for column, title in zip(self.columns, _TITLES, strict=True)
        }
        return {name: _at(sums, -2) for name, sums in found.items() if sums is not None}

    def curves(self, rows: Sequence[str]) -> Iterator[Curve]:
        """Yield both along the frames."""
        for title, column in zip(_TITLES, self.columns, strict=True):
            known = {r: self.sums[r, title] for r in rows if (r, title) in self.sums}
            if not known:
                continue
            along = {row: [_at(s, t) for t in range(len(s.whole) - 1)] for row, s in known.items()}
            banded = {r: es for r, es in along.items() if all(e.low is not None for e in es)}
            yield Curve(
                title=title,
                x_label="frame",
                y_label=title.partition(" over")[0],
                x={row: tuple(map(float, range(len(es)))) for row, es in along.items()},
                y={row: tuple(e.value for e in es) for row, es in along.items()},
                low={row: tuple(e.low or 0.0 for e in es) for row, es in banded.items()},
                high={row: tuple(e.high or 0.0 for e in es) for row, es in banded.items()},
                about=column.about,
            )


def drift_columns(last: int) -> tuple[Column, Column]:
    """Return the columns of drift at frame `last`."""
    again = f"the {_ROUNDS} clips decoded one from the last frame of the other, same nu"
    return (
        Column(
            name=f"sharpness at frame {last}",
            better="real",
            digits=2,
            group="drift",
            about=f"mean absolute Laplacian over x0's, {again}",
        ),
        Column(
            name=f"colour shift at frame {last}",
            better="real",
            unit="levels of 255",
            digits=1,
            group="drift",
            about=f"mean absolute difference of the mean colour from x0's, {again}",
        ),
    )


def drift_of(
    frames: UInt8[np.ndarray, "t h w 3"],
) -> tuple[Float64[np.ndarray, " t"], Float64[np.ndarray, " t"]]:
    """Return the sharpness of each frame over that of the first, and its shift of colour.

    Args:
        frames: x0 and what follows.

    Returns:
        1 and 0 for the first frame; NaN where x0 is flat.
    """
    x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    edges: Tensor = functional.conv2d(x, kernel.expand(3, 1, 3, 3), groups=3).abs()
    sharpness = edges.mean(dim=(1, 2, 3)).double().numpy()
    colour = x.mean(dim=(2, 3)).double()
    with np.errstate(invalid="ignore", divide="ignore"):
        relative: NDArray[np.float64] = sharpness / sharpness[0]
    return relative, (colour - colour[0]).abs().mean(dim=1).numpy()


def _at(sums: ClusteredSums, t: int) -> Estimate:
    return sums.estimate(lambda s: s[..., t] / s[..., -1])
