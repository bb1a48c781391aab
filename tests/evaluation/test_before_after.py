"""Two models on the same clips."""

import json
from dataclasses import replace

import pytest

from cinnema.backbones.lpips import LPIPS
from cinnema.evaluation.before_after import BeforeAfter, ClipScore, Scores
from cinnema.models.warping.model import WarpingModel

from .conftest import crops_of


def measuring(*, num: int = 1) -> BeforeAfter:
    crops = crops_of("a", "clouds", num=2)
    return BeforeAfter(held_out=[crops] * num, skies=[], lpips=LPIPS("alex"))


def scores(*errors: float, scenes: str = "") -> Scores:
    values = [{"flow_error": error, "flow_motion": 2.0} for error in errors]
    clips = zip(scenes or "a" * len(errors), values, strict=True)
    return {"flow": [ClipScore(scene, value) for scene, value in clips]}


def test_a_change_is_surer_than_the_numbers_it_is_of() -> None:
    before, after = scores(1.0, 2.0, 3.0, 4.0), scores(0.9, 1.9, 2.9, 3.9)
    (row,) = measuring().compared(("old", "new"), before, after).rows
    assert (row.before, row.after) == pytest.approx((1.25, 1.2))
    assert row.change.value == pytest.approx(-0.05)
    assert (row.change.low, row.change.high) == pytest.approx((-0.05, -0.05))


def test_intervals_are_over_videos_where_there_are_three() -> None:
    before, after = scores(1, 1, 1, 1, scenes="aabc"), scores(0.8, 0.8, 1, 1, scenes="aabc")
    several = measuring(num=3).compared(("old", "new"), before, after)
    assert several.over == "videos"
    assert several.rows[0].change.num_sources == 3
    assert several.rows[0].change.low == pytest.approx(-0.1)  # of a alone
    two = measuring(num=2).compared(("old", "new"), scores(1, 1, 2), scores(0.8, 1, 2))
    assert two.over == "clips of 2 videos"
    assert two.rows[0].change.low is not None


def test_it_shows_how_many_clips_are_measured(
    model: WarpingModel,
    lpips: LPIPS,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    crops = crops_of("a", "clouds", num=2)
    short = replace(measuring(), held_out=[crops], lpips=lpips, times=(4,), num_samples=1)
    assert len(short.stage1(model.stage1)["reconstruction"]) == 2
    assert "reconstructing clips" in capsys.readouterr().err
    assert len(short.stage2(model)["samples"]) == 2
    assert "drawing samples" in capsys.readouterr().err


def test_scores_come_back_from_json() -> None:
    found = scores(1, 2, scenes="ab")
    assert measuring().load(json.loads(json.dumps(measuring().dump(found)))) == found


def test_the_table_and_the_dictionary_name_both_models() -> None:
    comparison = measuring().compared(("old", "new"), scores(1, 1, 1, 2), scores(1, 1, 1, 1))
    lines = comparison.to_table().splitlines()
    assert "old" in lines[0]
    assert "new" in lines[0]
    (line,) = [text for text in lines if "relative flow error" in text]
    assert line.split()[3:5] == ["0.625", "0.500"]
    told = comparison.to_dict()
    assert told["models"] == ["old", "new"]
    assert told["rows"]["relative flow error"]["change"]["num_clips"] == 4


def test_what_is_no_number_becomes_none_in_json() -> None:
    still: Scores = {"flow": [ClipScore("a", {"flow_error": 0.0, "flow_motion": 0.0})]}
    comparison = measuring().compared(("old", "new"), still, still)
    row = comparison.to_dict()["rows"]["relative flow error"]
    assert (row["before"], row["change"]["value"]) == (None, None)
    assert "nan" in comparison.to_table()
