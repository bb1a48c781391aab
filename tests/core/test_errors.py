"""Errors that the user can correct."""

import doctest

import pytest

from cinnema.core import errors
from cinnema.core.errors import suggestion


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--sede", "did you mean --seed?"),
        ("-seed", "did you mean --seed?"),
        ("seeds", "did you mean --seed?"),
        ("--xyzzy", ""),
    ],
)
def test_the_nearest_word_is_suggested_if_it_is_near(word: str, hint: str) -> None:
    assert suggestion(word, ["--seed", "--speed", "--output"]) == hint


def test_the_examples_run() -> None:
    assert doctest.testmod(errors, optionflags=doctest.ELLIPSIS).failed == 0
