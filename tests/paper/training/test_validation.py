"""What is measured between the epochs of the paper's trainings."""

from pathlib import Path

import pytest
import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.data.loader import VideoBatch
from cinnema.paper.image_encoder import ImageEncoder
from cinnema.paper.recipes import bair, tiny
from cinnema.paper.training.assembly import (
    held_out_clips,
    score_likelihood,
    score_reconstruction,
)
from cinnema.paper.training.autoencoding import AutoencodingNetworks
from cinnema.paper.training.flow import FlowStep, new_flow
from cinnema.paper.video_encoder import VideoEncoder
from paper.training.moving_squares import pack

CPU = torch.device("cpu")
RECIPE = tiny(bair())


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoBatch, ...]:
    splits = ("train", "validation", "validation", "test")
    dataset = pack(tmp_path_factory.mktemp("packed") / "squares", splits=splits)
    return held_out_clips(dataset, num_frames=RECIPE.num_frames + 1, size=64, device=CPU)


def test_nothing_is_measured_where_no_clip_is_held_out(tmp_path: Path) -> None:
    dataset = pack(tmp_path / "squares", splits=("train", "test"))
    assert held_out_clips(dataset, num_frames=9, size=64, device=CPU) == ()


def test_each_clip_is_taken_once(held_out: tuple[VideoBatch, ...]) -> None:
    assert sorted(int(batch.index) for batch in held_out) == [1, 2]


def test_a_reconstruction_is_measured_beside_the_frozen_first_frame(
    held_out: tuple[VideoBatch, ...],
) -> None:
    networks, lpips = AutoencodingNetworks(RECIPE.stage1), LPIPS.load("alex")
    scores = score_reconstruction(networks, lpips, held_out)
    assert not networks.training
    model, frozen = [], []
    with torch.no_grad():
        for batch in held_out:
            real = batch.video[0, 1:]
            mu, _ = networks.encoder(real[None].transpose(1, 2))
            model.append(lpips(networks.decoder(batch.video[:, 0], mu)[0], real).mean())
            frozen.append(lpips(batch.video[0, :1].expand_as(real), real).mean())
    assert scores["held_out_lpips"] == pytest.approx(float(sum(model)) / 2, rel=1e-4)
    assert scores["held_out_lpips_frozen"] == pytest.approx(float(sum(frozen)) / 2, rel=1e-4)


def test_the_likelihood_is_the_flows_in_nats_a_dimension(held_out: tuple[VideoBatch, ...]) -> None:
    step = FlowStep(
        new_flow(RECIPE.flow),
        RECIPE.flow_training,
        video_encoder=VideoEncoder(RECIPE.stage1.encoder),
        image_encoder=ImageEncoder(RECIPE.conditioner.encoder),
    )
    latents = [step.latents(batch, number=n) for n, batch in enumerate(held_out)]
    with torch.no_grad():
        log_prob = torch.cat([step.networks.log_prob(z, c) for z, c in latents])
    expected = -log_prob.mean().item() / 16
    score = score_likelihood(step, held_out)
    assert score == {"held_out_nll": pytest.approx(expected, rel=1e-4)}
    assert score == score_likelihood(step, held_out)
