"""Videos longer than a clip: without drift, and as the paper makes them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bodies import noisy_video, tiny_body
from cinnema.core.errors import UserError
from cinnema.synthesis.decoded_scene import join_clips
from cinnema.synthesis.pipeline import Pipeline

Photographs = Callable[[int, int], np.ndarray]


def test_it_begins_as_animate_does() -> None:
    pipe, image = Pipeline(tiny_body()), noisy_video().frames[0]
    (short,) = pipe.animate(image, num_samples=1, num_frames=2, seed=5)
    for method in ("continuous", "paper"):
        (long,) = pipe.extend(image, num_samples=1, num_frames=9, seed=5, extension=method)
        assert np.array_equal(long.frames[:2], short.frames)
        assert torch.equal(long.nu, short.nu)


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
