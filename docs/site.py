"""How the site is built: pages from outside of docs (README, changelog, cards), and docstrings.

Links are written as the repository needs them, and led to the pages of the site here. A link to
anything else that the site does not hold makes the build fail.
"""

import os
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PLACES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.txt",
    "src/cinnema/weights": "weights",
    "src/cinnema/examples": "photographs",
    "examples": "examples",
    "docs": "",
}
"""Files and folders of the repository, and where the site shows them."""

SHOWN = (".md", ".json", ".txt", ".ipynb")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs."""
    for inside, place in PLACES.items():
        path = ROOT / inside
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if place and (file == path or file.suffix in SHOWN):
                name = str(Path(place, file.relative_to(path))) if path.is_dir() else place
                files.append(File.generated(config, name, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page to the places that the site shows them at."""
    del config, files
    source = Path(page.file.abs_src_path or "")
    here = Path(page.file.src_uri).parent

    def led(link: re.Match[str]) -> str:
        target = os.path.relpath(source.parent / link[1], ROOT)
        for inside, place in PLACES.items():
            if target == inside or target.startswith(f"{inside}/"):
                there = (place + target.removeprefix(inside)).lstrip("/")
                return f"]({os.path.relpath(there, here)}{link[2] or ''})"
        return link[0]

    return re.sub(r"\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)", led, markdown)


class Examples(griffe.Extension):
    """Shows the section "Example:" of a docstring as code; griffe knows its plural only."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:  # noqa: ANN401
        """Rename the section in a docstring that was read."""
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
