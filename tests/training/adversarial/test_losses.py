"""Each loss against numbers worked out by hand, and against autograd."""

import math

import pytest
import torch
from torch import Tensor, nn

from cinnema.training.losses import (
    adaptive_weight,
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    relativistic_discriminator,
    relativistic_generator,
    slope_penalty,
)


def test_the_hinge_is_the_halved_sum_of_two_means() -> None:
    real, fake = torch.tensor([[2.0], [0.5], [-1.0]]), torch.tensor([[-3.0], [0.0]])
    # (0 + 0.5 + 2) / 3 and (0 + 1) / 2
    assert hinge_discriminator(real, fake).item() == pytest.approx((2.5 / 3 + 0.5) / 2)


def test_the_hinge_is_zero_where_both_kinds_are_told_apart_by_a_margin() -> None:
    assert hinge_discriminator(torch.tensor([1.0, 5.0]), torch.tensor([-1.0, -9.0])).item() == 0


def test_a_generator_wants_high_scores_without_bound() -> None:
    assert hinge_generator(torch.tensor([[1.0], [5.0]])).item() == -3


def test_pairs_are_compared_by_the_difference_of_their_scores() -> None:
    real, fake = torch.tensor([[2.0], [0.0]]), torch.tensor([[-1.0], [4.0]])
    of_discriminator = (math.log1p(math.exp(-3)) + math.log1p(math.exp(4))) / 2
    of_generator = (math.log1p(math.exp(3)) + math.log1p(math.exp(-4))) / 2
    assert relativistic_discriminator(real, fake).item() == pytest.approx(of_discriminator)
    assert relativistic_generator(real, fake).item() == pytest.approx(of_generator)


def test_pairs_that_score_alike_cost_log_2_wherever_they_are() -> None:
    for level in (-7.0, 0.0, 30.0):
        scores = torch.full((3, 4), level)
        assert relativistic_discriminator(scores, scores).item() == pytest.approx(math.log(2))
        assert relativistic_generator(scores, scores).item() == pytest.approx(math.log(2))


def test_what_one_side_of_a_pair_gains_the_other_loses() -> None:
    real, fake = torch.tensor([0.3], requires_grad=True), torch.tensor([-0.4], requires_grad=True)
    (down,) = torch.autograd.grad(relativistic_discriminator(real, fake), fake)
    (up,) = torch.autograd.grad(relativistic_generator(real, fake), fake)
    assert down.item() == pytest.approx(1 / (1 + math.exp(0.7)))
    assert up.item() == pytest.approx(-1 / (1 + math.exp(-0.7)))


def test_the_penalty_on_a_line_is_its_squared_slope() -> None:
    w = torch.tensor([[1.0], [-2.0], [3.0]])
    x = torch.randn(4, 3, requires_grad=True)
    assert slope_penalty(x @ w, x).item() == pytest.approx(14)


def test_the_penalty_on_a_quadratic_is_known() -> None:
    x = torch.tensor([[1.0, 2.0], [0.0, -3.0], [2.0, 0.5]], dtype=torch.float64).requires_grad_()
    form = torch.tensor([[2.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    logits = (x @ form * x).sum(dim=1, keepdim=True)  # its gradient is 2 A x
    gradients = 2 * x.detach() @ form
    penalty = slope_penalty(logits, x)
    assert penalty.item() == pytest.approx(gradients.square().sum(dim=1).mean().item())
    # And its own gradient, for which it is differentiated again: (8 / b) A A x.
    (again,) = torch.autograd.grad(penalty, x)
    torch.testing.assert_close(again, 8 / 3 * x.detach() @ form @ form)


def test_the_penalty_is_the_mean_of_those_of_patches_that_do_not_overlap() -> None:
    w = torch.tensor([1.0, -2.0, 3.0, 0.5])
    x = torch.randn(5, 4, requires_grad=True)
    assert slope_penalty(x * w, x).item() == pytest.approx(w.square().mean().item())
    # So twice as many patches, over twice as large a clip, have the same penalty.
    wide = torch.randn(5, 8, requires_grad=True)
    assert slope_penalty(wide * w.repeat(2), wide).item() == pytest.approx(w.square().mean().item())


def test_the_gradient_of_the_penalty_reaches_the_discriminator() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    slope_penalty(network(x), x).backward()
    weight, step = network[0].weight, 1e-6
    found = weight.grad[1, 2].item()

    def moved(by: float) -> float:
        with torch.no_grad():
            weight[1, 2] += by
        value = slope_penalty(network(x), x).item()
        with torch.no_grad():
            weight[1, 2] -= by
        return value

    assert found == pytest.approx((moved(step) - moved(-step)) / (2 * step), rel=1e-5)
    assert abs(found) > 1e-6


def test_feature_matching_is_the_mean_over_maps_of_mean_differences() -> None:
    real = [torch.zeros(1, 2, 2), torch.zeros(1, 8)]
    fake = [torch.full((1, 2, 2), -3.0), torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0]])]
    assert feature_matching(real, fake).item() == pytest.approx((3 + 1 / 8) / 2)


def losses_of(w: Tensor) -> tuple[Tensor, Tensor]:
    return 10 * w.sum(), (w * torch.tensor([3.0, 4.0], dtype=w.dtype)).sum()


def test_the_adaptive_weight_makes_both_losses_pull_equally_hard() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    weight = adaptive_weight(*losses_of(w), w)
    assert weight.item() == pytest.approx(10 * 2**0.5 / (5 + 1e-4), rel=1e-5)
    assert not weight.requires_grad


def test_the_adaptive_weight_is_in_float32_where_the_layer_is_in_less() -> None:
    w = torch.tensor([1.0, 2.0], dtype=torch.bfloat16, requires_grad=True)
    weight = adaptive_weight(*losses_of(w), w)
    assert weight.dtype == torch.float32
    assert weight.item() == pytest.approx(10 * 2**0.5 / (5 + 1e-4), rel=1e-5)


def test_the_adaptive_weight_is_bounded_where_the_adversary_does_not_pull() -> None:
    w = torch.tensor([1.0], requires_grad=True)
    assert adaptive_weight(100 * w.sum(), (0 * w).sum(), w).item() == 1e4
