"""`cinnema licences`: the licences of all that cinnema consists of."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from cinnema.cli.console import DONE
from cinnema.core.bundled import bundled_names, find_weights
from cinnema.core.errors import UserError

_SELF = "cinnema"
_LONGEST = 60
"""Length in characters from which the field License of a package holds a text, not a name."""


@dataclass(frozen=True, kw_only=True)
class Licences:
    """List the licences of cinnema, of every package that it needs, and of its weights.

    Packages are those of this installation, with those of installed extras; what they say of
    themselves is shown. Wheels may contain further libraries, whose licences are in their files.
    """

    def run(self) -> int:
        """Print a table."""
        rows = [("package", "version", "licence"), *_packages()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for name, version, licence in rows:
            print(f"{name:<{widths[0]}}  {version:<{widths[1]}}  {licence}")
        for name in bundled_names():
            print(f"weights {name}: {_licence_of_weights(find_weights(name))}")
        return DONE


def _packages() -> Iterator[tuple[str, str, str]]:
    """Yield name, version and licence of cinnema, and of what it needs, by name."""
    try:
        found = {_SELF: distribution(_SELF)}
    except PackageNotFoundError:
        raise UserError(
            "cinnema runs from its source folder, so it is not known what is installed for it: "
            "install it with pip install --no-deps --editable ."
        ) from None
    waiting = [_SELF]
    while waiting:
        for name in _needs(found[waiting.pop()]):
            if name not in found and (package := _installed(name)) is not None:
                found[name] = package
                waiting.append(name)
    for name, package in sorted(found.items(), key=lambda item: (item[0] != _SELF, item[0])):
        yield name, package.version, licence_of(package)


def _needs(package: Distribution) -> Iterator[str]:
    """Yield the names of the packages that one asks for; of extras, only those of cinnema."""
    for line in package.requires or []:
        name, _, marker = line.partition(";")
        if "extra" not in marker or package.name == _SELF:
            yield re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", name.strip())[0]).lower()


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:  # for another system, or an extra that is not installed
        return None


def licence_of(package: Distribution) -> str:
    """Return what a package says of its licence: its expression, else name and classifiers.

    Args:
        package: An installed package.

    Returns:
        The licences that it names, or "not stated".
    """
    about = package.metadata
    for expression in about.get_all("License-Expression") or []:
        return str(expression)
    stated = " ".join(about.get_all("License") or [])
    is_name = "\n" not in stated and len(stated) < _LONGEST
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or []
        if line.startswith("License :: ") and not line.endswith(":: OSI Approved")
    ]
    names = [stated.strip() if is_name else "", *classifiers]
    return "; ".join(dict.fromkeys(name for name in names if name)) or "not stated"


def _licence_of_weights(path: Path) -> str:
    """Return the section "Licence" of the weights' model card, as one line."""
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    section = card.partition("\n## Licence\n")[2].partition("\n## ")[0]
    return " ".join(section.split()) or "not stated"
