"""Metrics on clips whose numbers are known."""

import numpy as np
import pytest
import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.data.dataset import PackedDataset
from cinnema.evaluation.baselines import Training, TrainingClips
from cinnema.evaluation.features import FeatureNetwork, Features, Video
from cinnema.evaluation.metrics.base import Futures, RealBatch, Task
from cinnema.evaluation.metrics.control import EndPointError, direction_error
from cinnema.evaluation.metrics.distances import (
    FrameFrechetDistance,
    FrechetDistance,
    TrainingDistance,
    frechet_columns,
)
from cinnema.evaluation.metrics.diversity import ClipDiversity, diversity_column
from cinnema.evaluation.metrics.latents import Largest, Latents, distance_to_normal, probe
from cinnema.evaluation.metrics.long_videos import sharpness_and_colour
from cinnema.evaluation.metrics.motion import Motion, visible_motion
from cinnema.evaluation.metrics.quality import PerceptualQuality, PixelQuality, psnr
from cinnema.evaluation.metrics.transfer import agreement
from cinnema.evaluation.protocol import PackedClips, RealClip, Start, choose_protocol
from cinnema.evaluation.results import REAL, Missing
from cinnema.evaluation.statistics.bootstrap import Estimate
from cinnema.media.pictures import to_tensor
from cinnema.models.flow.priors import GaussianPrior

from .conftest import Drifter, colours_of, windows


def texture(seed: int, *, size: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((size // 8, size // 8, 1))).astype(
        np.uint8
    )


def drifting(seed: int, *, dx: int, dy: int, num: int = 5) -> Video:
    return np.stack([np.roll(texture(seed), (dy * t, dx * t), axis=(0, 1)) for t in range(num)])


def batch(clips: list[Video]) -> RealBatch:
    named = [
        RealClip(start=Start(key=f"c{i}", source=f"s{i}", position=i, first=0), frames=c, eta=None)
        for i, c in enumerate(clips)
    ]
    videos = [c[1:] for c in clips]
    return RealBatch(
        clips=named,
        videos=videos,
        x=to_tensor(np.stack(videos)),
        halves=[i % 2 for i in range(len(clips))],
    )


def futures(row: str, videos: list[list[Video]]) -> Futures:
    return Futures(
        row=row,
        kind="model",
        frames=videos,
        videos=videos,
        x=to_tensor(np.stack([np.stack(v) for v in videos])),
    )


def value(cell: object) -> float:
    assert isinstance(cell, Estimate), cell
    return cell.value


REALS = [drifting(seed, dx=1, dy=0) for seed in range(6)]


def test_likeness_is_the_mean_over_frames_and_futures() -> None:
    real = batch(REALS[:2])
    other = [[v[::-1].copy() for v in real.videos], [255 - v for v in real.videos]]
    seen = futures("cINN", other)
    metric = PixelQuality()
    metric.see(real, seen)
    expected = torch.stack([psnr(x.flatten(0, 1), real.x.flatten(0, 1)) for x in seen.x]).mean()
    assert value(metric.cells("cINN")["PSNR"]) == pytest.approx(float(expected), rel=1e-5)


def test_the_best_of_k_is_the_nearest_future_and_a_perfect_one_is_at_0() -> None:
    real = batch(REALS[:3])
    wrong = [255 - v for v in real.videos]
    torch.manual_seed(0)
    metric = PerceptualQuality(LPIPS("alex").eval(), title="VGG16", num_samples=2, is_main=True)
    metric.see(real, futures("cINN", [wrong, list(real.videos)]))
    cells = metric.cells("cINN")
    assert value(cells["LPIPS, best of 2"]) == pytest.approx(0, abs=1e-6)
    assert value(cells["LPIPS (VGG16)"]) > 1e-3
    assert [key for key, _ in metric.ranking("cINN")] == sorted(
        ("c0", "c1", "c2"), key=dict(metric.ranking("cINN")).__getitem__
    )
    (curve,) = metric.curves(["cINN", "other"])
    assert np.mean(curve.y["cINN"]) == pytest.approx(value(cells["LPIPS (VGG16)"]), rel=1e-5)


def test_a_set_has_no_distance_to_itself_and_too_few_clips_are_missing() -> None:
    network = FeatureNetwork(name="colours", identity="", compute=colours_of)
    metric = FrechetDistance(
        Features(network),
        columns=frechet_columns("FVD", about="colours", is_main=True),
        is_main=True,
    )
    for clips in (REALS[:4], REALS[4:]):
        real = batch(clips)
        named = RealBatch(
            clips=[
                RealClip(
                    start=Start(key=str(c[0].sum()), source=str(c[0].sum()), position=0, first=0),
                    frames=c,
                    eta=None,
                )
                for c in clips
            ],
            videos=real.videos,
            x=real.x,
            halves=real.halves,
        )
        metric.see_real(named)
        metric.see(named, futures("same", [list(named.videos)]))
    same = metric.cells("same")
    assert value(same["FVD"]) == pytest.approx(0, abs=1e-6)
    assert value(same["coverage"]) == 1
    assert value(metric.cells(REAL)["FVD"]) > 0
    assert isinstance(metric.cells(REAL)["precision"], Missing)  # 3 clips on a side
    assert isinstance(same["FVD at infinity"], Missing)


def test_a_distance_of_frames_counts_clips_and_sees_every_frame() -> None:
    def compute(video: Video) -> torch.Tensor:
        rows = torch.zeros(len(video), 16)
        rows[:, :3] = torch.from_numpy(video.mean(axis=(1, 2)) / 255)
        return rows

    features = Features(FeatureNetwork(name="", identity="", compute=compute))
    columns = frechet_columns("FID", about="colours")
    metric = FrameFrechetDistance(features, columns=columns, dim=16)
    real = batch(REALS[:4])
    metric.see_real(real)
    metric.see(real, futures("lighter", [[255 - v for v in real.videos]]))
    cell = metric.cells("lighter")["FID"]
    means = np.concatenate([v.mean(axis=(1, 2)) / 255 for v in real.videos]).mean(axis=0)
    assert isinstance(cell, Estimate)
    assert cell.value == pytest.approx(float(((1 - 2 * means) ** 2).sum()), rel=1e-4)
    assert (cell.num_clips, cell.num_sources) == (4, 4)
    assert metric.sums["lighter", "set"].num_clips == 16


def test_the_nearest_training_clip_of_some_of_a_batch_is_their_own(dataset: PackedDataset) -> None:
    protocol = choose_protocol("aligned", "drifting", num_frames=4)
    clips = windows(dataset, split="train")
    some_clips = PackedClips(dataset, clips.starts[:9], num_frames=4, size=64, split="train")
    training = TrainingClips(some_clips)  # of which 8 are candidates
    features = Features(FeatureNetwork(name="colours", identity="", compute=colours_of))
    real = batch(REALS[:3])
    some = real.only([2])
    assert (some.keys, some.sources, some.halves) == (["c2"], ["s2"], [0])
    assert torch.equal(some.x[0], real.x[2])
    together, alone = (TrainingDistance(features, training, protocol=protocol) for _ in range(2))
    together.see_real(real)
    alone.see_real(some)
    for metric in (together, alone):
        metric.see(some, futures("cINN", [[some.videos[0][::-1].copy()]]))
    first, second = (value(m.cells("cINN")["nearest training clip"]) for m in (together, alone))
    assert first == pytest.approx(second)
    assert value(together.cells(REAL)["nearest training clip"]) != pytest.approx(first)


def test_diversity_is_the_mean_squared_difference_of_ordered_pairs() -> None:
    network = FeatureNetwork(name="colours", identity="", compute=colours_of)
    metric = ClipDiversity(Features(network), diversity_column("D", of="colours"), factor=1000)
    real = batch(REALS[:1])
    videos = [[v[1:]] for v in REALS[:3]]
    metric.see(real, futures("cINN", videos))
    f = [colours_of(v[0]) for v in videos]
    pairs = [float((f[i] - f[j]).square().mean()) for i in range(3) for j in range(3) if i != j]
    assert value(metric.cells("cINN")["D"]) == pytest.approx(1000 * sum(pairs) / 6, rel=1e-4)


def test_motion_is_seen_as_it_is() -> None:
    frames = drifting(0, dx=1, dy=2)
    motion = visible_motion(frames)
    centre = motion[-1, 16:-16, 16:-16]
    np.testing.assert_allclose(np.median(centre, axis=(0, 1)), [4, 8], atol=0.3)
    assert direction_error(motion[-1], np.array([1.0, 2.0])) < 10
    assert direction_error(motion[-1], np.array([-1.0, -2.0])) > 170
    assert np.isnan(direction_error(np.zeros((8, 8, 2)), np.array([1.0, 0.0])))
    assert agreement(motion[-1], motion[-1]) == pytest.approx(1)
    assert agreement(motion[-1], -motion[-1]) == pytest.approx(-1)


def test_histograms_of_motion_tell_faster_and_turned_clips() -> None:
    real = batch([drifting(s, dx=1, dy=0) for s in range(4)])
    metric = Motion()
    metric.see_real(real)
    for row, (dx, dy) in {"same": (1, 0), "faster": (2, 0), "turned": (0, 1)}.items():
        clips = [drifting(s, dx=dx, dy=dy)[1:] for s in range(4)]
        metric.see(real, futures(row, [clips]))
    cells = {row: metric.cells(row) for row in ("same", "faster", "turned")}
    assert value(cells["same"]["speed apart"]) == pytest.approx(0, abs=1e-9)
    assert value(cells["same"]["direction apart"]) == pytest.approx(0, abs=1e-9)
    assert value(cells["faster"]["speed"]) > 1.4 * value(cells["same"]["speed"])
    assert value(cells["faster"]["speed apart"]) > 0.3
    assert 60 < value(cells["turned"]["direction apart"]) < 120


class _Balls(TrainingClips):
    """Clips of a white square, which is at eta at the end."""

    def __init__(self, clips: list[RealClip]) -> None:
        self._clips = clips
        self.starts = tuple(clip.start for clip in clips)

    def read(self, index: int) -> RealClip:
        return self._clips[index]


def ball(seed: int) -> RealClip:
    x, y = np.random.default_rng(seed).integers(0, 48, 2)
    frames = np.zeros((3, 64, 64, 3), np.uint8)
    frames[-1, y : y + 16, x : x + 16] = 255
    return RealClip(
        start=Start(key=f"c{seed}", source=f"s{seed}", position=seed, first=0),
        frames=frames,
        eta=np.array([x / 64, y / 64], np.float32),
    )


def test_an_end_point_is_read_off_the_last_frame() -> None:
    metric = EndPointError(_Balls([ball(i) for i in range(200)]), unit="picture sizes")
    clips = [ball(i) for i in range(200, 204)]
    real = RealBatch(
        clips=clips,
        videos=[c.frames[1:] for c in clips],
        x=to_tensor(np.stack([c.frames[1:] for c in clips])),
        halves=[0, 1, 0, 1],
    )
    metric.see_real(real)
    metric.see(real, futures("wrong", [[v[:, ::-1, ::-1] for v in real.videos]]))
    well, badly = (value(metric.cells(row)["end-point error"]) for row in (REAL, "wrong"))
    assert well < 0.15
    assert badly > 2 * well


def test_drift_of_a_still_clip_is_none_and_blur_is_seen() -> None:
    frame = texture(0)
    still = np.stack([frame, frame])
    blurred = np.stack([frame, np.full_like(frame, 128)])
    sharpness, colour = sharpness_and_colour(still)
    assert sharpness.tolist() == [1, 1]
    assert colour.tolist() == [0, 0]
    sharpness, colour = sharpness_and_colour(blurred)
    assert sharpness[1] == 0
    expected = np.abs(128 - frame.mean(axis=(0, 1))).mean()
    assert colour[1] == pytest.approx(float(expected), rel=1e-5)


def test_bits_are_those_of_the_density_and_inversion_is_exact(
    drifter: Drifter, dataset: PackedDataset
) -> None:
    z = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    prior = GaussianPrior.fit(z, z[:, :0])
    protocol = choose_protocol("aligned", "drifting", num_frames=4)
    clips = windows(dataset, split="train")
    task = Task(
        model=drifter,
        clips=clips,
        protocol=protocol,
        training=Training(TrainingClips(clips), {"Gaussian": prior}),
        device=torch.device("cpu"),
        progress=lambda *_: None,
    )
    metric = Latents(task)
    real = batch(REALS[:3])
    metric.see_real(real)
    videos = torch.stack([to_tensor(c) for c in REALS[:3]])
    assert value(metric.cells("cINN")["inversion error"]) < 1e-5
    # Latents are drawn with a little noise around the mean of q.
    mean = prior.log_prob(drifter.encode(videos).double(), z[:3, :0])
    bits = -float(mean.mean()) / (3 * np.log(2))
    assert value(metric.cells("Gaussian")["bits a dimension"]) == pytest.approx(bits, abs=0.05)
    nu, log_det = drifter.to_residual(drifter.encode(videos), drifter.condition(videos[:, 0]))
    density = torch.distributions.Normal(0, 1).log_prob(nu).sum(dim=1) + log_det
    own = -float(density.mean()) / (3 * np.log(2))
    assert value(metric.cells("cINN")["bits a dimension"]) == pytest.approx(own, abs=0.5)
    assert isinstance(metric.cells("cINN")["colour from nu"], Missing)


def test_white_residuals_are_near_the_normal_and_others_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    nu = torch.randn(500, 8, generator=generator).double()
    assert distance_to_normal(nu) < 0.03
    assert distance_to_normal(2 * nu) > 0.1
    assert distance_to_normal(nu + 1) > 0.3


def test_a_probe_finds_colour_where_it_is() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 5, generator=generator).double()
    groups = torch.arange(120) // 6
    mixed = x @ torch.randn(5, 3, generator=generator).double()
    other = torch.randn(120, 3, generator=generator).double()
    assert probe(x, mixed, groups).value > 0.99
    assert probe(x, other, groups).value < 0.15
    assert isinstance(probe(x[:12], other[:12], groups[:12]), Missing)


def test_the_largest_of_several_processes_stays() -> None:
    first, second = Largest(), Largest()
    first.add("a", 1.0)
    second.add("b", 3.0)
    first.merge(second)
    assert first.estimate() == Estimate(3.0, None, None, num_clips=2, num_sources=2)
