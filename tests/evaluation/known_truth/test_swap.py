"""Codes that hold motion alone, and codes that hold the picture, too."""

import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.evaluation.known_truth.swap import (
    LATENT,
    MOVED,
    NU,
    OTHER,
    RESIDUAL,
    SAME,
    Z,
    explained,
)
from cinnema.evaluation.results import Evaluation
from known_models import (
    Character,
    DotRobot,
    RollingSky,
    evaluated,
    number,
    robot_clips,
    sky_clips,
    targets_met,
)

COSINE, ERROR = "cosine of codes", "relative error of codes"
COLOURS, LAYOUT, HAND = (
    f"explained variance of {what}"
    for what in ("x0's colours", "x0's layout", "where the hand starts")
)


@pytest.fixture(scope="module")
def clean() -> Evaluation:
    return evaluated("swap", RollingSky(), sky_clips(20, futures=2))


@pytest.fixture(scope="module")
def leaky() -> Evaluation:
    return evaluated("swap", RollingSky(Character(leaks=True)), sky_clips(20, futures=2))


def test_a_code_of_motion_alone_survives_another_picture(clean: Evaluation) -> None:
    for row in (LATENT, RESIDUAL, MOVED, SAME):
        assert number(clean, row, COSINE).value > 0.97
        assert number(clean, row, ERROR).value < 0.25
    assert abs(number(clean, OTHER, COSINE).value) < 0.5
    assert number(clean, OTHER, ERROR).value > 1


def test_a_code_that_holds_the_picture_does_not(leaky: Evaluation, clean: Evaluation) -> None:
    assert number(leaky, LATENT, ERROR).value > 2 * number(clean, LATENT, ERROR).value
    assert number(leaky, SAME, ERROR).value < 0.25  # without an exchange all is well


def test_a_probe_finds_the_picture_in_a_leaky_code_alone(
    leaky: Evaluation, clean: Evaluation
) -> None:
    assert number(leaky, NU, COLOURS).value > 0.9
    assert number(leaky, Z, COLOURS).value > 0.9
    for column in (COLOURS, LAYOUT):
        assert number(clean, NU, column).value < 0.05
    assert targets_met(clean) == [True, True]


def test_where_the_hand_starts_is_probed_for_where_there_is_one() -> None:
    result = evaluated("swap", DotRobot(), robot_clips(20))
    assert {c.name for c in result.columns} == {COSINE, ERROR, COLOURS, LAYOUT, HAND}
    assert number(result, NU, HAND).value < 0.05


@pytest.mark.parametrize("seed", range(4))
def test_noise_explains_nothing(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(60, 16, generator=generator)
    wanted = torch.randn(60, 3, generator=generator)
    estimate = explained(codes, wanted, [str(i // 2) for i in range(60)])
    assert estimate.value < 0.05
    assert estimate.num_sources == 30


def test_what_is_linear_is_explained_in_full_and_half_of_it_in_part() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(200, 8, generator=generator).double()
    wanted = codes[:, :2] * torch.tensor([3.0, 100.0])  # whatever the unit
    sources = [str(i) for i in range(200)]
    assert explained(codes, wanted, sources).value > 0.99
    noisy = wanted + wanted.std(dim=0) * torch.randn(200, 2, generator=generator)
    assert explained(codes, noisy, sources).value == pytest.approx(0.5, abs=0.15)


def test_what_only_tells_sources_apart_does_not_help() -> None:
    """Clips of one source share their picture: a probe must not know it from another clip."""
    generator = torch.Generator().manual_seed(0)
    tags = torch.randn(20, 30, generator=generator).repeat_interleave(5, dim=0)
    wanted = torch.randn(20, 3, generator=generator).repeat_interleave(5, dim=0)
    assert explained(tags, wanted, [str(i // 5) for i in range(100)]).value < 0.05


def test_few_sources_are_refused() -> None:
    with pytest.raises(UserError, match="need 5 source videos, got 3"):
        evaluated("swap", RollingSky(), sky_clips(3))


def test_the_interval_is_over_sources(clean: Evaluation) -> None:
    cosine = number(clean, LATENT, COSINE)
    assert (cosine.num_clips, cosine.num_sources) == (40, 20)
    assert cosine.low is not None
    assert cosine.high is not None
    assert cosine.low <= cosine.value <= cosine.high
