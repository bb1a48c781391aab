"""The discriminators: what they see, what they keep apart, and how they begin."""

import doctest

import pytest
import torch
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.training import discriminators as networks
from cinnema.training.discriminators import (
    SpatialDiscriminator,
    TemporalDiscriminator,
    frozen,
)

Discriminator = SpatialDiscriminator | TemporalDiscriminator
BOTH = pytest.mark.parametrize("kind", [SpatialDiscriminator, TemporalDiscriminator])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def trained(kind: type[Discriminator], widths: tuple[int, ...] = (8, 16)) -> Discriminator:
    """One whose last layers are no longer zero."""
    torch.manual_seed(0)
    network = kind(widths)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96), (128, 128)])
@pytest.mark.parametrize("frames", [1, 3])
def test_every_frame_has_a_logit_for_each_of_its_patches(
    frames: int, height: int, width: int
) -> None:
    judged = SpatialDiscriminator((8, 8, 16))(
        noise(2, frames, 3, height, width), noise(2, 3, height, width)
    )
    assert judged.logits.shape == (2, frames, height // 8, width // 8)
    assert [tuple(f.shape) for f in judged.features] == [
        (2 * frames, channels, height // side, width // side)
        for channels, side in ((8, 2), (8, 4), (16, 8))
    ]


@pytest.mark.parametrize(
    ("frames", "steps"), [(2, (2, 1, 1)), (3, (3, 2, 1)), (5, (5, 3, 2)), (16, (16, 8, 4))]
)
@pytest.mark.parametrize("size", [64, 128])
def test_a_clip_of_two_frames_or_more_has_logits_over_time_and_picture(
    frames: int, steps: tuple[int, ...], size: int
) -> None:
    judged = TemporalDiscriminator((8, 8, 16))(
        noise(1, frames, 3, size, size), noise(1, 3, size, size)
    )
    assert judged.logits.shape == (1, steps[-1], size // 8, size // 8)
    assert [tuple(f.shape) for f in judged.features] == [
        (1, channels, t, size // side, size // side)
        for channels, t, side in zip((8, 8, 16), steps, (2, 4, 8), strict=True)
    ]


@BOTH
def test_clips_do_not_influence_each_other(kind: type[Discriminator]) -> None:
    network, frames, x0 = trained(kind), noise(3, 4, 3, 16, 16), noise(3, 3, 16, 16, seed=1)
    apart = [network(frames[i : i + 1], x0[i : i + 1]).logits for i in range(3)]
    torch.testing.assert_close(network(frames, x0).logits, torch.cat(apart))


def test_frames_are_scored_apart_in_the_picture_and_together_over_time() -> None:
    frames, x0 = noise(1, 4, 3, 16, 16), noise(1, 3, 16, 16, seed=1)
    turned = frames.flip(1)
    spatial, temporal = trained(SpatialDiscriminator), trained(TemporalDiscriminator)
    torch.testing.assert_close(spatial(turned, x0).logits.flip(1), spatial(frames, x0).logits)
    difference = temporal(turned, x0).logits.flip(1) - temporal(frames, x0).logits
    assert difference.abs().max() > 1e-3


@BOTH
def test_the_first_frame_counts(kind: type[Discriminator]) -> None:
    network, frames = trained(kind), noise(1, 4, 3, 16, 16)
    first, other = (network(frames, noise(1, 3, 16, 16, seed=seed)).logits for seed in (1, 2))
    assert (first - other).abs().max() > 1e-3


def test_a_time_that_is_left_over_is_kept_as_it_is() -> None:
    x = noise(1, 8, 3, 2, 2)
    halved = networks._halve(x)
    torch.testing.assert_close(halved[0, :, 0, 0, 0], x[0, :, :2].mean(dim=(1, 2, 3)))
    torch.testing.assert_close(halved[0, :, 1, 0, 0], x[0, :, 2].mean(dim=(1, 2)))


@BOTH
def test_signals_keep_their_size_through_an_untrained_network(kind: type[Discriminator]) -> None:
    torch.manual_seed(0)
    network = kind((32, 32, 32, 32, 32))
    judged = network(noise(2, 4, 3, 64, 64), noise(2, 3, 64, 64, seed=1))
    # Averages over 2 x 2 points of noise halve it; nothing else may shrink or grow much.
    spreads = [float(f.std()) * 2**stage for stage, f in enumerate(judged.features)]
    assert all(0.3 < spread < 3 for spread in spreads[:2])
    assert judged.logits.std() < 3


@BOTH
def test_the_blocks_of_an_untrained_network_pass_on_what_they_get(
    kind: type[Discriminator],
) -> None:
    network = kind((8, 16))
    width_of = {0: 8, 1: 16}
    for index, block in enumerate(network.blocks):
        x = noise(1, width_of[index], *((4,) if kind is TemporalDiscriminator else ()), 4, 4)
        assert torch.equal(block(x), x)
        block(x).square().sum().backward()
        assert block.layers[-1].weight.grad.abs().max() > 0  # but it will not stay so


def test_one_frame_is_too_few_for_a_temporal_discriminator() -> None:
    with pytest.raises(UserError, match=r"at least 2 consecutive frames, got 1: render more"):
        TemporalDiscriminator((8, 8))(noise(1, 1, 3, 16, 16), noise(1, 3, 16, 16))


@BOTH
def test_a_size_that_cannot_be_halved_often_enough_is_refused(kind: type[Discriminator]) -> None:
    with pytest.raises(UserError, match=r"3 widths.*multiples of 8, got 64 and 36"):
        kind((8, 8, 8))(noise(1, 2, 3, 64, 36), noise(1, 3, 64, 36))


def test_a_resting_network_passes_gradients_on_and_stays_as_it_is() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(2, 1, 3, 3, requires_grad=True)
    with frozen(network):
        network(x).square().sum().backward()
    assert x.grad is not None
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_the_examples_run() -> None:
    result = doctest.testmod(networks)
    assert result.attempted > 0
    assert result.failed == 0
