"""The player and the page in Firefox: whether they work, and how near frames are to the renderer's.

Debian has no geckodriver, so Firefox is driven by WebDriver BiDi, which it speaks itself. Its WebGL
needs a screen, which may be a virtual one; drawn on the processor it is slow:

    apt-get install firefox-esr libavcodec59 xvfb
    xvfb-run -a python benchmarks/firefox.py --screenshots build/screenshots
"""

import argparse
import base64
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from websocket import WebSocket, create_connection

from cinnema.app.limits import Limits
from cinnema.app.server import serving
from cinnema.cli.demo import example_folder
from cinnema.synthesis.pipeline import Pipeline

Json: TypeAlias = Any  # what JSON holds

PATIENCE = 300.0
"""Seconds that a step may take."""

# Draws on the processor, plays without being asked, and calls nobody.
_PREFERENCES = {
    "webgl.force-enabled": True,
    "webgl.forbid-software": False,
    "media.autoplay.default": 0,
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}


class Firefox:
    """One tab of a Firefox.

    Args:
        connection: To the browser.
    """

    def __init__(self, connection: WebSocket) -> None:
        self._connection, self._count = connection, 0
        self.ask("session.new", capabilities={})
        contexts = self.ask("browsingContext.getTree")["contexts"]
        self._tab = contexts[0]["context"]

    def ask(self, method: str, **params: Json) -> dict[str, Json]:
        """Send a command and return its result."""
        self._count += 1
        self._connection.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while True:
            answer = json.loads(self._connection.recv())
            if answer.get("id") == self._count:
                assert answer["type"] == "success", answer
                return dict(answer["result"])

    def open(self, url: str) -> None:
        """Open an address and wait for its scripts."""
        self.ask("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def resize(self, width: int, height: int) -> None:
        """Give the page another size."""
        size = {"width": width, "height": height}
        self.ask("browsingContext.setViewport", context=self._tab, viewport=size)

    def run(self, script: str, *values: Json) -> Json:
        """Return the JSON value of a function's body, which may be a promise."""
        given = {"type": "string", "value": json.dumps(values)}
        inner = f"(async (...values) => {{{script}}})(...JSON.parse(given))"
        answer = self.ask(
            "script.callFunction",
            functionDeclaration=f"async (given) => JSON.stringify(await {inner})",
            awaitPromise=True,
            target={"context": self._tab},
            arguments=[given],
        )
        assert answer["type"] == "success", answer
        text = answer["result"].get("value")
        return None if text is None else json.loads(text)

    def wait(self, script: str, *values: Json) -> Json:
        """Return what a script returns as soon as that is true."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := self.run(script, *values):
                return found
            time.sleep(0.05)
        raise AssertionError(f"nothing came of {script}")

    def give_file(self, selector: str, path: Path) -> None:
        """Choose a file in a page's place for files."""
        found = self.ask(
            "browsingContext.locateNodes",
            context=self._tab,
            locator={"type": "css", "value": selector},
        )
        element = {"sharedId": found["nodes"][0]["sharedId"]}
        self.ask("input.setFiles", context=self._tab, element=element, files=[str(path)])

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Drag the pointer between two places of the page as it is shown."""
        steps: list[dict[str, Any]] = [
            {"type": "pointerMove", "x": start[0], "y": start[1]},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "x": end[0], "y": end[1], "duration": 50},
            {"type": "pointerUp", "button": 0},
        ]
        pointer = {"type": "pointer", "id": "mouse", "actions": steps}
        self.ask("input.performActions", context=self._tab, actions=[pointer])

    def shoot(self, path: Path) -> None:
        """Save a picture of the whole page."""
        data = self.ask("browsingContext.captureScreenshot", context=self._tab, origin="document")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data["data"]))


@contextmanager
def started() -> Iterator[Firefox]:
    """Start a Firefox with an empty profile, and end it."""
    program = which("firefox-esr") or which("firefox")
    if program is None:
        sys.exit("no Firefox: apt-get install firefox-esr xvfb")
    with TemporaryDirectory() as profile:
        lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in _PREFERENCES.items()]
        Path(profile, "user.js").write_text("\n".join(lines), "utf-8")
        switches = ["--no-remote", "--profile", profile, "--remote-debugging-port=0"]
        log = Path(profile, "log")
        with (
            log.open("w") as told,
            subprocess.Popen([program, *switches], stdout=told, stderr=told) as process,
        ):
            try:
                url = f"{_address(log)}/session"
                connection = create_connection(url, timeout=PATIENCE, suppress_origin=True)
                yield Firefox(connection)
                connection.close()
            finally:
                process.terminate()


def _address(log: Path) -> str:
    """Wait until Firefox says where it listens."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        text = log.read_text("utf-8", errors="replace")
        if found := re.search(r"BiDi listening on (ws://\S+)", text):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"Firefox does not listen: {text}")


def main() -> int:
    """Check the player, then the page, and print what was found."""
    parser = argparse.ArgumentParser(description="Try the player and the page in Firefox.")
    parser.add_argument("--screenshots", type=Path, default=Path("build/screenshots"))
    folder = parser.parse_args().screenshots
    pipe = Pipeline.from_pretrained("landscape")
    with started() as firefox, TemporaryDirectory() as place:
        print(firefox.run("return navigator.userAgent"))
        firefox.resize(1280, 1000)
        check_player(firefox, pipe, Path(place))
        firefox.shoot(folder / "firefox-player.png")
        check_page(firefox, pipe)
        firefox.shoot(folder / "firefox-page.png")
    return 0


def check_player(firefox: Firefox, pipe: Pipeline, place: Path) -> None:
    """Compare frames of a page that plays a future with those of the renderer."""
    photo = sorted(example_folder().glob("*.jpg"))[-1]
    options = {"size": (1280, 854), "seconds": 2, "fps": 3, "loop": "seamless"}
    (video,) = pipe(photo, num_samples=1, **options)
    firefox.open(video.save(place / "player.html").as_uri())
    state = firefox.wait("return document.body.dataset.state")
    print(f"player  {state}: {firefox.run('return document.body.innerText')!r}")
    for index in (0, 3) if state == "playing" else ():
        seconds = (index + 1) / video.fps
        uri = firefox.run(
            "const {player} = cinnema; cinnema.face.playing = false; player.choose(0);"
            "player.draw(values[0]); return player.canvas.toDataURL('image/png')",
            seconds,
        )
        shown = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
        error = np.square(np.array(shown).astype(np.float64) - video.frames[index]).mean()
        print(f"player  {seconds:.1f} s: {10 * np.log10(255**2 / error):.1f} dB to the renderer")


def check_page(firefox: Firefox, pipe: Pipeline) -> None:
    """Drop a picture, wait for its futures, and drag an arrow."""
    with serving(pipe, limits=Limits()) as page:
        firefox.open(page.url)
        firefox.wait("return !!document.querySelector('#tab0')")
        start = time.monotonic()
        firefox.wait("return !!document.querySelector('#picture input[type=file]')")
        firefox.give_file("#picture input[type=file]", sorted(example_folder().glob("*.jpg"))[-1])
        playing = (
            "const shown = document.querySelector(`#${values[0]} video`);"
            "return !!shown && shown.readyState > 1 && !shown.paused && shown.currentTime > 0"
        )
        for tile in range(4):
            firefox.wait(playing, f"tile{tile}")
            print(f"page    future {tile + 1} plays after {time.monotonic() - start:.1f} s")
        firefox.run("document.querySelector('#tab1').click()")
        box = firefox.run(
            "const stage = document.querySelector('#editor [data-part=stage]');"
            "stage.scrollIntoView({block: 'center'}); const box = stage.getBoundingClientRect();"
            "return [box.x, box.y, box.width, box.height]"
        )
        x, y, width, height = box
        start = time.monotonic()
        firefox.drag(
            (round(x + 0.2 * width), round(y + 0.2 * height)),
            (round(x + 0.4 * width), round(y + 0.2 * height)),
        )
        firefox.wait(playing, "steered")
        print(f"page    the steered video plays after {time.monotonic() - start:.1f} s")
        print(f"page    {firefox.run('return document.querySelector(`#status`).innerText')!r}")


if __name__ == "__main__":
    sys.exit(main())
