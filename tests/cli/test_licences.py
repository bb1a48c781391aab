"""`cinnema licences`: what everything may be used for."""

from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest

from cinnema.cli import licences
from cinnema.cli.licences import licence_of

from .conftest import run_command


def test_every_package_and_all_weights_are_listed_with_a_licence() -> None:
    done = run_command("licences")
    assert done.code == 0, done.err
    listed = {line.split()[0]: line for line in done.out}

    assert {"cinnema", "torch", "pi-heif", "sympy"} <= listed.keys()  # sympy: torch needs it

    assert "LGPLv3" in listed["pi-heif"]
    assert "BSD" in listed["scipy"]
    assert listed["cinnema"].split()[2] == "MIT"
    assert not [line for line in done.out if line.endswith("not stated")]
    assert [line.split()[1] for line in done.out if line.startswith("weights")] == [
        "landscape:",
        "person:",
        "robot:",
    ]


class Package(Distribution):
    """A package with metadata."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read_text(self, _: str) -> str:
        return self._text

    def locate_file(self, path: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("License-Expression: BSD-3-Clause\n", "BSD-3-Clause"),
        ("License: MIT\nClassifier: License :: OSI Approved :: MIT License\n", "MIT; MIT License"),
        (
            f"License: {'x' * 90}\nClassifier: License :: OSI Approved :: BSD License\n",
            "BSD License",
        ),
        ("Name: a\n", "not stated"),
    ],
)
def test_a_licence_is_what_the_package_states(text: str, licence: str) -> None:
    assert licence_of(Package(text)) == licence


def test_without_an_installation_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licences, "_SELF", "cinnema-of-nobody")
    assert run_command("licences").is_mistake("not known what is installed", "pip install")


@pytest.mark.parametrize("card", ["landscape", "person", "robot"])
def test_a_card_states_the_licence_of_its_weights(card: str) -> None:
    path = Path(licences.__file__).parents[1] / "weights" / f"{card}.md"
    assert "\n## Licence\n\nMIT" in path.read_text()
