"""Every number that an option takes has a range, which is checked before anything is done."""

import dataclasses
import math
import re
from itertools import combinations
from pathlib import Path
from typing import Annotated, get_type_hints

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cinnema.cli import main
from cinnema.cli.main import COMMANDS
from cinnema.cli.ranges import Range, check_ranges, ranges_of
from cinnema.core.errors import UserError

from .conftest import photograph_at, run_command

KINDS = {name: main._class(name) for name in COMMANDS}
NUMBERS = [(name, option) for name, kind in KINDS.items() for option in ranges_of(kind)]
NEEDED = {
    "data prepare": ["folder", "in", "out"],
    "data simulate": ["sky", "out"],
    "train paper": ["bair", "in", "out"],
    "measure": ["swap", "landscape", "in"],
    "import": ["paper", "in", "out"],
}
TEXTS = st.one_of(
    st.sampled_from(
        ["", "nan", "inf", "-inf", "0", "-0", "1e999", "-1", "9" * 5000, "0x10", "1,2"]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12),
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_number_has_a_range(name: str) -> None:
    hints = get_type_hints(KINDS[name])
    numbers = {
        field.name
        for field in dataclasses.fields(KINDS[name])
        if re.search(r"\b(int|float)\b", str(hints[field.name]))
        and "Literal" not in str(hints[field.name])
    }
    assert numbers == ranges_of(KINDS[name]).keys()


def beyond(limits: Range) -> st.SearchStrategy[float]:
    """Numbers out of a range, of any size, infinite ones and NaN."""
    whole = st.integers(max_value=math.ceil(limits.least) - 1) | st.integers(int(limits.most) + 1)
    return whole | st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e-300])


@given(data=st.data(), number=st.sampled_from(NUMBERS))
@settings(max_examples=60)
def test_a_number_out_of_its_range_is_refused_by_name(
    data: st.DataObject, number: tuple[str, str]
) -> None:
    name, option = number
    limits = ranges_of(KINDS[name])[option]
    value = data.draw(beyond(limits).filter(lambda v: not limits.least <= v <= limits.most))
    text = f"--{option.replace('_', '-')}"
    result = run_command(*name.split(), *NEEDED.get(name, ["x", "y"]), f"{text}={value}")
    assert result.code == 2
    assert len(result.err) == 1
    assert "Traceback" not in result.err[0]


PAIRS = [(name, pair) for name, kind in KINDS.items() for pair in combinations(ranges_of(kind), 2)]
ODD = ["0", "-1", "9" * 400, "nan", "inf", ""]


def is_in(text: str, limits: Range) -> bool:
    try:
        return limits.least <= float(text) <= limits.most
    except (ValueError, OverflowError):
        return False


@given(chosen=st.sampled_from(PAIRS), texts=st.tuples(st.sampled_from(ODD), st.sampled_from(ODD)))
@settings(max_examples=60)
def test_two_odd_numbers_together_are_refused_in_one_line(
    chosen: tuple[str, tuple[str, str]], texts: tuple[str, str]
) -> None:
    name, pair = chosen
    ranges = ranges_of(KINDS[name])
    wrong = [o for o, text in zip(pair, texts, strict=True) if not is_in(text, ranges[o])]
    assume(wrong)
    words = [f"--{o.replace('_', '-')}={text}" for o, text in zip(pair, texts, strict=True)]
    result = run_command(*name.split(), *NEEDED.get(name, ["x", "y"]), *words)
    assert result.code == 2
    assert len(result.err) == 1
    assert "Traceback" not in result.err[0]


@dataclasses.dataclass
class Command:
    """A command with one number."""

    port: Annotated[float, Range(1, 10)]


def test_a_range_holds_its_ends_and_says_what_is_beyond() -> None:
    for value in (1, 5.5, 10):
        check_ranges(Command(value))
    for value, words in ((0.99, "at least 1, got 0.99"), (10.5, "at most 10, got 10.5")):
        with pytest.raises(UserError, match=f"--port must be {words}"):
            check_ranges(Command(value))


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that would load weights says so instead."""

    def stop(*_: object, **__: object) -> None:
        raise UserError("all options are good")

    monkeypatch.setattr("cinnema.synthesis.pipeline.Pipeline.from_pretrained", stop)


@given(
    options=st.dictionaries(
        st.sampled_from([
            "num-samples", "seed", "temperature", "num-frames", "seconds", "fps", "motion-strength",
            "size", "speed", "direction", "end-point", "arrow", "current", "loop", "extension",
            "protocol", "format", "device", "weights", "keep-still", "move", "nu",
        ]),
        TEXTS,
        min_size=1, max_size=3,
    )
)  # fmt: skip
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_for_any_options_is_accepted_or_refused_in_one_line(
    stopped: None, tmp_path_factory: pytest.TempPathFactory, options: dict[str, str]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "ranges"
    photo = folder / "a.png"
    if not photo.exists():
        photograph_at(photo)
    words = [f"--{name}={value}" for name, value in options.items()]
    result = run_command("animate", photo, "-o", folder / "out", *words)
    assert result.code == 2
    errors = [line for line in result.err if line.startswith("cinnema: error: ")]
    assert len(errors) == 1
    assert [path.name for path in Path(folder).iterdir()] == ["a.png"]


@pytest.mark.parametrize("option", ["--size=10000x10000", "--size=8000x8000"])
def test_numbers_that_are_impossible_together_are_refused_before_the_weights_are_loaded(
    stopped: None, tmp_path: Path, option: str
) -> None:
    photo = photograph_at(tmp_path / "a.png")
    options = [option, "--frames", 100, "--format=gif"]  # which holds the whole video in memory
    assert run_command("animate", photo, *options).is_mistake("--size", "GB")
    result = run_command("animate", photo, "--size=640x360", "--frames", 100)
    assert result.is_mistake("all options are good")
