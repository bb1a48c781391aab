"""A headless browser, which draws on the processor."""

from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which

import pytest
from selenium import webdriver

PATIENCE = 110.0
"""Seconds that a step may take in a browser, on a machine that does much else."""

Browsers = Callable[..., webdriver.Chrome]


@pytest.fixture(scope="session")
def browsers() -> Iterator[Browsers]:
    """Return a browser with the given switches; it is opened once, and closed in the end."""
    opened: dict[tuple[str, ...], webdriver.Chrome] = {}

    def browser(*switches: str) -> webdriver.Chrome:
        if switches not in opened:
            opened[switches] = _open(switches)
        return opened[switches]

    yield browser
    for one in opened.values():
        one.quit()


def _open(switches: tuple[str, ...]) -> webdriver.Chrome:
    chromium, driver = which("chromium"), which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    software = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
    for switch in ("--headless=new", "--no-sandbox", "--window-size=1000,800", *software):
        options.add_argument(switch)
    for switch in switches:
        options.add_argument(switch)
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    browser.set_script_timeout(PATIENCE)
    browser.set_page_load_timeout(PATIENCE)
    return browser


def open_file(browser: webdriver.Chrome, path: Path) -> None:
    browser.get(path.absolute().as_uri())
