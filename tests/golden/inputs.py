"""Pictures and videos that a formula makes."""

import numpy as np


def photograph(*, height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray:
    """A striped sky over darker ground, uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    sky = np.stack([
        150 + 50 * np.sin((x + 3 * y + 11 * seed) / 7) + 30 * np.cos((2 * x - y) / 11 + c)
        for c in range(3)
    ], axis=-1)  # fmt: skip
    ground = np.stack([50 + 20 * np.cos(x / 5 + seed), 60 + 0 * x, 40 + 15 * np.sin(y)], axis=-1)
    pixels = np.where((y < height * 0.6)[..., None], sky, ground)
    return pixels.clip(0, 255).astype(np.uint8)


def video(
    num: int = 17, *, height: int = 48, width: int = 80, speed: float = 1.0, seed: int = 0
) -> np.ndarray:
    """Clouds of waves that drift to the right, uint8 (num, height, width, 3)."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    frames = []
    for t in range(num):
        u = x - speed * t
        waves = [
            128 + 45 * np.sin((u + (2 + c) * y / 2) / (5 + seed)) + 40 * np.cos((u - y) / 9 + c)
            for c in range(3)
        ]
        frames.append(np.stack(waves, axis=-1))
    return np.stack(frames).clip(0, 255).astype(np.uint8)


def walk(num: int = 17, *, size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A bright square that walks over a ground of noise, and its middle in picture widths.

    Returns:
        Frames, uint8 (num, size, size, 3), and places, float32 (num, 2).
    """
    rng = np.random.default_rng(seed)
    ground = rng.integers(30, 110, (size, size, 3), dtype=np.uint8)
    start, step = rng.uniform(0.35, 0.65, 2) * size, rng.uniform(-0.1, 0.1, 2) * size / num
    path = start + step * np.arange(num)[:, None]
    frames, half = np.repeat(ground[None], num, axis=0), size // 8
    for frame, (x, y) in zip(frames, path.round().astype(int), strict=True):
        frame[y - half : y + half, x - half : x + half] = (230, 210, 60)
    return frames, (path / size).astype(np.float32)
