"""The face: a pipeline that is called, videos that save and show themselves, progress, advice."""

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest

import cinnema
from bodies import noisy_video, tiny_body
from cinnema import Pipeline, Video
from cinnema.core.errors import UserError
from cinnema.media.pictures import to_pixels
from cinnema.media.videos import VideoFile, read_video

Photographs = Callable[[int, int], np.ndarray]


@pytest.fixture(scope="module")
def video(pipe: Pipeline, photograph: Photographs) -> Video:
    return pipe(photograph(32, 48), num_samples=1, num_frames=3, seed=7)[0]


def test_a_pipeline_is_called_as_animate(
    pipe: Pipeline, photograph: Photographs, video: Video
) -> None:
    (same,) = pipe.animate(photograph(32, 48), num_samples=1, num_frames=3, seed=7)
    assert np.array_equal(same.frames, video.frames)


def test_public_names_are_imported_at_their_first_use() -> None:
    assert all(getattr(cinnema, name) is not None for name in cinnema.__all__)
    with pytest.raises(AttributeError, match="Animation"):
        cinnema.Animation  # noqa: B018


@pytest.mark.parametrize(
    ("name", "exact"), [("a.mp4", False), ("a.gif", False), ("a.webp", False), ("a.npy", True)]
)
def test_the_ending_decides_the_format(
    video: Video, tmp_path: Path, name: str, *, exact: bool
) -> None:
    path = video.save(tmp_path / name)
    saved = read_video(path).frames
    assert saved.shape == video.frames.shape
    assert np.array_equal(saved, video.frames) or not exact
    with pytest.raises(UserError, match="exists"):
        video.save(tmp_path / name)
    assert video.save(tmp_path / name, overwrite=True) == path


def test_png_is_a_folder_of_frames(video: Video, tmp_path: Path) -> None:
    folder = video.save(tmp_path / "a.png")
    assert np.array_equal(read_video(folder).frames, video.frames)


def test_an_unknown_ending_is_refused(video: Video, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mp4"):
        video.save(tmp_path / "a.avi")


def test_the_tensor_holds_the_frames(video: Video) -> None:
    assert video.tensor.shape == (3, 3, 32, 48)
    assert np.array_equal(to_pixels(video.tensor), video.frames)


def test_a_video_is_described_in_one_line(video: Video, pipe: Pipeline) -> None:
    expected = "Video(3 frames of 48x32, 0.125 s at 24 fps, seed 7, sample 0, weights tiny)"
    assert repr(video) == expected
    assert repr(pipe) == "Pipeline(tiny, NatureModel of 128x128 pixels and 4 frames, cpu)"


def test_a_video_plays_in_a_notebook(video: Video, tmp_path: Path) -> None:
    bundle = video._repr_mimebundle_()
    assert bundle["text/plain"] == repr(video)
    content = re.search(r'src="data:video/mp4;base64,([^"]+)"', bundle["text/html"])
    assert content is not None
    (tmp_path / "a.mp4").write_bytes(base64.b64decode(content[1]))
    assert read_video(tmp_path / "a.mp4").frames.shape == video.frames.shape


def test_progress_counts_the_frames_of_each_video(pipe: Pipeline, photograph: Photographs) -> None:
    calls: list[tuple[str, int, int]] = []
    pipe.animate(
        photograph(24, 32), num_samples=2, num_frames=2, progress=lambda *call: calls.append(call)
    )
    assert calls == [
        ("video 1 of 2", 1, 2), ("video 1 of 2", 2, 2),
        ("video 2 of 2", 1, 2), ("video 2 of 2", 2, 2),
    ]  # fmt: skip


def test_the_length_may_be_given_in_seconds(pipe: Pipeline, photograph: Photographs) -> None:
    (video,) = pipe(photograph(24, 32), num_samples=1, seconds=0.5, fps=6)
    assert len(video.frames) == 3
    (long,) = pipe.extend(photograph(24, 32), num_samples=1, seconds=0.5, fps=6)
    assert len(long.frames) == 3
    with pytest.raises(UserError, match="omit one of them"):
        pipe(photograph(24, 32), seconds=1, num_frames=8)
    with pytest.raises(UserError, match="seconds"):
        pipe(photograph(24, 32), seconds=0)


def test_a_video_gives_its_motion_to_another_photograph(
    pipe: Pipeline, photograph: Photographs, video: Video
) -> None:
    (again,) = pipe(photograph(32, 48), nu=video, num_frames=3)
    assert np.array_equal(again.frames, video.frames)
    assert (again.seed, again.sample) == (7, 0)


@pytest.mark.parametrize("kind", ["path", "file in memory", "generated"])
def test_a_video_in_place_of_a_photograph_is_answered_with_what_to_do(
    pipe: Pipeline, video: Video, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users call it
    given: dict[str, Any] = {
        "path": "waves.mp4",
        "file in memory": VideoFile(frames=video.frames, fps=8.0, path=Path("waves.mp4")),
        "generated": video,
    }
    with pytest.raises(UserError, match=r"is a video.*edit\(.*transfer\("):
        pipe.animate(given[kind])


def test_weights_of_a_simulated_world_warn_of_other_photographs(
    pipe: Pipeline, photograph: Photographs, recwarn: pytest.WarningsRecorder
) -> None:
    robot = Pipeline(tiny_body())
    robot(noisy_video().frames[0], num_samples=1, num_frames=1)
    pipe(photograph(24, 48), num_samples=1, num_frames=1)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="robot's arm, pictures of 32x32.*48x24.*landscape"):
        robot(photograph(24, 48), num_samples=1, num_frames=1)


def test_the_networks_compute_on_the_device_that_is_given(pipe: Pipeline, weights: Path) -> None:
    assert Pipeline.from_pretrained(weights, device="cpu").device.type == "cpu"
    assert Pipeline(pipe.model, device="cpu").model is pipe.model
