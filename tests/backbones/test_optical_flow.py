"""The flow finds known displacements, with the promised sign, unit and determinism."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.backbones.optical_flow import backward_flow, flow_confidence, to_volume
from cinnema.core.errors import UserError

SIZE = 128
MARGIN = 24


def texture(size: int, *, contrast: float = 40.0, seed: int = 0) -> np.ndarray:
    """Cloud-like noise (amplitudes fall with frequency) of a known standard deviation, float."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1.0
    spectrum = np.fft.fft2(rng.standard_normal((size, size))) * frequency**-1.5
    spectrum[0, 0] = 0.0
    noise = np.fft.ifft2(spectrum).real
    return np.asarray(128 + contrast * noise / noise.std(), dtype=np.float32)


def drift(
    velocity: tuple[float, float], *, num_frames: int = 5, contrast: float = 40.0
) -> np.ndarray:
    """Frames in which all moves by `velocity` (x, y) pixels a frame."""
    source = texture(4 * SIZE, contrast=contrast)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) + 1.5 * SIZE
    frames = []
    for t in range(num_frames):
        map_x = (x - t * velocity[0]).astype(np.float32)
        map_y = (y - t * velocity[1]).astype(np.float32)
        frames.append(cv2.remap(source, map_x, map_y, cv2.INTER_CUBIC))
    grey = np.clip(np.round(np.stack(frames)), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def inner_mean(flow: np.ndarray) -> np.ndarray:
    inner = flow[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    return np.asarray(inner.mean(axis=(1, 2)))


@settings(max_examples=10, deadline=None)
@given(vx=st.floats(-3, 3, allow_subnormal=False), vy=st.floats(-3, 3, allow_subnormal=False))
def test_a_drift_by_fractions_of_a_pixel_is_found(vx: float, vy: float) -> None:
    flow = backward_flow(drift((vx, vy)))
    expected = [(-t * vx, -t * vy) for t in range(1, 5)]
    assert np.allclose(inner_mean(flow), expected, atol=0.1)


def test_motion_to_the_right_and_down_points_back_to_the_left_and_up() -> None:
    flow = inner_mean(backward_flow(drift((2.0, 1.0), num_frames=2)))[0]
    assert flow == pytest.approx([-2.0, -1.0], abs=0.1)


def test_warping_the_first_frame_by_the_flow_gives_the_later_frames() -> None:
    frames = drift((1.3, -0.7))
    flow = backward_flow(frames)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    inner = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    for frame, field in zip(frames[1:], flow, strict=True):
        warped = cv2.remap(frames[0], x + field[..., 0], y + field[..., 1], cv2.INTER_LINEAR)
        error = np.abs(warped.astype(float) - frame)[inner].mean()
        frozen = np.abs(frames[0].astype(float) - frame)[inner].mean()
        assert error < 0.15 * frozen


def test_a_long_way_is_followed_from_frame_to_frame() -> None:
    flow = backward_flow(drift((2.5, 0.0), num_frames=17))
    assert flow[-1, 40:-40, 48:-16].mean(axis=(0, 1)) == pytest.approx([-40.0, 0.0], abs=1.0)


def test_a_slow_drift_of_faint_clouds_is_found() -> None:
    flow = backward_flow(drift((0.3, 0.1), num_frames=9, contrast=4.0))
    assert inner_mean(flow)[-1] == pytest.approx([-2.4, -0.8], abs=0.25)


def test_noise_over_a_still_scene_moves_nothing() -> None:
    still = texture(SIZE)[None, ..., None].repeat(5, axis=0).repeat(3, axis=-1)
    noise = np.random.default_rng(1).normal(0, 2, still.shape)
    flow = backward_flow(np.clip(still + noise, 0, 255).astype(np.uint8))
    assert np.linalg.norm(flow, axis=-1).mean() < 0.1


def test_the_flow_is_in_pixels_of_the_working_size() -> None:
    frames = drift((4.0, 0.0), num_frames=2)
    half = backward_flow(frames, size=(64, 64))
    assert half.shape == (1, 64, 64, 2)
    assert half[0, 16:-16, 16:-16, 0].mean() == pytest.approx(-2.0, abs=0.1)


def test_working_height_and_width_may_differ() -> None:
    assert backward_flow(drift((1.0, 0.0), num_frames=2), size=(64, 96)).shape == (1, 64, 96, 2)


def test_the_flow_is_the_same_each_time_and_leaves_the_threads_alone() -> None:
    frames, num_threads = drift((1.5, 0.5)), cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        first = backward_flow(frames)
        assert cv2.getNumThreads() == 2
        cv2.setNumThreads(1)
        assert np.array_equal(first, backward_flow(frames))
    finally:
        cv2.setNumThreads(num_threads)


def test_confidence_is_high_inside_and_none_where_the_flow_leaves_the_picture() -> None:
    frames = drift((3.0, 0.0), num_frames=4)
    confidence = flow_confidence(frames, backward_flow(frames))
    assert confidence.shape == (3, SIZE, SIZE)
    assert confidence.min() >= 0
    assert confidence.max() <= 1
    assert confidence[-1, MARGIN:-MARGIN, MARGIN:-MARGIN].mean() > 0.9
    assert confidence[-1, MARGIN:-MARGIN, :5].mean() < 0.1


def test_confidence_is_low_where_something_new_appears() -> None:
    frames = drift((0.5, 0.0), num_frames=2)
    patch = texture(48, seed=9)[..., None]
    frames[1, 40:88, 40:88] = np.clip(patch, 0, 255).astype(np.uint8)
    confidence = flow_confidence(frames, backward_flow(frames))[0]
    assert confidence[44:84, 44:84].mean() < 0.5 < confidence[96:, MARGIN:-MARGIN].mean()


def test_confidence_wants_the_frames_of_its_flow() -> None:
    frames = drift((0.5, 0.0), num_frames=4)
    with pytest.raises(UserError, match="4 frames need the flow of 3, got that of 2"):
        flow_confidence(frames, backward_flow(frames[:3]))


def test_a_volume_holds_block_means_in_widths_and_heights() -> None:
    flow = np.random.default_rng(0).normal(size=(3, 32, 64, 2)).astype(np.float32)
    volume = to_volume(flow, grid=8)
    assert volume.shape == (2, 3, 8, 8)
    assert volume.dtype == np.float32
    assert volume[0, 1, 2, 5] == pytest.approx(flow[1, 8:12, 40:48, 0].mean() / 64, rel=1e-4)
    assert volume[1, 2, 7, 0] == pytest.approx(flow[2, 28:32, :8, 1].mean() / 32, rel=1e-4)


def test_a_grid_that_does_not_divide_the_flow_is_refused() -> None:
    with pytest.raises(UserError, match="a grid of 7 does not divide"):
        to_volume(np.zeros((1, 64, 64, 2), np.float32), grid=7)


def test_a_single_frame_is_refused() -> None:
    with pytest.raises(UserError, match="at least 2 frames, got 1"):
        backward_flow(drift((0.0, 0.0), num_frames=1))


def test_a_working_size_too_small_for_patches_is_refused() -> None:
    with pytest.raises(UserError, match="at least 32 on a side, got 64x16"):
        backward_flow(drift((0.0, 0.0), num_frames=2), size=(64, 16))
