"""Similarity of a future to the real clip: LPIPS, PSNR and SSIM, frame by frame."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cinnema.backbones.lpips import LPIPS
from cinnema.evaluation.features import ArrayCache, FeatureCache, content_hash
from cinnema.evaluation.metrics.base import Futures, MeanMetric, RealBatch
from cinnema.evaluation.results import Column, Curve
from cinnema.evaluation.statistics.bootstrap import ClusteredSums, Estimate
from cinnema.evaluation.statistics.feature_sets import FeatureSample

_GROUP = "quality"
_REAL_AT_ONCE = 4  # real clips whose feature maps are kept: 16 frames at 128 pixels take 250 MB
_RANKED = 2048  # clips among which best, median and worst are chosen

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03
_LARGEST_PSNR = 100.0  # of equal frames, so that means stay finite


class PixelQuality(MeanMetric):
    """PSNR and SSIM of futures: higher is better, mean over frames and futures."""

    uses_futures = True
    columns = (
        Column(
            name="PSNR",
            better="higher",
            unit="dB",
            digits=2,
            group=_GROUP,
            about="peak signal-to-noise ratio, mean over frames and futures; 100 of equal frames",
        ),
        Column(
            name="SSIM",
            better="higher",
            group=_GROUP,
            about="structural similarity, Gaussian window of 11 pixels, mean over frames and "
            "futures",
        ),
    )

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Compare every frame with the real one."""
        for name, similarity in (("PSNR", psnr), ("SSIM", ssim)):
            if name == "SSIM" and min(real.x.shape[-2:]) < _WINDOW:
                continue
            values = [_per_frame(similarity, x, real.x) for x in futures.x]
            means = torch.stack(values).mean(dim=(0, 2)).double().cpu().tolist()
            for source, value in zip(real.sources, means, strict=True):
                self.add(futures.row, name, source, value)


class PerceptualQuality(MeanMetric):
    """LPIPS v0.1 of futures, of the best of K, and along the frames: lower is better, 0 is equal.

    Args:
        lpips: LPIPS network, on the networks' device.
        title: Name of its network: "VGG16" or "AlexNet".
        num_samples: K.
        is_main: Whether to add the best of K, the curve and the ranking of clips.
        identity: SHA-256 of its weights.
        cache: Cache of distances between runs.
    """

    uses_futures = True

    def __init__(
        self,
        lpips: LPIPS,
        *,
        title: str,
        num_samples: int,
        is_main: bool,
        identity: str = "",
        cache: FeatureCache | None = None,
    ) -> None:
        super().__init__()
        self._lpips, self._is_main = lay_channels_last(lpips), is_main
        self._identity, self._arrays = identity, ArrayCache(cache)
        self.columns = perceptual_columns(title, num_samples=num_samples, is_main=is_main)
        self._real: dict[str, tuple[Tensor, ...]] = {}

    @torch.inference_mode()
    def see(self, real: RealBatch, futures: Futures) -> None:
        """Compare every frame with the real one."""
        hashes = [content_hash(video) for video in real.videos]
        for i, source in enumerate(real.sources):
            along = [
                self._along(f"{hashes[i]}/{content_hash(futures.videos[k][i])}", real.x[i], x[i])
                for k, x in enumerate(futures.x)
            ]
            self._add(futures.row, source, real.keys[i], np.stack(along))

    def _add(self, row: str, source: str, key: str, distances: np.ndarray) -> None:
        of_futures = distances.mean(axis=1)
        self.add(row, self.columns[0].name, source, float(of_futures.mean()))
        if not self._is_main:
            return
        self.add(row, self.columns[1].name, source, float(of_futures.min()))
        along = [*map(float, distances.mean(axis=0)), 1.0]
        self.sums.setdefault((row, "frames"), ClusteredSums(len(along))).add(source, along)
        ranked = self.sums.setdefault((row, "ranked"), FeatureSample(_RANKED))
        ranked.add([key], torch.tensor([[float(of_futures[0])]]))

    def _along(
        self, pair: str, real: Float[Tensor, "n 3 h w"], clip: Float[Tensor, "n 3 h w"]
    ) -> NDArray[np.float32]:
        """Return the distance of each frame of a pair of clips, known by their contents."""
        return self._arrays.get(
            f"{self._identity}/distance/{pair}",
            lambda: (
                self._lpips.distance(self._features(clip), self._features_of_real(pair, real))
                .cpu()
                .numpy()
            ),
        )

    def _features_of_real(self, pair: str, real: Tensor) -> tuple[Tensor, ...]:
        """Return the features of real frames, which are compared with all rows in turn."""
        name = pair.partition("/")[0]
        if name not in self._real:
            if len(self._real) >= _REAL_AT_ONCE:
                self._real.clear()
            self._real[name] = self._features(real)
        return self._real[name]

    def _features(self, clip: Tensor) -> tuple[Tensor, ...]:
        laid_out = clip.contiguous(memory_format=torch.channels_last)
        features: tuple[Tensor, ...] = self._lpips.features(laid_out)
        return features

    def curves(self, rows: Sequence[str]) -> Iterator[Curve]:
        """Yield the distance along the frames."""
        known = {row: self.sums[row, "frames"] for row in rows if (row, "frames") in self.sums}
        if not known:
            return
        along = {row: estimates_along(sums) for row, sums in known.items()}
        yield curve_of(
            along,
            title="LPIPS over frames",
            y_label=self.columns[0].name,
            first=1,
            about="how far a future drifts from the real clip, by frames compared",
        )

    def ranking(self, row: str) -> list[tuple[str, float]]:
        """Return clips and their distance, the best first; at most 2048, chosen by a hash."""
        sample = self.sums.get((row, "ranked"))
        if sample is None:
            return []
        scores = sample.features[:, 0].tolist()
        return sorted(zip(sample.keys, scores, strict=True), key=lambda pair: (pair[1], pair[0]))


def perceptual_columns(title: str, *, num_samples: int, is_main: bool) -> tuple[Column, ...]:
    """Return the columns of LPIPS.

    Args:
        title: Name of its network.
        num_samples: K.
        is_main: Whether to add the best of K.
    """
    mean = Column(
        name=f"LPIPS ({title})",
        better="lower",
        group=_GROUP,
        about=f"LPIPS v0.1 with {title}, at the frames' own size, mean over frames and futures",
    )
    best = Column(
        name=f"LPIPS, best of {num_samples}",
        better="lower",
        group=_GROUP,
        about=f"LPIPS of the nearest of K = {num_samples} futures of each start; baselines that "
        "draw nothing have one future, and real clips may have fewer than K",
    )
    return (mean, best) if is_main else (mean,)


def estimates_along(sums: ClusteredSums) -> list[Estimate]:
    """Return the mean of each entry but the last one, which counts clips."""

    def at(t: int) -> Estimate:
        return sums.estimate(lambda s: s[..., t] / s[..., -1])

    return [at(t) for t in range(len(sums.whole) - 1)]


def curve_of(
    along: dict[str, list[Estimate]], *, title: str, y_label: str, first: int, about: str
) -> Curve:
    """Return a plot of numbers along the frames, with a band where every frame has an interval.

    Args:
        along: Numbers of each frame, by row.
        title: Title of the plot.
        y_label: Label of its vertical axis.
        first: Number of the first frame.
        about: Description of the plot.
    """
    banded = {row: es for row, es in along.items() if all(e.low is not None for e in es)}
    return Curve(
        title=title,
        x_label="frame",
        y_label=y_label,
        x={row: tuple(float(t + first) for t in range(len(es))) for row, es in along.items()},
        y={row: tuple(e.value for e in es) for row, es in along.items()},
        low={row: tuple(e.low or 0.0 for e in es) for row, es in banded.items()},
        high={row: tuple(e.high or 0.0 for e in es) for row, es in banded.items()},
        about=about,
    )


def psnr(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Return the peak signal-to-noise ratio of each pair of frames, in dB, at most 100.

    10 log10(1 / mean squared error), of values scaled to [0, 1]. Higher is better.

    Args:
        a: Frames in [-1, 1].
        b: The frames that they are compared with.
    """
    error = ((a - b) / 2).square().mean(dim=(1, 2, 3))
    return (-10 * error.clamp_min(1e-30).log10()).clamp_max(_LARGEST_PSNR)


def ssim(a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Return the structural similarity of each pair of frames, at most 1. Higher is better.

    With a Gaussian window of 11 pixels and sigma 1.5 where it fits into the frame, for each colour
    separately, of values scaled to [0, 1].

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity"
    (2004).

    Args:
        a: Frames in [-1, 1], at least 11 pixels a side.
        b: The frames that they are compared with.
    """
    x, y = (a + 1) / 2, (b + 1) / 2
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x = _blurred(x * x) - mean_x**2
    var_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    light = (2 * mean_x * mean_y + _K1**2) / (mean_x**2 + mean_y**2 + _K1**2)
    structure = (2 * covariance + _K2**2) / (var_x + var_y + _K2**2)
    return (light * structure).mean(dim=(1, 2, 3))


def _blurred(x: Tensor) -> Tensor:
    places = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    taps = torch.exp(-0.5 * (places / _SIGMA) ** 2)
    taps = (taps / taps.sum()).expand(x.shape[1], 1, -1)
    across = functional.conv2d(x, taps[:, :, None], groups=x.shape[1])
    return functional.conv2d(across, taps[..., None], groups=x.shape[1])


def _per_frame(
    similarity: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor
) -> Tensor:  # fmt: skip
    values = similarity(x.flatten(0, 1), y.flatten(0, 1))
    unflat: Tensor = values.unflatten(0, x.shape[:2])
    return unflat


def lay_channels_last(network: LPIPS) -> LPIPS:
    """Lay out the weights with channels last, in place: on a CPU VGG16 takes a fifth less time."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
