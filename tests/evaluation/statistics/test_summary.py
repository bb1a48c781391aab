"""What is kept of many clips, and what it says."""

import pytest
import torch
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.evaluation.statistics.bootstrap import Estimate
from cinnema.evaluation.statistics.distances import (
    frechet_distance,
    measure_coverage,
)
from cinnema.evaluation.statistics.feature_sets import (
    FeatureSample,
    FeatureSummary,
    frechet_at_infinity,
    frechet_estimate,
)


def clips(
    num_sources: int, each: int, *, seed: int, dim: int = 6, shift: float = 0.0
) -> tuple[list[str], list[str], Tensor]:
    """Clips of a source lie close together, as real ones do."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num_sources, 1, dim, generator=generator) + shift
    features = centres + 0.3 * torch.randn(num_sources, each, dim, generator=generator)
    keys = [f"{s}/{i}" for s in range(num_sources) for i in range(each)]
    return keys, [key.split("/")[0] for key in keys], features.flatten(0, 1)


def summary(
    keys: list[str], sources: list[str], features: Tensor, *, batch: int = 1000
) -> FeatureSummary:
    out = FeatureSummary(features.shape[1])
    for i in range(0, len(keys), batch):
        out.add(keys[i : i + batch], sources[i : i + batch], features[i : i + batch])
    return out


def test_order_batches_and_processes_change_nothing() -> None:
    keys, sources, features = clips(12, 5, seed=0)
    other = summary(*clips(12, 5, seed=1, shift=0.5))
    whole = summary(keys, sources, features)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = [keys[i] for i in order], [sources[i] for i in order], features[order]
    first = summary(shuffled[0][:17], shuffled[1][:17], shuffled[2][:17], batch=4)
    first.merge(summary(shuffled[0][17:], shuffled[1][17:], shuffled[2][17:], batch=7))
    a, b = frechet_estimate(whole, other), frechet_estimate(first, other)
    assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), rel=1e-9)
    assert (a.num_clips, a.num_sources) == (b.num_clips, b.num_sources) == (60, 12)


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def test_intervals_cover_what_other_sources_give() -> None:
    pairs = [
        (summary(*clips(24, 4, seed=s)), summary(*clips(24, 4, seed=s + 50, shift=1)))
        for s in range(20)
    ]
    estimates = [frechet_estimate(*pair) for pair in pairs]
    expected = sum(e.value for e in estimates) / 20
    covered = sum((e.low or 0) <= expected <= (e.high or 0) for e in estimates)
    assert covered >= 16  # of a nominal 19


def test_more_sources_narrow_the_interval() -> None:
    few = frechet_estimate(summary(*clips(8, 6, seed=2)), summary(*clips(8, 6, seed=3, shift=1)))
    many = frechet_estimate(
        summary(*clips(128, 6, seed=4)), summary(*clips(128, 6, seed=5, shift=1))
    )
    assert width(many) < 0.5 * width(few)


def test_clips_of_one_source_do_not_narrow_the_interval() -> None:
    one = frechet_estimate(summary(*clips(10, 2, seed=6)), summary(*clips(10, 2, seed=7)))
    copies = frechet_estimate(summary(*clips(10, 40, seed=6)), summary(*clips(10, 40, seed=7)))
    assert width(copies) > 0.4 * width(one)


def test_more_clips_lower_the_distance_and_infinity_takes_the_rest() -> None:
    wholes, ends = [], []
    for seed in range(10):  # both sets are of one distribution: the truth is 0
        first, second = summary(*clips(100, 1, seed=seed)), summary(*clips(100, 1, seed=seed + 20))
        line = frechet_at_infinity(first, second)
        assert line.distances[0] > line.distances[-1]
        wholes.append(frechet_distance(first.whole, second.whole))
        ends.append(line.value)
    assert abs(sum(ends)) < 0.3 * sum(wholes)


def test_memory_does_not_grow_with_clips() -> None:
    out = FeatureSummary(2)
    for start in range(0, 5000, 500):
        keys = [str(i) for i in range(start, start + 500)]
        out.add(keys, [k[-1] for k in keys], torch.randn(500, 2))
    assert len(out.sample) == 2048
    assert (out.num_clips, out.num_sources) == (5000, 10)


def test_a_sample_keeps_the_same_rows_in_any_order() -> None:
    one, other = FeatureSample(3), FeatureSample(3)
    keys = [f"clip {i}" for i in range(20)]
    features = torch.arange(20.0)[:, None]
    one.add(keys, features)
    for i in reversed(range(20)):
        other.add([keys[i]], features[i : i + 1])
    assert one.keys == other.keys
    assert torch.equal(one.features, other.features)


def test_coverage_tells_a_narrow_set_from_a_foreign_one() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(200, 2, generator=generator)
    same = measure_coverage(real, torch.randn(200, 2, generator=generator))
    narrow = measure_coverage(real, 0.05 * torch.randn(200, 2, generator=generator))
    foreign = measure_coverage(real, torch.randn(200, 2, generator=generator) + 20)
    assert min(same.precision, same.recall, same.coverage) > 0.8
    assert same.density == pytest.approx(1, abs=0.2)
    assert narrow.precision > 0.95
    assert max(narrow.recall, narrow.coverage) < 0.2
    assert foreign.precision == foreign.recall == foreign.coverage == 0


def test_too_few_clips_are_told() -> None:
    with pytest.raises(UserError, match="more than 5 clips"):
        measure_coverage(torch.zeros(5, 2), torch.zeros(9, 2))
