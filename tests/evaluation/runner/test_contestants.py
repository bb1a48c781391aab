"""Who continues first frames: what each owes, whatever the batch."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from cinnema.data.dataset import PackedDataset
from cinnema.evaluation.baselines import (
    Baseline,
    Frozen,
    Misled,
    NearestTraining,
    OtherFutures,
    Prior,
    Reconstructed,
    Sampled,
    Shuffled,
    StandardLatent,
    TrainingClips,
    condition,
    encoded,
    first_frames,
)
from cinnema.evaluation.protocols import (
    RealClip,
    choose_protocol,
    choose_starts,
    find_other_futures,
    read_clip,
)
from cinnema.models.flow.priors import GaussianPrior
from cinnema.models.warping.model import WarpingModel


@pytest.fixture(scope="module")
def clips(dataset: PackedDataset) -> list[RealClip]:
    protocol = choose_protocol("aligned", "drifting", num_frames=4)
    starts = choose_starts(dataset, protocol, num_frames=4, most=4)
    return [read_clip(dataset, start, num_frames=4) for start in starts]


@pytest.fixture(scope="module")
def training(dataset: PackedDataset) -> TrainingClips:
    protocol = choose_protocol("aligned", "drifting", num_frames=4)
    starts = choose_starts(dataset, protocol, split="train", num_frames=4)
    return TrainingClips(dataset, starts, num_frames=4)


@pytest.fixture(scope="module")
def contestants(model: WarpingModel, training: TrainingClips) -> Sequence[Baseline]:
    z = torch.randn(50, model.z_dim, generator=torch.Generator().manual_seed(0))
    prior = GaussianPrior.fit(z, z[:, :0])
    return [
        Sampled(model),
        Frozen(),
        Shuffled(seed=0),
        Reconstructed(model),
        StandardLatent(model),
        Prior(model, prior, name="Gaussian", about="fitted"),
        NearestTraining(training),
    ]


def test_nobody_depends_on_the_batch(
    contestants: Sequence[Baseline], clips: list[RealClip]
) -> None:
    for contestant in contestants:
        together = contestant.follow(clips)
        assert all(len(video) == 4 for video in together)
        for clip, video in zip(clips, together, strict=True):
            alone = contestant.follow([clip])[0]
            # One level of 255 may differ by rounding of products of another shape.
            assert np.abs(alone.astype(int) - video.astype(int)).max() <= 1, contestant.name


def test_those_that_draw_have_other_futures_of_a_start(
    contestants: Sequence[Baseline], clips: list[RealClip]
) -> None:
    for contestant in contestants:
        first, second = (np.stack(contestant.follow(clips, sample=k)) for k in (0, 1))
        assert np.array_equal(first, second) != contestant.is_stochastic, contestant.name


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


def test_other_futures_show_what_else_came_of_x0(forked: PackedDataset) -> None:
    protocol = choose_protocol("aligned", "drifting", num_frames=4)
    starts = choose_starts(forked, protocol, num_frames=4)
    clips = [read_clip(forked, start, num_frames=4) for start in starts]
    others = find_other_futures(forked, starts, num_frames=4)
    contestant = OtherFutures(forked, others, num_frames=4)
    assert [contestant.num_futures(clip, most=5) for clip in clips] == [2, 2, 2, 1, 1, 0]
    assert [contestant.num_futures(clip, most=1) for clip in clips] == [1, 1, 1, 1, 1, 0]
    assert contestant.counts == (1, 2)
    for sample, expected in ((0, [1, 2, 0]), (1, [2, 0, 1])):
        for clip, video, other in zip(
            clips, contestant.follow(clips[:3], sample=sample), expected, strict=False
        ):
            assert np.array_equal(clip.frames[0], clips[other].frames[0])
            assert np.array_equal(video, clips[other].frames[1:])
            assert not np.array_equal(video, clip.frames[1:])


def test_latents_are_the_mean_of_q_or_a_draw_that_hangs_on_the_clip_alone(
    model: WarpingModel, clips: list[RealClip]
) -> None:
    drawn = encoded(model, clips, seed=0)
    torch.testing.assert_close(drawn[2:3], encoded(model, clips[2:3], seed=0))
    assert not torch.allclose(drawn, encoded(model, clips))
    assert not torch.allclose(drawn, encoded(model, clips, seed=1))


def test_shuffled_eta_is_that_of_another_clip(clips: list[RealClip], model: WarpingModel) -> None:
    controls = np.stack([clip.eta for clip in clips if clip.eta is not None])
    misled = Misled(model, controls)
    for clip in clips:
        eta = misled._misled(clip).eta
        assert eta is not None
        assert not np.array_equal(eta, clip.eta)
        assert any(np.array_equal(eta, other) for other in controls)


def test_a_model_without_control_is_told_x0_alone(
    model: WarpingModel, clips: list[RealClip]
) -> None:
    x0 = first_frames(model, clips)
    torch.testing.assert_close(condition(model, clips, x0), model.condition(x0))
