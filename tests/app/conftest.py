"""A small model that tells kinds by their colours, pictures for it, and a visitor of the page."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cinnema.app.desk import Desk
from cinnema.app.sessions import Session
from cinnema.app.studio import Studio
from cinnema.media.videos import write_video
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.scene import ignore
from visitor import LIMITS


@pytest.fixture(scope="session")
def studio(nature: Pipeline) -> Studio:
    return Studio(nature, LIMITS)


@pytest.fixture
def desk(studio: Studio) -> Desk:
    return Desk(studio)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    folder = tmp_path / "session"
    folder.mkdir()
    return Session(folder)


@pytest.fixture
def answer() -> Callable[..., dict[str, Any]]:
    """Run a handler to its end and return the last value of each part."""

    def run(handler: Callable[..., Iterator[dict[str, Any]]], *values: Any) -> dict[str, Any]:
        last: dict[str, Any] = {}
        for update in handler(*values, progress=ignore):
            last.update(update)
        return last

    return run


@pytest.fixture(scope="session")
def picture_at(coast: Callable[[int, int], np.ndarray]) -> Callable[..., Path]:
    """Save a coast: sky over water, and a rock in both."""

    def make(path: Path, *, width: int = 96, height: int = 64) -> Path:
        Image.fromarray(coast(height, width)).save(path)
        return path

    return make


@pytest.fixture
def waves(tmp_path: Path, coast: Callable[[int, int], np.ndarray]) -> Path:
    """A video in which a coast drifts to the right: 20 frames of 96x64 pixels at 8 a second."""
    picture = coast(64, 96)
    frames = np.stack([np.roll(picture, t, axis=1) for t in range(20)])
    return write_video(tmp_path / "waves.mp4", frames, fps=8)
