"""JSON and YAML of strangers."""

import json

import pytest

from cinnema.core.documents import parse_json, parse_yaml

LAUGHS = "\n".join([
    "a0: &a0 [x, x]",
    *(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(12)),
])  # fmt: skip


def test_what_is_ordinary_is_read() -> None:
    values = {"a": [1, -2.5, 1e300, 2**100, "x", None, True], "b": {}}
    assert parse_json(json.dumps(values)) == values
    assert parse_yaml(f"a: [1, -2.5, 1.0e+300, {2**100}, x, null, true]\nb: {{}}") == values
    assert parse_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    "text", ["1e999", "NaN", "-Infinity", "9" * 301, "9" * 5000, "[" * 100_000, "{", "", b"\xff"]
)
def test_json_with_numbers_or_a_depth_that_nothing_can_take_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_json(f'{{"a": {text}}}' if text in ("1e999", "NaN") else text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "more than 100,000 values"),
        ("a: &a [*a]", "more than 100,000 values"),
        ("a: &a {x: 1}\nb: {<<: [*a, *a]}", "merge"),
        ("[" * 1000, "nested too deeply"),
        ("[" * 1_000_000, "more than 200,000"),
        ("a: 2020-13-45", "month"),
        ("a: " + "9" * 5000, "digits"),
        ("a: !!int ''", "."),
        ("a: !!timestamp soon", "."),
        ("a: !!bool perhaps", "."),
        ("a: !!python/object/apply:os.getcwd []", "python"),
        ("a: [", "."),
    ],
)
def test_yaml_that_is_damaged_or_grows_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
