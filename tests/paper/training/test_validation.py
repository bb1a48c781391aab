"""What is measured between the epochs of the paper's trainings."""

from pathlib import Path

import pytest
import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.paper.image_encoder import ImageEncoder
from cinnema.paper.recipes import bair, tiny
from cinnema.paper.training.autoencoding import AutoencodingNetworks
from cinnema.paper.training.flow import FlowStep, new_flow
from cinnema.paper.training.validation import HeldOut
from cinnema.paper.video_encoder import VideoEncoder
from paper.training.moving_squares import pack

CPU = torch.device("cpu")
RECIPE = tiny(bair())


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    splits = ("train", "validation", "validation", "test")
    dataset = pack(tmp_path_factory.mktemp("packed") / "squares", splits=splits)
    found = HeldOut.of(dataset, num_frames=RECIPE.num_frames + 1, size=64, device=CPU)
    assert found is not None
    return found


def test_nothing_is_measured_where_no_clip_is_held_out(tmp_path: Path) -> None:
    dataset = pack(tmp_path / "squares", splits=("train", "test"))
    assert HeldOut.of(dataset, num_frames=9, size=64, device=CPU) is None


def test_each_clip_is_taken_once(held_out: HeldOut) -> None:
    assert sorted(int(batch.index) for batch in held_out.batches) == [1, 2]


def test_a_reconstruction_is_measured_beside_the_frozen_first_frame(held_out: HeldOut) -> None:
    networks, lpips = AutoencodingNetworks(RECIPE.stage1), LPIPS.load("alex")
    scores = held_out.reconstruction(networks, lpips)()
    assert not networks.training
    model, frozen = [], []
    with torch.no_grad():
        for batch in held_out.batches:
            real = batch.video[0, 1:]
            mu, _ = networks.encoder(real[None].transpose(1, 2))
            model.append(lpips(networks.decoder(batch.video[:, 0], mu)[0], real).mean())
            frozen.append(lpips(batch.video[0, :1].expand_as(real), real).mean())
    assert scores["held_out_lpips"] == pytest.approx(float(sum(model)) / 2, rel=1e-4)
    assert scores["held_out_lpips_frozen"] == pytest.approx(float(sum(frozen)) / 2, rel=1e-4)


def test_the_likelihood_is_the_flows_in_nats_a_dimension(held_out: HeldOut) -> None:
    step = FlowStep(
        new_flow(RECIPE.flow),
        RECIPE.flow_training,
        video_encoder=VideoEncoder(RECIPE.stage1.encoder),
        image_encoder=ImageEncoder(RECIPE.conditioner.encoder),
    )
    measure = held_out.likelihood(step)
    latents = [step.latents(batch, number=n) for n, batch in enumerate(held_out.batches)]
    with torch.no_grad():
        log_prob = torch.cat([step.flow.log_prob(z, c) for z, c in latents])
    expected = -log_prob.mean().item() / 16
    assert measure() == {"held_out_nll": pytest.approx(expected, rel=1e-4)}
    assert measure() == measure()
