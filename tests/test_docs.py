"""What README and the pages of docs show works: commands, Python, links, anchors."""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cinnema.cli.main import COMMANDS, main
from cinnema.media.videos import write_video

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FOLDERS = [ROOT / "docs", ROOT / "src", ROOT / "examples"]
PAGES = [README, *sorted(page for folder in FOLDERS for page in folder.rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def shell_lines(page: Path) -> list[str]:
    joined = "".join(blocks(page, "sh")).replace("\\\n", " ")
    return [line.partition(" > ")[0] for line in joined.splitlines()]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.fixture
def only_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every command return 0 as soon as its options and a file of fields are parsed."""
    monkeypatch.chdir(tmp_path)
    for name in ("overrides.json", "discriminators.json"):
        (tmp_path / name).write_text('{"motion": {"clips": 2000}}', encoding="utf-8")
    for path in COMMANDS.values():
        module, _, kind = path.partition(".")
        found = getattr(import_module(f"cinnema.cli.{module}"), kind)
        monkeypatch.setattr(found, "run", lambda _: 0)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that README's commands name."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    for name in ("photo.jpg", "other.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "clips").mkdir()
    drift = np.stack([np.roll(pixels, t, axis=1) for t in range(20)])
    write_video(tmp_path / "clips/sky.mp4", drift, fps=8)
    return tmp_path


def test_readme_begins_with_make_demo_and_make_test_and_is_short() -> None:
    assert shell_lines(README)[:2] == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test"} <= set(re.findall(r"^(\w+):", makefile, flags=re.MULTILINE))
    assert len(README.read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.usefixtures("place")
def test_every_command_of_readme_runs() -> None:
    for line in shell_lines(README)[2:]:
        program, *arguments = shlex.split(line)
        assert program == "cinnema", line
        assert main(arguments) == 0, line


def test_python_of_readme_runs_from_top_to_bottom(place: Path) -> None:
    names: dict[str, Any] = {}
    for block in blocks(README, "python"):
        exec(compile(block, "README.md", "exec"), names)
    assert (place / "future.mp4").exists()
    assert names["videos"][2].seed == 0


@pytest.mark.usefixtures("only_parsed")
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_has_the_options_it_is_shown_with(page: Path) -> None:
    for line in shell_lines(page):
        words = shlex.split(line)
        if words[0] == "torchrun":
            words = ["cinnema", *words[words.index("-m") + 2 :]]
        if words[0] == "cinnema":
            assert main(words[1:]) == 0, line
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file(), line
        else:
            assert words[0] in ("make", "pip"), line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_import_that_is_shown_exists(page: Path) -> None:
    for block in blocks(page, "python"):
        imports = [n for n in ast.parse(block).body if isinstance(n, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, type_ignores=[]), name_of(page), "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_and_module_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`(?:python )?((?:src|tests|benchmarks|docs)/[\w./-]+\.\w+)", text):
        assert (ROOT / path).exists(), path
    for dotted in re.findall(r"`(cinnema(?:\.\w+)+)`", text):
        module, _, attribute = dotted.rpartition(".")
        try:
            import_module(dotted)
        except ModuleNotFoundError:
            assert hasattr(import_module(module), attribute), dotted
