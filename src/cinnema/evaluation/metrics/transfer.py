"""Transfer of motion: nu of one clip, decoded from the first frame of another."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.evaluation.baselines import condition, draws, encoded, first_frames
from cinnema.evaluation.metrics.base import MeanMetric, RealBatch, Task, Video
from cinnema.evaluation.metrics.motion import visible_motion
from cinnema.evaluation.protocol import RealClip, find_partners
from cinnema.evaluation.results import MODEL, Column
from cinnema.evaluation.statistics.bootstrap import hash_of
from cinnema.media.pictures import to_pixels

_NUM_STARTS = 64
_KEPT, _CHANCE = "motion kept in transfer", "motion of a random nu"


class MotionKept(MeanMetric):
    """Cosine between the optical flow of a clip and of another picture decoded with its nu.

    From -1 to 1, higher is better; "motion of a random nu" is what agrees by chance. 64 clips are
    measured, each with the first frame of another source video.

    Args:
        task: The evaluation.

    Raises:
        UserError: All clips are of one source video.
    """

    columns = (
        Column(
            name=_KEPT,
            better="higher",
            digits=2,
            group="latents",
            about="cosine of the optical flow of a clip and of another picture that is given its "
            "nu",
        ),
        Column(
            name=_CHANCE,
            better="real",
            digits=2,
            group="latents",
            about="the same with a random nu: what agrees by chance",
        ),
    )

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._model, self._clips, self._seed = task.model, task.clips, task.seed
        chosen = sorted(task.order, key=hash_of)[:_NUM_STARTS]
        partners = find_partners(task.clips.starts)
        self._partners = {key: partners[key] for key in chosen if key in partners}
        self.chosen = frozenset(self._partners)
        if not self._partners:
            raise UserError("transfer needs 2 source videos: give more")

    @torch.inference_mode()
    def see_real(self, real: RealBatch) -> None:
        """Decode each partner's first frame with a clip's nu, and compare their motion."""
        own = self.own(real)
        if own is None:
            return
        clips, model = own.clips, self._model
        others = [self._clips.read(self._partners[key]) for key in own.keys]
        x0, other = first_frames(model, clips), first_frames(model, others)
        nu, _ = model.to_residual(encoded(model, clips), condition(model, clips, x0))
        random = draws(model, clips, seed=self._seed, purpose="transfer").to(nu)
        c = condition(model, others, other)
        wanted = [visible_motion(clip.frames)[-1] for clip in clips]
        for column, residual in ((_KEPT, nu), (_CHANCE, random)):
            self._add_videos(column, clips, wanted, self._decoded(other, residual, c))

    def _decoded(self, x0: Tensor, nu: Tensor, c: Tensor) -> list[Video]:
        frames = self._model.decode(x0, self._model.to_latent(nu, c)[0])
        return list(to_pixels(torch.cat([x0[:, None], frames], dim=1)))

    def _add_videos(
        self,
        column: str,
        clips: Sequence[RealClip],
        wanted: Sequence[Float64[np.ndarray, "h w 2"]],
        videos: Sequence[Video],
    ) -> None:
        for clip, motion, frames in zip(clips, wanted, videos, strict=True):
            value = agreement(motion, visible_motion(frames)[-1])
            if np.isfinite(value):
                self.add(MODEL, column, clip.source, value)


def agreement(a: Float64[np.ndarray, "h w 2"], b: Float64[np.ndarray, "h w 2"]) -> float:
    """Return the cosine of two fields of motion, from -1 to 1; NaN where one is still."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / lengths if lengths else float("nan")
