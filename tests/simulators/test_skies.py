"""Skies: their wind, their still parts and their foregrounds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cinnema.core.errors import UserError
from cinnema.data.records import RawClip
from cinnema.simulators.sky import Skies, SkyMotion, draw_scene
from cinnema.simulators.sky.skies import draw_start, film


def clips(source: Skies, start: int = 0) -> list[RawClip]:
    found = list(source.read(source.items()[start]))
    assert all(isinstance(clip, RawClip) for clip in found)
    return found  # type: ignore[return-value]


def small(**options: object) -> Skies:
    return Skies(**{"num_starts": 40, "size": 32, "num_frames": 4, **options})


def test_still_pixels_do_not_change() -> None:
    shares = []
    for start in range(5):
        (clip,) = clips(small(num_frames=3), start)
        assert clip.still is not None
        change = np.abs(clip.frames.astype(int) - clip.frames[:1]).max(axis=(0, 3))
        assert change[clip.still].max(initial=0) <= 1
        shares.append(clip.still.mean())
    assert max(shares) > 0.2


def test_the_wind_is_how_far_a_sharp_cloud_moves() -> None:
    """Where the sky is flat and nothing evolves, the track shifts one frame into the next."""
    scene = draw_scene(torch.Generator().manual_seed(0), size=64)
    scene = replace(scene, coverage=torch.zeros(64, 64), waterline=None, glow=0.0)
    generator = torch.zeros(3, 3)
    generator[0, 2] = 1 / 4  # one pixel of 64 in a sixteenth of a clip
    motion = SkyMotion(
        plane=torch.eye(3),
        generator=generator,
        deformation=torch.zeros(2, 4, 4),
        acceleration=0.0,
        evolution=0.0,
    )
    clip = film(scene, motion, num_frames=3)
    np.testing.assert_allclose(clip.tracks["wind"][1:], [[1 / 64, 0.0]] * 2, atol=1e-6)
    assert np.abs(clip.frames[1, :, 1:].astype(int) - clip.frames[0, :, :-1]).max() <= 1


def test_winds_blow_in_all_directions_of_the_picture_and_sometimes_not_at_all() -> None:
    winds = [c.tracks["wind"][1] for s in (0, 1) for c in clips(small(futures=25, num_frames=2), s)]
    x, y = np.stack(winds).T
    speeds = np.hypot(x, y) * 16
    blows = speeds > 1e-6
    assert 1 <= (~blows).sum() <= 20
    assert 0.005 < speeds[blows].min() < 0.05
    assert 0.2 < speeds.max() < 1.5
    quadrants = np.histogram(np.arctan2(y, x)[blows], bins=4, range=(-np.pi, np.pi))[0]
    assert quadrants.min() >= 0.12 * blows.sum()


def test_every_picture_shows_sky_and_clouds_of_two_layers_or_more() -> None:
    for seed in range(6):
        scene = draw_start(torch.Generator().manual_seed(seed), size=32, textures=None)
        assert scene.moving.mean() >= 0.25
        heights = [layer.height for layer in scene.layers]
        assert 2 <= len(heights) <= 3
        assert heights == sorted(heights)


def test_foregrounds_are_cut_from_photographs(tmp_path: Path) -> None:
    red = np.zeros((64, 64, 3), dtype=np.uint8)
    red[..., 0] = 250
    Image.fromarray(red).save(tmp_path / "red.png")
    source, num = small(foregrounds=tmp_path, num_frames=2), 0
    for start in range(8):
        (clip,) = clips(source, start)
        assert clip.still is not None
        ground = clip.frames[0][clip.still]
        num += len(ground) > 50 and bool(ground[:, 1:].mean() < 0.2 * ground[:, 0].mean())
    assert num >= 3


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture"):
        clips(small(foregrounds=tmp_path))
