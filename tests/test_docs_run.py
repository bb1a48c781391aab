"""Code blocks of the guide run from top to bottom, in a folder with the files that they name.

Each page has its own folder. Photographs are small and videos short; what is not run is listed with
the reason, and still parsed by test_docs.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cinnema.cli.main import main
from cinnema.media.videos import write_video
from cinnema.models.files import save_model
from cinnema.synthesis import pipeline
from hub_server import Hub, Repository
from small_nature import nature_model

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

TRAINING = "trains for minutes to days; tests/cli/test_train*.py run it on tiny clips"
MEASURING = "measures for minutes to hours; tests/cli and a notebook run it on a few clips"
NOT_RUN = {
    # What a command or block begins with, after the page's name.
    r"gallery/README\.md python ": "renders for minutes",
    r"results\.md ": "the numbers of that page, which took hours",
    r"guide/app\.md ": "serves a page until it is ended; tests/app/test_browser.py visits it",
    r"guide/compare\.md ": "asks a person; tests/cli/test_compare.py answers",
    r"guide/(data|evaluate|train)\.md (#!.*\n.*)?torchrun ": "needs several machines or processes",
    r"guide/data\.md cinnema data prepare (bair|landscape|iper|dtdb|folder) SRC": "needs the data",
    r"guide/data\.md cinnema data simulate (push|walk)": "seconds for each clip; "
    "tests/simulators/test_simulators.py simulates fewer",
    r"guide/evaluate\.md cinnema (evaluate|validate|backbones)": MEASURING,
    r"guide/finetune\.md ": TRAINING,
    r"guide/paper-model\.md cinnema": "needs the published checkpoints, or trains for days",
    r"guide/robot-and-person\.md cinnema (data|train)": TRAINING,
    r"guide/robot-and-person\.md from pathlib": "needs a simulated clip of `robot`",
    r"guide/task-metrics\.md ": MEASURING,
    r"guide/train\.md ": TRAINING,
}
SMALLER = {
    "-n 20": "-n 2",
    "--num-frames 120": "--num-frames 20",
    "--num-frames 48": "--num-frames 4",
    "--num-frames 24": "--num-frames 2",
    "--seconds 6": "--seconds 0.5",
    "--size 640x360": "--size 64x36",
}


def name_of(page: Path) -> str:
    return str(page.relative_to(DOCS))


def pieces(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and text of each command and each block of Python, in their order."""
    text = page.read_text("utf-8")
    for language, block in re.findall(r"^```(sh|bash|python)\n(.*?)^```$", text, re.M | re.S):
        if language == "sh":
            for line in block.replace("\\\n", " ").splitlines():
                yield "sh", line.partition(" > ")[0]
        else:
            yield language, block


def reason(page: Path, text: str) -> str | None:
    found = [why for start, why in NOT_RUN.items() if re.match(start, f"{name_of(page)} {text}")]
    return found[0] if found else None


PAGES = [page for page in sorted(DOCS.rglob("*.md")) if list(pieces(page))]
RUN = [page for page in PAGES if not all(reason(page, text) for _, text in pieces(page))]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the guide names, in which videos last a tenth of a second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "NATURAL", replace(pipeline.NATURAL, seconds=0.1))
    generator = np.random.default_rng(0)
    for name, (width, height) in {
        "photo.jpg": (96, 64),
        "other.jpg": (80, 64),
        "holiday/beach.jpg": (64, 64),
        "start.png": (64, 64),
        "somebody.png": (64, 64),
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pixels = generator.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    Image.new("L", (96, 64), 255).save(tmp_path / "mask.png")
    (tmp_path / "clips").mkdir()
    picture = generator.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    drift = np.stack([np.roll(picture, t, axis=1) for t in range(80)])
    write_video(tmp_path / "clips/sky.mp4", drift, fps=8)
    return tmp_path


@pytest.fixture
def files_of(place: Path, request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Add what single pages need beside."""

    def add(page: Path) -> None:
        if page.stem == "steer":  # its arrows are on a larger photograph
            Image.new("RGB", (1000, 700), (90, 160, 240)).save(place / "photo.jpg")
        if page.stem == "hub":
            hub: Hub = request.getfixturevalue("hub")
            save_model(place / "my-sky.safetensors", nature_model(by_colour=False))
            (place / "my-sky.md").write_text("# My sky\n", "utf-8")
            content = (place / "my-sky.safetensors").read_bytes()
            repository = hub.repositories["someone/my-sky"] = Repository(private=False)
            repository.refs["v1"] = repository.commit({"model.safetensors": content})

    return add


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_code_of_a_page_runs_from_top_to_bottom(
    page: Path, files_of: Callable[[Path], None]
) -> None:
    files_of(page)
    names: dict[str, Any] = {}
    for language, text in pieces(page):
        if reason(page, text):
            continue
        if language == "python":
            exec(compile(text, name_of(page), "exec"), names)
            continue
        for whole, small in SMALLER.items():
            text = text.replace(whole, small)  # noqa: PLW2901
        program, *arguments = shlex.split(text)
        assert program == "cinnema", text
        assert main(arguments) == 0, text


def test_every_reason_is_one_of_some_code() -> None:
    shown = [f"{name_of(page)} {text}" for page in PAGES for _, text in pieces(page)]
    for start in NOT_RUN:
        assert any(re.match(start, text) for text in shown), start
    assert len(RUN) >= 9
