"""Videos longer than a clip: without drift, and as the paper makes them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.synthesis.decoded_scene import join_clips
from cinnema.synthesis.moments import staggered
from cinnema.synthesis.pipeline import Pipeline

Photographs = Callable[[int, int], np.ndarray]


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float32) - b.astype(np.float32)).mean())


def steps(frames: np.ndarray) -> list[float]:
    return [difference(a, b) for a, b in zip(frames[1:], frames[:-1], strict=True)]


@settings(deadline=None)
@given(num_frames=st.integers(1, 300), clip=st.floats(1, 64))
def test_shares_add_up_to_1_and_no_warp_is_older_than_one_and_a_half_clips(
    num_frames: int, clip: float
) -> None:
    for mix in staggered(num_frames, clip=clip):
        assert sum(moment.share for moment in mix) == pytest.approx(1)
        assert all(0 <= moment.share <= 1 for moment in mix)
        assert all(abs(moment.time) <= 1.5 * clip + 1e-6 for moment in mix)


@given(clip=st.floats(4, 64))
def test_no_share_jumps(clip: float) -> None:
    """Warps are identified by when they start: time - age."""
    plan = staggered(200, clip=clip)
    before: dict[int, float] = {0: 1.0}
    for i, mix in enumerate(plan, start=1):
        now = {round(i - moment.time): moment.share for moment in mix}
        for start in before.keys() | now.keys():
            assert abs(now.get(start, 0) - before.get(start, 0)) < 1.6 / clip
        before = now


def test_what_is_no_longer_than_one_warp_may_be_is_one_warp(
    pipe: Pipeline, photograph: Photographs
) -> None:
    image = photograph(48, 80)  # a clip of the tiny model has 4 frames
    plain = pipe.animate(image, num_samples=1, num_frames=6)[0].frames
    (short,) = pipe.extend(image, num_samples=1, num_frames=6)
    assert np.array_equal(short.frames, plain)
    assert short.settings["extension"] == "continuous"


def test_every_two_clips_the_photograph_is_there_again(
    pipe: Pipeline, photograph: Photographs
) -> None:
    (video,) = pipe.extend(photograph(48, 80), num_samples=1, num_frames=24)
    for i in (8, 16, 24):
        assert np.array_equal(video.frames[i - 1], video.x0)
    assert difference(video.frames[1], video.x0) > 0.2


def test_it_begins_as_animate_does(pipe: Pipeline, photograph: Photographs) -> None:
    image = photograph(48, 80)
    (short,) = pipe.animate(image, num_samples=1, num_frames=2, seed=5)
    for method in ("continuous", "paper"):
        (long,) = pipe.extend(image, num_samples=1, num_frames=9, seed=5, extension=method)
        assert np.array_equal(long.frames[:2], short.frames)
        assert torch.equal(long.nu, short.nu)


def test_no_seam_is_seen_where_clips_meet(pipe: Pipeline, photograph: Photographs) -> None:
    (video,) = pipe.extend(photograph(48, 80), num_samples=1, num_frames=160, fps=64)
    moved = steps(video.frames)  # a clip takes 32 frames; warps change over every 64
    for seam in (31, 32, 63, 64, 95, 96, 127, 128):
        around = moved[seam - 8 : seam - 2] + moved[seam + 3 : seam + 9]
        assert moved[seam - 1] < 1.5 * max(around)


def test_the_papers_extension_decodes_again_from_the_last_frame_with_the_same_nu(
    pipe: Pipeline, photograph: Photographs
) -> None:
    image = photograph(48, 80)
    (long,) = pipe.extend(image, num_samples=1, num_frames=10, extension="paper")
    (first,) = pipe.animate(image, num_samples=1, num_frames=4)
    (second,) = pipe.animate(first.frames[-1], nu=first.nu, num_frames=4)
    (third,) = pipe.animate(second.frames[-1], nu=first.nu, num_frames=2)
    expected = np.concatenate([first.frames, second.frames, third.frames])
    assert np.array_equal(long.frames, expected)
    assert torch.equal(long.z, first.z)
    assert "every frame 4" in long.settings["note"]


@pytest.mark.parametrize("method", ["continuous", "paper"])
def test_what_is_kept_still_stays_for_the_whole_video(
    pipe: Pipeline, photograph: Photographs, method: Any
) -> None:
    still = np.zeros((64, 96), bool)
    still[:, :48] = True
    (video,) = pipe.extend(
        photograph(64, 96), num_samples=1, num_frames=14, extension=method, keep_still=still
    )
    kept = video.frames[:, :, :46]
    assert np.array_equal(kept, np.broadcast_to(video.x0[:, :46], kept.shape))


def test_it_has_48_frames_by_default_and_the_same_seed_gives_the_same(
    pipe: Pipeline, photograph: Photographs
) -> None:
    one, two = (pipe.extend(photograph(24, 32), num_samples=n, seed=3)[0].frames for n in (1, 2))
    assert len(one) == 48
    assert np.array_equal(one, two)


def test_a_long_video_of_the_models_own_size(pipe: Pipeline, photograph: Photographs) -> None:
    for method in ("continuous", "paper"):
        (video,) = pipe.extend(
            photograph(48, 80), num_samples=1, num_frames=9, size="model", extension=method
        )
        assert video.frames.shape == (9, 128, 128, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loop": "pingpong"}, "loop.*continuous.*pingpong"),
        ({"num_frames": 0}, "num_frames"),
        ({"num_frames": 2000, "size": (1920, 1080), "extension": "paper"}, "GB"),
    ],
)
def test_what_cannot_be_extended_is_an_error(
    pipe: Pipeline, photograph: Photographs, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        pipe.extend(photograph(32, 48), **options)


def test_decoded_clips_fade_one_into_the_next() -> None:
    video, clip = torch.zeros(6, 3, 2, 2), torch.ones(5, 3, 2, 2)
    joined = join_clips(video, clip, overlap=3)[:, 0, 0, 0]
    torch.testing.assert_close(joined, torch.tensor([0, 0, 0, 0.25, 0.5, 0.75, 1, 1]))
    assert len(join_clips(video, clip, overlap=0)) == 11
