"""How near a future is to the one that came: LPIPS, PSNR and SSIM, frame by frame."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cinnema.backbones.lpips import LPIPS
from cinnema.evaluation.features import FeatureCache, Remembered, content_hash
from cinnema.evaluation.frames import lay_channels_last, psnr, ssim
from cinnema.evaluation.metrics.base import Futures, Metric, RealBatch
from cinnema.evaluation.results import Cell, Column, Curve
from cinnema.evaluation.statistics.bootstrap import ClusteredSums, Estimate
from cinnema.evaluation.statistics.feature_sets import FeatureSample

_GROUP = "quality"
_REAL_AT_ONCE = 4  # real clips whose feature maps are kept: 16 frames at 128 pixels take 250 MB
_RANKED = 2048  # clips among which best, median and worst are chosen


class PixelLikeness(Metric):
    """PSNR and SSIM, the mean over frames and futures."""

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
        """Compare every frame with the real one beside it."""
        for name, distance in (("PSNR", psnr), ("SSIM", ssim)):
            if name == "SSIM" and min(real.x.shape[-2:]) < 11:
                continue
            values = [_per_frame(distance, x, real.x) for x in futures.x]
            mean = torch.stack(values).mean(dim=(0, 2)).double().cpu().tolist()
            sums = self.sums.setdefault((futures.row, name), ClusteredSums(2))
            for source, value in zip(real.sources, mean, strict=True):
                sums.add(source, [value, 1.0])

    def cells(self, row: str) -> Mapping[str, Cell]:
        """Return both means."""
        found = {name: self.sums.get((row, name)) for name in ("PSNR", "SSIM")}
        return {name: sums.ratio() for name, sums in found.items() if sums is not None}


class PerceptualLikeness(Metric):
    """LPIPS of every future, of the best of K, and along the frames.

    Args:
        lpips: The distance, where the networks are.
        title: "VGG16" or "AlexNet".
        num_samples: K.
        is_main: Whether it also yields the best of K, the curve and the ranking.
        identity: The SHA-256 of its weights.
        cache: Of distances, between runs.
    """

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
        self._identity, self._remembered = identity, Remembered(cache)
        self._name = f"LPIPS ({title})"
        self._best = f"LPIPS, best of {num_samples}"
        self.columns = perceptual_columns(title, num_samples=num_samples, is_main=is_main)
        self._real: dict[str, tuple[Tensor, ...]] = {}

    @torch.inference_mode()
    def see(self, real: RealBatch, futures: Futures) -> None:
        """Compare every frame with the real one beside it."""
        hashes = [content_hash(video) for video in real.videos]
        for i, source in enumerate(real.sources):
            along = [
                self._along(f"{hashes[i]}/{content_hash(futures.videos[k][i])}", real.x[i], x[i])
                for k, x in enumerate(futures.x)
            ]
            self._add(futures.row, source, real.keys[i], np.stack(along))

    def _add(self, row: str, source: str, key: str, distances: np.ndarray) -> None:
        of_futures = distances.mean(axis=1)
        self._sums(row, self._name, 2).add(source, [float(of_futures.mean()), 1.0])
        if not self._is_main:
            return
        self._sums(row, self._best, 2).add(source, [float(of_futures.min()), 1.0])
        along = [*map(float, distances.mean(axis=0)), 1.0]
        self._sums(row, "frames", len(along)).add(source, along)
        ranked = self.sums.setdefault((row, "ranked"), FeatureSample(_RANKED))
        ranked.add([key], torch.tensor([[float(of_futures[0])]]))

    def _sums(self, row: str, what: str, length: int) -> ClusteredSums:
        sums: ClusteredSums = self.sums.setdefault((row, what), ClusteredSums(length))
        return sums

    def _along(
        self, pair: str, real: Float[Tensor, "n 3 h w"], clip: Float[Tensor, "n 3 h w"]
    ) -> NDArray[np.float32]:
        """The distance of each frame of a pair of clips, known by their contents."""
        return self._remembered.get(
            f"{self._identity}/distance/{pair}",
            lambda: (
                self._lpips.distance(self._features(clip), self._features_of_real(pair, real))
                .cpu()
                .numpy()
            ),
        )

    def _features_of_real(self, pair: str, real: Tensor) -> tuple[Tensor, ...]:
        """All contestants are compared with the same real frames, one after the other."""
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

    def cells(self, row: str) -> Mapping[str, Cell]:
        """Return the mean, and the best of K."""
        found = {column.name: self.sums.get((row, column.name)) for column in self.columns}
        return {name: sums.ratio() for name, sums in found.items() if sums is not None}

    def curves(self, rows: Sequence[str]) -> Iterator[Curve]:
        """Yield the distance along the frames."""
        known = {row: self.sums[row, "frames"] for row in rows if (row, "frames") in self.sums}
        if not known:
            return
        along = {row: _frame_estimates(sums) for row, sums in known.items()}
        has_band = {row: all(e.low is not None for e in es) for row, es in along.items()}
        yield Curve(
            title="LPIPS over frames",
            x_label="frame",
            y_label=self._name,
            x={row: tuple(float(t + 1) for t in range(len(es))) for row, es in along.items()},
            y={row: tuple(e.value for e in es) for row, es in along.items()},
            low={
                row: tuple(e.low or 0.0 for e in es) for row, es in along.items() if has_band[row]
            },
            high={
                row: tuple(e.high or 0.0 for e in es) for row, es in along.items() if has_band[row]
            },
            about="how far a future drifts from the one that came, by frames compared",
        )

    def ranking(self, row: str) -> list[tuple[str, float]]:
        """Return clips and their distance, the best first; at most 2048, chosen by a hash."""
        sample = self.sums.get((row, "ranked"))
        if sample is None:
            return []
        scores = sample.features[:, 0].tolist()
        return sorted(zip(sample.keys, scores, strict=True), key=lambda pair: (pair[1], pair[0]))


def perceptual_columns(title: str, *, num_samples: int, is_main: bool) -> tuple[Column, ...]:
    """Return the columns of LPIPS with a network."""
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
        about=f"that of the nearest of K = {num_samples} futures of each start; contestants that "
        "draw nothing have one future, and real ones may be fewer",
    )
    return (mean, best) if is_main else (mean,)


def _per_frame(distance: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    values = distance(x.flatten(0, 1), y.flatten(0, 1))
    unflat: Tensor = values.unflatten(0, x.shape[:2])
    return unflat


def _frame_estimates(sums: ClusteredSums) -> list[Estimate]:
    count = len(sums.whole) - 1
    return [sums.estimate(lambda s, t=t: s[..., t] / s[..., -1]) for t in range(count)]  # type: ignore[misc]
