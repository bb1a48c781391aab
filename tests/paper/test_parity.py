"""The reference networks load the published keys and compute the published numbers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cinnema.paper import (
    Decoder,
    ImageEncoder,
    PaperFlow,
    PatchDiscriminator,
    TemporalDiscriminator,
    VideoEncoder,
    build,
    fold_spectral_norm,
)
from parity import Recording

TOLERANCE = 1e-4  # of the output's standard deviation
ROUND_TRIP_TOLERANCE = 1e-5

EVERY_COMPONENT = (
    "decoder",
    "video_encoder",
    "temporal_discriminator",
    "patch_discriminator",
    "flow",
    "flow_control",
    "image_encoder",
    "dti3d_16",
    "dti3d_32",
    "i3d_kinetics",
)
COMPONENTS = EVERY_COMPONENT[:7]  # the numbers of I3D are tested beside it, in backbones
FOLDABLE = ("decoder", "temporal_discriminator", "patch_discriminator")
FLOWS = ("flow", "flow_control")


def loaded(component: str, recorded: Recording, **changes: object) -> nn.Module:
    network = build(component, {**recorded.config, **changes})
    network.load_state_dict(recorded.state)
    return network.eval()


@torch.no_grad()
def outputs_of(network: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    match network:
        case Decoder():
            return {"video": network(inputs["x0"], inputs["z"]).flatten()[::11]}
        case VideoEncoder():
            mu, log_var = network(inputs["video"])
            return {"mu": mu, "logvar": log_var}
        case TemporalDiscriminator():
            score, features = network(inputs["video"])
            means = {f"feature{i}_mean": f.mean(dim=(2, 3, 4)) for i, f in enumerate(features)}
            return {"score": score, **means}
        case PatchDiscriminator():
            return {"score": network(inputs["image"])}
        case ImageEncoder():
            gaussian = torch.cat(network.gaussian(inputs["x0"]), dim=1)
            return {"embedding": network(inputs["x0"]), "mean_and_logvar": gaussian}
        case PaperFlow():
            nu, log_det = network.to_residual(inputs["z"], inputs["cond"])
            z, _ = network.to_latent(inputs["nu"], inputs["cond"])
            return {"nu": nu, "z": z, "logdet_official": log_det}
        case _:
            raise TypeError(type(network))


def errors(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, float]:
    """The largest error of each output, of its spread or of what float32 tells apart."""
    assert {name: x.shape for name, x in ours.items()} == {n: x.shape for n, x in theirs.items()}
    return {n: float((ours[n] - x).abs().max() / scale_of(x)) for n, x in theirs.items()}


def scale_of(x: Tensor) -> Tensor:
    # The four recorded log-determinants of flow_control lie so close together, 0.0018 about -1.2,
    # that 1e-4 of that is one and a half steps of float32: which processor adds them up decides.
    four_steps = 4 * torch.finfo(x.dtype).eps * x.abs().max()
    return torch.maximum(x.std(correction=0), four_steps / TOLERANCE)


@pytest.mark.parametrize("component", COMPONENTS)
def test_published_weights_give_the_recorded_outputs(
    component: str, recording: Callable[[str], Recording]
) -> None:
    recorded = recording(component)
    changes = {"log_det": "published"} if component in FLOWS else {}
    found = errors(
        outputs_of(loaded(component, recorded, **changes), recorded.inputs), recorded.outputs
    )
    print(component, {name: f"{error:.1e}" for name, error in found.items()})
    assert max(found.values()) < TOLERANCE


@pytest.mark.parametrize("component", EVERY_COMPONENT)
def test_the_state_dict_has_the_published_keys_shapes_and_dtypes_in_order(
    component: str, recording: Callable[[str], Recording]
) -> None:
    recorded = recording(component)
    with torch.device("meta"):
        state = build(component, recorded.config).state_dict()
    entries = [
        (key, list(x.shape), str(x.dtype).removeprefix("torch.")) for key, x in state.items()
    ]
    assert entries == recorded.entries


@pytest.mark.parametrize("component", FLOWS)
def test_a_round_trip_with_published_weights_ends_where_it_began(
    component: str, recording: Callable[[str], Recording]
) -> None:
    recorded = recording(component)
    flow, z, cond = loaded(component, recorded), recorded.inputs["z"], recorded.inputs["cond"]
    with torch.no_grad():
        nu, there = flow.to_residual(z, cond)
        back, again = flow.to_latent(nu, cond)
    assert float((back - z).abs().max() / z.std()) < ROUND_TRIP_TOLERANCE
    torch.testing.assert_close(there, -again)


@pytest.mark.parametrize("component", FOLDABLE)
def test_folding_spectral_norm_changes_no_output_and_leaves_plain_weights(
    component: str, recording: Callable[[str], Recording]
) -> None:
    recorded = recording(component)
    network = loaded(component, recorded)
    fold_spectral_norm(network)
    plain = build(component, {**recorded.config, "spectral_norm": False}).eval()
    plain.load_state_dict(network.state_dict())
    found = errors(outputs_of(plain, recorded.inputs), recorded.outputs)
    assert max(found.values()) < TOLERANCE


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_missing_or_a_foreign_entry_is_refused(
    component: str, recording: Callable[[str], Recording]
) -> None:
    recorded = recording(component)
    with torch.device("meta"):
        network = build(component, recorded.config)
    name = next(iter(recorded.state))
    with pytest.raises(RuntimeError, match=f"Missing key.*{name}"):
        network.load_state_dict({k: v for k, v in recorded.state.items() if k != name}, assign=True)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*foreign"):
        network.load_state_dict({**recorded.state, "foreign": torch.zeros(1)}, assign=True)


@pytest.mark.parametrize("component", [name for name in COMPONENTS if name not in FLOWS])
def test_in_evaluation_no_row_depends_on_another(
    component: str, recording: Callable[[str], Recording]
) -> None:
    recorded = recording(component)
    network = loaded(component, recorded)
    inputs = list(recorded.inputs.values())
    with torch.no_grad():
        together, alone = network(*inputs), network(*(x[1:2] for x in inputs))
    for whole, part in zip(flat(together), flat(alone), strict=True):
        torch.testing.assert_close(whole[1:2], part, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("component", COMPONENTS)
def test_gradients_reach_every_parameter_in_training(
    component: str, recording: Callable[[str], Recording]
) -> None:
    recorded = recording(component)
    network = loaded(component, recorded).train()
    if isinstance(network, PaperFlow):
        outputs = network.to_residual(recorded.inputs["z"], recorded.inputs["cond"])
    elif isinstance(network, ImageEncoder):
        outputs = network.gaussian(recorded.inputs["x0"])
    else:
        outputs = network(*recorded.inputs.values())
    loss = sum(x.sin().sum() for x in flat(outputs))
    loss.backward()
    gradients = {name: x.grad for name, x in network.named_parameters()}
    assert not [n for n, g in gradients.items() if g is None or not torch.isfinite(g).all()]
    # A bias or mean that a normalisation takes away again is all that may stay without effect.
    dead = [name for name, g in gradients.items() if not g.any()]
    assert not [name for name in dead if not name.endswith("bias")]


def flat(outputs: object) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    assert isinstance(outputs, tuple | list)
    return [x for output in outputs for x in flat(output)]
