"""A bound for nature models: real motion of other scenes, kind by kind."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from cinnema.evaluation.baselines import DecodedBaseline, draws, encoded, first_frames
from cinnema.evaluation.metrics.nature import LEAST_SHARE
from cinnema.evaluation.protocol import ClipSet, RealClip
from cinnema.evaluation.statistics.bootstrap import hash_of
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import KIND_DIM, MOTION_DIM, NatureModel
from cinnema.models.nature.rendering import shares

_MOST = 256
"""Largest number of clips whose motion is reused."""


class _Donor(NamedTuple):
    source: str
    row: Float[Tensor, " r"]


class OtherMotion(DecodedBaseline):
    """Each kind moves as it really does in a clip of another source; the churn is drawn.

    Args:
        model: The model in evaluation mode.
        clips: The data set.
        seed: Seed of the choice and of the churn.
    """

    name = "real motion of other clips"
    is_stochastic = True
    sees_real = True
    about = (
        "each kind moves as in a real clip of another source: true motion that knows nothing of "
        "x0 but its kinds"
    )

    def __init__(self, model: NatureModel, clips: ClipSet, *, seed: int = 0) -> None:
        super().__init__(model, seed=seed)
        self._nature, self._clips = model, clips

    def latents(
        self, clips: Sequence[RealClip], x0: Float[Tensor, "b 3 h w"], *, sample: int = 0
    ) -> Float[Tensor, "b z"]:
        """Return z assembled from other clips; the mean motion for kinds that none of them show."""
        z = draws(self._model, clips, seed=self._seed, purpose=f"churn {sample}").to(x0)
        z[:, :MOTION_DIM] = 0
        for clip, row in zip(clips, z, strict=True):
            for kind, donors in enumerate(self._donors):
                others = [donor for donor in donors if donor.source != clip.source]
                if others:
                    key = f"{self._seed}/{sample}/{KINDS[kind]}/{clip.start.key}"
                    chosen = others[hash_of(key) % len(others)]
                    row[kind * KIND_DIM : (kind + 1) * KIND_DIM] = chosen.row.to(row)
        return z

    @cached_property
    def _donors(self) -> list[list[_Donor]]:
        """Measured motion of each kind, in clips that show enough of it."""
        donors: list[list[_Donor]] = [[] for _ in KINDS]
        chosen = sorted(self._clips.starts, key=lambda start: hash_of(start.key))[:_MOST]
        for start in chosen:
            clip = self._clips.read(start)
            x0 = first_frames(self._model, [clip])
            area = shares(self._nature.recognise(x0).probabilities)[0, 1:].mean((1, 2))
            rows = encoded(self._model, [clip])[0, :MOTION_DIM].view(len(KINDS), KIND_DIM).cpu()
            for kind, row in enumerate(rows):
                if float(area[kind]) >= LEAST_SHARE:
                    donors[kind].append(_Donor(clip.source, row))
        return donors
