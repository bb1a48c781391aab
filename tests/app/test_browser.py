"""The page in a real browser: headless Chromium, as Debian packages it."""

import base64
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.keys import Keys

from browser import Browsers
from cinnema.app.server import Running, serving
from cinnema.app.sessions import Session
from cinnema.app.studio import Studio
from cinnema.media.videos import read_video
from cinnema.synthesis.pipeline import Pipeline
from visitor import LIMITS, Visitor, looks_the_same

SHAPES = [(96, 64), (64, 96), (320, 80), (80, 320), (600, 600)]
"""Width and height of pictures of five sizes and shapes."""


@pytest.fixture(scope="module")
def running(nature: Pipeline) -> Iterator[Running]:
    with serving(nature, limits=LIMITS) as page:
        yield page


@pytest.fixture(scope="module")
def chromium(browsers: Browsers) -> Chrome:
    browser = browsers()
    browser.set_window_size(1280, 1000)
    return browser


@pytest.fixture
def visitor(chromium: Chrome, running: Running) -> Visitor:
    return Visitor(chromium, running.url)


@pytest.fixture
def session(visitor: Visitor, running: Running) -> Callable[[], Session]:
    """What the server remembers of the visitor."""
    return lambda: running.sessions.get(running.sessions.keys()[-1])


@pytest.fixture
def coast_file(picture_at: Callable[..., Path], tmp_path: Path) -> Path:
    return picture_at(tmp_path / "coast.png")


def test_a_dropped_picture_has_four_futures_that_play(visitor: Visitor, coast_file: Path) -> None:
    visitor.drop(coast_file)
    for video in visitor.futures():
        assert visitor.plays(video)
        assert video.get_attribute("loop") == "true"
        assert "of what the model would draw here" in (video.get_attribute("aria-label") or "")
    assert "coast.png, 96x64 pixels" in visitor.status()
    visitor.shoot("futures")


def test_the_dice_change_all_futures_but_those_kept(visitor: Visitor, coast_file: Path) -> None:
    visitor.drop(coast_file)
    before = [video.get_attribute("src") for video in visitor.futures()]
    visitor.find("#pin2 input").click()
    visitor.press("roll")
    visitor.futures(after=[*before[:2], None, before[3]])
    assert visitor.source(2) == before[2]


def drag(visitor: Visitor, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag the pointer over the editor's picture; places are shares of its width and height."""
    stage = visitor.find("#editor [data-part=stage]")
    visitor.script("arguments[0].scrollIntoView({block: 'center'})", stage)
    width, height = stage.size["width"], stage.size["height"]
    (x0, y0), (x1, y1) = (
        (round((x - 0.5) * width), round((y - 0.5) * height)) for x, y in (start, end)
    )
    chain = ActionChains(visitor.browser, duration=20).move_to_element_with_offset(stage, x0, y0)
    chain.click_and_hold().move_by_offset((x1 - x0) // 2, (y1 - y0) // 2)
    chain.move_to_element_with_offset(stage, x1, y1).release().perform()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_an_arrow_points_where_it_was_dragged_on_pictures_of_all_shapes(
    visitor: Visitor,
    session: Callable[[], Session],
    picture_at: Callable[..., Path],
    tmp_path: Path,
    shape: tuple[int, int],
) -> None:
    width, height = shape
    visitor.drop(picture_at(tmp_path / "coast.png", width=width, height=height))
    visitor.futures()
    visitor.show("Steer")
    drag(visitor, (0.15, 0.1), (0.3, 0.2))
    visitor.videos("steered")
    stage = visitor.find("#editor [data-part=stage]").size
    assert stage["width"] / stage["height"] == pytest.approx(width / height, rel=0.03)
    (arrow,) = session().shown["steered"].wish.hints.arrows
    pixel = [1 / stage["width"], 1 / stage["height"]] * 2
    assert np.all(np.abs(np.array(arrow) - [0.15, 0.1, 0.15, 0.1]) < 1.5 * np.array(pixel))
    visitor.shoot(f"arrow-{width}x{height}")


def test_arrows_are_moved_by_their_ends_and_removed(
    visitor: Visitor, session: Callable[[], Session], coast_file: Path
) -> None:
    def drawn() -> list[tuple[float, ...]]:
        future = session().shown.get("steered")
        return [] if future is None else list(future.wish.hints.arrows)

    visitor.drop(coast_file)
    visitor.futures()
    visitor.show("Steer")
    drag(visitor, (0.1, 0.1), (0.3, 0.1))
    drag(visitor, (0.1, 0.9), (0.3, 0.9))
    visitor.wait(lambda: len(drawn()) == 2)
    drag(visitor, (0.3, 0.1), (0.2, 0.2))
    visitor.wait(lambda: drawn()[0][3] > 0.05)
    assert drawn()[0] == pytest.approx((0.1, 0.1, 0.1, 0.1), abs=0.01)
    ActionChains(visitor.browser).send_keys(Keys.DELETE).perform()
    visitor.wait(lambda: len(drawn()) == 1)
    assert drawn()[0] == pytest.approx((0.1, 0.9, 0.2, 0.0), abs=0.01)


def test_what_is_painted_stands_still(
    visitor: Visitor, session: Callable[[], Session], coast_file: Path, nature: Pipeline
) -> None:
    visitor.drop(coast_file)
    visitor.futures()
    visitor.show("Steer")
    visitor.find("#editor [data-tool=still]").click()
    drag(visitor, (0.1, 0.15), (0.6, 0.15))
    visitor.videos("steered")
    visitor.shoot("paint")
    future = session().shown["steered"]
    assert future.wish.hints.paint is not None
    video = Studio(nature, LIMITS).render(future, side=96)
    rows, columns = slice(8, 11), slice(10, 57)
    still = np.broadcast_to(video.x0, video.frames.shape)[:, rows, columns]
    np.testing.assert_array_equal(video.frames[:, rows, columns], still)
    assert (video.frames[:, 20:30, :30] != video.x0[20:30, :30]).any()


def test_a_video_moves_the_picture_side_by_side_and_in_step(
    visitor: Visitor, coast_file: Path, waves: Path
) -> None:
    visitor.drop(coast_file)
    visitor.futures()
    visitor.show("Motion of a video")
    visitor.drop(waves, where="video")
    visitor.says("waves.mp4: 96x64 pixels")
    visitor.press("transfer")
    query, result = visitor.videos("transferred", 2)
    assert visitor.plays(query)
    times = "return [arguments[0].currentTime, arguments[1].currentTime]"

    def in_step() -> bool:
        one, other = visitor.script(times, query, result)
        return one > 0.2 and abs(one - other) < 0.1

    assert visitor.wait(in_step)
    visitor.shoot("transfer")
    dial = visitor.find("#direction svg")
    dial.send_keys(Keys.ARROW_UP, Keys.ARROW_UP)
    assert dial.get_attribute("aria-valuetext") == "10 degrees, right"
    visitor.videos("edited", 2)
    visitor.says("now to 10 degrees")
    ActionChains(visitor.browser).move_to_element_with_offset(dial, 0, -30).click().perform()
    visitor.says("now to 90 degrees")
    visitor.shoot("edit")


def test_a_slider_leads_from_one_future_to_another(visitor: Visitor, coast_file: Path) -> None:
    visitor.drop(coast_file)
    visitor.futures()
    visitor.show("Between")
    visitor.press("walk")
    visitor.says("5 of 5 steps")
    visitor.wait(lambda: len(visitor.all("#between video")) == 5)
    slider = visitor.find("#share input[type=range]")
    for step in range(1, 5):
        slider.send_keys(Keys.ARROW_RIGHT)
        caption = f"{25 * step}% of the way"
        visitor.wait(lambda words=caption: words in visitor.find("#between .cinnema-player").text)
        (video,) = visitor.all("#between figure:not([hidden]) video")
        assert visitor.plays(video)
    visitor.shoot("between")


def test_stop_ends_a_computation(
    visitor: Visitor, picture_at: Callable[..., Path], tmp_path: Path
) -> None:
    visitor.wait(lambda: visitor.set_number("seconds", 4))
    visitor.drop(picture_at(tmp_path / "large.png", width=1200, height=900))
    visitor.wait(lambda: visitor.all("#status .progress-text, #status .progress-level-inner"))
    visitor.press("stop")
    visitor.says("Stopped.")
    assert not visitor.all("#tile3 video")


def three_links(visitor: Visitor) -> list[str]:
    """Return the addresses of the saved files; nothing until all three are shown."""
    found = {link.get_attribute("href") or "" for link in visitor.all("#files a[href]")}
    return sorted(found) if len(found) == 3 else []


def test_a_saved_future_plays_and_comes_back_from_its_json(
    visitor: Visitor, session: Callable[[], Session], coast_file: Path, tmp_path: Path
) -> None:
    visitor.drop(coast_file)
    first, shown = (visitor.content(video) for video in visitor.futures()[:2])
    visitor.press("save-tile1")
    visitor.says("coast_s0_01.mp4: 12 frames of 96x64 pixels")
    links = visitor.wait(lambda: three_links(visitor))
    saved = {}
    for link in links:
        name = tmp_path / link.rpartition("/")[2]
        with urllib.request.urlopen(link) as answer:
            name.write_bytes(answer.read())
        saved["".join(name.suffixes[-1:])] = name
    assert set(saved) == {".mp4", ".safetensors", ".json"}
    assert read_video(saved[".mp4"]).frames.shape == (12, 64, 96, 3)
    assert json.loads(saved[".json"].read_text())["sample"] == 1
    plays = """
        const [url, done] = arguments, video = document.createElement('video');
        video.onloadeddata = () => done([video.videoWidth, video.videoHeight]);
        video.onerror = () => done(video.error.message);
        video.src = url;
    """
    link = next(link for link in links if link.endswith(".mp4"))
    assert visitor.browser.execute_async_script(plays, link) == [96, 64]
    visitor.shoot("saved")

    visitor.open()
    visitor.drop(coast_file)
    visitor.futures()
    visitor.drop(saved[".json"], where="saved")
    visitor.says("coast_s0_01.json is Future 1 again")
    assert looks_the_same(visitor.content(visitor.videos("tile0")[0]), shown, tmp_path)
    assert not looks_the_same(visitor.content(visitor.videos("tile1")[0]), first, tmp_path)
    assert visitor.find("#pin0 input").is_selected()
    first_of_one = session().futures[0]
    assert first_of_one is not None
    assert (first_of_one.residual.seed, first_of_one.residual.sample) == (0, 1)


def test_an_example_is_animated_at_a_press(visitor: Visitor, nature: Pipeline) -> None:
    names = {"Evening glow", "Picos de Europa", "Storm"}
    examples = [button for button in visitor.all("button") if button.text in names]
    assert len(examples) == 3
    shown = "return arguments[0].querySelector('img').naturalWidth"
    visitor.wait(lambda: [visitor.script(shown, one) for one in examples] == [48, 48, 48])
    examples[2].click()
    visitor.says("storm.jpg, 1280x854 pixels")
    assert visitor.plays(visitor.futures()[0])


def test_a_pasted_picture_takes_the_place_of_another(
    visitor: Visitor, session: Callable[[], Session], coast_file: Path
) -> None:
    paste = """
        const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "pasted.png", {type: "image/png"}));
        document.body.dispatchEvent(
          new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
    """
    visitor.drop(coast_file)
    visitor.futures()
    visitor.script(paste, base64.b64encode(coast_file.read_bytes()).decode())
    visitor.says("pasted.png, 96x64 pixels")
    picture = session().picture
    assert picture is not None
    assert picture.name == "pasted.png"


def test_a_broken_file_is_told_by_its_name_and_what_to_do(visitor: Visitor, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    visitor.drop(path)
    told = visitor.says("broken.png is not a picture that can be read: use a JPEG")
    assert str(tmp_path) not in told
    assert "wrong" in (visitor.find("#status .cinnema-status").get_attribute("class") or "")
    visitor.shoot("broken")


def test_nothing_is_cut_off_at_a_phones_width(
    chromium: Chrome, running: Running, coast_file: Path
) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        visitor = Visitor(chromium, running.url)
        visitor.drop(coast_file)
        visitor.futures()
        for panel in ("Futures", "Steer", "Motion of a video", "Between"):
            visitor.show(panel)
            wide = (
                "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert visitor.script(wide) <= 0, panel
            chromium.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride", {**size, "height": 2400, "mobile": False}
            )
            name = panel.split()[0].lower()
            chromium.save_screenshot(str(screenshot(f"phone-{name}")))
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def screenshot(name: str) -> Path:
    from visitor import SCREENSHOTS

    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS / f"{name}.png"


def test_it_is_dark_where_the_visitor_likes_it_dark(
    chromium: Chrome, running: Running, coast_file: Path
) -> None:
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        visitor = Visitor(chromium, running.url)
        visitor.drop(coast_file)
        visitor.futures()
        colour = visitor.script("return getComputedStyle(document.body).backgroundColor")
        assert max(int(part) for part in colour[4:-1].split(",")[:3]) < 60
        visitor.show("Steer")
        visitor.shoot("dark")
    finally:
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_futures_and_arrows_are_made_with_the_keyboard_alone(
    visitor: Visitor, session: Callable[[], Session], coast_file: Path
) -> None:
    def focused() -> str:
        return str(visitor.script(
            "const at = document.activeElement, box = at.closest('[id]');"
            "return at.dataset.part || at.dataset.index || (box ? box.id : '')"
        ))  # fmt: skip

    def go_to(name: str) -> None:
        for _ in range(80):
            if focused() == name:
                return
            ActionChains(visitor.browser).send_keys(Keys.TAB).perform()
        raise AssertionError(f"Tab never reaches {name}")

    def hit(*keys: str) -> None:
        ActionChains(visitor.browser).send_keys(*keys).perform()

    visitor.drop(coast_file)  # a browser's own dialogue, which has its own keys
    before = [video.get_attribute("src") for video in visitor.futures()]
    visitor.script("document.activeElement.blur()")
    go_to("roll")
    hit(Keys.ENTER)
    visitor.futures(after=before)  # all of them: what is drawn anew loses the focus
    visitor.script("document.activeElement.blur()")
    go_to("tab0")
    hit(Keys.ARROW_RIGHT)
    go_to("stage")
    hit(*[Keys.ARROW_UP] * 15, Keys.SPACE)
    hit(Keys.ARROW_LEFT, Keys.ARROW_DOWN)
    # On a busy machine the arrow is sent as it was drawn first, and again as it was changed.
    expected = [pytest.approx((0.5, 0.2, 0.08, 0.02), abs=1e-4)]
    visitor.wait(
        lambda: session().shown and list(session().shown["steered"].wish.hints.arrows) == expected
    )
    hit(Keys.DELETE)
    visitor.wait(lambda: not session().shown["steered"].wish.hints.arrows)


def test_saved_arrows_are_drawn_again_and_followed_by_further_futures(
    visitor: Visitor, session: Callable[[], Session], coast_file: Path, tmp_path: Path
) -> None:
    visitor.drop(coast_file)
    visitor.futures()
    visitor.show("Steer")
    drag(visitor, (0.1, 0.1), (0.3, 0.2))
    visitor.videos("steered")
    visitor.press("save-steered")
    visitor.says("The files are below")
    (sidecar,) = session().folder.glob("*.json")
    saved = tmp_path / sidecar.name
    saved.write_bytes(sidecar.read_bytes())
    visitor.find("#editor [data-part=clear]").click()
    visitor.wait(lambda: not session().shown["steered"].wish.hints.arrows)
    visitor.show("Futures")
    visitor.drop(saved, where="saved")
    visitor.says("is Future 1 again")
    before = session().futures[3]
    assert before is not None
    visitor.press("roll")
    future = visitor.wait(lambda: (new := session().futures[3]) is not before and new)
    assert future
    (arrow,) = future.wish.hints.arrows
    assert arrow == pytest.approx((0.1, 0.1, 0.2, 0.1), abs=0.01)


def test_controls_have_names_for_screen_readers(visitor: Visitor) -> None:
    names = """
        const shown = (node) => node.offsetParent !== null;
        return [...document.querySelectorAll(
          'button, input:not([type=file]), [role=application], [role=slider]')]
          .filter(shown)
          .filter((node) => !(node.innerText || node.title || node.getAttribute('aria-label')
            || node.getAttribute('aria-labelledby') || (node.labels && node.labels.length
            && node.labels[0].innerText)))
          .map((node) => node.outerHTML.slice(0, 200));
    """
    for panel in ("Futures", "Steer", "Motion of a video", "Between"):
        visitor.show(panel)
        assert visitor.script(names) == [], panel
    assert visitor.find("#status [role=status]").get_attribute("aria-live") == "polite"


def test_the_page_loads_nothing_from_elsewhere(visitor: Visitor, running: Running) -> None:
    loaded = visitor.script("return performance.getEntriesByType('resource').map((r) => r.name)")
    assert loaded
    assert [url for url in loaded if not url.startswith((running.url, "blob:", "data:"))] == []
