"""The keypoint model: its control, its landmarks, and pictures that it animates."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bodies import STAGE1, body_config, tiny_body
from cinnema.core.errors import UserError
from cinnema.models.control import EndPoint
from cinnema.models.keypoint.model import (
    EndPointRange,
    KeypointModel,
    KeypointModelConfig,
)
from cinnema.synthesis.pipeline import Pipeline

RANGE = EndPointRange(low=(-0.2, -0.1, 0.0), high=(0.2, 0.1, 0.2))


def config_of(*, steered: bool) -> KeypointModelConfig:
    return body_config(steered=steered, end_point=RANGE)


@pytest.fixture
def body() -> Callable[..., KeypointModel]:
    """Return what makes a model whose flow is not the identity."""

    def make(*, steered: bool = True) -> KeypointModel:
        return tiny_body(steered=steered, end_point=RANGE)

    return make


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def clips(num: int = 2) -> Tensor:
    return torch.tanh(noise(num, 5, 3, 32, 32))


def test_a_control_changes_the_condition_and_can_be_left_out(
    body: Callable[..., KeypointModel],
) -> None:
    model, x0 = body(), clips()[:, 0]
    left = model.condition(x0, torch.tensor([[-0.2, 0.0, 0.1]] * 2))
    right = model.condition(x0, torch.tensor([[0.2, 0.0, 0.1]] * 2))
    assert not torch.equal(left, right)
    assert not model.condition(x0)[:, 4:].any()
    spec = model.control
    assert spec is not None
    assert (spec.optional, spec.low, spec.high) == (True, RANGE.low, RANGE.high)
    assert model.draw_eta(generator=torch.Generator()) is None


def test_the_control_of_a_video_is_read_off_its_path(
    body: Callable[..., KeypointModel],
) -> None:
    model, video = body(), clips()
    eta, known = model.read_control(video)
    path = model.read_landmarks(video[:, 0], model.encode(video))
    assert path.shape == (2, 5, 3)
    low, high = torch.tensor(RANGE.low), torch.tensor(RANGE.high)
    torch.testing.assert_close(eta, path[:, -1].clamp(low, high))
    assert known.tolist() == [1.0, 1.0]
    with pytest.raises(UserError, match="takes no control"):
        body(steered=False).read_control(video)


@pytest.mark.parametrize("eta", [torch.zeros(2, 2), torch.zeros(2, 4)])
def test_a_control_of_another_length_is_refused(
    body: Callable[..., KeypointModel], eta: Tensor
) -> None:
    with pytest.raises(UserError, match="x, y and z in metres"):
        body().condition(clips()[:, 0], eta)
    with pytest.raises(UserError, match="takes no control: leave it out"):
        body(steered=False).condition(clips()[:, 0], eta)


def test_a_draw_of_z_lies_around_its_mean(body: Callable[..., KeypointModel]) -> None:
    model, video = body(), clips(16)
    mean = model.encode(video)
    drawn = model.encode(video, generator=torch.Generator().manual_seed(1))
    spread = float((drawn - mean).std())
    assert spread == pytest.approx(STAGE1.noise, rel=0.2)


def test_parts_that_do_not_fit_are_refused() -> None:
    whole = config_of(steered=True)
    with pytest.raises(ValueError, match=r"conditioner\.control_dim and the numbers of end_point"):
        dataclasses.replace(whole, end_point=None)
    with pytest.raises(ValueError, match=r"flow\.z_dim and stage1\.z_dim"):
        dataclasses.replace(whole, stage1=dataclasses.replace(STAGE1, z_dim=16))


def test_a_picture_is_animated_towards_an_end_point(
    body: Callable[..., KeypointModel],
) -> None:
    pipe = Pipeline(body())
    photo = ((clips()[0, 0].permute(1, 2, 0) + 1) * 127.5).byte().numpy()
    (free,) = pipe.animate(photo, num_samples=1, seed=3)
    (steered,) = pipe.animate(photo, num_samples=1, seed=3, eta=EndPoint(x=0.2, y=0.1, z=0.2))
    assert free.frames.shape == steered.frames.shape == (16, 32, 32, 3)
    assert not torch.equal(free.z, steered.z)
    with pytest.raises(UserError, match="out of the range"):
        pipe.animate(photo, num_samples=1, eta=EndPoint(x=2.0, y=0.0, z=0.0))
