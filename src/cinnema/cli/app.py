"""`cinnema app`: a page in the browser, on this machine."""

import secrets
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated

from cinnema.app.limits import Limits
from cinnema.cli.console import DONE
from cinnema.cli.options import Device, Weights
from cinnema.cli.ranges import Range
from cinnema.core.bundled import find_weights
from cinnema.core.errors import UserError

_USER = "cinnema"


@dataclass(frozen=True, kw_only=True)
class App:
    """Open a page in the browser: drop a picture, watch its futures, steer them.

    The page is served to this machine alone, at 127.0.0.1, and loads nothing from elsewhere. Files
    of a visitor are removed when the page is closed, and all of them when this command ends
    (Ctrl-C). Needs the extra `app`: pip install 'cinnema[app]'.
    """

    weights: Weights = "landscape"
    """Weights to use: the name of bundled ones (landscape, robot, person) or a file."""
    device: Device = "auto"
    """Device to compute on; auto uses a GPU if available."""
    port: Annotated[int, Range(0, 65_535)] = 0
    """Port of the page; 0 chooses a free one."""
    browser: bool = True
    """Open the page in a browser."""
    public: bool = False
    """Let other machines of this network reach the page, at 0.0.0.0. Whoever knows the password
    can then use this machine to compute videos. The connection is not encrypted."""
    share: bool = False
    """Let the whole internet reach the page, through a tunnel of gradio's makers: uploads and
    videos pass through their server. Whoever knows the address and the password can use it."""
    password: str | None = None
    """Password of the user "cinnema", asked by the page; with --public and --share one is made up
    if none is given."""
    max_megabytes: Annotated[float, Range(0.01, 100_000)] = Limits.max_megabytes
    """Largest file that can be uploaded."""
    max_megapixels: Annotated[float, Range(0.001, 100)] = Limits.max_megapixels
    """Largest picture, and largest frame of a video, that can be uploaded."""
    max_video_megapixels: Annotated[float, Range(0.001, 100)] = Limits.max_video_megapixels
    """Largest frame of a video that is saved, to which larger pictures are scaled down; 1920x1080
    pixels are 2.1."""
    max_seconds: Annotated[float, Range(0.01, 10_000)] = Limits.max_seconds
    """Longest video, and latest start within an uploaded one."""
    max_queue: Annotated[int, Range(1, 1_000_000)] = Limits.max_queue
    """Number of requests that wait; one is computed at a time, further ones are refused."""
    max_sessions: Annotated[int, Range(1, 1_000_000)] = Limits.max_sessions
    """Number of visitors whose files are kept; beyond it those of the longest idle one go."""

    def run(self) -> int:
        """Serve until Ctrl-C."""
        limits = Limits(
            max_megabytes=self.max_megabytes,
            max_megapixels=self.max_megapixels,
            max_video_megapixels=self.max_video_megapixels,
            max_seconds=self.max_seconds,
            max_queue=self.max_queue,
            max_sessions=self.max_sessions,
        )
        weights = find_weights(self.weights)
        if find_spec("gradio") is None:
            raise UserError(
                "the page needs an extra, which is not installed: pip install 'cinnema[app]'"
            )
        password = self.password
        if (self.public or self.share) and not password:
            password = secrets.token_urlsafe(12)
        from cinnema.app.server import serving
        from cinnema.core.devices import choose_device
        from cinnema.synthesis.pipeline import Pipeline

        print("cinnema: loading, a few seconds", file=sys.stderr, flush=True)
        pipeline = Pipeline.from_pretrained(weights, device=choose_device(self.device))
        with serving(
            pipeline,
            limits=limits,
            host="0.0.0.0" if self.public else "127.0.0.1",
            port=self.port or None,
            password=password,
            share=self.share,
            open_browser=self.browser,
        ) as running:
            print(f"Open {running.url} in a browser; Ctrl-C ends.", flush=True)
            if running.shared:
                print(f"From everywhere: {running.shared}", flush=True)
            if password:
                print(f"User {_USER}, password {password}", flush=True)
            with suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)
        return DONE
