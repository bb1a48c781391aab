"""The pipeline: what the same seed, other seeds, options and photographs give."""

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cinnema.core.errors import UserError
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.models.files import LoadedModel
from cinnema.models.nature.model import Z_DIM
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.residual import load_motion, save_motion

Photographs = Callable[[int, int], np.ndarray]


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float32) - b.astype(np.float32)).mean())


def test_seeds_and_samples_differ(pipe: Pipeline, photograph: Photographs) -> None:
    image = photograph(48, 80)
    videos = [
        video.frames
        for seed in (0, 1)
        for video in pipe.animate(image, num_samples=2, num_frames=4, seed=seed)
    ]
    assert all(difference(videos[0], other) > 0.5 for other in videos[1:])


def test_temperature_0_is_one_motion_for_all_seeds(pipe: Pipeline, photograph: Photographs) -> None:
    image = photograph(48, 80)
    a, b = (
        pipe.animate(image, num_samples=1, num_frames=3, seed=s, temperature=0)[0] for s in (0, 1)
    )
    assert not a.nu.any()
    assert np.array_equal(a.frames, b.frames)


def test_more_motion_strength_moves_further(pipe: Pipeline, photograph: Photographs) -> None:
    image = photograph(48, 80)
    weak, strong = (
        pipe.animate(image, num_samples=1, num_frames=1, motion_strength=m)[0].frames
        for m in (0.2, 1.0)
    )
    assert difference(strong[0], image) > 2 * difference(weak[0], image) > 0


@pytest.mark.parametrize("size", ["native", "model", (96, 64)])
def test_what_is_kept_still_keeps_its_colours(
    pipe: Pipeline, photograph: Photographs, size: Any
) -> None:
    image = photograph(64, 96)
    still = np.zeros((64, 96), bool)
    still[:, :48] = True
    (animation,) = pipe.animate(image, num_samples=1, num_frames=4, keep_still=still, size=size)
    columns = animation.x0.shape[1] // 2 - 2  # the model's own size blurs the mask's edge
    kept = animation.frames[:, :, :columns]
    assert np.array_equal(kept, np.broadcast_to(animation.x0[:, :columns], kept.shape))
    assert difference(animation.frames[-1], animation.x0) > 0.2


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 301), (150, 41), (129, 127)])
def test_videos_have_the_photographs_size(
    pipe: Pipeline, photograph: Photographs, height: int, width: int
) -> None:
    (animation,) = pipe.animate(photograph(height, width), num_samples=1, num_frames=2)
    assert animation.frames.shape == (2, height, width, 3)
    assert np.array_equal(animation.x0, photograph(height, width))


def test_size_may_be_chosen(pipe: Pipeline, photograph: Photographs) -> None:
    image = photograph(40, 60)
    for size, shape in (((50, 34), (34, 50)), ("model", (128, 128))):
        (video,) = pipe.animate(image, num_samples=1, num_frames=1, size=size)
        assert video.frames.shape == (1, *shape, 3)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(fps=st.floats(0.5, 240), num_frames=st.integers(1, 20))
def test_any_frame_rate_and_length_works(
    pipe: Pipeline, photograph: Photographs, fps: float, num_frames: int
) -> None:
    (animation,) = pipe.animate(photograph(24, 32), num_samples=1, num_frames=num_frames, fps=fps)
    assert len(animation.frames) == num_frames
    assert animation.fps == fps


def test_motion_goes_on_beyond_a_clip_without_a_jump(
    pipe: Pipeline, photograph: Photographs
) -> None:
    (video,) = pipe.animate(photograph(48, 80), num_samples=1, num_frames=30, fps=32)
    steps = [difference(a, b) for a, b in itertools.pairwise(video.frames)]
    assert min(steps) > 0
    assert steps[15] < 2 * max(steps[8:15] + steps[16:])  # 4 frames at 8 a second are 16 at 32


def test_the_video_is_the_frames_as_a_tensor(pipe: Pipeline, photograph: Photographs) -> None:
    (animation,) = pipe.animate(photograph(32, 48), num_samples=1, num_frames=2)
    assert animation.tensor.shape == (2, 3, 32, 48)
    assert np.array_equal(to_pixels(animation.tensor), animation.frames)


def test_nu_goes_to_z_and_back(pipe: Pipeline, photograph: Photographs) -> None:
    image = photograph(32, 48)
    (animation,) = pipe.animate(image, num_samples=1, num_frames=1, size=(128, 128))
    x0 = to_tensor(np.array(Image.fromarray(image).resize((128, 128), Image.Resampling.BICUBIC)))
    with torch.no_grad():
        c = pipe.model.condition(x0[None])
        nu, _ = pipe.model.to_residual(animation.z[None], c)
    assert (nu[0] - animation.nu).abs().max() < 1e-4


def test_nu_replays_a_video_from_tensor_and_file(
    pipe: Pipeline, photograph: Photographs, tmp_path: Path
) -> None:
    image = photograph(32, 48)
    first, second = pipe.animate(image, num_samples=2, num_frames=3, temperature=0.7, seed=3)
    save_motion(tmp_path / "a.safetensors", second)
    both = pipe.animate(image, num_frames=3, nu=torch.stack([first.nu, second.nu]))
    assert np.array_equal(both[0].frames, first.frames)
    assert np.array_equal(both[1].frames, second.frames)
    for nu in (tmp_path / "a.safetensors", load_motion(tmp_path / "a.safetensors"), second.nu):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (again,) = pipe.animate(image, num_frames=3, nu=nu)
        assert np.array_equal(again.frames, second.frames)
        assert torch.equal(again.z, second.z)
    (saved,) = pipe.animate(image, num_frames=1, nu=tmp_path / "a.safetensors")
    assert (again.seed, saved.seed) == (None, 3)


def test_nu_of_other_weights_warns(pipe: Pipeline, photograph: Photographs, tmp_path: Path) -> None:
    image, other = photograph(32, 48), LoadedModel(pipe.model, sha256="0" * 64)
    (video,) = pipe.animate(image, num_samples=1, num_frames=1)
    save_motion(tmp_path / "a.safetensors", video)
    with pytest.warns(UserWarning, match="other weights"):
        Pipeline(other).animate(image, num_frames=1, nu=tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_samples": 0}, "num_samples.*0"),
        ({"num_frames": 0}, "num_frames.*0"),
        ({"num_frames": 10_001}, "num_frames.*10001"),
        ({"num_frames": 1, "loop": "pingpong"}, "num_frames.*pingpong"),
        ({"fps": 0}, "fps.*0"),
        ({"fps": float("nan")}, "fps.*nan"),
        ({"seed": -1}, "seed.*-1"),
        ({"temperature": -0.1}, "temperature.*-0.1"),
        ({"temperature": float("inf")}, "temperature.*inf"),
        ({"motion_strength": -1}, "motion_strength.*-1"),
        ({"motion_strength": float("nan")}, "motion_strength.*nan"),
        ({"size": (8, 100)}, "size.*8x100"),
        ({"size": (20_000, 100)}, "size.*20000x100"),
        ({"keep_still": np.zeros((4, 4), bool)}, "keep_still.*4, 4"),
        ({"keep_still": np.full((32, 48), 2.0)}, "keep_still.*2"),
        ({"nu": torch.zeros(5)}, f"nu.*{Z_DIM}"),
        ({"nu": torch.zeros(0, Z_DIM)}, f"nu.*{Z_DIM}"),
        ({"nu": torch.full((Z_DIM,), torch.nan)}, "nu.*finite"),
        ({"nu": Path("nowhere.safetensors")}, "nowhere"),
        ({"num_frames": 2000, "size": (1920, 1080)}, "GB.*--size"),
    ],
)
def test_mistakes_are_reported_before_anything_is_computed(
    pipe: Pipeline, photograph: Photographs, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        pipe.iterate(photograph(32, 48), **options)
