"""Rooms and parks: cameras that project what they trace, and shadows that fall where they must."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cinnema.simulators.walk.scenery import (
    PLACES,
    Camera,
    Place,
    Scenery,
    draw_camera,
    draw_scenery,
    to_cells,
)

seeds = st.integers(0, 10_000)


def draw(seed: int, *, size: int = 32) -> tuple[Camera, Scenery]:
    rng = np.random.default_rng(seed)
    camera = draw_camera(rng, stature=1.7)
    return camera, draw_scenery(rng, camera, size=size)


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(0.5, 9))
def test_a_pixels_ray_is_seen_in_that_pixel(seed: int, depth: float) -> None:
    camera = draw_camera(np.random.default_rng(seed), stature=1.7)
    seen, depths = camera.project(camera.eye + depth * camera.rays(8))
    y, x = (np.mgrid[:8, :8] + 0.5) / 8
    np.testing.assert_allclose(seen, np.stack([x, y], axis=-1), atol=1e-9)
    np.testing.assert_allclose(depths, depth, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_a_camera_stands_before_the_person_and_above_the_floor(seed: int) -> None:
    camera = draw_camera(np.random.default_rng(seed), stature=1.7)
    assert camera.eye[1] < -2
    assert camera.eye[2] >= 0.4
    (head, soles), _ = camera.project(np.array([[0.0, 0, 1.7], [0.0, 0, 0]]))
    assert 0.02 < head[1] < soles[1] < 0.98
    assert soles[1] - head[1] > 0.5


def test_places_differ_and_fill_the_picture() -> None:
    pictures = [draw(seed)[1].picture for seed in range(12)]
    assert len({picture.tobytes() for picture in pictures}) == 12
    assert all(0 <= picture.min() <= picture.max() <= 1 for picture in pictures)
    assert 0.3 < np.mean([picture.mean() for picture in pictures]) < 0.7


@pytest.mark.parametrize("draw_place", sorted(set(PLACES), key=lambda draw: draw.__name__))
def test_every_kind_of_place_can_be_drawn(
    draw_place: Callable[[np.random.Generator], Place],
) -> None:
    rays = draw_camera(np.random.default_rng(0), stature=1.7)
    for seed in range(8):
        place = draw_place(np.random.default_rng(seed))
        colours, unfolded = place.trace(rays.eye, rays.rays(24))
        assert np.isfinite(colours).all()
        assert colours.min() >= 0
        assert (np.abs(unfolded) < 1e3).any()


def test_the_same_place_is_seen_at_every_size() -> None:
    for seed in range(4):
        small, large = (draw(seed, size=size)[1].picture for size in (16, 64))
        shrunk = large.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
        assert np.abs(small - shrunk).mean() < 0.02


def box(x: float, y: float, z: float, half: float = 0.15) -> NDArray[np.float64]:
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T
    return corners * half + [x, y, z]


def grey(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.full((*x.shape, 3), 0.5, dtype=np.float32)


def lit_from(towards: list[float], *, wall: float = math.inf) -> tuple[Camera, Scenery]:
    """A grey floor, and perhaps a wall, before which a box may hang."""
    camera, scenery = Camera(np.array([0.0, -5, 2]), np.array([0.0, 0, 0.5]), 1.2), draw(0)[1]
    direction = np.array(towards) / np.linalg.norm(towards)
    light = dataclasses.replace(scenery.light, towards=direction)
    ground = Place(floor=grey, light=light, wall=wall)
    _, unfolded = ground.trace(camera.eye, camera.rays(64))
    return camera, dataclasses.replace(
        scenery, picture=np.full((64, 64, 3), 0.5, np.float32),
        unfolded=to_cells(unfolded), light=light, wall=wall,
    )  # fmt: skip


def darkest(scenery: Scenery, points: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """The middle of the shadow, in picture widths."""
    dark = 0.5 - scenery.shadowed(points, {name: np.arange(len(points))})[..., 1]
    assert dark.max() > 0.05
    assert dark.min() > -1e-6  # nothing becomes brighter
    y, x = (np.mgrid[:64, :64] + 0.5) / 64
    weight = dark / dark.sum()
    return np.array([(weight * x).sum(), (weight * y).sum()])


@pytest.mark.parametrize("name", ["chest", "left_ankle"])
@pytest.mark.parametrize("side", [-1.0, 0.0, 1.0])
def test_a_shadow_falls_on_the_floor_away_from_the_light(name: str, side: float) -> None:
    camera, scenery = lit_from([side, -0.2, 1.0])
    expected, _ = camera.project(np.array([-side, 0.2, 0.0]))
    tolerance = 0.03 if name == "chest" else 0.06  # feet keep light from the spot beneath, too
    shadow = darkest(scenery, box(0, 0, 1.0), name)
    np.testing.assert_allclose(shadow, expected, atol=tolerance)


def test_a_shadow_climbs_the_wall_behind() -> None:
    camera, scenery = lit_from([0.0, -1.0, 0.5], wall=1.0)
    shadow = darkest(scenery, box(0, 0, 1.2), "chest")
    expected, _ = camera.project(np.array([0.0, 1.0, 0.7]))
    np.testing.assert_allclose(shadow, expected, atol=0.03)


def test_a_jump_brightens_the_floor_below() -> None:
    _, scenery = lit_from([1.0, 0.0, 0.4])
    low, high = (
        scenery.shadowed(box(0, 0, 0.15 + lift), {"left_ankle": np.arange(8)}) for lift in (0, 0.6)
    )
    spot = np.s_[38:46, 29:35]
    assert low[spot].mean() < high[spot].mean() - 0.02
