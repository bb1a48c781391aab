"""How far apart the K futures of one start are, as networks see them."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cinnema.backbones.lpips import LPIPS
from cinnema.evaluation.features import FeatureCache, Features, Remembered, content_hash
from cinnema.evaluation.frames import lay_channels_last, spread, vgg_spread
from cinnema.evaluation.metrics.base import Futures, Metric, RealBatch
from cinnema.evaluation.results import Cell, Column
from cinnema.evaluation.statistics.bootstrap import ClusteredSums

_ABOUT = "mean squared difference over all ordered pairs of the futures of a start"


def diversity_column(name: str, *, of: str) -> Column:
    """Return the column of a diversity.

    Args:
        name: "DIV-I3D".
        of: Of what features.
    """
    return Column(name=name, better="higher", group="diversity", about=f"{_ABOUT}, of {of}")


class ClipDiversity(Metric):
    """The diversity of features of whole clips.

    Args:
        features: Of clips.
        column: From `diversity_column`.
        factor: On the number; 1000 for DTDB's I3D in the paper.
    """

    def __init__(self, features: Features, column: Column, *, factor: float = 1.0) -> None:
        super().__init__()
        self._features, self._factor = features, factor
        self.columns = (column,)

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Compare the futures of each start."""
        if len(futures.videos) < 2:
            return
        sums = self.sums.setdefault((futures.row, "spread"), ClusteredSums(2))
        per_future = torch.stack([self._features.of(videos) for videos in futures.videos])
        for i, source in enumerate(real.sources):
            sums.add(source, [self._factor * spread(per_future[:, i]), 1.0])

    def cells(self, row: str) -> Mapping[str, Cell]:
        """Return the mean over starts."""
        sums = self.sums.get((row, "spread"))
        return {} if sums is None else {self.columns[0].name: sums.ratio()}


class FrameDiversity(Metric):
    """The diversity of VGG16's five feature maps, frame by frame at 224 pixels.

    It costs more than all else on a start, so that no baseline's is measured.

    Args:
        vgg: Where the networks are.
        identity: The SHA-256 of its weights.
        cache: Of the numbers, between runs.
    """

    columns = (
        diversity_column("DIV-VGG", of="VGG16's five feature maps, frame by frame at 224 pixels"),
    )

    def __init__(
        self, vgg: LPIPS, *, identity: str = "", cache: FeatureCache | None = None
    ) -> None:
        super().__init__()
        self._vgg = lay_channels_last(vgg)
        self._identity, self._remembered = identity, Remembered(cache)

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Compare the model's, and the real, futures of each start."""
        if futures.kind == "baseline" or len(futures.videos) < 2:
            return
        sums = self.sums.setdefault((futures.row, "spread"), ClusteredSums(2))
        for i, source in enumerate(real.sources):
            names = "/".join(content_hash(videos[i]) for videos in futures.videos)
            value = self._remembered.get(
                f"{self._identity}/spread/{names}", partial(self._spread, futures.x[:, i])
            )
            sums.add(source, [float(value[0]), 1.0])

    def _spread(self, videos: Float[Tensor, "k n 3 h w"]) -> NDArray[np.float32]:
        return np.array([vgg_spread(self._vgg, videos)], dtype=np.float32)

    def cells(self, row: str) -> Mapping[str, Cell]:
        """Return the mean over starts."""
        sums = self.sums.get((row, "spread"))
        return {} if sums is None else {self.columns[0].name: sums.ratio()}
