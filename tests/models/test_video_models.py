"""One table of all video models: what `VideoModel` states that an implementer owes."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bodies import tiny_body
from cinnema.core.errors import UserError
from cinnema.models.base import VideoModel
from cinnema.models.files import load_model, save_model
from paper_model import tiny_paper_model
from small_nature import nature_model

MODELS: dict[str, Callable[[], VideoModel]] = {
    "keypoint": lambda: tiny_body(steered=False),
    "keypoint with an end point": tiny_body,
    "nature": lambda: nature_model(by_colour=False),
    "the paper's": tiny_paper_model,
    "the paper's with an end point": lambda: tiny_paper_model(control=True),
}


@cache
def model_of(name: str) -> VideoModel:
    return MODELS[name]()


every_model = pytest.mark.parametrize("name", MODELS)


def clips_of(model: VideoModel) -> Tensor:
    """Two clips of smooth texture that drifts to the right."""
    size = model.size
    x = torch.linspace(0, 12, size)[None, :] + torch.linspace(0, 7, size)[:, None].sin()
    time = torch.arange(model.num_frames + 1)[:, None, None]
    drift = time * torch.tensor([0.05, 0.1])[:, None, None, None]
    return (x - drift).sin()[:, :, None].expand(-1, -1, 3, -1, -1).contiguous()


def eta_of(model: VideoModel, num: int = 2) -> Tensor | None:
    """A control in the middle of its range, where the model takes one."""
    if model.control is None:
        return None
    middle = torch.tensor([model.control.low, model.control.high]).mean(dim=0)
    return middle.expand(num, -1)


@every_model
@torch.no_grad()
def test_a_video_goes_to_z_to_nu_and_back(name: str) -> None:
    model = model_of(name)
    video = clips_of(model)
    z, c = model.encode(video), model.condition(video[:, 0], eta_of(model))
    nu, log_det = model.to_residual(z, c)
    again, log_det_back = model.to_latent(nu, c)
    assert z.shape == nu.shape == (2, model.z_dim)
    torch.testing.assert_close(again, z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_det, -log_det_back, atol=1e-4, rtol=1e-4)
    frames = model.decode(video[:, 0], z)
    assert frames.shape == (2, model.num_frames, 3, model.size, model.size)
    assert frames.abs().max() <= 1


@every_model
@torch.no_grad()
def test_clips_of_a_batch_are_independent(name: str) -> None:
    model = model_of(name)
    video = clips_of(model)
    x0, eta = video[:, 0], eta_of(model)

    def maps(rows: slice) -> list[Tensor]:
        control = None if eta is None else eta[rows]
        z = model.encode(video[rows])
        return [z, model.condition(x0[rows], control), model.decode(x0[rows], z)]

    for together, alone in zip(maps(slice(None)), maps(slice(1, 2)), strict=True):
        torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=1e-4)


@every_model
@torch.no_grad()
def test_a_draw_of_z_is_the_generators(name: str) -> None:
    model = model_of(name)
    video = clips_of(model)
    mean = model.encode(video)
    draws = [model.encode(video, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], mean)


@every_model
def test_a_clip_of_another_length_or_size_is_refused(name: str) -> None:
    model = model_of(name)
    video = clips_of(model)
    for wrong in (video[:, :-1], video[..., :-1, :-1]):
        with pytest.raises(UserError, match="encodes clips of shape"):
            model.encode(wrong)


@every_model
def test_a_control_is_described_and_one_that_is_not_taken_is_refused(name: str) -> None:
    model = model_of(name)
    x0, spec = clips_of(model)[:, 0], model.control
    assert model.control_dim == (0 if spec is None else len(spec.labels))
    drawn = model.draw_eta(generator=torch.Generator().manual_seed(0))
    if spec is None:
        assert drawn is None
        with pytest.raises(UserError, match="takes no control"):
            model.condition(x0, torch.zeros(2, 3))
        with pytest.raises(UserError, match="takes no control"):
            model.read_control(clips_of(model))
        return
    assert spec.name in spec.describe()
    assert (drawn is None) == spec.optional
    low, high = model.condition(x0, torch.tensor([spec.low] * 2)), torch.tensor([spec.high] * 2)
    assert not torch.equal(low, model.condition(x0, high))


@every_model
@torch.no_grad()
def test_a_model_survives_its_file(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    sha = save_model(tmp_path / "a.safetensors", model)
    loaded = load_model(tmp_path / "a.safetensors")
    again = loaded.model
    assert (type(again), again.config, loaded.sha256) == (type(model), model.config, sha)
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    torch.testing.assert_close(
        again.encode(clips_of(model)), model.encode(clips_of(model)), atol=0.05, rtol=0.05
    )
    assert save_model(tmp_path / "b.safetensors", again) == sha
