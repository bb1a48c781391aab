"""The step of the image auto-encoder, of which the encoder is kept."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from cinnema.data.loader import VideoBatch
from cinnema.paper.training.conditioning import (
    ConditioningConfig,
    ConditioningStep,
    ImageDecoder,
    ImageDecoderConfig,
)
from cinnema.training.loop import Position
from paper.training.small_networks import RECIPE, distance, is_same, state_of

Make = Callable[..., ConditioningStep]


def test_a_step_trains_all_three_networks(conditioning: Make, batch: VideoBatch) -> None:
    step = conditioning()
    before = state_of(step.networks)
    losses = step.take(batch, Position(0, epoch=0))
    assert losses.keys() == {"recon", "percep", "adversarial", "kl", "hinge"}
    after = state_of(step.networks)
    for part in ("encoder.", "decoder.", "patch."):
        assert not is_same(before, after, within=part)


def test_the_discriminator_waits_for_its_epoch(conditioning: Make, batch: VideoBatch) -> None:
    step = conditioning(adversarial_from=1)
    before = state_of(step.networks)
    assert step.take(batch, Position(0, epoch=0)).keys() == {"recon", "percep", "kl"}
    assert is_same(before, state_of(step.networks), within="patch.")


def test_the_losses_are_summed_over_the_pixels_of_a_frame(
    conditioning: Make, batch: VideoBatch
) -> None:
    step = conditioning()
    real, fake = batch.video[:, 0], batch.video[:, 1]
    losses = step.reconstruction_losses(real, fake)
    assert losses["recon"] == pytest.approx(((real - fake).abs().sum() / 2).item(), rel=1e-5)
    assert losses["percep"] == pytest.approx(
        (3 * 64 * 64 * distance(real, fake).mean()).item(), rel=1e-5
    )


def test_any_frame_of_a_clip_may_be_the_one(conditioning: Make, batch: VideoBatch) -> None:
    step, seen = conditioning(), set()
    for number in range(40):
        frames = step.frames(batch, number=number)
        assert torch.equal(frames, step.frames(batch, number=number))
        (where,) = (batch.video[0] == frames[0]).all(dim=(1, 2, 3)).nonzero()
        seen.add(int(where))
    assert seen == set(range(9))


def test_the_rate_is_halved_on_a_plateau(conditioning: Make, batch: VideoBatch) -> None:
    step = conditioning(patience=0)
    for epoch, halved in enumerate([1.0, 1.0, 0.5, 0.25]):
        step.plateau.enter(epoch)
        step.plateau.add(1.0)
        assert step.plateau.factor == halved
    step.take(batch, Position(0, epoch=4))
    rate = step.autoencoder.optimiser.param_groups[0]["lr"]
    assert rate == step.discriminator.optimiser.param_groups[0]["lr"] == 2e-4 / 8


def test_the_image_decoder_makes_pictures_of_every_size_it_is_told() -> None:
    for size in (8, 64, 128):
        decoder = ImageDecoder(ImageDecoderConfig(z_dim=4, size=size, width=16))
        picture = decoder(torch.randn(2, 4))
        assert picture.shape == (2, 3, size, size)
        assert picture.abs().max() <= 1


def test_a_size_that_no_doubling_reaches_is_refused() -> None:
    with pytest.raises(ValueError, match="size must be 4 times a power of 2, got 96: take 64"):
        ImageDecoderConfig(z_dim=4, size=96)


def test_encoder_and_decoder_must_fit() -> None:
    networks = RECIPE.conditioner
    for name, encoder in (
        ("z_dim", replace(networks.encoder, z_dim=3)),
        ("in_size", replace(networks.encoder, in_size=128)),
    ):
        with pytest.raises(ValueError, match=rf"encoder\.{name} and decoder\.\w+ must be equal"):
            ConditioningConfig(encoder=encoder, decoder=networks.decoder, patch=networks.patch)
