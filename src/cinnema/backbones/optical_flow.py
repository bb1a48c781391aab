"""Optical flow between frames, and back to the first frame, with OpenCV's DIS.

Kroeger et al., "Fast Optical Flow using Dense Inverse Search" (ECCV 2016). The backward flow of
frame t points from a pixel p of frame t to its position in frame 0, so that
x_t(p) ~= x_0(p + flow_t(p)); channel 0 is x (to the right), channel 1 is y (down).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from cinnema.core.errors import UserError

# Smaller frames have too few scales and patches for DIS.
_MIN_SIZE = 32

# Forward-backward error (pixels, plus share of the flow's length) of a confidence of 1/e.
_TOLERANCE_PIXELS = 1.0
_TOLERANCE_SHARE = 0.1


def backward_flow(
    frames: UInt8[ndarray, "t h w 3"], *, size: tuple[int, int] = (128, 128)
) -> Float32[ndarray, "_ rows columns 2"]:
    """Estimate the flow from every later frame back to frame 0.

    Each estimate is initialised with that of the frame before, so that motions too large for one
    search are followed. About 2.5 ms a frame at 128 x 128. Deterministic: OpenCV runs on one
    thread, as the result depends on how the frame is split among its threads.

    Args:
        frames: RGB frames, at least 2.
        size: Working height and width, each at least 32; frames of another size are resized
            (without keeping their aspect ratio).

    Returns:
        The flow of frames 1 to t - 1 in pixels of the working size, so that
        x_t(p) ~= x_0(p + flow_t(p)), with x in channel 0 and y in channel 1.

    Raises:
        UserError: There are fewer than 2 frames, they are not RGB in uint8, or the working size is
            below 32.

    Example:
        >>> still = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
        >>> flow = backward_flow(np.repeat(still, 3, axis=0), size=(64, 64))
        >>> flow.shape, float(np.abs(flow).max()) < 0.01
        ((2, 64, 64, 2), True)
    """
    grey = _working_frames(frames, size)
    return _flow_chain(moving=grey[1:], fixed=[grey[0]] * (len(grey) - 1))


def forward_flow(
    frames: UInt8[ndarray, "t h w 3"], *, size: tuple[int, int] = (128, 128)
) -> Float32[ndarray, "_ rows columns 2"]:
    """Estimate the flow from each frame to the next.

    Unlike the flow back to frame 0, it does not break down where texture renews itself, as on
    water and fire.

    Args:
        frames: As in `backward_flow`.
        size: As in `backward_flow`.

    Returns:
        The flow from frames 0 to t - 2 in pixels of the working size, so that
        x_t(p) ~= x_(t+1)(p + flow_t(p)), with x in channel 0 and y in channel 1.

    Raises:
        UserError: As in `backward_flow`.
    """
    grey = _working_frames(frames, size)
    return np.concatenate([_flow_chain(moving=[a], fixed=[b]) for a, b in pairwise(grey)])


def flow_confidence(
    frames: UInt8[ndarray, "t h w 3"], flow: Float32[ndarray, "_ rows columns 2"]
) -> Float32[ndarray, "_ rows columns"]:
    """Return the confidence of the flow: how well it agrees with the flow in the other direction.

    With g_t the flow from frame 0 to frame t, the error is e = |flow_t(p) + g_t(p + flow_t(p))|,
    and the confidence is exp(-(e / (1 + 0.1 |flow_t(p)|))^2). It is low where something appears,
    vanishes or leaves the picture. It takes about as long as the flow.

    Args:
        frames: The frames that were given to `backward_flow`.
        flow: The flow that it returned; its height and width are the working size.

    Returns:
        Confidences in [0, 1], 0 where the flow points out of the picture.

    Raises:
        UserError: As in `backward_flow`, or the flow has another number of frames.
    """
    rows, columns = flow.shape[1:3]
    grey = _working_frames(frames, (rows, columns))
    if len(flow) != len(grey) - 1:
        raise UserError(
            f"{len(grey)} frames need the flow of {len(grey) - 1}, got that of {len(flow)}: "
            "give the frames the flow was made from"
        )
    forward = _flow_chain(moving=[grey[0]] * len(flow), fixed=grey[1:])
    grid_y, grid_x = np.mgrid[:rows, :columns].astype(np.float32)
    confidence = np.empty(flow.shape[:3], dtype=np.float32)
    for t, (back, forth) in enumerate(zip(flow, forward, strict=True)):
        x, y = grid_x + back[..., 0], grid_y + back[..., 1]
        there = cv2.remap(forth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        error = np.linalg.norm(back + there, axis=-1)
        tolerance = _TOLERANCE_PIXELS + _TOLERANCE_SHARE * np.linalg.norm(back, axis=-1)
        is_inside = (x >= 0) & (x <= columns - 1) & (y >= 0) & (y <= rows - 1)
        confidence[t] = np.exp(-np.square(error / tolerance)) * is_inside
    return confidence


def to_volume(
    flow: Float32[ndarray, "t h w 2"], *, grid: int = 16
) -> Float32[ndarray, "2 t {grid} {grid}"]:
    """Average the flow over blocks, in units of the picture's width and height.

    The volume does not depend on the working size: 0.1 in channel 0 is a tenth of the width.

    Args:
        flow: What `backward_flow` returned, in pixels.
        grid: Number of blocks along each side; it must divide height and width.

    Returns:
        The block means, x / width in channel 0 and y / height in channel 1.

    Raises:
        UserError: `grid` does not divide the height and width.

    Example:
        >>> to_volume(np.ones((3, 64, 128, 2), dtype=np.float32), grid=16)[:, 0, 0, 0].tolist()
        [0.0078125, 0.015625]
    """
    num_frames, height, width, _ = flow.shape
    if grid < 1 or height % grid or width % grid:
        raise UserError(
            f"a grid of {grid} does not divide a flow of {height}x{width}: choose a grid that "
            "divides both"
        )
    blocks = flow.reshape(num_frames, grid, height // grid, grid, width // grid, 2)
    means = blocks.mean(axis=(2, 4), dtype=np.float32) / np.array([width, height], np.float32)
    return np.ascontiguousarray(means.transpose(3, 0, 1, 2))


def _working_frames(frames: ndarray, size: tuple[int, int]) -> list[ndarray]:
    """Check the frames, and convert them to grey at the working size."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise UserError(
            "optical flow takes uint8 frames of shape (t, h, w, 3), got "
            f"{frames.dtype} of shape {frames.shape}"
        )
    if len(frames) < 2:
        raise UserError(f"optical flow needs at least 2 frames, got {len(frames)}")
    if min(size) < _MIN_SIZE:
        raise UserError(
            f"optical flow needs a working size of at least {_MIN_SIZE} on a side, got "
            f"{size[0]}x{size[1]}"
        )
    return [_working_frame(frame, size) for frame in frames]


def _working_frame(frame: ndarray, size: tuple[int, int]) -> ndarray:
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    rows, columns = size
    if grey.shape == size:
        return grey
    shrinks = grey.shape[0] >= rows and grey.shape[1] >= columns
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(grey, (columns, rows), interpolation=interpolation)


def _flow_chain(*, moving: list[ndarray], fixed: list[ndarray]) -> ndarray:
    """Return the flow of each pair, moving(p) ~= fixed(p + flow(p)), starting from the last one."""
    dis = _estimator()
    flows: list[ndarray] = []
    with _one_thread():
        for a, b in zip(moving, fixed, strict=True):
            # DIS overwrites its initial flow.
            start = flows[-1].copy() if flows else np.zeros((*a.shape, 2), np.float32)
            flows.append(dis.calc(a, b, start))
    return np.stack(flows)


def _estimator() -> cv2.DISOpticalFlow:
    """Return DIS with settings chosen on videos of clouds, fire and water, and on known drifts.

    The preset "medium" (down to half size, 25 descents, patches of 8 every 3 pixels) has the
    lowest photometric error of those that take 3 ms. A smaller delta (intensity) and larger gamma
    (gradients) in its refinement make clouds of low contrast follow edges rather than grey levels,
    and lower the error on a known drift by a quarter. Equalising the contrast beforehand raised the
    error.
    """
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setVariationalRefinementDelta(1.0)
    dis.setVariationalRefinementGamma(20.0)
    return dis


@contextmanager
def _one_thread() -> Iterator[None]:
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(num_threads)
