"""The step of the cINN on frozen encoders."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.data.loader import VideoBatch
from cinnema.paper.control import end_point_one_hots
from cinnema.paper.recipes import bair, tiny
from cinnema.paper.training.flow import FlowStep
from cinnema.paper.training.phases import AdamConfig
from cinnema.training.loop import Position
from paper.training.small_networks import batch_of, is_same, state_of

Make = Callable[..., FlowStep]


def test_a_step_trains_the_flow_alone(flow: Make, batch: VideoBatch) -> None:
    step = flow()
    encoders = (step.video_encoder, step.image_encoder)
    before = [state_of(network) for network in (*encoders, step.networks)]
    step.take(batch, Position(0, epoch=0))
    after = [state_of(network) for network in (*encoders, step.networks)]
    assert is_same(before[0], after[0])
    assert is_same(before[1], after[1])  # batch norms' statistics, too
    assert not is_same(before[2], after[2])
    assert all(p.grad is None for network in encoders for p in network.parameters())


def test_the_first_batch_sets_the_actnorms(flow: Make, batch: VideoBatch) -> None:
    step = flow()
    assert not step.networks.is_initialised
    step.take(batch, Position(0, epoch=0))
    assert step.networks.is_initialised


def test_the_loss_is_the_exact_likelihood_of_a_draw_from_the_posterior(
    flow: Make, batch: VideoBatch
) -> None:
    step = flow()
    z, c = step.latents(batch, number=0)
    mu, _ = step.video_encoder(batch.video[:, 1:].transpose(1, 2))
    assert not torch.equal(z, mu)
    step.networks.initialise(z, c)
    expected = -step.networks.log_prob(z, c).mean() - 8 * math.log(2 * math.pi)
    loss = step.take(batch, Position(0, epoch=0))["nll"]
    assert loss == pytest.approx(expected.item(), rel=1e-4)


def test_draws_follow_from_seed_and_step(flow: Make, batch: VideoBatch) -> None:
    step = flow()
    torch.manual_seed(1)
    a, _ = step.latents(batch, number=3)
    torch.manual_seed(2)
    assert torch.equal(a, step.latents(batch, number=3)[0])
    assert not torch.equal(a, step.latents(batch, number=4)[0])


def test_steps_lower_the_loss(flow: Make, batch: VideoBatch) -> None:
    four = batch_of(torch.cat([batch.video, batch.video.flip(-1)]))
    step = flow(adam=AdamConfig(learning_rate=1e-2, betas=(0.9, 0.99), amsgrad=True))
    losses = [step.take(four, Position(0, epoch=0))["nll"] for _ in range(10)]
    assert losses[-1] < losses[0]


def test_a_control_is_heard_as_one_hots_after_the_embedding(flow: Make, batch: VideoBatch) -> None:
    step = flow(recipe=tiny(bair(control=True)))
    _, c = step.latents(batch, number=0)
    assert torch.equal(c[:, -30:], end_point_one_hots(batch.control))
    assert torch.equal(c[:, :-30], step.image_encoder(batch.video[:, 0]))
    step.take(batch, Position(0, epoch=0))


def test_clips_without_the_control_are_refused(flow: Make, batch: VideoBatch) -> None:
    step = flow(recipe=tiny(bair(control=True)))
    with pytest.raises(UserError, match=r"end point .* the clips have a control of 0"):
        step.take(dataclasses.replace(batch, control=torch.zeros(2, 0)), Position(0))
