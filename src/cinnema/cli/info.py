"""`cinnema info`: describes a weights file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from cinnema.cli.console import DONE
from cinnema.core.bundled import find_weights
from cinnema.core.files import check_input_file

if TYPE_CHECKING:
    from rich.tree import Tree

    from cinnema.models.files import LoadedModel


@dataclass(frozen=True, kw_only=True)
class Info:
    """Show the parts of a weights file, their sizes, its configuration and its model card."""

    weights: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE")] = "landscape"
    """Name of bundled weights (landscape, robot, person), a weights file, or a hub id."""

    def run(self) -> int:
        """Print the description."""
        path = find_weights(self.weights)
        check_input_file(path, kind="a weights file")
        from rich.console import Console

        from cinnema.models.files import load_model

        loaded = load_model(path)
        console = Console(highlight=False, soft_wrap=True)
        for name, value in _facts(loaded):
            console.print(f"{name:<12}{value}", markup=False)
        console.print(_tree("configuration", _config(loaded)))
        card = card_summary(loaded.path)
        console.print(f"card        {card or 'none beside the file'}", markup=False)
        return DONE


def card_summary(weights: Path | None) -> str | None:
    """Return the first paragraph of a model card.

    Args:
        weights: The weights file; its card is beside it, with the same name and the suffix .md.

    Returns:
        The first paragraph that is not a heading, as one line; None if there is no card.
    """
    if weights is None or not weights.with_suffix(".md").is_file():
        return None
    text = weights.with_suffix(".md").read_text(encoding="utf-8")
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return next((part for part in paragraphs if part and part[0] not in "#|<-"), None)


def _facts(loaded: "LoadedModel") -> Iterator[tuple[str, str]]:
    model = loaded.model
    counts = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in model.named_children()
    }
    parts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in counts.items())
    yield "name", model.name
    if loaded.path is not None:
        yield "file", f"{loaded.path} ({loaded.path.stat().st_size / 1e6:.1f} MB)"
    yield "sha256", loaded.sha256
    yield "control", "none" if model.control is None else model.control.describe()
    yield "parameters", f"{sum(counts.values()) / 1e6:.2f} M ({parts})"


def _config(loaded: "LoadedModel") -> dict[str, Any]:
    from cinnema.core.config import config_to_dict

    return config_to_dict(loaded.model.config)


def _tree(name: str, values: dict[str, Any]) -> "Tree":
    from rich.tree import Tree

    tree = Tree(name)
    for key, value in values.items():
        tree.add(_tree(key, value) if isinstance(value, dict) else f"{key} = {value}")
    return tree
