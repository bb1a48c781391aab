"""The reference networks in every size: published, deep, wrong."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.paper import PatchDiscriminator, build, published_configs
from cinnema.paper.actnorm import ActNorm

DATA_SETS = ("bair", "iper", "landscape", "dtdb")
SIZES = {"bair": 64, "iper": 64, "landscape": 128, "dtdb": 128}
# Millions of parameters as published, with one decimal.
PARAMETERS = {
    "decoder": {"bair": 152.8, "iper": 152.8, "landscape": 40.9, "dtdb": 40.9},
    "video_encoder": {"bair": 73.6, "iper": 73.6, "landscape": 40.5, "dtdb": 38.8},
    "temporal_discriminator": dict.fromkeys(DATA_SETS, 37.8),
    "patch_discriminator": dict.fromkeys(DATA_SETS, 2.8),
}
# Parameters of torchvision's ResNets without their last layer, and the channels before it.
RESNETS = {
    "resnet18": (11_176_512, 512),
    "resnet34": (21_284_672, 512),
    "resnet50": (23_508_032, 2048),
    "resnet101": (42_500_160, 2048),
}

DECODER: dict[str, Any] = {
    "channel_factor": 8,
    "z_dim": 4,
    "upsample_s": [1, 1],
    "upsample_t": [1, 1],
    "spectral_norm": True,
}
RESNET3D: dict[str, Any] = {
    "res_type_encoder": "resnet18",
    "use_max_pool": False,
    "channels": [16, 16, 16, 32, 32],
    "stride_t": [1, 2, 2, 2],
    "stride_s": [1, 1, 2, 2],
}
VIDEO_ENCODER = {**RESNET3D, "z_dim": 4}
TEMPORAL = {**RESNET3D, "stride_t": [2, 2, 2, 2], "spectral_norm": True}
PATCH = {"in_channels": 3, "ndf": 8, "n_layers": 2, "use_actnorm": True, "spectral_norm": True}
IMAGE_ENCODER = {"encoder_type": "resnet18", "norm": "bn", "z_dim": 4, "in_size": 64}
FLOW = {"in_channels": 4, "embedding_dim": 3, "hidden_dim": 8, "hidden_depth": 1, "n_flows": 2}


def meta(component: str, config: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        return build(component, config)


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("component", "data"), [(name, data) for name in PARAMETERS for data in ("bair", "landscape")]
)
def test_published_networks_have_the_published_number_of_parameters(
    component: str, data: str
) -> None:
    millions = num_parameters(meta(component, published_configs(data)[component])) / 1e6
    assert round(millions, 1) == PARAMETERS[component][data]


def test_textures_have_an_encoder_of_their_own_width() -> None:
    millions = (
        num_parameters(meta("video_encoder", published_configs("dtdb")["video_encoder"])) / 1e6
    )
    assert round(millions, 1) == PARAMETERS["video_encoder"]["dtdb"]


def test_people_have_the_networks_of_robots() -> None:
    robots, people = published_configs("bair"), published_configs("iper")
    assert {name: robots[name] for name in PARAMETERS} == {
        name: people[name] for name in PARAMETERS
    }


@pytest.mark.parametrize("data", ["bair", "landscape", "dtdb"])
def test_published_networks_fit_each_other(data: str) -> None:
    configs = published_configs(data)
    size = SIZES[data]
    encoder = meta("video_encoder", configs["video_encoder"])
    embed = meta("image_encoder", configs["image_encoder"])
    flow = meta("flow", configs["flow"])
    with torch.device("meta"):
        x0 = torch.zeros(2, 3, size, size)
        mu, _ = encoder(torch.zeros(2, 3, 16, size, size))
        nu, _ = flow.to_residual(mu, embed(x0))
    assert nu.shape == (2, 64)
    decoder = configs["decoder"]
    assert (decoder["z_dim"], 32 * decoder["upsample_s"][0] * decoder["upsample_s"][1]) == (
        64,
        size,
    )


def test_the_published_control_has_thirty_entries_more() -> None:
    plain, control = (published_configs("bair", control=c)["flow"] for c in (False, True))
    assert control["embedding_dim"] == plain["embedding_dim"] + 30
    state = meta("flow_control", control).state_dict()
    widths = [state[f"sub_layers.{i}.coupling.s.0.main.0.weight"].shape[1] for i in range(5)]
    assert widths == [32 + 94, 94, 94, 94, 32 + 94]


@pytest.mark.parametrize(
    ("name", "control"), [("kinetics", False), ("landscape", True)], ids=["no such", "no control"]
)
def test_what_was_not_published_is_refused(name: str, *, control: bool) -> None:
    with pytest.raises((UserError, TypeError)):
        published_configs(name, control=control)


@pytest.mark.parametrize("kind", RESNETS)
@pytest.mark.parametrize("norm", ["bn", "in"])
def test_image_encoders_are_the_resnets_that_they_are_called(kind: str, norm: str) -> None:
    network = meta("image_encoder", {**IMAGE_ENCODER, "encoder_type": kind, "norm": norm})
    parameters, width = RESNETS[kind]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with_weights = parameters + 8 * (width + 1)
    # Instance norm has no weights.
    expected = with_weights if norm == "bn" else with_weights - norm_parameters(kind)
    assert num_parameters(network) == expected
    assert bool(norms) == (norm == "bn")


def norm_parameters(kind: str) -> int:
    network = meta("image_encoder", {**IMAGE_ENCODER, "encoder_type": kind})
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    return sum(num_parameters(module) for module in norms)


@pytest.mark.parametrize("norm", ["bn", "in"])
@pytest.mark.parametrize("kind", ["resnet18", "resnet50"])
def test_image_encoders_embed_frames_of_any_size(kind: str, norm: str) -> None:
    network = meta("image_encoder", {**IMAGE_ENCODER, "encoder_type": kind, "norm": norm})
    with torch.device("meta"):
        assert network.eval()(torch.zeros(2, 3, 64, 97)).shape == (2, 4)


def test_instance_norm_forgets_contrast() -> None:
    torch.manual_seed(0)
    network = build("image_encoder", {**IMAGE_ENCODER, "norm": "in"}).double().eval()
    x0 = 1000 * torch.rand(1, 3, 64, 64, dtype=torch.float64)  # so large that epsilon is nothing
    with torch.no_grad():
        # The stem has no bias, so the first norm takes a factor on the frame away.
        torch.testing.assert_close(network(x0), network(2 * x0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", RESNETS)
def test_video_encoders_of_every_depth_give_a_gaussian(kind: str) -> None:
    network = meta("video_encoder", {**VIDEO_ENCODER, "res_type_encoder": kind}).eval()
    with torch.device("meta"):
        mu, log_var = network(torch.zeros(2, 3, 16, 32, 32))
    assert mu.shape == log_var.shape == (2, 4)
    blocks = [name for name, _ in network.named_modules() if name.endswith(".conv1")]
    assert len(blocks) == {"resnet18": 8, "resnet34": 16, "resnet50": 16, "resnet101": 33}[kind]


@pytest.mark.parametrize("kind", ["resnet18", "resnet50"])
def test_deep_video_networks_compute_finite_numbers(kind: str) -> None:
    torch.manual_seed(0)
    config = {**TEMPORAL, "res_type_encoder": kind}
    score, features = build("temporal_discriminator", config)(torch.rand(1, 3, 12, 32, 32))
    assert torch.isfinite(score).all()
    assert len(features) == 4


@pytest.mark.parametrize(
    ("kind", "later"), [("resnet18", "weight"), ("resnet50", "weight_orig")], ids=["basic", "deep"]
)
def test_spectral_norm_is_on_first_blocks_and_on_bottlenecks(kind: str, later: str) -> None:
    state = meta("temporal_discriminator", {**TEMPORAL, "res_type_encoder": kind}).state_dict()
    assert {
        "conv1.weight",
        "layer.1.0.conv1.weight_orig",
        "layer.1.0.downsample.0.weight_u",
    } <= set(state)
    assert f"layer.1.1.conv1.{later}" in state


def test_the_encoder_has_no_spectral_norm() -> None:
    assert not [key for key in meta("video_encoder", VIDEO_ENCODER).state_dict() if "_orig" in key]


def test_a_gradient_penalty_trains_the_temporal_discriminator() -> None:
    torch.manual_seed(0)
    network = build("temporal_discriminator", TEMPORAL)
    real = torch.rand(2, 3, 12, 32, 32, requires_grad=True)
    score, _ = network(real)
    (slope,) = torch.autograd.grad(score.mean(), real, create_graph=True)
    slope.square().sum(dim=(1, 2, 3, 4)).mean().backward()
    gradient = network.get_parameter("layer.0.0.conv1.weight_orig").grad
    assert gradient is not None
    assert gradient.any()


def test_a_fresh_decoder_evaluates_before_it_is_trained() -> None:
    torch.manual_seed(0)
    network = build("decoder", DECODER).eval()
    with torch.no_grad():
        video = network(torch.rand(1, 3, 40, 50), torch.randn(1, 4))
    assert video.shape == (1, 8, 3, 32, 32)
    assert 0 < float(video.abs().max()) < 1


def test_the_decoder_sees_both_the_frame_and_the_latent() -> None:
    torch.manual_seed(0)
    network = build("decoder", DECODER).eval()
    x0, z = torch.rand(2, 3, 32, 32), torch.randn(2, 4)
    with torch.no_grad():
        video = network(x0, z)
        assert not torch.allclose(video, network(x0.flip(0), z), atol=1e-6)
        assert not torch.allclose(video, network(x0, z.flip(0)), atol=1e-6)


def test_the_patch_discriminator_fits_its_norms_only_when_asked() -> None:
    torch.manual_seed(0)
    network = build("patch_discriminator", PATCH)
    assert isinstance(network, PatchDiscriminator)
    image = torch.rand(4, 3, 32, 32)
    norms = [module for module in network.modules() if isinstance(module, ActNorm)]
    network(image)
    assert not any(int(norm.initialized) for norm in norms)
    network.initialise(image)
    assert all(int(norm.initialized) for norm in norms)
    seen: list[Tensor] = []
    for norm in norms:
        norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    network.eval()(image)
    assert float(seen[0].detach().std()) == pytest.approx(1, abs=0.02)
    assert float(seen[0].detach().mean()) == pytest.approx(0, abs=0.02)


def test_batch_norm_takes_the_place_of_actnorm() -> None:
    state = build("patch_discriminator", {**PATCH, "use_actnorm": False}).state_dict()
    assert "main.3.running_mean" in state
    assert "main.2.bias" not in state


@pytest.mark.parametrize(
    ("component", "config", "match"),
    [
        ("generator", {}, "component.*decoder.*got 'generator'"),
        ("decoder", {}, "has no channel_factor, z_dim.*whole section"),
        ("decoder", {**DECODER, "channel_factor": 12}, "channel_factor.*multiple of 8.*12"),
        ("decoder", {**DECODER, "upsample_t": [2]}, "upsample_t"),
        ("decoder", {**DECODER, "nf": 64}, "nf"),
        ("video_encoder", {**VIDEO_ENCODER, "channels": [16, 16, 16, 32, 40]}, "channels.*16.*40"),
        ("video_encoder", {**VIDEO_ENCODER, "res_type_encoder": "resnet19"}, "resnet19"),
        ("video_encoder", {**VIDEO_ENCODER, "stride_s": [1, 2, 2]}, "stride_s"),
        ("video_encoder", RESNET3D, "needs .*but has no z_dim"),
        ("temporal_discriminator", {**TEMPORAL, "spectral_norm": "maybe"}, "spectral_norm.*maybe"),
        ("patch_discriminator", {**PATCH, "n_layers": 0}, "n_layers"),
        ("image_encoder", {**IMAGE_ENCODER, "norm": "gn"}, "norm.*gn"),
        ("image_encoder", {**IMAGE_ENCODER, "in_size": 32}, "in_size.*32"),
        ("flow", {**FLOW, "in_channels": 5}, "in_channels.*multiple of 2.*5"),
        ("flow", {**FLOW, "conditioning_option": "parallel"}, "conditioning_option.*parallel"),
        ("flow", {**FLOW, "log_det": "official"}, "log_det.*official"),
        ("flow_control", {**FLOW, "control": False}, "control must be True"),
        ("dti3d", {"num_classes": 18, "frames": 20}, "frames.*20"),
        ("dti3d_16", {"num_classes": 18, "frames": 32}, "frames must be 16"),
        ("i3d_kinetics", {"num_classes": 0}, "num_classes"),
    ],
)
def test_a_wrong_config_is_refused(component: str, config: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        build(component, config)


@pytest.mark.parametrize(
    ("component", "config", "shapes", "match"),
    [
        ("decoder", DECODER, [(2, 1, 32, 32), (2, 4)], "x0.*3"),
        ("decoder", DECODER, [(2, 3, 32, 32), (2, 5)], "z.*4 numbers"),
        ("decoder", DECODER, [(2, 3, 32, 32), (2, 64)], "same training"),
        ("video_encoder", VIDEO_ENCODER, [(2, 16, 3, 32, 32)], "colour axis before time"),
        ("video_encoder", VIDEO_ENCODER, [(2, 3, 16, 64, 64)], "1 step of 4x4"),
        ("video_encoder", VIDEO_ENCODER, [(2, 3, 32, 32, 32)], "1 step of 4x4"),
        ("temporal_discriminator", TEMPORAL, [(1, 3, 17, 32, 32)], "1 step of 4x4"),
        ("image_encoder", IMAGE_ENCODER, [(1, 3, 32, 64)], "more than 32"),
        ("image_encoder", IMAGE_ENCODER, [(1, 1, 64, 64)], r"\(b, 3, h, w\)"),
        ("patch_discriminator", PATCH, [(1, 3, 11, 32)], "at least 12"),
        ("patch_discriminator", PATCH, [(1, 1, 32, 32)], "3 channels"),
    ],
)
def test_a_wrong_shape_is_refused(
    component: str, config: dict[str, Any], shapes: list[tuple[int, ...]], match: str
) -> None:
    network = meta(component, config)
    with torch.device("meta"), pytest.raises(UserError, match=match):
        network(*(torch.zeros(shape) for shape in shapes))
