"""The step of stage 1: three phases, what each changes, and what they descend."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.data.loader import VideoBatch
from cinnema.paper.training.autoencoding import AutoencodingConfig, AutoencodingStep
from cinnema.paper.training.losses import (
    gradient_penalty,
    kl_to_standard_normal,
)
from cinnema.paper.training.phases import AdamConfig
from cinnema.training.discriminators import frozen
from cinnema.training.loop import Position
from cinnema.training.losses import feature_matching
from paper.training.small_networks import RECIPE, distance, is_same, state_of

Make = Callable[..., AutoencodingStep]
PARTS = ("encoder.", "decoder.", "temporal.", "patch.")


def test_each_phase_changes_its_own_networks_only(
    autoencoding: Make, small_batch: VideoBatch
) -> None:
    step = autoencoding()
    networks = step.networks
    made = step.reconstruct(small_batch, number=1)
    phases = (
        (step.temporal, step.temporal_losses, {"temporal."}),
        (step.spatial, step.spatial_losses, {"patch."}),
        (step.generator, step.generator_losses, {"encoder.", "decoder."}),
    )
    for phase, losses_of, own in phases:
        before = state_of(networks)
        phase.descend(losses_of(made), 1, epoch=0)
        after = state_of(networks)
        assert {part for part in PARTS if not is_same(before, after, within=part)} == own


def test_discriminators_stay_as_they_are_while_the_generator_is_trained_against_them(
    autoencoding: Make, small_batch: VideoBatch
) -> None:
    step = autoencoding(temporal_every=2, spatial_every=2)
    step.take(small_batch, Position(0, epoch=0))
    before = state_of(step.networks)
    losses = step.take(small_batch, Position(1, epoch=0))
    after = state_of(step.networks)
    assert {"adversarial_t", "adversarial_s", "matching"} <= losses.keys()
    assert "hinge_t" not in losses
    for part in PARTS:
        assert is_same(before, after, within=part) == (part in ("temporal.", "patch."))


def test_discriminators_are_neither_trained_nor_heard_before_their_epoch(
    autoencoding: Make, small_batch: VideoBatch
) -> None:
    step = autoencoding(adversarial_from=1)
    before = state_of(step.networks)
    assert step.take(small_batch, Position(0, epoch=0)).keys() == {"recon", "percep", "kl"}
    after = state_of(step.networks)
    assert is_same(before, after, within="temporal.")
    assert is_same(before, after, within="patch.")
    losses = step.take(small_batch, Position(1, epoch=1))
    assert losses.keys() == {
        "recon", "percep", "kl", "hinge_t", "penalty", "hinge_s", "adversarial_t",
        "adversarial_s", "matching",
    }  # fmt: skip


def test_the_losses_are_weighted_as_the_config_says(
    autoencoding: Make, small_batch: VideoBatch
) -> None:
    step = autoencoding()
    made = step.reconstruct(small_batch, number=3)
    losses = step.generator_losses(made)
    expected = {
        "recon": 10 * (made.fake - made.real).abs().mean(),
        "percep": 30 * distance(made.fake.flatten(0, 1), made.real.flatten(0, 1)).mean(),
        "kl": 1e-5 * kl_to_standard_normal(made.mu, made.log_var),
    }
    with frozen(step.networks.temporal, step.networks.patch):
        losses |= step.adversarial_losses(made)
        score, fake = step.networks.temporal(made.clip(made.fake))
        _, real = step.networks.temporal(made.clip(made.real))
        picture_score = step.networks.patch(made.frames(made.fake))
        expected |= {
            "adversarial_t": -score.mean(),
            "adversarial_s": -picture_score.mean(),
            "matching": 10 * feature_matching(real, fake),
        }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-5), name


def test_the_penalty_is_of_the_real_clip_and_trains_the_discriminator(
    autoencoding: Make, small_batch: VideoBatch
) -> None:
    step = autoencoding()
    made = step.reconstruct(small_batch, number=0)
    with frozen(step.networks.temporal):  # spectral norms would move
        losses = step.temporal_losses(made)
        real = made.clip(made.real).requires_grad_(True)
        expected = 10 * gradient_penalty(step.networks.temporal(real)[0], real)
    assert losses["penalty"].item() == pytest.approx(expected.item(), rel=1e-5)

    step.temporal_losses(made)["penalty"].backward()
    gradients = {
        name: p.grad for name, p in step.networks.temporal.named_parameters() if p.ndim > 1
    }
    assert all(g is not None and g.abs().sum() > 0 for g in gradients.values())
    assert all(p.grad is None for p in step.networks.decoder.parameters())
    assert "penalty" not in autoencoding(w_penalty=0.0).temporal_losses(made)


def test_discriminators_see_the_same_part_of_real_and_generated_clips(
    autoencoding: Make, small_batch: VideoBatch
) -> None:
    step = autoencoding(sub_clip=6, num_pictures=20)
    starts = set()
    for number in range(5):
        made = step.reconstruct(small_batch, number=number)
        starts.add(made.start)
        assert made.clip(made.fake).shape == made.clip(made.real).shape == (2, 3, 6, 32, 32)
        first = made.real[0, made.start]
        assert torch.equal(made.clip(made.real)[0, :, 0], first)
        frames = made.frames(made.real)
        assert frames.shape == (20, 3, 32, 32)
        at = int(made.pictures[3])
        assert torch.equal(frames[3], made.real[at // 8, at % 8])
    assert len(starts) > 1
    assert starts <= {0, 1, 2}


def test_all_draws_follow_from_seed_and_step(autoencoding: Make, small_batch: VideoBatch) -> None:
    torch.manual_seed(1)
    a = autoencoding().reconstruct(small_batch, number=5)
    torch.manual_seed(2)
    b = autoencoding().reconstruct(small_batch, number=5)
    assert torch.equal(a.fake, b.fake)
    assert torch.equal(a.pictures, b.pictures)
    c = autoencoding().reconstruct(small_batch, number=6)
    assert not torch.equal(a.fake, c.fake)


def test_steps_lower_the_reconstruction_of_one_batch(
    autoencoding: Make, small_batch: VideoBatch
) -> None:
    step = autoencoding(adversarial_from=1, adam=AdamConfig(learning_rate=2e-3, betas=(0.5, 0.9)))
    losses = [step.take(small_batch, Position(number, epoch=0))["recon"] for number in range(4)]
    assert losses[-1] < 0.9 * losses[0]


def test_clips_with_a_value_that_is_no_number_are_refused(
    autoencoding: Make, small_batch: VideoBatch
) -> None:
    step = autoencoding(adversarial_from=1)
    before = {name: p.detach().clone() for name, p in step.networks.named_parameters()}
    video = small_batch.video.clone()
    video[0, 4, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="is not finite"):
        step.take(dataclasses.replace(small_batch, video=video), Position(0, epoch=0))
    assert all(torch.equal(before[name], p) for name, p in step.networks.named_parameters())


def test_encoder_and_decoder_need_one_latent() -> None:
    networks = RECIPE.stage1
    with pytest.raises(ValueError, match=r"encoder\.z_dim and decoder\.z_dim must be equal"):
        AutoencodingConfig(
            encoder=dataclasses.replace(networks.encoder, z_dim=7),
            decoder=networks.decoder,
            temporal=networks.temporal,
            patch=networks.patch,
        )
