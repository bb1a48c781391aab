"""The page with the weights of the robot, whose hand ends where one clicks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cinnema.app.desk import Desk
from cinnema.app.sessions import Session
from cinnema.app.studio import Studio, end_point
from cinnema.simulators.push import WORKSPACE
from cinnema.simulators.push.tabletop import push_camera
from cinnema.synthesis.pipeline import Pipeline
from visitor import LIMITS, WISH

Answer = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def robot() -> Studio:
    return Studio(Pipeline.from_pretrained("robot"), LIMITS)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "start.png")
    return tmp_path / "start.png"


@pytest.mark.parametrize("place", [(0.1, 0.05), (-0.2, -0.1), (0.0, 0.13)])
def test_a_click_means_the_place_above_the_tray_that_is_seen_there(
    place: tuple[float, float],
) -> None:
    ((x, y),) = push_camera(size=64).project(np.array([[*place, 0.05]]))
    found = end_point((x / 64, y / 64))
    assert (found.x, found.y, found.z) == pytest.approx((*place, 0.05), abs=1e-6)


def test_a_click_beyond_reach_means_the_nearest_place_within() -> None:
    found = end_point((0.01, 0.99))
    for value, (low, high) in zip((found.x, found.y, found.z), WORKSPACE, strict=True):
        assert low <= value <= high


def test_the_hand_is_asked_to_end_where_one_clicked(
    robot: Studio, session: Session, answer: Answer, start: Path
) -> None:
    desk = Desk(robot)
    shown = answer(desk.drop_picture, session, (str(start), "start.png"), *WISH)
    assert shown["editor"]["mode"] == "point"
    answer(desk.steer, session, {"point": [0.6, 0.5]}, *WISH[1:])
    eta = session.shown["steered"].residual.eta
    expected = end_point((0.6, 0.5))
    assert eta is not None
    assert eta.tolist() == pytest.approx([expected.x, expected.y, expected.z])
    saved = answer(desk.save, "steered", session, "mp4", 64.0)
    again = answer(desk.restore, session, (saved["files"][2], "reach.json"))
    assert again["status"].startswith("reach.json is Future 1 again.")
    future = session.futures[0]
    assert future is not None
    assert future.residual.eta is not None
    assert future.residual.eta.tolist() == pytest.approx(eta.tolist())
