"""Videos of a nature model: what moves, what stands, how fast, and what repeats."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bodies import tiny_body
from cinnema.core.errors import UserError
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.media.videos import VideoFile
from cinnema.synthesis.certainty import Certainty
from cinnema.synthesis.nature_renderer import NatureRenderer
from cinnema.synthesis.nature_scene import NatureScene
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.residual import save_motion
from small_nature import nature_model, textured

Photographs = Callable[[int, int], np.ndarray]


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float32) - b.astype(np.float32)).mean())


@pytest.mark.filterwarnings("ignore:nothing in this photograph")
@pytest.mark.parametrize(
    ("options", "num_frames", "fps"),
    [
        ({}, 96, 24),
        ({"protocol": "paper"}, 16, 8),
        ({"fps": 6}, 24, 6),
        ({"seconds": 0.5}, 12, 24),
        ({"num_frames": 5}, 5, 24),
        ({"protocol": "paper", "fps": 16}, 16, 16),
        ({"protocol": "paper", "seconds": 1}, 8, 8),
    ],
)
def test_videos_have_four_seconds_at_24_frames_a_second_unless_asked_otherwise(
    nature: Pipeline, options: dict[str, Any], num_frames: int, fps: float
) -> None:
    (video,) = nature(textured("still", (16, 16)), num_samples=1, **options)
    assert (len(video.frames), video.fps) == (num_frames, fps)


def test_a_long_video_is_three_times_as_long_and_may_loop(
    nature: Pipeline, coast: Photographs
) -> None:
    (video,) = nature.extend(coast(16, 16), num_samples=1, fps=1, loop="seamless")
    assert len(video.frames) == 12
    assert np.array_equal(video.frames[-1], video.x0)


@pytest.mark.parametrize("place", ["coast", "lake"])
def test_frames_are_those_of_the_model_at_its_size(
    nature: Pipeline, place: str, request: pytest.FixtureRequest
) -> None:
    image = request.getfixturevalue(place)(128, 128)
    (video,) = nature(image, num_samples=1, protocol="paper")
    with torch.no_grad():
        decoded = to_pixels(nature.model.decode(to_tensor(image)[None], video.z[None])[0])
    away = np.abs(video.frames.astype(int) - decoded)
    # Plates and edges differ: in the photograph's own size they are solved anew.
    assert away.mean() < 0.15 * difference(decoded, np.broadcast_to(image, decoded.shape))
    assert np.quantile(away, 0.9) <= 2


def test_what_is_still_keeps_its_bytes_and_everything_else_moves(
    nature: Pipeline, coast: Photographs
) -> None:
    image = coast(90, 160)
    (video,) = nature(image, num_samples=1, num_frames=6, fps=6)
    change = np.abs(video.frames.astype(int) - image).max(axis=(0, 3))
    assert not change[30:60, 70:90].any()  # the rock
    assert (change[5:15] > 2).mean() > 0.5  # the sky
    assert (change[75:] > 2).mean() > 0.5  # the water


def test_no_colour_of_the_rock_is_drawn_along(nature: Pipeline) -> None:
    image = textured("sky", (120, 160))
    image[60:] = textured("still", (120, 160))[60:]
    image[20:60, 78:82] = textured("still", (120, 160))[20:60, 78:82]  # a mast, thinner than a cell
    (video,) = nature(image, num_samples=1, num_frames=8, fps=4)
    darkest = video.frames[:, :58].min(axis=0)[..., 2].astype(int)
    mast = np.zeros((58, 160), bool)
    mast[18:58, 75:85] = True
    assert darkest[~mast].min() > 170  # the rock's blue is 60, the sky's 240


@pytest.mark.parametrize("rows", [slice(42, 45), slice(45, 48)])
def test_sky_and_water_do_not_bleed_into_each_other(nature: Pipeline, rows: slice) -> None:
    image = textured("sky", (90, 160))
    image[45:] = textured("water", (90, 160))[45:]
    (video,) = nature(image, num_samples=1, num_frames=8, fps=4)
    assert np.abs(video.frames[:, rows].astype(int) - image[rows]).mean() < 12


def test_reflections_follow_the_sky_in_the_water_alone(nature: Pipeline, lake: Photographs) -> None:
    (video,) = nature(lake(96, 160), num_samples=1, num_frames=6, fps=6)
    scene = video.scene
    assert isinstance(scene, NatureScene)
    sky, water = scene.layers
    assert water.reflection is not None
    motions = nature.model.motions(video.z[None], num_steps=tuple(scene.steps(6)))
    still = NatureRenderer(video.x0, [sky, replace(water, reflection=None)])
    change = video.frames[-1].astype(int) - still.frame(motions, scene.steps(6))
    assert not change[water.alpha == 0].any()
    assert np.abs(change[52:90]).mean() > 2
    # What the sky has become, mirrored and less strongly: coarsely, as it is soft.
    below = reduced(change[48:])
    above = reduced(video.frames[-1, :48].astype(int) - video.x0[:48])[::-1]
    assert np.corrcoef(below.ravel(), above.ravel())[0, 1] > 0.8


def reduced(change: np.ndarray) -> np.ndarray:
    """Return means of blocks of 8x16 pixels without those of the rock and at the edges."""
    blocks = change.reshape(6, 8, 10, 16, 3).mean(axis=(1, 3))
    return blocks[1:5, [1, 2, 7, 8]]


@pytest.mark.parametrize("place", ["fire", "lake"])
def test_motion_strength_0_is_the_photograph(
    nature: Pipeline, lake: Photographs, place: str
) -> None:
    image = lake(48, 80) if place == "lake" else textured(place, (48, 80))
    (video,) = nature(image, num_samples=1, num_frames=9, motion_strength=0)
    assert np.array_equal(video.frames, np.broadcast_to(image, video.frames.shape))


def test_a_sample_is_the_same_to_the_bit_whatever_the_number_of_samples_and_threads(
    nature: Pipeline, coast: Photographs
) -> None:
    image = coast(60, 80)
    few = nature(image, num_samples=1, num_frames=5, fps=8, seed=7)
    torch.set_num_threads(2)
    try:
        many = nature(image, num_samples=3, num_frames=5, fps=8, seed=7)
    finally:
        torch.set_num_threads(1)
    assert np.array_equal(few[0].frames, many[0].frames)
    assert difference(many[0].frames, many[1].frames) > 0.5


def test_a_higher_frame_rate_shows_the_same_motion_more_finely(
    nature: Pipeline, coast: Photographs
) -> None:
    coarse, fine = (
        nature(coast(48, 80), num_samples=1, seconds=1, fps=fps)[0].frames for fps in (4, 8)
    )
    assert np.array_equal(fine[1::2], coarse)


@pytest.mark.parametrize("place", ["coast", "lake"])
def test_a_loop_ends_with_the_photograph_and_is_as_smooth_there(
    nature: Pipeline, place: str, request: pytest.FixtureRequest
) -> None:
    image = request.getfixturevalue(place)(48, 80)
    (video,) = nature(image, num_samples=1, seconds=2, fps=12, loop="seamless")
    assert np.array_equal(video.frames[-1], image)
    around = np.concatenate([video.frames, video.frames[:2]])
    steps = [difference(a, b) for a, b in zip(around[1:], around, strict=False)]
    assert max(steps[-3:]) < 1.5 * max(steps[:-3])


def test_pingpong_goes_back_over_the_same_frames(nature: Pipeline, coast: Photographs) -> None:
    (video,) = nature(coast(24, 32), num_samples=1, num_frames=5, loop="pingpong")
    assert len(video.frames) == 8
    assert np.array_equal(video.frames[5:], video.frames[3:0:-1])


@pytest.mark.parametrize("class_", ["still", "fire"])
def test_what_is_marked_moves_though_it_looks_still(nature: Pipeline, class_: str) -> None:
    image = textured("still", (60, 80))
    image[50:] = textured(class_, (60, 80))[50:]
    move = np.zeros((60, 80), bool)
    move[10:40, 10:40] = True
    with pytest.warns(UserWarning, match="--keep-still"):
        (video,) = nature(image, num_samples=1, num_frames=4, fps=4, move=move)
    change = np.abs(video.frames.astype(int) - image).max(axis=(0, 3))
    assert (change[12:38, 12:38] > 1).mean() > 0.3
    assert not change[:9].any()


def test_where_both_masks_are_white_nothing_moves(nature: Pipeline, coast: Photographs) -> None:
    image, everywhere = coast(48, 80), np.ones((48, 80), bool)
    with pytest.warns(UserWarning, match="keep-still"):
        (video,) = nature(
            image, num_samples=1, num_frames=2, move=everywhere, keep_still=everywhere
        )
    assert np.array_equal(video.frames[1], image)


def test_a_photograph_in_which_nothing_can_move_says_so_and_what_to_do(nature: Pipeline) -> None:
    image = textured("still", (48, 80))
    with pytest.warns(UserWarning, match="nothing in this photograph .*--move"):
        (video,) = nature(image, num_samples=1, num_frames=2)
    assert np.array_equal(video.frames[1], image)


@pytest.mark.parametrize("size", ["model", (50, 34), (301, 16)])
def test_any_size_works(nature: Pipeline, coast: Photographs, size: Any) -> None:
    expected = (128, 128) if size == "model" else size[::-1]
    (video,) = nature(coast(40, 60), num_samples=1, num_frames=2, size=size)
    assert video.frames.shape == (2, *expected, 3)


def test_a_motion_file_replays_its_video(
    nature: Pipeline, coast: Photographs, tmp_path: Path
) -> None:
    (video,) = nature(coast(48, 80), num_samples=1, num_frames=3)
    save_motion(tmp_path / "a.nu.safetensors", video)
    (again,) = nature(coast(48, 80), nu=tmp_path / "a.nu.safetensors", num_frames=3)
    assert np.array_equal(again.frames, video.frames)


def test_motions_are_transferred_edited_and_interpolated(
    nature: Pipeline, coast: Photographs
) -> None:
    from cinnema.models.control import Drift

    wide = coast(64, 200)
    frames = np.stack([wide[:, 20 - t : 116 - t] for t in range(17)])
    motion = nature.read_motion(VideoFile(frames=frames, fps=8.0, path=Path("a.mp4")), steered=True)
    moved = nature.transfer(motion, coast(40, 60), num_frames=3, fps=4)
    edited = nature.edit(motion, eta=Drift(direction=180, speed=1), num_frames=3, fps=4)
    middle = list(nature.interpolate(coast(40, 60), steps=3, num_frames=3, fps=4))[1]
    assert moved.frames.shape == middle.frames.shape == (3, 40, 60, 3)
    assert edited.frames.shape == (3, 64, 96, 3)
    assert difference(moved.frames[-1], moved.x0) > 0.2


def test_the_papers_extension_decodes_again_from_the_last_frame(
    nature: Pipeline, coast: Photographs
) -> None:
    (video,) = nature.extend(coast(24, 32), num_samples=1, num_frames=9, fps=2, extension="paper")
    assert len(video.frames) == 9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loop": "seamless", "extension": "paper"}, "loop"),
        ({"move": np.zeros((4, 4), bool)}, "move.*4, 4"),
    ],
)
def test_mistakes_are_reported(
    nature: Pipeline, coast: Photographs, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        nature.iterate(coast(32, 48), **options)


@pytest.mark.filterwarnings("ignore:the weights body animate")
@pytest.mark.parametrize(
    ("options", "words"),
    [({"loop": "seamless"}, "pingpong"), ({"move": np.ones((32, 48), bool)}, "move")],
)
def test_other_models_say_what_only_nature_models_can_do(
    photograph: Photographs, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        Pipeline(tiny_body()).iterate(photograph(32, 48), **options)


def test_streamed_frames_are_those_of_the_video_and_hold_no_more_than_some(
    nature: Pipeline, coast: Photographs
) -> None:
    options: dict[str, Any] = {"num_samples": 2, "num_frames": 9, "fps": 8}
    videos = nature(coast(48, 80), **options)
    for video, stream in zip(videos, nature.stream(coast(48, 80), **options), strict=True):
        seen, addresses = [], set()
        for frame in stream.frames:
            seen.append(frame.copy())
            addresses.add(frame.ctypes.data)
        assert np.array_equal(seen, video.frames)
        assert len(seen) == stream.num_frames
        assert len(addresses) < len(seen)
        assert torch.equal(stream.z, video.z)


@pytest.mark.parametrize("loop", ["seamless", "pingpong"])
def test_a_streamed_loop_is_that_of_the_video(
    nature: Pipeline, coast: Photographs, loop: Any
) -> None:
    options: dict[str, Any] = {"num_samples": 1, "num_frames": 5, "loop": loop}
    (video,) = nature(coast(24, 32), **options)
    (stream,) = nature.stream(coast(24, 32), **options)
    assert np.array_equal([frame.copy() for frame in stream.frames], video.frames)


def test_a_video_too_large_for_memory_can_be_streamed(nature: Pipeline, coast: Photographs) -> None:
    options: dict[str, Any] = {"num_samples": 1, "num_frames": 10_000, "size": (512, 512)}
    with pytest.raises(UserError, match="4: ask for fewer frames"):
        nature.iterate(coast(32, 32), **options)
    (stream,) = nature.stream(coast(32, 32), **options)
    assert next(stream.frames).shape == (512, 512, 3)


def test_a_photograph_is_looked_at_once_however_often_it_is_animated(
    coast: Photographs,
) -> None:
    model = nature_model()
    pipe, looked = Pipeline(model), []
    model.kinds.register_forward_hook(lambda *_: looked.append(1))
    photo, short = coast(48, 64), {"num_frames": 2}
    first = pipe(photo, num_samples=2, seed=1, **short)
    features = pipe.recognise(photo)
    again = pipe(photo.copy(), num_samples=2, seed=1, arrows=[(20, 5, 1, 0)], **short)
    assert Certainty(model, photo, features).rank(again[0].z) >= 0
    assert len(looked) == 1
    assert not np.array_equal(again[0].frames, first[0].frames)
    np.testing.assert_array_equal(pipe(photo, seed=1, **short)[1].frames, first[1].frames)
    for height in range(32, 42):  # more pictures than are remembered
        pipe.recognise(coast(height, 40))
    assert len(looked) == 11
    pipe.recognise(photo)
    assert len(looked) == 12
