"""Somebody who uses the page with a browser; and what all tests of the page share."""

import base64
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from browser import PATIENCE
from cinnema.app.limits import Limits
from cinnema.media.videos import read_video

LIMITS = Limits(max_megabytes=2, max_megapixels=1.5, max_video_megapixels=0.2, max_seconds=4)

WISH = (None, 0.5, 1.0, 1.0, True)
"""What the page's controls say: nothing drawn, half a second, speed, temperature, loop."""

SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"

T = TypeVar("T")


def looks_the_same(one: bytes, other: bytes, folder: Path) -> bool:
    """Whether two mp4 files show the same frames: an encoder may write them in other bytes."""
    shown = []
    for index, content in enumerate((one, other)):
        path = folder / f"shown{index}.mp4"
        path.write_bytes(content)
        shown.append(read_video(path).frames.astype(np.int16))
    away = np.abs(shown[0] - shown[1])
    return bool(shown[0].shape == shown[1].shape and away.mean() < 1.5 and away.max() < 20)


def bytes_of(source: str) -> bytes:
    """Return the file in a data address."""
    return base64.b64decode(source.partition(",")[2])


class Visitor:
    """One open page.

    Args:
        browser: The browser.
        url: Address of the page.
    """

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser, self._url = browser, url
        self.open()

    def open(self) -> None:
        """Open the page anew, as another visitor."""
        self.browser.get(self._url)
        self.wait(lambda: self.find("#picture input[type=file]"))
        self.wait(lambda: self.find("#tab0"))
        # Half a second of video is enough.
        self.wait(lambda: self.set_number("seconds", 0.5))

    def find(self, selector: str) -> WebElement:
        """Return the first element of a selector."""
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Return all elements of a selector."""
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, condition: Callable[[], T]) -> T:
        """Return what a condition returns as soon as that is true."""
        end, found = time.monotonic() + PATIENCE, None
        while time.monotonic() < end:
            try:
                found = condition()
            except (StaleElementReferenceException, WebDriverException) as error:
                found = None
                problem: object = error
            else:
                problem = found
            if found:
                return found
            time.sleep(0.05)
        self.shoot("timeout")
        log = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        raise AssertionError(f"nothing came of {condition}: {problem}; {self.status()}; {log}")

    def script(self, text: str, *values: Any) -> Any:
        """Run a script in the page and return its result."""
        return self.browser.execute_script(text, *values)  # type: ignore[no-untyped-call]

    def drop(self, path: Path, *, where: str = "picture") -> None:
        """Give a file to one of the page's places for files."""
        for cross in self.all(
            f"#{where} button[aria-label='Clear'], #{where} button[title='Clear']"
        ):
            cross.click()
        self.wait(lambda: self.all(f"#{where} input[type=file]"))
        self.find(f"#{where} input[type=file]").send_keys(str(path))

    def press(self, name: str) -> None:
        """Press a button by its id."""
        button = self.find(f"#{name}")
        self.script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def show(self, panel: str) -> None:
        """Open a panel by the name of its tab."""
        next(tab for tab in self.all("#tabs [role=tab]") if tab.text == panel).click()

    def set_number(self, name: str, value: float) -> bool:
        """Write a number beside a slider."""
        box = self.find(f"#{name} input[type=number]")
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(str(value), Keys.TAB)
        return bool(box.get_attribute("value") == f"{value:g}")

    def status(self) -> str:
        """Return what the page says."""
        return self.find("#status .cinnema-status").text

    def says(self, words: str) -> str:
        """Wait until the page says words, and return all that it says."""
        return self.wait(lambda: self.status() if words in self.status() else "")

    def videos(self, place: str, count: int = 1) -> list[WebElement]:
        """Wait for videos in a place, and return them."""
        selector = f"#{place} video"

        def ready() -> list[WebElement]:
            found = self.all(selector)
            playable = all(self.script("return arguments[0].readyState > 1", v) for v in found)
            return found if len(found) == count and playable else []

        return self.wait(ready)

    def futures(self, *, after: Sequence[str | None] = (None,) * 4) -> list[WebElement]:
        """Wait for all four futures; for other ones than those of these addresses.

        Args:
            after: Address that each showed before.
        """
        for i, before in enumerate(after):
            self.wait(lambda i=i, old=before: self.source(i) not in (None, old))
        return [self.videos(f"tile{i}")[0] for i in range(4)]

    def source(self, i: int) -> str | None:
        """Return the address of the video in a tile; None if it is empty."""
        shown = self.all(f"#tile{i} video")
        return shown[0].get_attribute("src") if shown else None

    def plays(self, video: WebElement) -> bool:
        """Wait until a video moves on."""
        clock = "return arguments[0].paused ? -1 : arguments[0].currentTime"
        first = self.wait(lambda: self.script(clock, video) + 1) - 1
        return bool(self.wait(lambda: self.script(clock, video) not in (-1, first)))

    def content(self, video: WebElement) -> bytes:
        """Return the file that a video plays."""
        load = """
            const [video, done] = arguments;
            fetch(video.src).then((answer) => answer.blob()).then((blob) => {
              const reader = new FileReader();
              reader.onload = () => done(reader.result);
              reader.readAsDataURL(blob);
            });
        """
        text = self.browser.execute_async_script(load, video)  # type: ignore[no-untyped-call]
        return bytes_of(text)

    def shoot(self, name: str) -> None:
        """Keep a picture of the whole page for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        width, height = self.script(
            "return [innerWidth, Math.min(3000, document.documentElement.scrollHeight)]"
        )
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.browser.save_screenshot(str(SCREENSHOTS / f"{name}.png"))
        self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
