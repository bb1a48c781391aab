import json
import math

import pytest

from cinnema.evaluation.scores import ClipScore, Metric, break_down
from cinnema.evaluation.validation_tables import as_text

MEASURES = (
    Metric("share", "part", "whole", shows_interval=True),
    Metric("mean", "part", digits=1),
)


def _score(scene: str, texture: str, part: float, whole: float = 1.0) -> ClipScore:
    return ClipScore(scene, texture, {"part": part, "whole": whole})


SCORES = [
    _score("a", "clouds", 1.0, 2.0),
    _score("a", "clouds", 3.0, 2.0),
    _score("b", "clouds", 1.0, 6.0),
    _score("c", "fire", 10.0, 10.0),
]


def test_a_ratio_is_one_of_sums() -> None:
    breakdown = break_down("test", SCORES, MEASURES)
    assert breakdown.textures["clouds"]["share"].value == pytest.approx(0.5)
    assert breakdown.textures["all"]["share"].value == pytest.approx(15 / 20)
    assert breakdown.scenes["a"]["share"].value == pytest.approx(1.0)


def test_a_mean_is_over_clips() -> None:
    assert break_down("test", SCORES, MEASURES).textures["clouds"]["mean"].value == pytest.approx(
        5 / 3
    )


def test_clips_and_scenes_are_counted() -> None:
    estimate = break_down("test", SCORES, MEASURES).textures["clouds"]["share"]
    assert (estimate.num_clips, estimate.num_sources) == (3, 2)


def test_one_scene_has_no_interval() -> None:
    estimate = break_down("test", SCORES, MEASURES).scenes["a"]["share"]
    assert (estimate.low, estimate.high) == (None, None)


def test_what_could_not_be_measured_is_left_out() -> None:
    breakdown = break_down("test", [*SCORES, _score("c", "fire", math.nan)], MEASURES)
    assert breakdown.textures["fire"]["mean"].num_clips == 1
    nothing = break_down("test", [_score("c", "fire", math.nan)], MEASURES)
    assert math.isnan(nothing.textures["fire"]["mean"].value)
    assert nothing.to_dict()["textures"]["fire"]["mean"]["value"] is None


def test_a_breakdown_goes_into_json() -> None:
    values = json.loads(json.dumps(break_down("test", SCORES, MEASURES).to_dict(), allow_nan=False))
    assert values["scenes"]["c"]["texture"] == "fire"
    assert values["textures"]["all"]["share"]["num_sources"] == 3


def test_a_table_names_textures_scenes_and_intervals() -> None:
    text = as_text(break_down("A title", SCORES, MEASURES))
    clouds = next(line for line in text.splitlines() if line.strip().startswith("clouds"))
    assert "A title" in text
    assert "0.500" in clouds
    assert text.index("clouds") < text.index("  a ") < text.index("fire")
