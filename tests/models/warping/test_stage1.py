"""Stage 1 as a whole."""

import json
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.models.warping.stage1 import Stage1, Stage1Config

Make = Callable[..., Stage1]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_configuration_survives_json() -> None:
    config = Stage1Config(size=96, noise=0.2)
    assert config_from_dict(Stage1Config, json.loads(json.dumps(config_to_dict(config)))) == config
    assert config.as_dict() == config_to_dict(config)


@pytest.mark.parametrize(
    "options",
    [{"size": 100}, {"size": 32}, {"z_dim": 40}, {"num_basis": 0}, {"noise": -1}, {"widht": 3},
     {"mask_width": 24}],
)  # fmt: skip
def test_a_configuration_that_cannot_be_built_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        Stage1Config(**options)


@pytest.mark.parametrize("size", [64, 96, 128])
@torch.no_grad()
def test_clips_go_in_and_frames_come_out(tiny: Make, size: int) -> None:
    model = tiny(size=size).eval()
    z = model.encode(0.1 * noise(2, 2, 4, 16, 16))
    assert z.shape == (2, 16)
    frames = model.decode(torch.tanh(noise(2, 3, size, size)), z)
    assert frames.shape == (2, 4, 3, size, size)
    assert torch.isfinite(frames).all()


@torch.no_grad()
def test_untrained_frames_are_almost_the_picture(tiny: Make) -> None:
    model, x0 = tiny().eval(), torch.tanh(noise(1, 3, 8, 8))
    x0 = torch.nn.functional.interpolate(x0, (64, 64), mode="bilinear")
    frames = model.decode(x0, noise(1, 16))
    # Where the mask is undecided, the moving layer is a mixture with its own filling.
    assert (frames - x0[:, None]).abs().mean() < 0.2


@torch.no_grad()
def test_a_clip_does_not_depend_on_the_others_in_its_batch(tiny: Make) -> None:
    model = tiny().eval()
    x0, z = torch.tanh(noise(3, 3, 64, 64)), noise(3, 16)
    torch.testing.assert_close(
        model.decode(x0, z)[1:2], model.decode(x0[1:2], z[1:2]), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_decoding_is_rendering_frame_by_frame(tiny: Make) -> None:
    model = tiny().eval()
    x0, z = torch.tanh(noise(1, 3, 64, 64)), noise(1, 16)
    features = model.scene(x0)
    coefficients = model.motion(z, features.joint)
    flow = model.basis.at(coefficients, torch.tensor([0.5]))
    frame = model.frame(model.layers(x0, features), flow)
    torch.testing.assert_close(frame, model.decode(x0, z)[:, 1], atol=1e-4, rtol=1e-4)


def test_the_backbone_is_frozen_and_the_rest_is_not(tiny: Make) -> None:
    frozen = {n for n, p in tiny().named_parameters() if not p.requires_grad}
    assert frozen
    assert all(name.startswith("scene.backbone.") for name in frozen)
    model = tiny()
    model.decode(torch.tanh(noise(1, 3, 64, 64)), noise(1, 16)).sum().backward()
    assert model.scene.join.weight.grad is not None
    assert all(p.grad is None for p in model.scene.backbone.parameters())


def test_the_shipped_size_is_what_it_was() -> None:
    # A run's checkpoints have these names; a change here makes them useless.
    names = {name.split(".")[0] for name in Stage1(Stage1Config()).state_dict()}
    assert names == {"encoder", "scene", "motion", "mask", "painter"}
