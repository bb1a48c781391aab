"""Whether nu carries motion: that of one clip, given to the first frame of another."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from cinnema.data.dataset import PackedDataset
from cinnema.evaluation.baselines import condition, draws, encoded, first_frames
from cinnema.evaluation.metrics.base import Futures, Metric, RealBatch, Video
from cinnema.evaluation.metrics.motion import seen_motion
from cinnema.evaluation.protocols import RealClip, Start, read_clip
from cinnema.evaluation.results import Cell, Column
from cinnema.evaluation.statistics.bootstrap import ClusteredSums
from cinnema.media.pictures import to_pixels
from cinnema.models.base import VideoModel

_NAMES = {"transferred": "motion kept in transfer", "random": "by a random nu"}


class Transfer(Metric):
    """The agreement of motion in transfer, beside that of a random nu.

    nu of a clip is given to the first frame of another source video; the optical flow of what
    comes is compared with that of the clip, by the cosine of the two fields.

    Args:
        model: In evaluation mode.
        row: Its row.
        dataset: That the clips are of.
        partners: By the key of a start: the start whose first frame is to move so.
        seed: Of the random nu.
    """

    columns = (
        Column(
            name=_NAMES["transferred"],
            better="higher",
            digits=2,
            group="latents",
            about="cosine of the optical flow of a clip and of another picture that was given its "
            "nu",
        ),
        Column(
            name=_NAMES["random"],
            better="real",
            digits=2,
            group="latents",
            about="the same, had the other picture been given a random nu: what agrees by chance",
        ),
    )

    def __init__(
        self,
        model: VideoModel,
        *,
        row: str,
        dataset: PackedDataset,
        partners: Mapping[str, Start],
        seed: int,
    ) -> None:
        super().__init__()
        self._model, self._row, self._dataset = model, row, dataset
        self._partners, self._seed = partners, seed

    @torch.inference_mode()
    def see_real(self, real: RealBatch) -> None:
        """Move the partners' first frames as the clips move."""
        clips = [clip for clip in real.clips if clip.start.key in self._partners]
        if not clips:
            return
        model = self._model
        others = [
            read_clip(self._dataset, self._partners[c.start.key], num_frames=len(c.frames) - 1)
            for c in clips
        ]
        x0, other = first_frames(model, clips), first_frames(model, others)
        nu, _ = model.to_residual(encoded(model, clips), condition(model, clips, x0))
        random = draws(model, clips, seed=self._seed, purpose="transfer").to(nu)
        c = condition(model, others, other)
        wanted = [seen_motion(clip.frames)[-1] for clip in clips]
        for what, residual in (("transferred", nu), ("random", random)):
            self._add(what, clips, wanted, self._decoded(other, residual, c))

    def _decoded(self, x0: Tensor, nu: Tensor, c: Tensor) -> list[Video]:
        frames = self._model.decode(x0, self._model.to_latent(nu, c)[0])
        return list(to_pixels(torch.cat([x0[:, None], frames], dim=1)))

    def _add(
        self,
        what: str,
        clips: Sequence[RealClip],
        wanted: Sequence[Float64[np.ndarray, "h w 2"]],
        videos: Sequence[Video],
    ) -> None:
        sums = self.sums.setdefault((self._row, _NAMES[what]), ClusteredSums(2))
        for clip, motion, frames in zip(clips, wanted, videos, strict=True):
            value = agreement(motion, seen_motion(frames)[-1])
            if np.isfinite(value):
                sums.add(clip.start.source, [value, 1.0])

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Look away: contestants have no nu."""

    def cells(self, row: str) -> Mapping[str, Cell]:
        """Return both agreements."""
        found = {column.name: self.sums.get((row, column.name)) for column in self.columns}
        return {name: sums.ratio() for name, sums in found.items() if sums is not None}


def agreement(a: Float64[np.ndarray, "h w 2"], b: Float64[np.ndarray, "h w 2"]) -> float:
    """Return the cosine of two fields of motion, from -1 to 1; NaN where one is still."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / lengths if lengths else float("nan")
