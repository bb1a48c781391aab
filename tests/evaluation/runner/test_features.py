"""Features are computed once for each content; FVD gives the number that is known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cinnema.backbones.i3d import I3D
from cinnema.core.errors import UserError
from cinnema.evaluation.features import (
    FeatureCache,
    FeatureNetwork,
    Features,
    Video,
    content_hash,
    i3d_network,
)
from cinnema.evaluation.statistics.distances import GaussianStatistics, frechet_distance


class Counting:
    """Mean colours, and how often they were asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, video: Video) -> torch.Tensor:
        self.calls += 1
        return torch.from_numpy(video.mean(axis=(0, 1, 2)))


def network(compute: Counting, identity: str = "mean colours") -> FeatureNetwork:
    return FeatureNetwork(name="colours", identity=identity, compute=compute)


def clip(seed: int) -> Video:
    return np.random.default_rng(seed).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def test_the_hash_is_of_shape_and_every_pixel() -> None:
    video = clip(0)
    changed = video.copy()
    changed[2, 7, 7, 2] ^= 1
    hashes = {content_hash(v) for v in (video, changed, video.reshape(3, 4, 16, 3))}
    assert len(hashes) == 3
    assert content_hash(video[:, ::-1]) == content_hash(video[:, ::-1].copy())


def test_a_clip_is_computed_once_for_each_network_and_kept_between_runs(tmp_path: Path) -> None:
    videos, compute = [clip(0), clip(1), clip(0)], Counting()
    cache = FeatureCache(tmp_path)
    first = Features(network(compute), cache=cache).of(videos)
    again = Features(network(compute), cache=cache).of(videos)
    assert compute.calls == 2
    assert torch.equal(first, again)
    Features(network(compute, "other weights"), cache=cache).of(videos)
    assert compute.calls == 4
    cache.close()
    other = FeatureCache(tmp_path)
    assert torch.equal(Features(network(compute), cache=other).of(videos), first)
    assert compute.calls == 4


def test_without_a_cache_only_the_last_clips_are_kept() -> None:
    compute = Counting()
    features = Features(network(compute))
    for seed in range(600):
        features.of([clip(seed)])
    features.of([clip(599)])
    assert compute.calls == 600
    features.of([clip(0)])
    assert compute.calls == 601


def test_a_damaged_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "features.sqlite").write_bytes(b"no database, but long enough to be one" * 9)
    with pytest.raises(UserError, match=r"cannot be used as a cache.*delete it"):
        FeatureCache(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used as a cache"):
        FeatureCache(tmp_path / "file")


def test_fvd_of_black_against_white_is_what_these_weights_are_known_to_give() -> None:
    """DeepMind's example, 15 frames of 64 pixels, says 131 for its own copy of the weights."""
    i3d = i3d_network(
        I3D.kinetics(), "", layer="logits", resize="tensorflow", device=torch.device("cpu")
    )
    sets = []
    for level in (0, 255):
        rows = Features(i3d).of([np.full((15, 64, 64, 3), level, np.uint8)])
        sets.append(GaussianStatistics(400))
        sets[-1].add(rows.repeat(16, 1))  # the clips of a set are all the same
    assert frechet_distance(*sets) == pytest.approx(134, abs=1)
