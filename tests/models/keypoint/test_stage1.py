"""Stage 1 of the keypoint model: clips to z, z to frames and landmarks."""

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.models.keypoint.stage1 import KeypointConfig, KeypointStage1

TINY = KeypointConfig(
    size=32, num_frames=4, z_dim=8, encoder_width=8, width=8, code_dim=16, landmarks=3
)
POINTS = dataclasses.replace(TINY, landmarks=4, points=True)
Make = Callable[..., KeypointStage1]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def clips(num: int = 2, *, size: int = 32) -> Tensor:
    return torch.tanh(noise(num, 5, 3, size, size))


def test_a_configuration_survives_json() -> None:
    config = KeypointConfig(size=128, landmarks=36)
    values = json.loads(json.dumps(config_to_dict(config)))
    assert config_from_dict(KeypointConfig, values) == config


@pytest.mark.parametrize(
    "options", [{"size": 100}, {"width": 20}, {"noise": -1}, {"num_frames": 0}, {"witdh": 8}]
)
def test_a_configuration_that_cannot_be_built_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        KeypointConfig(**options)


@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("size", [32, 64, 128])
@torch.no_grad()
def test_clips_go_in_and_frames_come_out(
    body: Make, size: int, points: bool  # noqa: FBT001
) -> None:  # fmt: skip
    model = body(
        KeypointConfig(size=size, num_frames=4, z_dim=8, width=8, landmarks=2, points=points)
    ).eval()
    video = clips(size=size)
    z = model.encode(video)
    assert z.shape == (2, 8)
    torch.testing.assert_close(z.square().mean(dim=1), torch.ones(2), atol=1e-2, rtol=0)
    assert model.decode(video[:, 0], z).shape == (2, 4, 3, size, size)
    assert model.features(model.scene(video[:, 0])).shape == (
        2,
        model.config.feature_dim,
        size // 8,
        size // 8,
    )


@torch.no_grad()
def test_the_frames_of_some_moments_are_those_of_the_clip(body: Make) -> None:
    model, video = body().eval(), clips()
    z = model.encode(video)
    every = model.decode(video[:, 0], z)
    some = model.at(model.scene(video[:, 0]), z, torch.tensor([[0.5, 1.0], [0.25, 0.75]]))
    torch.testing.assert_close(some.frames[0], every[0, [1, 3]], atol=1e-5, rtol=0)
    torch.testing.assert_close(some.frames[1], every[1, [0, 2]], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_clip_does_not_depend_on_the_others_in_its_batch(body: Make) -> None:
    model, video = body().eval(), clips(3)
    z = model.encode(video)
    torch.testing.assert_close(model.encode(video[1:2]), z[1:2], atol=1e-5, rtol=0)
    alone = model.decode(video[1:2, 0], z[1:2])
    torch.testing.assert_close(alone, model.decode(video[:, 0], z)[1:2], atol=1e-5, rtol=0)


@torch.no_grad()
def test_untrained_frames_are_near_the_picture(body: Make) -> None:
    model, x0 = body().eval(), torch.tanh(noise(1, 3, 4, 4))
    x0 = torch.nn.functional.interpolate(x0, (32, 32), mode="bilinear")
    assert (model.decode(x0, noise(1, 8)) - x0[:, None]).abs().mean() < 0.15


def test_z_changes_frames_and_landmarks(body: Make) -> None:
    model, video = body().eval(), clips(1)
    z = noise(1, 8).requires_grad_()
    made = model.at(model.scene(video[:, 0]), z, torch.tensor([[0.5, 1.0]]))
    for part in (made.frames, made.warped, made.landmarks):
        (gradient,) = torch.autograd.grad(part.square().sum(), z, retain_graph=True)
        assert float(gradient.abs().max()) > 0


@torch.no_grad()
def test_a_body_without_landmarks_tells_none(body: Make) -> None:
    model = body(KeypointConfig(size=32, num_frames=4, z_dim=8, width=8)).eval()
    assert model.path(noise(2, 8), torch.ones(2, 3)).shape == (2, 3, 0)
    assert model.places(model.scene(clips()[:, 0])).shape == (2, 0)


@pytest.mark.parametrize("decoder", ["paint", "warp"])
@torch.no_grad()
def test_a_decoder_can_do_with_one_of_its_two_ways(body: Make, decoder: str) -> None:
    model = body(dataclasses.replace(TINY, decoder=decoder)).eval()
    x0, z = clips()[:, 0], noise(2, 8)
    made = model.at(model.scene(x0), z, torch.tensor([[0.5, 1.0]] * 2))
    if decoder == "warp":
        assert torch.equal(made.frames, made.warped)
        assert made.frames.amax() <= x0.amax() + 1e-5  # nothing that is not in x0
    else:
        assert torch.equal(made.warped, x0[:, None].expand_as(made.warped))
        assert made.frames.abs().mean() < 0.1 < x0.abs().mean()  # untrained, it paints grey


def test_the_layer_that_frames_come_out_of_is_named(body: Make) -> None:
    for decoder in ("warp and paint", "paint", "warp"):
        model = body(dataclasses.replace(TINY, decoder=decoder))
        frames = model.decode(clips()[:, 0], noise(2, 8))
        (gradient,) = torch.autograd.grad(frames.square().sum(), model.decoder.last)
        assert gradient.abs().max() > 0, decoder


def test_options_that_came_later_leave_old_files_as_they_are(body: Make) -> None:
    values = config_to_dict(TINY)
    for later in ("decoder", "spread"):
        del values[later]
    old = body(config_from_dict(KeypointConfig, values))
    assert old.config == TINY
    old.load_state_dict(body().state_dict())


@torch.no_grad()
def test_a_learned_spread_is_drawn_from_and_costs_its_divergence(body: Make) -> None:
    model = body(dataclasses.replace(TINY, spread="learned")).eval()
    video = clips()
    code = model.posterior(model.look(video).vectors)
    assert code.log_variance is not None
    assert torch.equal(model.encode(video), code.mean)
    deviation = (0.5 * code.log_variance).exp()
    torch.testing.assert_close(code.sample(noise(2, 8)), code.mean + deviation * noise(2, 8))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(code.mean, deviation), normal(0.0, 1.0))
    torch.testing.assert_close(code.divergence(), expected.sum(dim=1))


@torch.no_grad()
def test_a_fixed_spread_is_that_of_the_configuration(body: Make) -> None:
    model = body().eval()
    code = model.posterior(model.look(clips()).vectors)
    assert torch.equal(code.sample(noise(2, 8)), code.mean + 0.1 * noise(2, 8))
    assert torch.equal(code.divergence(), torch.zeros(2))


def test_points_are_x_and_y_in_turn() -> None:
    for landmarks in (0, 3):
        with pytest.raises(ValidationError, match="landmarks must be an even number"):
            KeypointConfig(landmarks=landmarks, points=True)


@torch.no_grad()
def test_a_body_of_points_is_seen_on_maps_and_conditions_the_flow(body: Make) -> None:
    model, video = body(POINTS).eval(), clips()
    seen = model.look(video)
    assert seen.maps is not None
    assert seen.maps.shape == (2, 3, 2, 8, 8)  # of frames 0, 2 and 4
    scene = model.scene(video[:, 0])
    places = model.places(scene)
    assert places.shape == (2, 4)
    assert 0 < places.min() < places.max() < 1
    features = model.features(scene)
    assert features.shape[1] == POINTS.feature_dim == model.config.widths[2:][0] + 32 + 4
    torch.testing.assert_close(features[:, -4:, 0, 0], (places - 0.5) * 4)


@torch.no_grad()
def test_points_that_are_known_have_a_z_without_a_look_at_a_frame(body: Make) -> None:
    model, places = body(POINTS).eval(), torch.rand(3, 5, 4)
    z = model.encode_path(places)
    assert z.shape == (3, 8)
    torch.testing.assert_close(z.square().mean(dim=1), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(model.encode_path(places[1:2]), z[1:2])
    assert not torch.allclose(model.encode_path(places.flip(1)), z)


def test_points_need_a_fixed_spread() -> None:
    with pytest.raises(ValidationError, match="spread must be fixed"):
        dataclasses.replace(POINTS, spread="learned")


@torch.no_grad()
def test_a_frame_follows_where_its_points_are_said_to_be(body: Make) -> None:
    model, video = body(POINTS).eval(), clips()
    for layer in (model.decoder.leave, model.decoder.follow.layer):
        layer.weight.copy_(noise(*layer.weight.shape))
    scene, z, times = model.scene(video[:, 0]), model.encode(video), torch.tensor([[0.5, 1.0]] * 2)
    own = model.at(scene, z, times)
    predicted = model.landmarks(scene, model.path(z, times))
    torch.testing.assert_close(model.at(scene, z, times, predicted).frames, own.frames)
    moved = predicted.clone()
    moved[:, 1] += 0.3
    other = model.at(scene, z, times, moved)
    assert (other.frames[:, 0] - own.frames[:, 0]).abs().max() > 1e-3
    torch.testing.assert_close(other.frames[:, 1], own.frames[:, 1])
