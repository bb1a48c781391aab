"""The page: its parts, and which handler each of them calls. Everything of gradio is here."""

import html
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, no_type_check

import gradio as gr
from PIL import Image

from cinnema.app.desk import Desk, Handler
from cinnema.app.sessions import NUM_FUTURES, Cancelled, Sessions
from cinnema.app.studio import NUM_STEPS, Studio
from cinnema.core.errors import UserError
from cinnema.media.formats import pictures_in
from cinnema.media.pictures import read_photograph, resize

_WEB = files("cinnema.app") / "web"
_EXAMPLES = {"picos_de_europa": "Picos de Europa"}
_ENDS = [f"Future {i + 1}" for i in range(NUM_FUTURES)]
_QUEUE = "compute"  # one computation at a time, which uses all cores
_SIZES = {"as the picture": 16_384.0, "1280 pixels": 1280.0, "640 pixels": 640.0}
_CHOOSE = (
    "(step) => document.querySelector('#between .cinnema-player').parentElement"
    ".dispatchEvent(new CustomEvent('choose', {detail: step}))"
)
_FAILED = "Something went wrong that should not; where the page was started, it is told."
_STATUS = (
    '<div class="cinnema-status ${value.startsWith("<p data-wrong") ? "wrong" : ""}" '
    'role="status" aria-live="polite">${value}</div>'
)


def path_and_name(payload: Any) -> tuple[str, str] | None:  # noqa: ANN401 - gradio's
    """Return the path of an uploaded file, as it came, and the name that its owner gave it."""
    return None if payload is None else (payload.path, payload.orig_name or "file")


def web(name: str) -> str:
    """Return one of the page's own scripts, styles or templates."""
    return (_WEB / name).read_text("utf-8")


def say(text: str, *, wrong: bool = False) -> str:
    """Return a line of the status as HTML."""
    return f"<p{' data-wrong' if wrong else ''}>{html.escape(text)}</p>"


class Page:
    """The page of one studio.

    Args:
        studio: What computes.
        sessions: The visitors.
    """

    def __init__(self, studio: Studio, sessions: Sessions) -> None:
        self._studio, self._sessions = studio, sessions
        self._desk = Desk(studio)
        self._parts: dict[str, Any] = {}

    def build(self) -> gr.Blocks:
        """Return the page, whose computations wait in one queue."""
        page: gr.Blocks
        with gr.Blocks(title="cinnema", analytics_enabled=False, delete_cache=(600, 3600)) as page:
            gr.Markdown(
                "# cinnema\nDrop a picture and watch its futures. Everything is computed on "
                f"this machine, with the weights `{self._studio.pipeline.name}`."
            )
            with gr.Row(elem_id="layout"):
                with gr.Column(elem_id="input", min_width=0):
                    self._input()
                with gr.Column(elem_id="main", min_width=0):
                    self._panels()
                    self._downloads()
                with gr.Column(elem_id="settings", min_width=0):
                    self._settings()
            self._wire()
            page.unload(self._leave)
        limits = self._studio.limits
        page.queue(max_size=limits.max_queue, default_concurrency_limit=1, api_open=False)
        return page

    def _add(
        self,
        name: str,
        kind: type,
        *values: Any,  # noqa: ANN401 - of gradio
        **options: Any,  # noqa: ANN401 - of gradio
    ) -> None:
        """Add a component, whose element has the part's name as its id."""
        self._parts[name] = kind(*values, elem_id=name.replace("_", "-"), **options)

    def _input(self) -> None:
        limits = self._studio.limits
        room = f"up to {limits.max_megabytes:g} MB and {limits.max_megapixels:g} megapixels"
        self._add(
            "picture",
            gr.Image,
            label="Picture",
            sources=["upload", "clipboard", "webcam"],
            height=260,
            buttons=[],
            placeholder=f"Drop a picture here, paste one, or click\n{room}",
            alt_text="The picture that is animated",
        )
        gr.HTML("", js_on_load=web("paste.js"), visible="hidden")
        if self._studio.is_nature:
            self._examples()
        line = say("Drop a picture to begin.")
        self._add("status", gr.HTML, line, html_template=_STATUS, js_on_load=None)
        self._add("stop", gr.Button, "Stop", size="sm")

    def _examples(self) -> None:
        with gr.Row(elem_id="examples", equal_height=True):
            for path in pictures_in(Path(str(files("cinnema") / "examples"))):
                name = _EXAMPLES.get(path.stem, path.stem.replace("_", " ").capitalize())
                # Not the file itself, which goes away with a visitor who drops the same.
                icon = self._sessions.folder / f"{path.stem}.png"
                Image.fromarray(resize(read_photograph(path), (32, 48))).save(icon)
                example = gr.Button(name, icon=icon, size="sm", min_width=90)
                example.click(
                    partial(str, path),
                    None,
                    self._parts["picture"],
                    queue=False,
                    api_visibility="private",
                    show_progress="hidden",
                )

    def _settings(self) -> None:
        most = self._studio.limits.max_seconds
        length = {"value": min(4.0, most), "step": 0.5, "label": "Length in seconds"}
        self._add("seconds", gr.Slider, 0.5, most, **length)
        label = "Speed, a factor: 1 as in nature"
        self._add("speed", gr.Slider, 0, 3, value=1, step=0.1, label=label)
        label = "Calm (0, the most likely motion) to wild (1.5); 1 as in nature"
        self._add("temperature", gr.Slider, 0, 1.5, value=1, step=0.1, label=label)
        self._add("loop", gr.Checkbox, value=True, label="Loop without a seam")

    def _panels(self) -> None:
        panels = {"Futures": self._futures, "Steer": self._steer}
        if not (self._studio.is_nature or self._studio.has_end_point):
            del panels["Steer"]
        panels |= {"Motion of a video": self._video, "Between": self._between}
        names = list(panels)
        # Gradio's own tabs lose values that are sent before a tab is opened.
        gr.HTML(names, js_on_load=web("tabs.js"), html_template="<div></div>", elem_id="tabs")
        for number, fill in enumerate(panels.values()):
            with gr.Column(elem_id=f"panel{number}"):
                fill()

    def _futures(self) -> None:
        for first in range(0, NUM_FUTURES, 2):
            with gr.Row():
                for i in (first, first + 1):
                    with gr.Column(min_width=260):
                        self._tile(i)
        label = "Roll the dice: new futures for those not kept"
        self._add("roll", gr.Button, label, variant="primary")
        label = "Drop a saved JSON or motion file to see its future again"
        endings = [".json", ".safetensors"]
        self._add("saved", gr.File, label=label, file_types=endings, height=140)

    def _tile(self, i: int) -> None:
        self._add_player(f"tile{i}")
        with gr.Row(equal_height=True):
            self._add(f"pin{i}", gr.Checkbox, label=f"Keep future {i + 1}", min_width=120)
            self._add(f"save_tile{i}", gr.Button, f"Save future {i + 1}", size="sm", min_width=120)

    def _steer(self) -> None:
        gr.Markdown(
            "An arrow shows how far its point gets in 4 seconds. All further futures follow what "
            "is drawn here."
            if self._studio.is_nature
            else "The hand ends 5 cm above the place that you click."
        )
        page = {"html_template": web("editor.html"), "js_on_load": web("editor.js")}
        self._add("editor", gr.HTML, None, apply_default_css=False, **page)
        self._result("steered")

    def _video(self) -> None:
        limits = self._studio.limits
        label = f"Drop a video, up to {limits.max_megabytes:g} MB"
        endings = ["video", ".gif", ".webp"]
        self._add("video", gr.File, label=label, file_types=endings, height=140)
        if self._studio.is_nature:
            label = "Or take an example: a storm that this model animated"
            self._add("example_video", gr.Button, label, size="sm")
        label = "Take its motion from this second on"
        self._add("start", gr.Slider, 0, limits.max_seconds, value=0, step=0.1, label=label)
        label = "Move my picture as the video moves"
        self._add("transfer", gr.Button, label, variant="primary")
        self._result("transferred")
        if self._studio.has_drift:
            self._wind()

    def _wind(self) -> None:
        gr.Markdown("### Turn the wind of the video")
        page = {"html_template": "<div></div>", "js_on_load": web("dial.js")}
        self._add("direction", gr.HTML, 0, apply_default_css=False, **page)
        label = "Its speed, a factor on the typical one"
        self._add("wind", gr.Slider, 0, 2.5, value=1, step=0.1, label=label)
        self._add("edit", gr.Button, "Turn the wind", variant="primary")
        self._result("edited")

    def _between(self) -> None:
        with gr.Row():
            self._add("first", gr.Dropdown, _ENDS, value=_ENDS[0], label="From")
            self._add("last", gr.Dropdown, _ENDS, value=_ENDS[1], label="To")
        self._add("walk", gr.Button, "Make the steps between", variant="primary")
        label = f"From the first (0) to the last ({NUM_STEPS - 1})"
        self._add("share", gr.Slider, 0, NUM_STEPS - 1, value=0, step=1, label=label)
        self._result("between")

    def _result(self, name: str) -> None:
        self._add_player(name)
        self._add(f"save_{name}", gr.Button, "Save this video", size="sm")

    def _add_player(self, name: str) -> None:
        page = {"html_template": "<div></div>", "js_on_load": web("player.js")}
        self._add(name, gr.HTML, None, apply_default_css=False, **page)

    def _downloads(self) -> None:
        with gr.Row():
            wide = {"min_width": 300}  # one below the other on a phone
            formats = list(self._studio.formats)
            self._add("format", gr.Radio, formats, value="mp4", label="Save as", **wide)
            sizes = list(_SIZES.items())
            self._add("side", gr.Dropdown, sizes, value=sizes[0][1], label="Longest side", **wide)
        label = "Saved files: the video, its motion, and the JSON"
        many = {"interactive": False, "file_count": "multiple", "height": 220}
        self._add("files", gr.File, label=label, **many)

    def _wire(self) -> None:
        desk, parts = self._desk, self._parts
        parts.setdefault("editor", gr.State(None))
        wish = ["editor", "seconds", "speed", "temperature", "loop"]
        pins = [f"pin{i}" for i in range(NUM_FUTURES)]
        tiles = [f"tile{i}" for i in range(NUM_FUTURES)]
        drawn = [*tiles, *pins]
        everything = [*drawn, "steered", "transferred", "between", "editor"]
        self._on("picture", "change", desk.drop_picture, ["picture", *wish], everything, api="draw")
        self._on("roll", "click", desk.roll, [*pins, *wish], drawn)
        for name in ("seconds", "speed", "temperature"):
            self._on(name, "release", desk.redraw, [*pins, *wish], drawn)
        self._on("loop", "input", desk.redraw, [*pins, *wish], drawn)
        self._on("saved", "upload", desk.restore, ["saved"], ["tile0", "pin0", *wish])
        if "steered" in parts:
            self._on("editor", "edited", desk.steer, wish, ["steered"], api="steer")
        self._on("video", "change", desk.drop_video, ["video"], [])
        self._on("transfer", "click", desk.transfer, ["start", *wish], ["transferred"])
        if "edit" in parts:
            dial = ["start", "direction", "wind", *wish]
            self._on("edit", "click", desk.edit, dial, ["edited"])
            self._on("direction", "turned", desk.edit, dial, ["edited"])
        if "example_video" in parts:
            self._on("example_video", "click", desk.example_video, [], [])
        self._on("walk", "click", desk.between, ["first", "last", *wish], ["between"])
        parts["share"].input(None, parts["share"], None, js=_CHOOSE)
        for name in ("picture", "video", "saved"):  # the library's own readers do the rest
            parts[name].preprocess = path_and_name
        self._wire_saving()
        stop = parts["stop"].click
        # The computation says that it stopped: another word from here might come after that.
        stop(self._stop, queue=False, api_visibility="private", show_progress="hidden")

    def _wire_saving(self) -> None:
        for name in [
            part.removeprefix("save_") for part in self._parts if part.startswith("save_")
        ]:
            more = ["share"] if name == "between" else []
            save = partial(self._desk.save, name)
            self._on(f"save_{name}", "click", save, ["format", "side", *more], ["files"])

    def _on(
        self,
        name: str,
        event: str,
        handler: Handler,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        api: str | None = None,
    ) -> None:
        """Let an event of a part stop what is computed, and call a handler."""
        parts = self._parts
        listen = getattr(parts[name], event)
        stopped = listen(
            self._interrupt,
            queue=False,
            trigger_mode="multiple",
            api_visibility="private",
            show_progress="hidden",
        )
        stopped.then(
            self._answer(handler),
            [parts[part] for part in inputs],
            [parts[part] for part in [*outputs, "status"] if part in parts],
            show_progress_on=parts["status"],
            trigger_mode="always_last",  # what was asked meanwhile is done once the first has ended
            concurrency_limit=1,
            concurrency_id=_QUEUE,
            api_name=api,
            api_visibility="private" if api is None else "public",
        )

    @no_type_check  # gradio does not take a function that a run-time checker wraps for a generator
    def _answer(self, handler: Handler) -> Callable[..., Iterator[Any]]:
        parts, sessions = self._parts, self._sessions

        def answer(
            request: gr.Request,
            progress: gr.Progress = gr.Progress(),  # noqa: B008 - how gradio wants it
            *values: Any,  # noqa: ANN401 - of gradio
        ) -> Iterator[dict[Any, Any]]:
            session = sessions.get(request.session_hash or "")
            stop = session.begin()

            def report(text: str, done: int, total: int) -> None:
                if stop.is_set():
                    raise Cancelled
                progress((done, total), desc=text, unit="frames")

            try:
                for update in handler(session, *values, progress=report):
                    yield {parts[name]: _shown(name, value) for name, value in update.items()
                           if name in parts}  # fmt: skip
            except UserError as error:
                yield {parts["status"]: say(str(error), wrong=True)}
            except Cancelled:
                yield {parts["status"]: say("Stopped.")}
            except Exception:
                yield {parts["status"]: say(_FAILED, wrong=True)}
                raise

        return answer

    def _interrupt(self, request: gr.Request) -> None:
        self._sessions.get(request.session_hash or "").interrupt(halt=False)

    def _stop(self, request: gr.Request) -> None:
        self._sessions.get(request.session_hash or "").interrupt(halt=True)

    def _leave(self, request: gr.Request) -> None:
        self._sessions.close(request.session_hash or "")


def _shown(name: str, value: Any) -> Any:  # noqa: ANN401 - of gradio
    return say(value) if name == "status" else value
