"""The notebooks in examples run, and show what is stored in them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from execute import execute

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kernels use one core, as the tests do."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def shown(notebook: Any) -> Iterator[tuple[str, str]]:
    """Yield what the cells show: kind and text, whose numbers may differ between machines."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type != "stream":
                text = output.data["text/plain"]
                yield " ".join(sorted(output.data)), without_numbers(text)
            elif output.name == "stdout":
                yield "stdout", without_numbers(output.text)


def without_numbers(text: str) -> str:
    without = re.sub(r"weights [0-9a-f]{8}", "weights #", text)
    return " ".join(re.sub(r"[-+]?\d[\d.]*(e-?\d+)?", "#", without).split())


def test_there_are_three_notebooks_that_are_small_and_name_no_machine() -> None:
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        assert len(text) < 300_000, path.name
        assert not re.search(r"/tmp|/home|/root|site-packages", text), path.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_stored(path: Path) -> None:
    stored = nbformat.read(path, as_version=4)
    nbformat.validate(stored)
    assert all(cell.execution_count for cell in stored.cells if cell.cell_type == "code")
    assert list(shown(execute(path))) == list(shown(stored))
