import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cinnema.evaluation.scores import ClipScore, Metric, break_down, clustered_ratio
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
    assert (estimate.num_clips, estimate.num_scenes) == (3, 2)


def test_one_scene_has_no_interval() -> None:
    estimate = break_down("test", SCORES, MEASURES).scenes["a"]["share"]
    assert (estimate.low, estimate.high) == (None, None)


@given(st.lists(st.floats(-10, 10), min_size=4, max_size=12), st.integers(2, 4))
def test_the_interval_holds_the_number(values: list[float], num_scenes: int) -> None:
    top = torch.tensor(values)
    clusters = torch.arange(len(top)) % num_scenes
    estimate = clustered_ratio(top, torch.ones_like(top), clusters)
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low <= estimate.value + 1e-6
    assert estimate.value - 1e-6 <= estimate.high


def test_more_clips_of_the_same_scenes_do_not_make_it_surer() -> None:
    top, clusters = torch.tensor([1.0, 2.0, 4.0]), torch.arange(3)
    once = clustered_ratio(top, torch.ones(3), clusters)
    often = clustered_ratio(top.repeat(50), torch.ones(150), clusters.repeat(50))
    assert (often.low, often.high) == (once.low, once.high)


def test_what_could_not_be_measured_is_left_out() -> None:
    breakdown = break_down("test", [*SCORES, _score("c", "fire", math.nan)], MEASURES)
    assert breakdown.textures["fire"]["mean"].num_clips == 1
    nothing = break_down("test", [_score("c", "fire", math.nan)], MEASURES)
    assert math.isnan(nothing.textures["fire"]["mean"].value)
    assert nothing.to_dict()["textures"]["fire"]["mean"]["value"] is None


def test_a_breakdown_goes_into_json() -> None:
    values = json.loads(json.dumps(break_down("test", SCORES, MEASURES).to_dict(), allow_nan=False))
    assert values["scenes"]["c"]["texture"] == "fire"
    assert values["textures"]["all"]["share"]["num_scenes"] == 3


def test_a_table_names_textures_scenes_and_intervals() -> None:
    text = as_text(break_down("A title", SCORES, MEASURES))
    clouds = next(line for line in text.splitlines() if line.strip().startswith("clouds"))
    assert "A title" in text
    assert "0.500 (0.167 to 1.000)" in clouds
    assert text.index("clouds") < text.index("  a ") < text.index("fire")
