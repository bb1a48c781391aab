"""Pages that play the futures of a photograph: their frames in a browser, and what they hold."""

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.support.ui import WebDriverWait

from bodies import noisy_video, tiny_body
from browser import PATIENCE, Browsers, open_file
from cinnema.core.errors import UserError
from cinnema.media.videos import read_video
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.player import MAX_BYTES, write_player
from cinnema.synthesis.video import Video
from small_nature import textured

Photographs = Callable[[int, int], np.ndarray]

SHOT = """
const {player} = window.cinnema;
player.choose(arguments[1]);
player.draw(arguments[0]);
return player.canvas.toDataURL("image/png");
"""


@pytest.fixture(scope="session")
def valley() -> np.ndarray:
    """Every kind: sky over plants and water, a fire, a rock, and snow in front of the rock."""
    picture = textured("sky", (144, 240))
    for kind, rows, columns in [
        ("plants", slice(60, 144), slice(0, 110)),
        ("water", slice(80, 144), slice(110, 240)),
        ("fire", slice(70, 120), slice(30, 70)),
        ("still", slice(20, 130), slice(120, 190)),
        ("falling", slice(30, 70), slice(140, 170)),
    ]:
        picture[rows, columns] = textured(kind, (144, 240), seed=len(kind))[rows, columns]
    return picture


@pytest.fixture
def quiet(browsers: Browsers) -> Chrome:
    """A browser whose pages play only when told to."""
    return browsers("--force-prefers-reduced-motion")


def opened(browser: Chrome, path: Path) -> str:
    open_file(browser, path)
    wait = WebDriverWait(browser, PATIENCE)
    state: str = wait.until(lambda b: b.execute_script("return document.body.dataset.state"))
    return state


def frame(browser: Chrome, seconds: float, future: float = 0.0) -> np.ndarray:
    uri = browser.execute_script(SHOT, seconds, future)
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.square(a.astype(np.float64) - b).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def content_of(page: Path) -> dict[str, Any]:
    found = re.search(r'id="scene">(.*?)</script>', page.read_text("utf-8"))
    assert found is not None
    content: dict[str, Any] = json.loads(found[1])
    return content


@pytest.mark.parametrize(
    "options",
    [
        {"seconds": 6},
        {"seconds": 3, "loop": "seamless"},
        {"seconds": 2, "loop": "pingpong", "motion_strength": 0.7},
        {"seconds": 2, "protocol": "paper"},
    ],
    ids=["without an end", "seamless", "pingpong", "paper"],
)
def test_frames_in_a_browser_are_those_of_the_renderer(
    nature: Pipeline, valley: np.ndarray, quiet: Chrome, tmp_path: Path, options: dict[str, Any]
) -> None:
    (video,) = nature(valley, num_samples=1, fps=3, **options)
    page = video.save(tmp_path / "a.html")
    assert opened(quiet, page) == "playing"
    for index in (0, 2, len(video.frames) - 2):
        shown, expected = frame(quiet, (index + 1) / 3), video.frames[index]
        assert psnr(shown, expected) > max(35, psnr(expected, valley) + 6)
    assert not quiet.get_log("browser")


def test_a_lake_in_a_browser_mirrors_the_sky_as_the_renderer_does(
    nature: Pipeline, lake: Photographs, quiet: Chrome, tmp_path: Path
) -> None:
    (video,) = nature(lake(144, 240), num_samples=1, fps=3, seconds=3, motion_strength=2)
    assert video.scene.layers[1].reflection is not None
    opened(quiet, video.save(tmp_path / "a.html"))
    page = content_of(tmp_path / "a.html")
    assert page["layers"][1]["reflection"]["axis"] == 0.5
    shown, expected = frame(quiet, 2), video.frames[5]
    assert psnr(shown, expected) > max(35, psnr(expected, video.x0) + 6)


def test_half_way_between_two_futures_is_what_interpolate_gives(
    nature: Pipeline, valley: np.ndarray, quiet: Chrome, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"fps": 2, "seconds": 2, "loop": "seamless"}
    page = write_player(tmp_path / "a.html", nature(valley, num_samples=3, render=False, **options))
    opened(quiet, page)
    steps = list(nature.interpolate(valley, start=1, end=2, steps=5, **options))
    for step, video in enumerate(steps):
        assert psnr(frame(quiet, 1.5, 1 + step / 4), video.frames[2]) > 35
    assert psnr(steps[0].frames[2], steps[-1].frames[2]) < 33


def test_a_page_stands_still_and_says_why_without_webgl(
    nature: Pipeline, coast: Photographs, browsers: Browsers, tmp_path: Path
) -> None:
    page = nature(coast(60, 90), num_samples=1, render=False)[0].save(tmp_path / "a.html")
    browser = browsers("--disable-3d-apis")
    assert opened(browser, page) == "still"
    assert "no WebGL 2" in browser.find_element("id", "note").text
    assert browser.find_element("id", "still").is_displayed()
    assert not browser.find_element("id", "controls").is_displayed()


@pytest.mark.filterwarnings("ignore:nothing in this photograph")
def test_a_page_says_that_nothing_moves(nature: Pipeline, quiet: Chrome, tmp_path: Path) -> None:
    (video,) = nature(textured("still", (48, 64)), num_samples=1, render=False)
    assert opened(quiet, video.save(tmp_path / "a.html")) == "still"
    assert "Nothing in this photograph moves" in quiet.find_element("id", "note").text


def test_the_controls_play_pause_and_change_speed_and_future(
    nature: Pipeline, coast: Photographs, quiet: Chrome, tmp_path: Path
) -> None:
    page = write_player(
        tmp_path / "a.html", nature(coast(60, 90), num_samples=2, seconds=1, render=False)
    )
    opened(quiet, page)
    play, speed, future = (quiet.find_element("id", name) for name in ("play", "speed", "future"))
    assert play.text == "Play"
    assert quiet.find_element("id", "future-shown").text == "1 of 2"
    play.send_keys(Keys.SPACE)
    assert play.text == "Pause"
    WebDriverWait(quiet, PATIENCE).until(
        lambda b: b.execute_script("return cinnema.face.time") > 0.1
    )
    play.send_keys(Keys.SPACE)
    speed.send_keys(Keys.END)
    assert quiet.find_element("id", "speed-shown").text == "4.00 ×"
    future.send_keys(Keys.END)
    assert quiet.find_element("id", "future-shown").text == "2 of 2"
    future.send_keys(*[Keys.ARROW_LEFT] * 10)
    assert quiet.find_element("id", "future-shown").text == "1 to 2"
    WebDriverWait(quiet, PATIENCE).until(
        lambda b: b.execute_script("return cinnema.face.shown.future") < 1
    )


def test_a_page_fits_a_phone_and_loads_nothing(
    nature: Pipeline, coast: Photographs, browsers: Browsers, tmp_path: Path
) -> None:
    page = write_player(tmp_path / "a.html", nature(coast(60, 90), num_samples=2, render=False))
    browser = browsers("--force-prefers-reduced-motion", "--force-device-scale-factor=2")
    browser.set_window_size(390, 844)
    opened(browser, page)
    inside = "return document.documentElement.scrollWidth <= innerWidth"
    assert browser.execute_script(inside)
    assert browser.find_element("id", "future").is_displayed()
    script = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert all(name.startswith("data:") for name in browser.execute_script(script))
    assert "default-src 'none'" in page.read_text("utf-8")


def test_a_model_that_paints_its_frames_is_played_as_videos(quiet: Chrome, tmp_path: Path) -> None:
    robot = Pipeline(tiny_body(steered=False))
    videos = robot(noisy_video().frames[0], num_samples=2, num_frames=8, render=False)
    page = write_player(tmp_path / "a.html", videos)
    for uri, video in zip(content_of(page)["videos"], videos, strict=True):
        (tmp_path / "a.mp4").write_bytes(base64.b64decode(uri.partition(",")[2]))
        written = read_video(video.save(tmp_path / "b.mp4", overwrite=True))
        assert np.array_equal(read_video(tmp_path / "a.mp4").frames, written.frames)
    assert opened(quiet, page) == "playing"
    quiet.find_element("id", "play").click()
    running = "const {film} = cinnema.player; return !film.paused && film.currentTime > 0"
    WebDriverWait(quiet, PATIENCE).until(lambda b: b.execute_script(running))
    first = quiet.execute_script("return cinnema.player.film.src")
    quiet.find_element("id", "future").send_keys(Keys.END)
    WebDriverWait(quiet, PATIENCE).until(
        lambda b: b.execute_script("return cinnema.player.film.src") != first
    )


def test_a_page_of_a_detailed_photograph_is_below_a_megabyte(
    nature: Pipeline, coast: Photographs, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(0, 12, (720, 1280, 1))
    detailed = (coast(720, 1280) + noise).clip(0, 255).astype(np.uint8)
    page = write_player(tmp_path / "a.html", nature(detailed, num_samples=2, render=False))
    assert page.stat().st_size < MAX_BYTES


def test_a_page_of_a_large_photograph_is_of_a_size_that_every_browser_draws(
    nature: Pipeline, tmp_path: Path
) -> None:
    (video,) = nature(textured("sky", (40, 2400)), num_samples=1, render=False)
    text = video.save(tmp_path / "a.html").read_text("utf-8")
    still = re.search(r'alt="The photograph" src="data:image/jpeg;base64,([^"]+)"', text)
    assert still is not None
    assert Image.open(io.BytesIO(base64.b64decode(still[1]))).size == (2048, 34)


def test_the_numbers_of_an_interpolation_are_mixed_from_its_two_ends(
    nature: Pipeline, coast: Photographs, tmp_path: Path
) -> None:
    steps = nature.interpolate(coast(32, 48), steps=6, num_frames=1, render=False)
    content = content_of(write_player(tmp_path / "a.html", list(steps)))
    assert len(content["numbers"]) == 2
    assert len(content["mixes"]) == 21


def test_a_video_that_is_not_rendered_has_the_motion_of_one_that_is(
    nature: Pipeline, coast: Photographs
) -> None:
    (bare,), (full,) = (
        nature(coast(32, 48), num_samples=1, num_frames=2, render=render)
        for render in (False, True)
    )
    assert bare.frames.shape == (0, 32, 48, 3)
    assert bare.z.equal(full.z)
    assert bare.settings == full.settings


def test_the_paper_extension_needs_frames_and_is_played_as_a_video(
    nature: Pipeline, coast: Photographs, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"extension": "paper", "seconds": 3, "fps": 8, "render": False}
    (video,) = nature(coast(32, 48), num_samples=1, **options)
    assert len(video.frames) == 24
    assert len(content_of(video.save(tmp_path / "a.html"))["videos"]) == 1


def test_pages_of_several_photographs_and_existing_files_are_refused(
    nature: Pipeline, coast: Photographs, tmp_path: Path
) -> None:
    videos: list[Video] = [
        nature(coast(32, 48), num_samples=1, num_frames=1, render=False)[0] for _ in range(2)
    ]
    with pytest.raises(UserError, match="one photograph"):
        write_player(tmp_path / "a.html", videos)
    videos[0].save(tmp_path / "a.html")
    with pytest.raises(UserError, match="exists"):
        videos[0].save(tmp_path / "a.html")
