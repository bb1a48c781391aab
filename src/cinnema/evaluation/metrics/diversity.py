"""Diversity of the K futures of one start, in the features of a network."""

from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cinnema.backbones.lpips import LPIPS
from cinnema.evaluation.features import ArrayCache, FeatureCache, Features, content_hash
from cinnema.evaluation.metrics.base import Futures, MeanMetric, RealBatch
from cinnema.evaluation.metrics.quality import lay_channels_last
from cinnema.evaluation.results import Column

_ABOUT = "mean squared difference over all ordered pairs of the futures of a start"


def diversity_column(name: str, *, of: str) -> Column:
    """Return the column of a diversity.

    Args:
        name: Name of the column, such as "DIV-I3D".
        of: Description of the features.
    """
    return Column(name=name, better="higher", group="diversity", about=f"{_ABOUT}, of {of}")


class ClipDiversity(MeanMetric):
    """Diversity of the features of whole clips: at least 0, higher is more diverse.

    Args:
        features: Features of clips.
        column: A column from `diversity_column`.
        factor: Factor on the number; 1000 for DTDB's I3D in the paper.
    """

    uses_futures = True

    def __init__(self, features: Features, column: Column, *, factor: float = 1.0) -> None:
        super().__init__()
        self._features, self._factor = features, factor
        self.columns = (column,)

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Compare the futures of each start."""
        if len(futures.videos) < 2:
            return
        per_future = torch.stack([self._features.of(videos) for videos in futures.videos])
        for i, source in enumerate(real.sources):
            value = self._factor * spread(per_future[:, i])
            self.add(futures.row, self.columns[0].name, source, value)


class FrameDiversity(MeanMetric):
    """Diversity of VGG16's five feature maps, frame by frame: at least 0, higher is more diverse.

    It costs more than all other metrics of a start, so it is measured for the model and for
    real futures only.

    Args:
        vgg: LPIPS with VGG16, on the networks' device.
        identity: SHA-256 of its weights.
        cache: Cache of the numbers between runs.
    """

    uses_futures = True
    columns = (
        diversity_column("DIV-VGG", of="VGG16's five feature maps, frame by frame at 224 pixels"),
    )

    def __init__(
        self, vgg: LPIPS, *, identity: str = "", cache: FeatureCache | None = None
    ) -> None:
        super().__init__()
        self._vgg = lay_channels_last(vgg)
        self._identity, self._arrays = identity, ArrayCache(cache)

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Compare the futures of each start."""
        if futures.kind == "baseline" or len(futures.videos) < 2:
            return
        for i, source in enumerate(real.sources):
            names = "/".join(content_hash(videos[i]) for videos in futures.videos)
            value = self._arrays.get(
                f"{self._identity}/spread/{names}", partial(self._spread, futures.x[:, i])
            )
            self.add(futures.row, self.columns[0].name, source, float(value[0]))

    def _spread(self, videos: Float[Tensor, "k n 3 h w"]) -> NDArray[np.float32]:
        return np.array([vgg_spread(self._vgg, videos)], dtype=np.float32)


def spread(features: Float[Tensor, "k d"]) -> float:
    """Return the mean squared difference of features over all ordered pairs of K futures.

        1 / (K (K - 1)) sum_{i != j} |f_i - f_j|^2 / d = 2 / (K - 1) sum_i |f_i - mean|^2 / d

    Source: the diversity of the paper's evaluation.

    Args:
        features: Features of K futures of one start, at least 2.
    """
    # Deviations in the features' own precision, their sum in float64: maps have millions of them.
    deviations = features - features.mean(dim=0)
    total = deviations.square_().sum(dtype=torch.float64)
    return 2 * float(total) / ((len(features) - 1) * features.shape[1])


@torch.no_grad()
def vgg_spread(vgg: LPIPS, videos: Float[Tensor, "k t 3 h w"], *, size: int = 224) -> float:
    """Return the spread of K futures in VGG16's five feature maps, mean over frames and layers.

    Args:
        vgg: `LPIPS.load("vgg")`; its heads are not used.
        videos: Futures of one start in [-1, 1].
        size: Width and height to which frames are resized bilinearly, in pixels.
    """
    total = 0.0
    for t in range(videos.shape[1]):
        frames = functional.interpolate(
            videos[:, t].contiguous(memory_format=torch.channels_last),
            (size, size),
            mode="bilinear",
            align_corners=False,
        )
        layers = [spread(maps.flatten(1)) for maps in vgg.maps(frames)]
        total += sum(layers) / len(layers)
    return total / videos.shape[1]
