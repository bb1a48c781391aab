"""I3D computes what its published ports computed, reads their files, and keeps it when hastened."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from cinnema.backbones.i3d import (
    FEATURE_DIM,
    FRAME_SIZE,
    I3D,
    FrameResize,
    I3DConfig,
    loading,
    resize_frames,
)
from cinnema.backbones.packaged_weights import I3D_KINETICS, load_numpy_pickle
from cinnema.core.errors import UserError
from cinnema.evaluation.features import in_precision
from parity import recording_of

TOLERANCE = 1e-4  # of the output's standard deviation
CONFIGS = {
    "dti3d_16": I3DConfig(num_classes=18, frames=16, port="dtdb"),
    "dti3d_32": I3DConfig(num_classes=18, frames=32, port="dtdb"),
    "i3d_kinetics": I3DConfig(),
}


def loaded(component: str) -> I3D:
    network = I3D(CONFIGS[component])
    network.load_state_dict(recording_of(component).state)
    return network.eval().requires_grad_(requires_grad=False)


def error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.std(correction=0))


def clips(num: int, frames: int = 9) -> Tensor:
    """Smooth waves that drift, of another direction in each clip."""
    t = torch.arange(frames)[:, None, None, None]
    y, x = torch.meshgrid(*[torch.arange(FRAME_SIZE) / FRAME_SIZE] * 2, indexing="ij")
    colour = torch.arange(3)[:, None, None]
    waves = [(9 * x + (4 + 3 * i) * y + 0.3 * t + colour).sin() for i in range(num)]
    return 0.9 * torch.stack(waves)


@pytest.fixture(scope="module")
def kinetics() -> I3D:
    return I3D.kinetics()


@pytest.mark.parametrize("component", CONFIGS)
def test_published_weights_give_the_recorded_outputs(component: str) -> None:
    network, recorded = loaded(component), recording_of(component)
    video = recorded.inputs["video"]
    features, state = network.pooled(video), network.state_dict()
    head = "logits" if network.config.port == "dtdb" else "conv3d_0c_1x1"
    weight, bias = state[f"{head}.conv3d.weight"], state[f"{head}.conv3d.bias"]
    logits = functional.linear(features, weight.flatten(1), bias)
    assert error(logits, recorded.outputs["logits"]) < TOLERANCE
    if "features" in recorded.outputs:
        assert error(features, recorded.outputs["features"]) < TOLERANCE


@pytest.fixture(scope="module")
def seen(kinetics: I3D) -> tuple[Tensor, Tensor]:
    """Features and logits of `clips(2)`."""
    return kinetics.features(clips(2)), kinetics.logits(clips(2))


def test_clips_of_a_batch_do_not_depend_on_each_other(
    kinetics: I3D, seen: tuple[Tensor, Tensor]
) -> None:
    features, _ = seen
    alone = kinetics.features(clips(2)[1:])
    assert error(features[1:], alone) < TOLERANCE
    assert error(features[:1], alone) > 0.1


def test_time_comes_first_at_the_border_and_channels_inside(
    kinetics: I3D, seen: tuple[Tensor, Tensor]
) -> None:
    _, logits = seen
    assert error(kinetics(clips(1).movedim(2, 1)), logits[:1]) < TOLERANCE


def test_the_logits_are_linear_in_the_features(kinetics: I3D, seen: tuple[Tensor, Tensor]) -> None:
    features, logits = seen
    state = kinetics.state_dict()
    weight, bias = state["conv3d_0c_1x1.conv3d.weight"], state["conv3d_0c_1x1.conv3d.bias"]
    torch.testing.assert_close(functional.linear(features, weight.flatten(1), bias), logits)


def test_the_packages_weights_are_those_of_the_network(kinetics: I3D) -> None:
    arrays = load_numpy_pickle(I3D_KINETICS.find())
    stem = arrays["params"]["Conv3d_1a_7x7"]["Conv_0"]["kernel"]
    block = arrays["batch_stats"]["Mixed_5c"]["Branch_2/Conv3d_0b_3x3"]["BatchNorm_0"]["var"]
    state = kinetics.state_dict()
    ours = state["conv3d_1a_7x7.conv3d.weight"].permute(2, 3, 4, 1, 0)
    np.testing.assert_array_equal(ours, stem)
    np.testing.assert_array_equal(state["mixed_5c.branch_2.1.batch3d.running_var"], np.ravel(block))
    assert not kinetics.training
    assert not any(parameter.requires_grad for parameter in kinetics.parameters())


@pytest.mark.parametrize(
    ("hasten", "tolerance"),
    [
        (lambda network: network.fold_batch_norm(), 1e-4),
        (lambda network: network.fold_batch_norm().channels_last(), 1e-4),
        (lambda network: in_precision(network, "bfloat16"), 0.2),
    ],
    ids=["folded", "channels last", "bfloat16"],
)
def test_a_hastened_network_computes_the_same(
    seen: tuple[Tensor, Tensor], hasten: Callable[[I3D], I3D], tolerance: float
) -> None:
    fast = I3D.kinetics()
    assert hasten(fast) is fast
    features = fast.features(clips(1))
    assert features.dtype == torch.float32
    assert error(features, seen[0][:1]) < tolerance


def test_folding_twice_changes_nothing_more() -> None:
    network = I3D(I3DConfig(num_classes=2)).fold_batch_norm()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.fold_batch_norm()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not [name for name in before if "batch3d" in name]


@pytest.mark.parametrize("layout", ["published", "parallel", "safetensors", "no counters"])
def test_a_users_file_is_read_whatever_its_layout(tmp_path: Path, layout: str) -> None:
    state = recording_of("dti3d_16").state
    path = tmp_path / "I3D_16.pth.tar"
    if layout == "safetensors":
        path = tmp_path / "i3d.safetensors"
        save_file(state, path)
    elif layout == "published":
        torch.save({"state_dict": state, "epoch": 3, "optim_state_dict": {"lr": 0.1}}, path)
    elif layout == "parallel":
        torch.save({f"module.{name}": value for name, value in state.items()}, path)
    else:
        torch.save({k: v for k, v in state.items() if "num_batches_tracked" not in k}, path)
    network = I3D.from_file(path)
    assert network.config == CONFIGS["dti3d_16"]
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_a_users_file_of_the_kinetics_port_tells_its_classes(tmp_path: Path) -> None:
    state = I3D(I3DConfig(num_classes=7)).state_dict()
    torch.save(state, tmp_path / "mine.pth")
    network = I3D.from_file(tmp_path / "mine.pth", frames=32)
    assert network.config == I3DConfig(num_classes=7, frames=32)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (lambda state: {**state, "best": Harmful()}, "needs more than tensors.*run code"),
        (lambda _: {"epoch": 3}, "does not hold an I3D"),
        (lambda _: [1, 2], "holds a list, not a state dict"),
        (lambda state: {**state, "foreign": torch.zeros(1)}, "has unknown foreign"),
        (
            lambda state: {k: v for k, v in state.items() if "Conv3d_2b" not in k},
            r"lacks Conv3d_2b_1x1\.conv3d\.weight.* and 2 more",
        ),
        (
            lambda state: {**state, "Mixed_3b.b0.bn.weight": torch.zeros(3)},
            r"wrong shape in Mixed_3b\.b0\.bn\.weight \(3,\), not \(64,\)",
        ),
        (
            lambda state: {**state, "logits.conv3d.bias": torch.zeros(400)},
            "400 classes under the names of the DTDB port",
        ),
    ],
    ids=["code", "something else", "no dictionary", "extra", "missing", "shape", "epsilon"],
)
def test_a_file_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Callable[[Any], Any], match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.pth"
    torch.save(content(dict(recording_of("dti3d_16").state)), path)
    with pytest.raises(UserError, match=rf"mine\.pth.*{match}"):
        I3D.from_file(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps("x", protocol=2)[:-1] + b"\x00" * 40)
    with pytest.raises(UserError, match=name):
        I3D.from_file(path)
    with pytest.raises(UserError, match="does not exist"):
        I3D.from_file(tmp_path / "none.pth")


def test_a_package_with_other_weights_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_numpy_pickle", lambda _: {"params": {}})
    with pytest.raises(UserError, match="install its package again"):
        I3D.kinetics()


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"num_classes": 0}, "at least 1 class"),
        ({"frames": 8}, "16, 24, 32"),
        ({"frames": 20}, "frames=20"),
        ({"port": "caffe"}, "port must be"),
    ],
)
def test_a_wrong_configuration_is_refused(values: dict[str, Any], match: str) -> None:
    with pytest.raises((UserError, TypeError), match=rf"{match}|Type-check|violates type hint"):
        I3DConfig(**values)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((1, 8, 3, 224, 224), "at least 9 frames, got 8"),
        ((1, 9, 3, 112, 112), "resize_frames"),
        ((1, 9, 1, 224, 224), "RGB"),
    ],
)
def test_a_wrong_clip_is_refused(shape: tuple[int, ...], match: str) -> None:
    with torch.device("meta"):
        network = I3D()
    with pytest.raises(UserError, match=match):
        network.logits(torch.zeros(shape))


def test_values_out_of_range_are_refused() -> None:
    with torch.device("meta"):
        network = I3D()
    for value in (1.1, float("nan")):
        with pytest.raises(UserError, match=r"in \[-1, 1\]"):
            network.features(torch.full((1, 9, 3, 224, 224), value))


@settings(max_examples=20, deadline=None)
@given(height=st.integers(2, 300), width=st.integers(2, 300), sign=st.sampled_from([-1, 1]))
def test_resizing_reads_a_ramp_where_each_method_says(height: int, width: int, sign: int) -> None:
    i = torch.arange(FRAME_SIZE, dtype=torch.float64)
    ramp = sign * torch.arange(width, dtype=torch.float64).expand(1, 1, 3, height, width)
    positions: dict[FrameResize, Tensor] = {
        "tensorflow": i * width / FRAME_SIZE,
        "half_pixel": (i + 0.5) * width / FRAME_SIZE - 0.5,
        "corners": i * (width - 1) / (FRAME_SIZE - 1),
    }
    if (height, width) == (FRAME_SIZE, FRAME_SIZE):
        return
    for method, position in positions.items():
        row = resize_frames(ramp, method=method)[0, 0, 0, 0]
        torch.testing.assert_close(row, sign * position.clamp(0, width - 1), atol=1e-4, rtol=0)


def test_an_unknown_resizing_is_refused_and_the_right_size_is_left_alone() -> None:
    video = torch.zeros(1, 1, 3, FRAME_SIZE, FRAME_SIZE)
    assert resize_frames(video, method="corners") is video
    with pytest.raises((UserError, TypeError), match=r"tensorflow|Type-check|violates type hint"):
        resize_frames(video, method="nearest")  # type: ignore[arg-type]


def test_features_have_their_length() -> None:
    with torch.device("meta"):
        assert I3D().pooled(torch.zeros(2, 3, 16, 224, 224)).shape == (2, FEATURE_DIM)
