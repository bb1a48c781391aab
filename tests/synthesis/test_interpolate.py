"""From one motion to another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.models.control import Drift
from cinnema.models.nature.model import Z_DIM
from cinnema.synthesis.interpolate import slerp
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.residual import save_motion

Photographs = Callable[[int, int], np.ndarray]


def normal(seed: int, size: int = 16) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_the_arc_keeps_the_norm(seed: int, share: float) -> None:
    a, b = normal(seed), normal(seed + 1)
    b = b * a.norm() / b.norm()
    torch.testing.assert_close(slerp(a, b, share).norm(), a.norm(), atol=1e-5, rtol=1e-5)


@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_of_ends_of_two_norms_it_passes_through_those_between(seed: int, share: float) -> None:
    a, b = normal(seed), 2 * normal(seed + 1)
    expected = (1 - share) * a.norm() + share * b.norm()
    torch.testing.assert_close(slerp(a, b, share).norm(), expected, atol=1e-4, rtol=1e-4)


@given(seed=st.integers(0, 10**6))
def test_at_0_and_1_it_is_the_ends_to_the_bit(seed: int) -> None:
    a, b = normal(seed), normal(seed + 1)
    assert torch.equal(slerp(a, b, 0), a)
    assert torch.equal(slerp(a, b, 1), b)


def test_halfway_is_as_near_to_one_end_as_to_the_other() -> None:
    a, b = normal(0), normal(1)
    b = b * a.norm() / b.norm()
    middle = slerp(a, b, 0.5)
    torch.testing.assert_close((middle - a).norm(), (middle - b).norm())


def test_ends_on_one_ray_or_at_0_are_joined_by_a_line() -> None:
    a = normal(0)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    torch.testing.assert_close(slerp(a, 3 * a, 0.5), 2 * a)
    torch.testing.assert_close(slerp(torch.zeros(16), a, 0.25), 0.25 * a)


def test_opposite_ends_are_refused() -> None:
    a = normal(0)
    with pytest.raises(UserError, match="opposite directions"):
        slerp(a, -a, 0.5)


def test_the_first_and_last_video_are_those_of_the_ends(
    pipe: Pipeline, photograph: Photographs
) -> None:
    image = photograph(32, 48)
    samples = pipe.animate(image, num_samples=3, num_frames=2, seed=4)
    videos = list(pipe.interpolate(image, start=0, end=2, steps=3, seed=4, num_frames=2))
    assert np.array_equal(videos[0].frames, samples[0].frames)
    assert np.array_equal(videos[2].frames, samples[2].frames)
    assert [v.sample for v in videos] == [0, 1, 2]
    assert [v.settings["interpolation"]["share"] for v in videos] == [0, 0.5, 1]
    assert (videos[1].frames != samples[0].frames).any()


def test_ends_may_be_files_and_tensors_and_the_temperature_is_that_of_numbers(
    pipe: Pipeline, photograph: Photographs, tmp_path: Path
) -> None:
    image = photograph(32, 48)
    (cool,) = pipe.animate(image, num_samples=1, num_frames=1, temperature=0.5, seed=1)
    save_motion(tmp_path / "cool.safetensors", cool)
    first, last = pipe.interpolate(
        image, start=tmp_path / "cool.safetensors", end=0, steps=2, seed=1, temperature=0.5,
        num_frames=1,
    )  # fmt: skip
    assert torch.equal(first.nu, cool.nu)
    torch.testing.assert_close(last.nu, cool.nu)
    _, tensor = pipe.interpolate(image, end=cool.nu, steps=2, num_frames=1)
    assert torch.equal(tensor.nu, cool.nu)


def test_the_control_leads_from_that_of_one_end_to_that_of_the_other(
    pipe: Pipeline, photograph: Photographs, tmp_path: Path
) -> None:
    image = photograph(48, 48)
    paths = []
    for direction in (0, 90):
        (video,) = pipe.animate(image, num_samples=1, num_frames=1, eta=Drift(direction=direction))
        paths.append(tmp_path / f"{direction}.safetensors")
        save_motion(paths[-1], video)
    _, middle, _ = pipe.interpolate(image, start=paths[0], end=paths[1], steps=3, num_frames=1)
    assert middle.settings["eta"] == pytest.approx([0.075, -0.075])
    with pytest.raises(UserError, match="with a control and the other without"):
        pipe.interpolate(image, start=paths[0], end=1)
    told = pipe.interpolate(image, start=paths[0], end=1, steps=2, eta=Drift(direction=180))
    assert next(told).settings["eta"] == pytest.approx([-0.15, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 1}, "steps: must be from 2 to 100"),
        ({"steps": 101}, "steps"),
        ({"start": -1}, "must be from 0"),
        ({"seed": -1}, "seed"),
        ({"start": torch.zeros(2, Z_DIM)}, "an end is one residual, got 2"),
        ({"end": torch.zeros(3)}, f"needs.*{Z_DIM}"),
        ({"end": Path("nowhere")}, "nowhere"),
        ({"num_frames": 0}, "num_frames"),
    ],
)
def test_mistakes_are_reported_before_anything_is_computed(
    pipe: Pipeline, photograph: Photographs, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        pipe.interpolate(photograph(32, 48), **options)
