"""A folder of small clips with its manifest, as training wants it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cinnema.media.videos import write_video

Drift = Callable[..., NDArray[np.uint8]]
Manifest = Callable[..., Path]


@pytest.fixture
def drift() -> Drift:
    """Smooth texture that moves to the right, so many pixels a frame."""

    def frames(
        num_frames: int = 8, *, pixels: int = 1, height: int = 48, width: int = 64
    ) -> NDArray[np.uint8]:
        y, x = np.mgrid[:height, :width].astype(np.float64)
        out = []
        for t in range(num_frames):
            u = x - pixels * t
            wave = np.sin(u / 4) + np.sin((u + 2 * y) / 5) + np.sin((y - u / 3) / 3)
            out.append(np.stack([128 + 30 * wave, 120 + 20 * wave, 100 + 30 * np.sin(u / 7)], -1))
        return np.stack(out).astype(np.uint8)

    return frames


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Write a manifest of clouds (names), or of full entries; return its folder."""

    def write(*entries: str | dict[str, Any]) -> Path:
        root = tmp_path / "clips"
        root.mkdir(exist_ok=True)
        full = [
            {"path": f"{entry}.mp4", "texture": "clouds"} if isinstance(entry, str) else entry
            for entry in entries
        ]
        (root / "manifest.json").write_text(json.dumps(full))
        return root

    return write


@pytest.fixture
def write_clip(tmp_path: Path) -> Callable[[str, NDArray[np.uint8]], Path]:
    """Write frames to a file (the suffix says which format; .png is a folder of frames)."""

    def write(name: str, frames: NDArray[np.uint8]) -> Path:
        return write_video(tmp_path / "clips" / name, frames, fps=8)

    return write
