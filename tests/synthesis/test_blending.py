"""Frames mixed without haze."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinnema.synthesis.blending import mixed


def textures(num: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(60, 196, (96, 96, 3)).astype(np.uint8) for _ in range(num)]


MOVING = np.ones((96, 96), np.float32)


def test_frames_that_agree_stay_as_they_are() -> None:
    (frame,) = textures(1)
    assert np.array_equal(mixed([frame, frame.copy()], [0.3, 0.7], moving=MOVING), frame)
    assert mixed([frame], [1.0], moving=MOVING) is frame


@given(share=st.floats(0.05, 0.95))
def test_the_contrast_of_textures_that_have_nothing_in_common_is_kept(share: float) -> None:
    a, b = textures(2)
    mix = mixed([a, b], [share, 1 - share], moving=MOVING)
    assert mix.std() == pytest.approx(a.std(), rel=0.05)
    assert mix.mean() == pytest.approx(a.mean(), abs=1.5)


def test_what_does_not_move_gets_the_plain_mean() -> None:
    a, b = textures(2)
    plain = np.rint(0.5 * a.astype(np.float32) + 0.5 * b.astype(np.float32))
    assert np.array_equal(mixed([a, b], [0.5, 0.5], moving=0 * MOVING), plain)


def test_flat_frames_stay_flat() -> None:
    a, b = (np.full((96, 96, 3), level, np.uint8) for level in (40, 200))
    assert np.array_equal(mixed([a, b], [0.5, 0.5], moving=MOVING), np.full_like(a, 120))
