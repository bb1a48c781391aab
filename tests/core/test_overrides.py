"""Fields of a configuration changed by name."""

import doctest
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from cinnema.core import overrides
from cinnema.core.errors import UserError
from cinnema.core.overrides import override


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Phase:
    clips: int = Field(default=100, ge=1)
    rate: float | None = None
    name: str = "motion"
    widths: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Extra:
    first: Phase = Phase()
    others: tuple[Phase, ...] = ()
    deeper: Phase | None = None


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Plan:
    phase: Phase = Phase()
    extra: Extra | None = None
    textures: dict[str, float] = Field(default_factory=lambda: {"clouds": 6.0, "fire": 1.0})

    def __post_init__(self) -> None:
        if self.phase.clips == 13:
            raise UserError("phase.clips must not be 13, got 13: choose another number")


def test_fields_are_set_by_name_and_the_others_stay() -> None:
    plan = override(Plan(), ["phase.clips=2000", "phase.rate=1e-3", "phase.name=mask"])
    assert plan == Plan(phase=Phase(clips=2000, rate=1e-3, name="mask"))
    assert override(Plan()) == Plan()


@given(st.integers(1, 10**9), st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_comes_through_exactly(clips: int, rate: float) -> None:
    plan = override(Plan(), [f"phase.clips={clips}", f"phase.rate={rate!r}"])
    assert (plan.phase.clips, plan.phase.rate) == (clips, rate)


def test_values_are_json_or_text_as_it_stands() -> None:
    plan = override(Plan(), ["phase.widths=[3, 4]", "phase.rate=null", 'phase.name="a=b"'])
    assert plan.phase == Phase(widths=(3, 4), name="a=b")


def test_a_mapping_takes_single_keys_by_name_and_is_replaced_as_a_whole() -> None:
    assert override(Plan(), ["textures.water=2"]).textures == {
        "clouds": 6.0, "fire": 1.0, "water": 2.0
    }  # fmt: skip
    assert override(Plan(), ['textures={"water": 2}']).textures == {"water": 2.0}


@pytest.mark.parametrize(
    ("settings", "extra"),
    [
        (["extra={}"], Extra()),
        (["extra.first.clips=3"], Extra(first=Phase(clips=3))),
        (["extra.deeper.name=b", "extra.deeper.clips=3"], Extra(deeper=Phase(3, name="b"))),
        (['extra={"first": {"rate": 2}}', "extra.first.clips=3"], Extra(first=Phase(3, 2.0))),
        (['extra.others=[{"clips": 3}, {}]'], Extra(others=(Phase(3), Phase()))),
        (["extra.first.clips=3", "extra=null"], None),
        (["extra=null", "extra.first.clips=3"], Extra(first=Phase(clips=3))),
    ],
)
def test_an_option_that_is_not_there_is_made_by_naming_its_fields(
    settings: list[str], extra: Extra | None
) -> None:
    assert override(Plan(), settings) == Plan(extra=extra)


def test_an_option_that_is_there_keeps_what_is_not_named() -> None:
    plan = Plan(extra=Extra(first=Phase(clips=7), deeper=Phase()))
    changed = override(plan, ["extra.first.rate=2", "extra.deeper=null"])
    assert changed == Plan(extra=Extra(first=Phase(clips=7, rate=2.0)))


def test_a_file_changes_what_it_names_and_settings_count_more(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"phase": {"clips": 7, "rate": 0.5}, "textures": {"sea": 1}}))
    plan = override(Plan(), ["phase.clips=8", "phase.clips=9"], file=file)
    assert plan == Plan(phase=Phase(clips=9, rate=0.5), textures={"sea": 1.0})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("phase.clip=1", r"--set: there is no field phase\.clip; did you mean phase\.clips\?"),
        ("phaes.clips=1", r"no field phaes; did you mean phase\?"),
        ("phase.zzz=1", r"there are phase\.clips, phase\.name, phase\.rate, phase\.widths"),
        ('phase={"cilps": 1}', r"no field phase\.cilps; did you mean phase\.clips"),
        ("extra.frist.clips=1", r"no field extra\.frist; did you mean extra\.first\?"),
        ("extra.first.clip=1", r"no field extra\.first\.clip; did you mean extra\.first\.clips"),
        ('extra={"deeper": {"clip": 1}}', r"no field extra\.deeper\.clip; did you mean"),
        ('extra.others=[{"clip": 1}]', r"extra\.others\.0\.clip does not fit.*got 1"),
        ("extra.others.clips=1", r"extra\.others has no fields of its own"),
        ("extra=5", r"extra does not fit.*got 5"),
        ("phase.clips.x=1", r"phase\.clips has no fields of its own"),
        ("phase.clips", r"--set wants name=value.*got 'phase\.clips'"),
        ("=3", "--set wants name=value"),
        ("phase.clips=many", r"--set phase\.clips=many: phase\.clips does not fit.*got 'many'"),
        ("phase.clips=0", r"phase\.clips does not fit.*greater than or equal to 1.*got 0"),
        ("textures.sea=deep", r"textures\.sea does not fit"),
        ("phase.clips=13", r"--set phase\.clips=13: phase\.clips must not be 13, got 13: choose"),
    ],
)
def test_a_mistake_is_named_in_one_line(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        override(Plan(), [setting])
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "must hold an object"),
        ('{"phase": {"clip": 1}}', r"mine\.json: there is no field phase\.clip"),
        ("", "is empty"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        override(Plan(), file=file)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        override(Plan(), file=tmp_path / "none.json")


def test_the_examples_run() -> None:
    assert doctest.testmod(overrides).failed == 0
