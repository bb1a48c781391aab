"""The motion of a video: how it is read, and transferred to other pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bodies import TIGHT, noisy_video, tiny_body
from cinnema.core.errors import UserError
from cinnema.media.pictures import to_tensor
from cinnema.media.videos import VideoFile, write_video
from cinnema.models.control import Drift, EndPoint
from cinnema.models.nature.model import Z_DIM
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.query import read_query
from cinnema.synthesis.residual import load_motion, save_motion

Photographs = Callable[[int, int], np.ndarray]


def numbered(num: int, *, fps: float, size: tuple[int, int] = (20, 30)) -> VideoFile:
    """A video whose frames are as light as their number."""
    frames = np.stack([np.full((*size, 3), i, np.uint8) for i in range(num)])
    return VideoFile(frames=frames, fps=fps, path=Path("numbered.mp4"))


def numbers(query: Any) -> list[int]:
    return [int(value) for value in query.shown[:, 0, 0, 0]]


@pytest.mark.parametrize(
    ("num", "fps", "start", "expected"),
    [
        (9, 8, 0, [0, 1, 2, 3, 4]),  # at the model's own rate
        (99, 24, 0, [0, 3, 6, 9, 12]),
        (99, 30, 0, [0, 4, 8, 11, 15]),  # every 3.75th
        (9, 4, 0, [0, 0, 1, 2, 2]),  # the nearest there is
        (99, 24, 1.0, [24, 27, 30, 33, 36]),
        (5, 16, 0, [0, 1, 2, 3, 4]),  # half a clip: slowed down twice
        (4, 8, 0, [0, 1, 2, 2, 3]),
    ],
)
def test_frames_are_taken_at_the_models_rate(
    pipe: Pipeline, num: int, fps: float, start: float, expected: list[int]
) -> None:
    query = read_query(numbered(num, fps=fps), pipe.model, start=start)
    assert numbers(query) == expected
    assert query.about["first_frame"] == expected[0]
    assert query.about["last_frame"] == expected[-1]


def test_a_summary_says_which_frames_were_read(pipe: Pipeline) -> None:
    query = read_query(numbered(6, fps=16), pipe.model)
    assert query.about["slowed_by"] == pytest.approx(1.6)
    assert query.about["size"] == [30, 20]
    assert query.about["seen_as"] == [128, 128]
    assert "slowed down by 1.6" in query.summary
    assert "30x20 pixels resized to 128x128" in query.summary


def test_a_folder_of_frames_has_no_rate_so_each_frame_is_taken(
    pipe: Pipeline, tmp_path: Path
) -> None:
    video = numbered(20, fps=8)
    for i, frame in enumerate(video.frames):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    assert numbers(read_query(tmp_path, pipe.model)) == [0, 1, 2, 3, 4]
    assert numbers(read_query(tmp_path, pipe.model, fps=16)) == [0, 2, 4, 6, 8]


def test_a_file_gives_the_same_frames_as_memory(pipe: Pipeline, drifting: VideoFile) -> None:
    a, b = (read_query(drifting, pipe.model) for _ in range(2))
    assert torch.equal(a.clip, b.clip)


def test_a_clip_transferred_onto_its_own_first_frame_gives_back_its_z(
    pipe: Pipeline, drifting: VideoFile
) -> None:
    motion = pipe.read_motion(drifting)
    again = pipe.transfer(motion, drifting.frames[0])
    torch.testing.assert_close(again.z, motion.z, atol=1e-4, rtol=0)
    assert torch.equal(again.nu, motion.nu)
    assert again.settings["query"]["file"] == "drifting.mp4"
    assert again.seed is None


def test_it_does_so_with_the_same_control_too(pipe: Pipeline, drifting: VideoFile) -> None:
    motion = pipe.read_motion(drifting, steered=True)
    assert motion.eta is not None
    again = pipe.transfer(motion, drifting.frames[0], eta=motion.eta)
    torch.testing.assert_close(again.z, motion.z, atol=1e-4, rtol=0)
    assert again.settings["query"]["eta_is"] == "estimated from its optical flow"
    assert again.settings["eta"] == pytest.approx(motion.eta.tolist())


def test_an_optional_control_is_left_out(
    pipe: Pipeline, drifting: VideoFile, photograph: Photographs
) -> None:
    moved = pipe.transfer(drifting, photograph(48, 80))
    assert "eta" not in moved.settings
    assert "eta" not in moved.settings["query"]


def test_another_drift_may_be_asked_for(
    pipe: Pipeline, drifting: VideoFile, photograph: Photographs
) -> None:
    image = photograph(64, 96)
    moved = pipe.transfer(drifting, image, eta=Drift(direction=180))
    right, down = moved.settings["eta"]
    own_right, own_down = moved.settings["query"]["eta"]
    assert right < 0
    assert abs(down) < 1e-6
    assert np.hypot(right, down * 64 / 96) == pytest.approx(
        np.hypot(own_right, own_down * 64 / 96), rel=1e-3
    )


def test_a_robots_hand_keeps_its_path_by_default() -> None:
    model = tiny_body()
    robot, picture = Pipeline(model), noisy_video(seed=1).frames[0]
    motion = robot.read_motion(noisy_video())
    moved = robot.transfer(motion, picture)
    told = moved.settings
    assert (told["keep"], told["path"]) == ("path", told["path_kept"])
    pictures = (noisy_video().frames[0], picture)
    ways = [
        model.read_landmarks(to_tensor(pixels)[None], z[None])[0]
        for pixels, z in zip(pictures, (motion.z, moved.z), strict=True)
    ]
    own, other = (way[-1] - way[0] for way in ways)
    assert told["path"] == pytest.approx(own.tolist(), abs=1e-3)
    assert float((other - own).norm()) < 0.1 * float(own.norm())
    assert torch.tensor(told["eta"]).sub(ways[1][0]).tolist() == pytest.approx(
        own.tolist(), abs=1e-3
    )


def test_nu_alone_is_kept_with_other_weights_and_with_another_control(
    pipe: Pipeline, drifting: VideoFile, photograph: Photographs
) -> None:
    robot, picture = Pipeline(tiny_body()), noisy_video(seed=1).frames[0]
    motion = robot.read_motion(noisy_video())
    alone = robot.transfer(motion, picture, keep="residual")
    assert torch.equal(alone.nu, motion.nu)
    assert "eta" not in alone.settings
    told = robot.transfer(motion, picture, eta=EndPoint(x=0.1, y=0.1, z=0.1))
    sky = pipe.transfer(drifting, photograph(48, 80))
    assert {a.settings["keep"] for a in (alone, told, sky)} == {"residual"}
    assert not torch.equal(robot.transfer(motion, picture).z, alone.z)


def test_the_path_does_not_depend_on_how_the_video_was_read() -> None:
    robot, picture = Pipeline(tiny_body()), noisy_video(seed=1).frames[0]
    video, free = noisy_video(), robot.read_motion(noisy_video())
    own = robot.read_motion(video, steered=True)
    assert own.about["query"]["eta_is"] == "estimated from its z"
    first, *others = (robot.transfer(motion, picture) for motion in (video, free, own))
    for other in others:
        torch.testing.assert_close(other.z, first.z, atol=1e-4, rtol=0)


def test_a_path_that_leaves_the_range_is_cut_and_the_settings_say_so() -> None:
    robot = Pipeline(tiny_body(end_point=TIGHT))
    told = robot.transfer(noisy_video(), noisy_video(seed=1).frames[0]).settings
    assert max(map(abs, told["eta"])) <= 0.01 + 1e-6
    assert told["path"] != told["path_kept"]


def test_a_path_that_cannot_be_kept_is_an_error(
    pipe: Pipeline, drifting: VideoFile, photograph: Photographs
) -> None:
    robot, image = Pipeline(tiny_body()), noisy_video(seed=1).frames[0]
    with pytest.raises(UserError, match=r"keep: .* end elsewhere: leave out the end point"):
        robot.transfer(noisy_video(), image, keep="path", eta=EndPoint(x=0, y=0, z=0))
    for other in (pipe, Pipeline(tiny_body(steered=False))):
        with pytest.raises(UserError, match=r'keep: the model .* has no end point.*"residual"'):
            other.transfer(drifting, photograph(48, 80), keep="path")


def test_nu_z_and_the_photographs_size_come_out(
    pipe: Pipeline, drifting: VideoFile, photograph: Photographs, tmp_path: Path
) -> None:
    moved = pipe.transfer(drifting, photograph(40, 70), num_frames=3)
    assert moved.frames.shape == (3, 40, 70, 3)
    save_motion(tmp_path / "nu.safetensors", moved)
    (again,) = pipe.animate(photograph(40, 70), nu=tmp_path / "nu.safetensors", num_frames=3)
    assert np.array_equal(again.frames, moved.frames)
    assert load_motion(tmp_path / "nu.safetensors").about["query"]["file"] == "drifting.mp4"


@pytest.mark.parametrize(
    ("num", "options", "words"),
    [
        (3, {}, None),  # two frames after the first: half a clip
        (2, {}, "numbered.mp4 is too short: 1 frames follow.*half of a clip takes 2"),
        (1, {}, "too short: 0 frames"),
        (9, {"start": 1.0}, "too short.*earlier start"),
        (9, {"start": 5.0}, "too short: 0 frames"),
        (9, {"query_fps": 100}, "too short.*true frame rate"),
        (9, {"start": -1.0}, "start: must be finite and at least 0"),
        (9, {"query_fps": 0}, "query_fps"),
    ],
)
def test_a_query_that_cannot_be_used_is_an_error(
    pipe: Pipeline, num: int, options: dict[str, Any], words: str | None
) -> None:
    video = numbered(num, fps=8)
    if words is None:
        assert pipe.read_motion(video, **options).nu.shape == (Z_DIM,)
        return
    with pytest.raises(UserError, match=words):
        pipe.read_motion(video, **options)


def test_a_file_that_is_not_a_video_is_an_error(pipe: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("not a video")
    for name, words in (("notes.mp4", "not a video that can be read"), ("none.mp4", "none.mp4")):
        with pytest.raises(UserError, match=words):
            pipe.read_motion(tmp_path / name)


def test_another_length_rate_and_size_of_a_video_give_nearly_the_same_motion(
    pipe: Pipeline, drifting: VideoFile, tmp_path: Path
) -> None:
    slow = pipe.read_motion(drifting)
    doubled = np.repeat(drifting.frames, 2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    write_video(tmp_path / "fast.mp4", doubled, fps=16)
    fast = pipe.read_motion(tmp_path / "fast.mp4")
    assert float(torch.nn.functional.cosine_similarity(slow.z, fast.z, dim=0)) > 0.9


def test_a_video_with_one_frame_in_a_clip_is_refused_with_the_way_out(pipe: Pipeline) -> None:
    lapse = numbered(20, fps=0.1)
    with pytest.raises(UserError, match=r"shows one frame .*--query-fps 8"):
        read_query(lapse, pipe.model)
    assert numbers(read_query(lapse, pipe.model, fps=8)) == [0, 1, 2, 3, 4]


def test_repeated_frames_and_a_still_video_are_told(pipe: Pipeline) -> None:
    with pytest.warns(UserWarning, match="3 different frames fill the 5 of a clip"):
        read_query(numbered(9, fps=4), pipe.model)
    still = VideoFile(frames=np.zeros((9, 20, 30, 3), np.uint8), fps=8, path=Path("still.mp4"))
    with pytest.warns(UserWarning, match="nothing moves in this clip"):
        read_query(still, pipe.model)


def test_frames_of_a_variable_rate_are_taken_by_their_times(pipe: Pipeline, tmp_path: Path) -> None:
    pages = [Image.fromarray(frame) for frame in numbered(13, fps=1).frames]
    path = tmp_path / "a.webp"
    durations = [25] * 10 + [125] * 3  # milliseconds; a clip takes one frame every 125
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=durations, lossless=True)
    query = read_query(path, pipe.model)
    assert numbers(query) == [0, 5, 10, 11, 12]
    assert (query.about["first_frame"], query.about["last_frame"]) == (0, 12)
