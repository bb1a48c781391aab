"""The node for ComfyUI, against a stand-in for its API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.models.files import save_model
from comfy import Comfy, comfy
from small_nature import nature_model

FOLDER = Path(__file__).parents[1] / "examples/comfyui"
SHORT = {"seconds": 0.5, "fps": 8.0}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comfy]:
    with comfy(FOLDER) as one:
        yield one


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_model(path, nature_model(by_colour=False))
    return str(path)


@pytest.fixture
def images(coast: Any) -> Tensor:
    """Two photographs as ComfyUI has them."""
    return torch.from_numpy(np.stack([coast(48, 80), coast(48, 80)[:, ::-1]])).float() / 255


@pytest.fixture
def moving() -> Tensor:
    return torch.ones(1, 48, 80)


def test_the_bundled_weights_and_defaults_animate_a_photograph(
    served: Comfy, images: Tensor
) -> None:
    frames, fps = served.run(image=images[:1], **SHORT)
    assert frames.shape == (4, 48, 80, 3)
    assert frames.dtype == torch.float32
    assert 0 <= frames.min() < frames.max() <= 1
    assert torch.equal(frames[-1], images[0]), "a loop ends with the photograph"
    assert fps == 8.0


def test_frames_of_a_batch_follow_each_other_and_a_seed_is_a_future(
    served: Comfy, images: Tensor, weights: str, moving: Tensor
) -> None:
    options = {"weights": weights, "move": moving, "loop": False, **SHORT}
    served.progress.clear()
    both, _ = served.run(image=images, seed=3, **options)
    assert served.progress[-1] == (8, 8)
    assert [value for value, _ in served.progress] == sorted(v for v, _ in served.progress)
    (first, _), (second, _) = (
        served.run(image=images[i : i + 1], seed=3 + i, **options) for i in (0, 1)
    )
    assert torch.equal(both, torch.cat([first, second]))
    other, _ = served.run(image=images[:1], seed=4, **options)
    assert not torch.equal(other, first)


def test_what_is_masked_stands(served: Comfy, images: Tensor, weights: str, moving: Tensor) -> None:
    left = torch.zeros(1, 96, 160)  # of twice the size
    left[..., :80] = 1
    frames, _ = served.run(
        image=images[:1], weights=weights, move=moving, keep_still=left, loop=False, **SHORT
    )
    assert torch.equal(frames[:, :, :32], images[:1, :, :32].expand(4, -1, -1, -1))
    assert not torch.equal(frames[-1, :, 48:], images[0, :, 48:])


def test_the_empty_mask_of_a_picture_without_alpha_changes_nothing(
    served: Comfy, images: Tensor, weights: str, moving: Tensor
) -> None:
    options = {"image": images[:1], "weights": weights, "move": moving, **SHORT}
    plain, _ = served.run(**options)
    masked, _ = served.run(**options, keep_still=torch.zeros(1, 64, 64))
    assert torch.equal(plain, masked)


def test_a_mistake_is_told_in_one_line(served: Comfy, images: Tensor) -> None:
    with pytest.raises(UserError, match="'seascape' is neither"):
        served.run(image=images, weights="seascape")
