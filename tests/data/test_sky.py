"""Synthetic skies: what moves, what stays, and that the flow is exact."""

import dataclasses
import doctest
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cinnema.data import sky
from cinnema.data.sky import SkyMotion, SkyScene, draw_motion, draw_scene
from cinnema.stage1.warping import warp

seeds = st.integers(0, 10_000)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(seed: int, *, size: int = 64) -> tuple[SkyScene, SkyMotion]:
    generator = seeded(seed)
    motion = draw_motion(generator)
    return draw_scene(generator, size=size, plane=motion.plane), motion


def wind(x: float, y: float, **options: float) -> SkyMotion:
    """A flat sky that drifts as one piece, in picture widths and heights a clip."""
    generator = torch.zeros(3, 3)
    generator[0, 2], generator[1, 2] = x, y
    still = {"acceleration": 0.0, "evolution": 0.0, **options}
    return SkyMotion(
        plane=torch.eye(3), generator=generator, deformation=torch.zeros(2, 4, 4), **still
    )


def open_sky(seed: int = 0, *, size: int = 64, waterline: float | None = None) -> SkyScene:
    """A sky without any ground."""
    scene = draw_scene(seeded(seed), size=size)
    return dataclasses.replace(scene, coverage=torch.zeros(size, size), waterline=waterline)


def is_same(a: object, b: object) -> bool:
    pairs = zip(vars(a).values(), vars(b).values(), strict=True)
    return all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in pairs)


def test_the_first_frame_warped_by_the_flow_is_the_later_one() -> None:
    scene, motion = open_sky(), wind(1 / 8, 0.0)
    flow = scene.flow(motion, 1.0, size=64)
    warped = warp(scene.frame(motion, 0.0)[None], flow[None])[0]
    torch.testing.assert_close(
        warped[..., 8:], scene.frame(motion, 1.0)[..., 8:], atol=1e-4, rtol=0
    )


def test_clouds_of_any_kind_are_warped_into_their_later_frame() -> None:
    num = 0
    for seed in range(20):
        scene, motion = draw(seed, size=128)
        motion = dataclasses.replace(motion, evolution=0.0)
        # A clear sky of one colour: its gradient to the horizon does not move with the clouds.
        palette = torch.cat([scene.palette[1:2], scene.palette[1:]])
        scene = dataclasses.replace(scene, palette=palette)
        flow = scene.flow(motion, 1.0, size=128)[None]
        first, last = scene.frame(motion, 0.0)[None], scene.frame(motion, 1.0)[None]
        seen = shows_sky(scene, flow).expand_as(first)
        frozen = (first - last)[seen].abs().mean()
        if seen.float().mean() < 0.1 or frozen < 0.005:
            continue
        num += 1
        assert (warp(first, flow) - last)[seen].abs().mean() < 0.25 * frozen, seed
    assert num >= 8


def shows_sky(scene: SkyScene, flow: Tensor) -> Tensor:
    """Where there is neither ground nor the edge of the picture, nor where the flow points to."""
    place = sky._pixel_centres(flow.shape[-1])[None] + flow
    is_inside = ((place > 0.02) & (place < 0.98)).all(dim=1, keepdim=True)
    came_from_ground = warp(scene.coverage[None, None], flow) > 1e-3
    return is_inside & ~came_from_ground & (scene.coverage < 1e-3)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_the_ground_never_moves(seed: int) -> None:
    scene, motion = draw(seed)
    is_ground = scene.coverage == 1
    first, last = scene.frame(motion, 0.0), scene.frame(motion, 1.0)
    assert torch.equal(first[:, is_ground], last[:, is_ground])
    assert scene.flow(motion, 1.0, size=64)[:, is_ground].abs().sum() == 0
    assert torch.equal(scene.moving, 1 - scene.coverage)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_pictures_and_flows_stay_in_their_range(seed: int) -> None:
    scene, motion = draw(seed)
    for time in (0.0, 0.4, 1.0):
        frame, flow = scene.frame(motion, time), scene.flow(motion, time, size=32)
        assert frame.abs().max() <= 1
        assert torch.isfinite(frame).all()
        assert torch.isfinite(flow).all()
    assert scene.flow(motion, 0.0, size=32).abs().max() < 1e-5
    assert 0 <= scene.coverage.min() <= scene.coverage.max() <= 1


def test_a_generator_decides_the_sky() -> None:
    (scene, motion), (same_scene, same_motion) = draw(5), draw(5)
    other_scene, other_motion = draw(6)
    assert is_same(scene, same_scene)
    assert is_same(motion, same_motion)
    assert not torch.equal(scene.density, other_scene.density)
    assert not torch.equal(motion.generator, other_motion.generator)


@pytest.mark.parametrize("direction", [0.0, math.pi / 2, math.pi, 4.0])
@pytest.mark.parametrize("speed", [0.05, 0.3])
def test_the_wind_blows_where_and_as_fast_as_it_is_told(direction: float, speed: float) -> None:
    scene, aimed, num = open_sky(), torch.tensor([math.cos(direction), math.sin(direction)]), 0
    for seed in range(60):
        motion = draw_motion(seeded(seed), direction=direction, speed=speed)
        if not torch.equal(motion.plane, torch.eye(3)) or motion.generator[:2, :2].any():
            continue
        num += 1
        smooth = dataclasses.replace(motion, deformation=torch.zeros(2, 4, 4))
        flow = scene.flow(smooth, 1.0, size=16)
        torch.testing.assert_close(-flow.mean(dim=(1, 2)), aimed * speed, atol=1e-5, rtol=0)
        rough = scene.flow(motion, 1.0, size=16).mean(dim=(1, 2))
        assert (-rough - aimed * speed).norm() < 0.3 * speed
    assert num > 5


def test_the_wind_blows_where_it_is_told_over_receding_skies_too() -> None:
    for seed in range(40):
        direction = 0.3 + seed
        motion = draw_motion(seeded(seed), direction=direction, speed=0.2)
        if motion.generator[:2, :2].any():
            continue  # what turns or grows blows elsewhere elsewhere
        flow = open_sky().flow(motion, 1.0, size=16).mean(dim=(1, 2))
        aimed = torch.tensor([math.cos(direction), math.sin(direction)])
        assert float(-flow @ aimed / flow.norm()) > 0.9


def test_without_wind_nothing_moves() -> None:
    for seed in range(5):
        motion = draw_motion(seeded(seed), speed=0.0)
        assert open_sky(seed).flow(motion, 1.0, size=32).abs().max() < 1e-6


def test_some_drawn_skies_are_still_and_most_are_not() -> None:
    speeds = [float(draw_motion(seeded(seed)).generator.norm()) for seed in range(100)]
    assert 1 <= sum(speed == 0 for speed in speeds) <= 25


def test_clouds_change_where_nothing_drifts() -> None:
    scene = open_sky()
    frames = [scene.frame(wind(0.0, 0.0, evolution=0.3), time) for time in (0.0, 0.5, 1.0)]
    changes = [float((frame - frames[0]).abs().mean()) for frame in frames]
    assert 0 == changes[0] < changes[1] < changes[2]
    assert torch.equal(scene.frame(wind(0.0, 0.0), 1.0), frames[0])


def test_a_wind_that_gains_speed_arrives_all_the_same() -> None:
    scene = open_sky()
    steady, gaining = wind(0.2, 0.1), wind(0.2, 0.1, acceleration=0.3)
    for time, compare in ((0.5, torch.lt), (1.0, torch.isclose)):
        moved = [scene.flow(motion, time, size=4).abs() for motion in (gaining, steady)]
        assert compare(*moved).all()


def test_water_mirrors_the_sky_and_its_motion() -> None:
    scene, motion = open_sky(size=64, waterline=0.5), wind(0.05, -0.1)
    flow = scene.flow(motion, 1.0, size=64)
    torch.testing.assert_close(flow[0], flow[0].flip(0))
    torch.testing.assert_close(flow[1], -flow[1].flip(0))
    assert flow[1, 0, 0] > 0  # the clouds rise, so they come from below
    frame = (scene.frame(motion, 1.0) + 1) / 2
    mirrored = frame[:, :32].flip(1) * scene.water_tint[:, None, None]
    torch.testing.assert_close(frame[:, 32:], mirrored, atol=1e-5, rtol=0)


def test_foregrounds_are_cut_from_pictures_where_there_are_some() -> None:
    red = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    red[:, 0] = 200
    grounds = [draw_scene(seeded(seed), size=64, textures=red).ground for seed in range(20)]
    is_red = [bool((ground[1:] == 0).all()) for ground in grounds]
    assert 8 <= sum(is_red) <= 19


def test_flows_of_two_sizes_agree() -> None:
    scene, motion = open_sky(), draw_motion(seeded(3), speed=0.1)
    fine, coarse = (scene.flow(motion, 0.7, size=size) for size in (64, 16))
    torch.testing.assert_close(
        torch.nn.functional.avg_pool2d(fine, 4), coarse, atol=2e-3, rtol=0.02
    )


def test_the_examples_run() -> None:
    assert doctest.testmod(sky).failed == 0
