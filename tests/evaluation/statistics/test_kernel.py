"""The kernel distance of videos that continue the same first frames, and the share closed."""

import itertools

import pytest
import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from cinnema.core.errors import UserError
from cinnema.evaluation.statistics.kernel import (
    closed_share,
    joint_estimate,
    kernel_distance,
    paired_sums,
    share_of,
    unpaired_sums,
)

# A component that clips of one start share is most of each feature, as a picture is of its video.
SHARED, OWN = 1.0, 0.5


def clips(*shape: int, seed: int, scenes: int = 8, each: int = 3) -> tuple[Tensor, ...]:
    """Real and generated clips of one distribution, around a first frame that they share."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(scenes, 1, 4, generator=generator)
    first = first + 0.5 * torch.randn(scenes, each, 4, generator=generator)
    first = SHARED * first.flatten(0, 1)
    real = first + OWN * torch.randn(first.shape, generator=generator)
    wide = first.reshape(len(first), *[1 for _ in shape], 4).expand(-1, *shape, -1)
    return real, wide + OWN * torch.randn(wide.shape, generator=generator), first


def names(scenes: int = 8, each: int = 3) -> list[str]:
    return [f"scene {i}" for i in range(scenes) for _ in range(each)]


def z_score(values: list[float]) -> float:
    """Mean in standard errors."""
    v = torch.tensor(values, dtype=torch.float64)
    return float(v.mean() / (v.std() / len(v) ** 0.5))


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_it_is_0_on_average_for_equal_distributions_around_shared_starts(
    shape: tuple[int, ...],
) -> None:
    pairs = [clips(*shape, seed=seed)[:2] for seed in range(300)]
    assert abs(z_score([kernel_distance(x, y) for x, y in pairs])) < 3


def test_pairs_of_the_same_start_would_make_models_seem_nearer_than_they_are() -> None:
    values = []
    for seed in range(100):
        x, y, _ = clips(seed=seed)
        values.append(float(poly_mmd(x.double(), y.double())))  # with the pairs (i, i)
    assert z_score(values) < -3


def test_a_small_example_is_as_computed_by_hand() -> None:
    # d = 1, so k(a, b) = (a b + 1)^3; the only starts that differ are the two rows.
    real, generated = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
    within_real, within_generated = (0 * 1 + 1) ** 3, (1 * 2 + 1) ** 3
    cross = (0 * 2 + 1) ** 3 + (1 * 1 + 1) ** 3
    assert kernel_distance(real, generated) == within_real + within_generated - cross == 19


def test_with_several_samples_all_pairs_of_different_starts_count_once() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 5, generator=generator).double()
    y = torch.randn(4, 3, 5, generator=generator).double()

    def k(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 5 + 1) ** 3)

    pairs = list(itertools.permutations(range(4), 2))
    samples = list(itertools.product(range(3), range(3)))
    within_x = sum(k(x[i], x[j]) for i, j in pairs) / len(pairs)
    within_y = sum(k(y[i, a], y[j, b]) for i, j in pairs for a, b in samples) / 9 / len(pairs)
    cross = sum(k(x[i], y[j, a]) for i, j in pairs for a in range(3)) / 3 / len(pairs)
    assert kernel_distance(x, y) == pytest.approx(within_x + within_y - 2 * cross)


def test_rows_of_one_start_are_left_out_and_copies_of_a_clip_change_nothing() -> None:
    x, y, _ = clips(seed=0)
    starts = [str(i) for i in range(len(x))]
    twice = kernel_distance(torch.cat([x, x]), torch.cat([y, y]), starts=starts * 2)
    assert twice == pytest.approx(kernel_distance(x, y))


def test_it_is_the_same_in_any_order_of_the_starts() -> None:
    x, y, frozen = clips(2, seed=1)
    y, scenes = y + 0.3, names()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    shuffled = [scenes[i] for i in order.tolist()]
    one = closed_share(x, y, 2 * frozen, scenes=scenes)
    other = closed_share(x[order], y[order], 2 * frozen[order], scenes=shuffled)
    assert kernel_distance(x[order], y[order]) == pytest.approx(kernel_distance(x, y))
    ends = [(g.value, g.low, g.high) for g in (one, other)]
    assert ends[0] == pytest.approx(ends[1])


def test_the_share_is_0_for_the_frozen_frame_1_for_real_video_and_negative_for_worse() -> None:
    x, y, first = clips(seed=2)
    frozen = first - 1
    scenes = names()
    assert closed_share(x, frozen, frozen, scenes=scenes).value == 0
    assert closed_share(x, x, frozen, scenes=scenes).value == 1
    assert closed_share(x, y, frozen, scenes=scenes).value == pytest.approx(1, abs=0.1)
    assert closed_share(x, first - 2, frozen, scenes=scenes).value < 0


def test_intervals_contain_the_value_and_are_of_whole_scenes() -> None:
    x, y, first = clips(seed=3, scenes=20)
    scenes = names(20)
    for found in (
        joint_estimate([paired_sums(x, y + 0.5, scenes=scenes)], lambda d: d[0]),
        closed_share(x, y + 0.5, first - 1, scenes=scenes),
    ):
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.value < found.high
        assert (found.num_clips, found.num_sources) == (60, 20)
    few = paired_sums(x[:6], y[:6], scenes=names(2))
    assert joint_estimate([few], lambda d: d[0]).low is None


def test_a_resample_is_the_distance_of_the_scenes_drawn_without_pairs_of_copies() -> None:
    x, y, _ = clips(seed=4, scenes=3)
    sums = paired_sums(x, y, scenes=names(3))
    drawn = [*range(3), *range(3), *range(6, 9)]  # the first scene twice, the last once
    starts = [str(i) for i in drawn]
    expected = kernel_distance(x[drawn], y[drawn], starts=starts)
    weights = torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64)
    assert float(sums.distance(weights)) == pytest.approx(expected)


def test_the_share_is_missing_where_the_frozen_frame_is_as_near_as_real_video() -> None:
    x, y, _ = clips(seed=7)
    near = paired_sums(x, y, scenes=names())  # by chance a little above 0
    assert float(near.distance()) > 0
    found = share_of(near, near)
    assert (found.value, found.low, found.high) == (0, None, None)
    with pytest.raises(UserError, match="not above 0: give more clips"):
        closed_share(x, y, x, scenes=names())


def test_without_shared_starts_it_is_that_of_torchmetrics() -> None:
    x, y = torch.randn(40, 8), torch.randn(40, 8) + 0.5
    sums = unpaired_sums(
        x,
        y,
        first_scenes=[f"x{i}" for i in range(40)],
        second_scenes=[f"y{i}" for i in range(40)],
    )
    assert float(sums.distance()) == pytest.approx(float(poly_mmd(x.double(), y.double())))


def test_halves_of_other_scenes_are_at_0_on_average() -> None:
    values = []
    for seed in range(300):
        x, _, _ = clips(seed=seed)
        scenes = names()
        sums = unpaired_sums(x[:12], x[12:], first_scenes=scenes[:12], second_scenes=scenes[12:])
        values.append(float(sums.distance()))
    assert abs(z_score(values)) < 3


def test_too_few_clips_and_sets_that_differ_are_told() -> None:
    one, three = torch.zeros(1, 2), torch.zeros(3, 2)
    with pytest.raises(UserError, match="at least 2 starts, got 1: give more"):
        kernel_distance(one, one)
    with pytest.raises(UserError, match="at least 2 starts, got 1"):
        kernel_distance(three, three, starts=["a"] * 3)
    with pytest.raises(UserError, match="got 3 real clips and 1 generated ones: give as many"):
        kernel_distance(three, one)
    with pytest.raises(UserError, match="3 real clips and 2 scenes"):
        paired_sums(three, three, scenes=["a", "b"])
    with pytest.raises(UserError, match="take both from one backbone"):
        kernel_distance(three, torch.zeros(3, 4))
    with pytest.raises(UserError, match="at least 2 source videos on each side, got 1"):
        unpaired_sums(three, three, first_scenes=["a"] * 3, second_scenes=["b", "c", "d"])
