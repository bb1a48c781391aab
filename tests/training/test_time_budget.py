"""Minutes divided among phases, and kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from cinnema.core.errors import UserError
from cinnema.training.time_budget import TimeBudget


def plan_in(folder: Path, **options: Any) -> TimeBudget:
    settings = {
        "about": {"seed": 0}, "shares": {"a": 1, "b": 2, "c": 1}, "minutes": 4, "clips": None,
        **options,
    }  # fmt: skip
    return TimeBudget(folder / "plan.json", **settings)


def took(folder: Path, seconds: float) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps({"clips": 1, "seconds": seconds}) + "\n")
    return folder


def test_what_a_phase_takes_too_long_comes_off_the_later_ones(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    assert plan.seconds_for("a") == 60
    plan.finish("a", took(tmp_path / "a", 120))
    assert plan.seconds_for("b") == 80  # two thirds of what is left
    plan.finish("b", took(tmp_path / "b", 500))
    assert plan.seconds_for("c") == 1


def test_clips_are_counted_once_and_kept(tmp_path: Path) -> None:
    assert plan_in(tmp_path).clips_of("a", lambda seconds: 2 * seconds) == 120
    plan = plan_in(tmp_path)
    assert plan.clips_of("a", lambda _: 1 / 0) == 120
    plan.finish("a", took(tmp_path / "a", 30))
    again = plan_in(tmp_path)
    again.finish("a", tmp_path / "nowhere")  # counted already
    assert again.spent() == {"a": 30}
    assert again.numbers() == {"a.clips": 120}


def test_a_number_of_clips_leaves_the_clock_aside(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, clips=100)
    assert [plan.clips_of(name, lambda _: 1 / 0) for name in "abc"] == [25, 50, 25]


def test_the_plan_of_something_else_is_refused(tmp_path: Path) -> None:
    plan_in(tmp_path).clips_of("a", lambda _: 1)
    with pytest.raises(UserError, match=r"another folder with --run"):
        plan_in(tmp_path, about={"seed": 1})
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UserError, match=r"plan\.json is damaged"):
        plan_in(tmp_path)
