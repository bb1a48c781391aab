"""Synthetic skies: what moves, what stays, and that the flow is exact."""

import dataclasses
import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from cinnema.models.layers import warp
from cinnema.simulators.sky import SkyMotion, SkyScene, draw_scene, scene
from cinnema.simulators.sky.motion import draw_deformation, draw_plane
from cinnema.simulators.sky.tiles import Draws, pixel_centres

seeds = st.integers(0, 10_000)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(seed: int, *, size: int = 64) -> tuple[SkyScene, SkyMotion]:
    motion = drifting(seed)
    return draw_scene(seeded(seed), size=size, plane=motion.plane), motion


def drifting(seed: int) -> SkyMotion:
    """A wind of any direction on a flat or a receding plane; it may turn, grow and deform."""
    draws = Draws(seeded(seed))
    turning, growth = draws.uniform(-0.15, 0.15), draws.uniform(-0.3, 0.3)
    generator = torch.zeros(3, 3)
    if seed % 2:
        generator[:2, :2] = torch.tensor([[growth, -turning], [turning, growth]])
    generator[:2, 2] = draws.vector(-0.15, 0.15, num=2)
    return SkyMotion(
        plane=draw_plane(draws) if seed % 3 else torch.eye(3),
        generator=generator,
        deformation=draw_deformation(draws, strength=0.03),
        acceleration=draws.uniform(-0.3, 0.3),
        evolution=draws.uniform(0, 0.35),
    )


def flow_of(scene: SkyScene, motion: SkyMotion, time: float, *, size: int) -> Tensor:
    """The exact backward flow (2, size, size) from `time` to 0; layers by their visible share."""
    x, y = seen = pixel_centres(size)
    is_mirrored = torch.zeros_like(y) if scene.waterline is None else (y > scene.waterline).float()
    if scene.waterline is not None:
        seen = torch.stack([x, torch.where(is_mirrored > 0, 2 * scene.waterline - y, y)])
    flows = [motion.aloft(layer.height).source_of(seen, time) - seen for layer in scene.layers]
    clouds = adaptive_avg_pool2d(scene.view(motion, time).clouds, size) + 1e-3
    flow = (torch.stack(flows) * (clouds / clouds.sum(dim=0))[:, None]).sum(dim=0)
    flow = torch.stack([flow[0], flow[1] * (1 - 2 * is_mirrored)])
    return flow * adaptive_avg_pool2d(scene.moving[None], size)


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


def clouded(*heights: float, seed: int = 0) -> SkyScene:
    """An open sky whose layers, all of one kind, are at these heights."""
    scene = open_sky(seed)
    cover = torch.tensor([0.4, 0.3])
    layers = [dataclasses.replace(scene.layers[0], cover=cover, height=h) for h in heights]
    return dataclasses.replace(scene, layers=tuple(layers))


def is_same(a: object, b: object) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and all(map(is_same, a, b))
    if dataclasses.is_dataclass(a):
        return all(map(is_same, vars(a).values(), vars(b).values()))
    return a == b


def test_the_first_frame_warped_by_the_flow_is_the_later_one() -> None:
    scene, motion = dataclasses.replace(open_sky(), glow=0.0), wind(1 / 8, 0.0)
    flow = flow_of(scene, motion, 1.0, size=64)
    warped = warp(scene.frame(motion, 0.0)[None], flow[None])[0]
    torch.testing.assert_close(
        warped[..., 8:], scene.frame(motion, 1.0)[..., 8:], atol=1e-4, rtol=0
    )


def test_clouds_of_any_kind_are_warped_into_their_later_frame() -> None:
    num = 0
    for seed in range(20):
        scene, motion = draw(seed, size=128)
        motion = dataclasses.replace(motion, evolution=0.0)
        # Neither the horizon nor the sun nor ripples move with the clouds: leave them out.
        still = {"horizon": math.inf, "glow": 0.0, "water": torch.ones(3, 128, 128)}
        scene = dataclasses.replace(scene, **still)
        flow = flow_of(scene, motion, 1.0, size=128)[None]
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
    place = pixel_centres(flow.shape[-1])[None] + flow
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
    assert flow_of(scene, motion, 1.0, size=64)[:, is_ground].abs().sum() == 0
    assert torch.equal(scene.moving, 1 - scene.coverage)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_pictures_and_flows_stay_in_their_range(seed: int) -> None:
    scene, motion = draw(seed)
    for time in (0.0, 0.4, 1.0):
        frame, flow = scene.frame(motion, time), flow_of(scene, motion, time, size=32)
        assert frame.abs().max() <= 1
        assert torch.isfinite(frame).all()
        assert torch.isfinite(flow).all()
    assert flow_of(scene, motion, 0.0, size=32).abs().max() < 1e-5
    assert 0 <= scene.coverage.min() <= scene.coverage.max() <= 1


def test_a_generator_decides_the_sky() -> None:
    (scene, motion), (same_scene, same_motion) = draw(5), draw(5)
    other_scene, other_motion = draw(6)
    assert is_same(scene, same_scene)
    assert is_same(motion, same_motion)
    assert not torch.equal(scene.layers[0].density, other_scene.layers[0].density)
    assert not torch.equal(motion.generator, other_motion.generator)


def test_a_flat_wind_moves_the_whole_sky_by_its_speed_and_no_wind_not_at_all() -> None:
    for x, y in ((0.05, 0.0), (0.0, -0.3), (-0.1, 0.2)):
        flow = flow_of(open_sky(), wind(x, y), 1.0, size=16)
        torch.testing.assert_close(-flow.mean(dim=(1, 2)), torch.tensor([x, y]), atol=1e-5, rtol=0)
    assert flow_of(open_sky(), wind(0.0, 0.0), 1.0, size=32).abs().max() < 1e-6


def test_clouds_change_where_nothing_drifts() -> None:
    scene = open_sky()
    frames = [scene.frame(wind(0.0, 0.0, evolution=0.3), time) for time in (0.0, 0.5, 1.0)]
    changes = [float((frame - frames[0]).abs().mean()) for frame in frames]
    assert 0 == changes[0] < changes[1] < changes[2]
    assert torch.equal(scene.frame(wind(0.0, 0.0), 1.0), frames[0])


def test_an_accelerating_wind_covers_the_same_distance_in_a_clip() -> None:
    scene = open_sky()
    steady, gaining = wind(0.2, 0.1), wind(0.2, 0.1, acceleration=0.3)
    for time, compare in ((0.5, torch.lt), (1.0, torch.isclose)):
        moved = [flow_of(scene, motion, time, size=4).abs() for motion in (gaining, steady)]
        assert compare(*moved).all()


def test_water_mirrors_the_sky_and_its_motion() -> None:
    scene, motion = open_sky(size=64, waterline=0.5), wind(0.05, -0.1)
    flow = flow_of(scene, motion, 1.0, size=64)
    torch.testing.assert_close(flow[0], flow[0].flip(0))
    torch.testing.assert_close(flow[1], -flow[1].flip(0))
    assert flow[1, 0, 0] > 0  # the clouds rise, so they come from below
    frame = (scene.frame(motion, 1.0) + 1) / 2
    mirrored = frame[:, :32].flip(1) * scene.water[:, 32:]
    torch.testing.assert_close(frame[:, 33:], mirrored[:, 1:], atol=1e-2, rtol=0)


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(0, 1), st.floats(0, 1))
def test_points_are_carried_from_any_time_to_any_other(seed: int, start: float, end: float) -> None:
    motion = drifting(seed)
    points = pixel_centres(8)
    there = motion.carried(points, start=start, end=end)
    stays = ((there >= 0) & (there <= 1)).all(dim=0)
    torch.testing.assert_close(
        motion.source_of(there, end)[:, stays],
        motion.source_of(points, start)[:, stays],
        atol=1e-4,
        rtol=0,
    )


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0.01, 5.0), st.floats(1, 8))
def test_a_deformation_is_invertible(seed: int, strength: float, num_clips: float) -> None:
    field = draw_deformation(Draws(seeded(seed)), strength=strength, num_clips=num_clips)
    motion = wind(0.0, 0.0)
    warped = dataclasses.replace(motion, deformation=field).source_of(pixel_centres(48), num_clips)
    across, down = warped[0].diff(dim=1), warped[1].diff(dim=0)
    assert min(float(across.min()), float(down.min())) > 0


def test_all_motions_on_a_plane_share_the_first_frame() -> None:
    scene, motion = draw(11)
    other = dataclasses.replace(drifting(12), plane=motion.plane, evolution=-0.3, veer=0.5)
    assert torch.equal(scene.frame(motion, 0.0), scene.frame(other, 0.0))
    assert not torch.equal(scene.frame(motion, 1.0), scene.frame(other, 1.0))


def test_high_clouds_drift_more_slowly_and_rotated_by_the_veer() -> None:
    motion = wind(0.2, 0.0, veer=math.pi / 2)
    aloft = motion.aloft(2.0)
    torch.testing.assert_close(aloft.generator[:2, 2], torch.tensor([0.0, 0.1]))
    assert motion.aloft(1.0) is motion


def test_the_flow_of_layers_lies_between_theirs() -> None:
    scene, motion = clouded(1.0, 4.0), wind(0.2, 0.0)
    flow = -flow_of(scene, motion, 1.0, size=16)[0]
    assert 0.05 - 1e-4 <= flow.min() < 0.1 < flow.max() <= 0.2 + 1e-4


def test_layers_hide_those_above_them_and_the_ground_hides_all() -> None:
    scene, motion = clouded(1.0, 2.0), wind(0.0, 0.0)
    half = torch.zeros(64, 64)
    half[32:] = 1
    clouds = dataclasses.replace(scene, coverage=half).view(motion, 0.0).clouds
    assert clouds.shape == (2, 64, 64)
    assert clouds[:, 32:].abs().sum() == 0
    assert 0 <= clouds.min() <= clouds.sum(0).max() <= 1 + 1e-6
    alone = dataclasses.replace(scene, layers=scene.layers[1:]).view(motion, 0.0).clouds[0]
    assert (clouds[1, :32] <= alone[:32] + 1e-6).all()
    assert clouds[1, :32].sum() < 0.9 * alone[:32].sum()


def test_the_wind_is_that_of_the_visible_clouds() -> None:
    motion, scene = wind(0.2, -0.1), clouded(1.0, 2.0)
    low, high = (dataclasses.replace(scene, layers=(layer,)) for layer in scene.layers)
    expected = {id(low): (0.2, -0.1), id(high): (0.1, -0.05)}
    for one in (low, high):
        found = one.wind(motion, one.view(motion, 1.0), start=0.0, end=1.0)
        torch.testing.assert_close(found, torch.tensor(expected[id(one)]), atol=1e-4, rtol=0)
    both = scene.wind(motion, scene.view(motion, 1.0), start=0.0, end=1.0)
    assert 0.1 < both[0] < 0.2
    hidden = dataclasses.replace(scene, coverage=torch.ones(64, 64))
    assert hidden.wind(motion, hidden.view(motion, 1.0), start=0.0, end=1.0).abs().max() == 0


def test_reflections_do_not_count_as_wind() -> None:
    scene, motion = clouded(1.0), wind(0.1, -0.2)
    lake = dataclasses.replace(scene, waterline=0.5)
    found = lake.wind(motion, lake.view(motion, 0.5), start=0.4, end=0.5)
    torch.testing.assert_close(found, torch.tensor([0.01, -0.02]), atol=1e-5, rtol=0)


def test_clouds_keep_their_contrast_while_they_evolve() -> None:
    density = open_sky().layers[0].density
    deviations = [float(scene.evolved(density, t)[0].std()) for t in (0.0, 0.35, 0.7)]
    assert max(deviations) < 1.15 * min(deviations)
    assert not torch.equal(scene.evolved(density, 0.3), scene.evolved(density, -0.3))


def test_flows_of_two_sizes_agree() -> None:
    scene, motion = open_sky(), drifting(3)
    fine, coarse = (flow_of(scene, motion, 0.7, size=size) for size in (64, 16))
    torch.testing.assert_close(avg_pool2d(fine, 4), coarse, atol=2e-3, rtol=0.02)
