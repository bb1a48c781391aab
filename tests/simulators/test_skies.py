"""The sky world: its clips, its track, and that nothing but seed, start and future decides them."""

import doctest
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cinnema.core.errors import UserError
from cinnema.data.records import ClipSource, RawClip
from cinnema.simulators.sky import Skies
from cinnema.simulators.sky import world as module


def clips(source: Skies, start: int = 0) -> list[RawClip]:
    found = list(source.read(source.items()[start]))
    assert all(isinstance(clip, RawClip) for clip in found)
    return found  # type: ignore[return-value]


def small(**options: object) -> Skies:
    return Skies(**{"num_starts": 40, "size": 32, "num_frames": 4, **options})


def fingerprint(source: Skies, start: int) -> str:
    digest = hashlib.sha256()
    for clip in clips(source, start):
        assert clip.still is not None
        for array in (clip.frames, clip.tracks["wind"], clip.still):
            digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def test_it_is_a_source_of_clips_that_travels_to_other_processes() -> None:
    source = small(foregrounds=Path("somewhere/photographs"))
    assert isinstance(source, ClipSource)
    assert pickle.loads(pickle.dumps(source)) == source
    assert json.loads(json.dumps(source.settings()))["foregrounds"] == "photographs"
    assert (source.name, source.size) == ("sky", 32)


def test_clips_have_a_wind_for_each_frame() -> None:
    (clip,) = clips(small())
    assert clip.frames.shape == (4, 32, 32, 3)
    assert clip.tracks["wind"].shape == (4, 2)
    assert not clip.tracks["wind"][0].any()
    assert clip.confidence is None
    assert clip.fps == 8
    assert clip.name.startswith(clip.source)


def test_seed_start_and_future_alone_decide_a_clip() -> None:
    expected = fingerprint(small(futures=2), 3)
    assert fingerprint(small(futures=2), 3) == expected
    assert fingerprint(small(futures=2, num_starts=5), 3) == expected
    assert fingerprint(small(futures=2), 4) != expected
    assert fingerprint(small(futures=2, seed=1), 3) != expected
    first, _, _ = clips(small(futures=3), 3)
    assert np.array_equal(first.frames, clips(small(), 3)[0].frames)


def test_a_process_with_other_threads_draws_the_same_clips() -> None:
    code = (
        "import hashlib, numpy as np, torch; torch.set_num_threads(4)\n"
        "from cinnema.simulators.sky import Skies\n"
        "s, d = Skies(40, futures=2, size=32, num_frames=4), hashlib.sha256()\n"
        "for c in s.read(s.items()[3]):\n"
        "    for a in (c.frames, c.tracks['wind'], c.still): d.update(np.ascontiguousarray(a))\n"
        "assert torch.get_num_threads() == 4\n"
        "print(d.hexdigest())"
    )
    root = Path(module.__file__).parents[3]
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        env={"PYTHONPATH": str(root), "PATH": ""},
    )
    assert result.stdout.strip() == fingerprint(small(futures=2), 3)


def test_futures_share_their_first_frame_and_no_other() -> None:
    for start in range(4):
        first, *others = clips(small(futures=3), start)
        for other in others:
            assert np.array_equal(first.frames[0], other.frames[0])
            assert np.array_equal(first.still, other.still)
            assert not np.array_equal(first.frames[3], other.frames[3])
            assert (first.start, first.source) == (other.start, other.source)
            assert first.name != other.name


def test_what_is_still_stays() -> None:
    shares = []
    for start in range(8):
        (clip,) = clips(small(), start)
        assert clip.still is not None
        change = np.abs(clip.frames.astype(int) - clip.frames[:1]).max(axis=(0, 3))
        assert change[clip.still].max(initial=0) <= 1
        shares.append(clip.still.mean())
    assert max(shares) > 0.2


def test_the_wind_is_how_far_a_sharp_cloud_moves() -> None:
    """Where the sky is flat and nothing evolves, the track shifts one frame into the next."""
    scene = module.draw_scene(torch.Generator().manual_seed(0), size=64)
    scene = module.replace(scene, coverage=torch.zeros(64, 64), waterline=None, glow=0.0)
    generator = torch.zeros(3, 3)
    generator[0, 2] = 1 / 4  # one pixel of 64 in a sixteenth of a clip
    motion = module.replace(module._calm(scene), generator=generator)
    clip = module._film(scene, motion, num_frames=3)
    np.testing.assert_allclose(clip.tracks["wind"][1:], [[1 / 64, 0.0]] * 2, atol=1e-6)
    assert np.abs(clip.frames[1, :, 1:].astype(int) - clip.frames[0, :, :-1]).max() <= 1


def test_winds_blow_in_all_directions_of_the_picture_and_sometimes_not_at_all() -> None:
    winds = [c.tracks["wind"][1] for s in (0, 1) for c in clips(small(futures=40, num_frames=2), s)]
    x, y = np.stack(winds).T
    speeds = np.hypot(x, y) * 16
    blows = speeds > 1e-6
    assert 1 <= (~blows).sum() <= 20
    assert 0.005 < speeds[blows].min() < 0.05
    assert 0.2 < speeds.max() < 1.5
    quadrants = np.histogram(np.arctan2(y, x)[blows], bins=4, range=(-np.pi, np.pi))[0]
    assert quadrants.min() >= 0.12 * blows.sum()


def test_every_tenth_start_tests_and_every_tenth_validates() -> None:
    items = small().items()
    splits = [item.split for item in items]
    assert [splits.count(s) for s in ("train", "validation", "test")] == [32, 4, 4]
    assert len({item.name for item in items}) == 40
    assert splits[:10] == ["train"] * 8 + ["validation", "test"]
    assert small(futures=7).items()[0].clips == 7


def test_every_picture_shows_sky_and_clouds_of_two_layers_or_more() -> None:
    source = small()
    for start in range(10):
        scene = module._draw_start(source._stream(start, 0), size=32, textures=None)
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


def test_a_folder_without_photographs_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture"):
        clips(small(foregrounds=tmp_path))


@pytest.mark.parametrize(
    ("option", "value"),
    [("num_starts", 0), ("num_starts", 2**32), ("futures", 0), ("futures", 1024),
     ("seed", -1), ("size", 16), ("num_frames", 1), ("num_frames", 129)],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(option: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"{option} of skies must be .*got {value}: choose"):
        small(**{option: value})


def test_the_examples_run() -> None:
    assert doctest.testmod(module).failed == 0
