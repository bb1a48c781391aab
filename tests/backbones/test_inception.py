"""FID's Inception: its structure, and what it gives for weights that a formula fills in."""

from pathlib import Path
from zlib import crc32

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cinnema.backbones.inception import Inception
from cinnema.core.errors import UserError

# The first 6 of the 2048 features of two pictures: computed by torchvision's network with the
# changes of FID's graph (pools without padding, the last by the maximum), for the weights below.
RECORDED = [
    [9.493629, 8.71357, 0.0, 0.472097, 1.975199, 0.017064],
    [10.064465, 8.107608, 0.000804, 0.531374, 2.20574, 0.019514],
]


def formula(name: str, like: Tensor) -> Tensor:
    if not like.is_floating_point():
        return like
    i = torch.arange(like.numel(), dtype=torch.float64)
    u = torch.sin(0.001 * i**2 + 0.7 * i + crc32(name.encode()) % 1000)
    if like.ndim > 1:
        u = u * (6 / (like.numel() / like.shape[0])) ** 0.5
    elif name.endswith("running_var"):
        u = 1 + 0.5 * u**2
    elif name.endswith("bn.weight"):
        u = 1 + 0.25 * u
    else:
        u = 0.1 * u
    return u.reshape(like.shape).to(like.dtype)


def pictures() -> Tensor:
    i = torch.arange(2 * 3 * 40 * 48, dtype=torch.float64)
    return torch.sin(0.0001 * i**2 + 0.37 * i).reshape(2, 3, 40, 48).float()


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return {name: formula(name, value) for name, value in Inception().state_dict().items()}


def test_it_has_the_parameters_of_the_published_file(state: dict[str, Tensor]) -> None:
    features = sum(p.numel() for n, p in Inception().named_parameters() if n[:2] != "fc")
    assert features == 21_785_568
    assert tuple(state["fc.weight"].shape) == (1008, 2048)
    published = [name for name in state if not name.endswith("num_batches_tracked")]
    assert len(published) == 94 * 5 + 2
    assert "Mixed_7c.branch3x3dbl_3b.conv.weight" in published
    assert "Mixed_6a.branch3x3dbl_3.bn.running_var" in published


def test_a_file_without_counters_gives_the_recorded_features(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path)
    inception = Inception.from_file(path)
    features = inception.features(pictures())
    torch.testing.assert_close(
        features[:, :6], torch.tensor(RECORDED), rtol=1e-4, atol=1e-4 * float(features.std())
    )
    torch.testing.assert_close(
        inception.features(pictures()[1:]), features[1:], rtol=1e-4, atol=1e-4
    )


def test_another_network_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "inception.safetensors"
    save_file({k: v for k, v in state.items() if k != "fc.bias"}, path)
    with pytest.raises(UserError, match=r"does not fit FID's Inception: it lacks fc\.bias"):
        Inception.from_file(path)
    with pytest.raises(UserError, match="missing"):
        Inception.from_file(tmp_path / "missing.pth")
