"""What continues first frames: the same in any batch."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from cinnema.data.dataset import PackedDataset
from cinnema.evaluation.baselines import (
    Baseline,
    Frozen,
    NearestTraining,
    OtherFutures,
    Prior,
    Reconstructed,
    Sampled,
    Shuffled,
    ShuffledControl,
    StandardLatent,
    TrainingClips,
    condition,
    encoded,
    first_frames,
)
from cinnema.evaluation.priors import BlockPrior
from cinnema.evaluation.protocol import RealClip
from cinnema.models.flow.priors import GaussianPrior
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import KIND_DIM, NatureModel

from .conftest import Drifter, windows


@pytest.fixture(scope="module")
def clips(dataset: PackedDataset) -> list[RealClip]:
    found = windows(dataset, most=4)
    return [found.read(start) for start in found.starts]


@pytest.fixture(scope="module")
def training(dataset: PackedDataset) -> TrainingClips:
    return TrainingClips(windows(dataset, split="train"))


@pytest.fixture(scope="module")
def baselines(model: NatureModel, training: TrainingClips) -> Sequence[Baseline]:
    z = torch.randn(50, KIND_DIM, generator=torch.Generator().manual_seed(0))
    prior = BlockPrior(model, [GaussianPrior.fit(z, z[:, :0])] * len(KINDS))
    return [
        Sampled(model),
        Frozen(),
        Shuffled(seed=0),
        Reconstructed(model),
        StandardLatent(model),
        Prior(model, prior, name="Gaussian", about="fitted"),
        NearestTraining(training),
    ]


def test_no_baseline_depends_on_the_batch(
    baselines: Sequence[Baseline], clips: list[RealClip]
) -> None:
    for baseline in baselines:
        together = baseline.follow(clips)
        assert all(len(video) == 4 for video in together)
        for clip, video in zip(clips, together, strict=True):
            alone = baseline.follow([clip])[0]
            # One level of 255 may differ by rounding of products of another shape.
            assert np.abs(alone.astype(int) - video.astype(int)).max() <= 1, baseline.name


def test_those_that_draw_have_other_futures_of_a_start(
    baselines: Sequence[Baseline], clips: list[RealClip]
) -> None:
    for baseline in baselines:
        first, second = (np.stack(baseline.follow(clips, sample=k)) for k in (0, 1))
        assert np.array_equal(first, second) != baseline.is_stochastic, baseline.name


def test_a_shuffled_clip_has_the_same_frames(clips: list[RealClip]) -> None:
    videos = Shuffled(seed=1).follow(clips)
    for clip, video in zip(clips, videos, strict=True):
        sums = [
            sorted(int(f.astype(int).sum()) for f in frames) for frames in (clip.frames[1:], video)
        ]
        assert sums[0] == sums[1]
    assert any(not np.array_equal(c.frames[1:], v) for c, v in zip(clips, videos, strict=True))


def test_a_training_clip_is_its_own_nearest(training: TrainingClips) -> None:
    clip = training.read(3)
    assert np.array_equal(NearestTraining(training).follow([clip])[0], clip.frames[1:])
    assert len(training.nearest(clip.frames[0], num=3)) == 3


def test_other_futures_are_the_other_real_clips_of_x0(forked: PackedDataset) -> None:
    found = windows(forked)
    clips = [found.read(start) for start in found.starts]
    baseline = OtherFutures(found, found.other_futures())
    assert [baseline.num_futures(clip, most=5) for clip in clips] == [2, 2, 2, 1, 1, 0]
    assert [baseline.num_futures(clip, most=1) for clip in clips] == [1, 1, 1, 1, 1, 0]
    assert baseline.counts == (1, 2)
    for sample, expected in ((0, [1, 2, 0]), (1, [2, 0, 1])):
        for clip, video, other in zip(
            clips, baseline.follow(clips[:3], sample=sample), expected, strict=False
        ):
            assert np.array_equal(clip.frames[0], clips[other].frames[0])
            assert np.array_equal(video, clips[other].frames[1:])
            assert not np.array_equal(video, clip.frames[1:])


def test_latents_are_the_mean_of_q_or_a_draw_that_depends_on_the_clip_alone(
    model: NatureModel, clips: list[RealClip]
) -> None:
    drawn = encoded(model, clips, seed=0)
    torch.testing.assert_close(drawn[2:3], encoded(model, clips[2:3], seed=0))
    assert not torch.allclose(drawn, encoded(model, clips))
    assert not torch.allclose(drawn, encoded(model, clips, seed=1))


def test_shuffled_eta_is_that_of_another_clip(clips: list[RealClip]) -> None:
    model = Drifter(control_dim=2).eval()
    controls = np.stack([clip.eta for clip in clips if clip.eta is not None])
    x0 = first_frames(model, clips)
    for clip, eta in zip(clips, ShuffledControl(model, controls).condition(clips, x0)[:, 3:],
                         strict=True):  # fmt: skip
        assert not np.array_equal(eta, clip.eta)
        assert any(np.array_equal(eta, other) for other in controls)


def test_where_the_data_have_no_control_a_model_is_conditioned_on_x0_alone(
    model: NatureModel, clips: list[RealClip]
) -> None:
    x0 = first_frames(model, clips)
    plain = [replace(clip, eta=None) for clip in clips]
    torch.testing.assert_close(condition(model, plain, x0), model.condition(x0))
