"""`cinnema validate`: tables and JSON from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.data.crops import Scene, SceneCrops, SplitCrops
from cinnema.models.files import load_warping_model
from cinnema.models.warping.stage1 import Stage1Config
from cinnema.recipes import clips

Run = Callable[..., Any]


def crops_of(name: str, shape: Stage1Config, *, num: int, seed: int) -> SceneCrops:
    rng, size, num_frames = np.random.default_rng(seed), shape.size, shape.num_frames
    return SceneCrops(
        scene=Scene(name, "clouds", held_out=num == 1),
        frames=rng.integers(0, 256, (num, num_frames + 1, size, size, 3), dtype=np.uint8),
        flow=rng.normal(0, 0.01, (num, 2, num_frames, 16, 16)).astype(np.float32),
        motion=rng.uniform(0, 4, (num, 32, 32)).astype(np.float32),
    )


@pytest.fixture
def crops(monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> None:
    """Two crops of each of three training scenes, one of a scene that is held out; small LPIPS."""
    shape = load_warping_model(str(tiny_weights), purpose="tests").config.stage1
    train = [crops_of(name, shape, num=2, seed=i) for i, name in enumerate("abc")]
    split = SplitCrops(train, [crops_of("d", shape, num=1, seed=5)], ())
    monkeypatch.setattr(clips, "split_crops", lambda *_, **__: split)
    torch.manual_seed(0)
    lpips = LPIPS("alex").eval()
    monkeypatch.setattr(LPIPS, "load", lambda _: lpips)


@pytest.mark.usefixtures("crops")
def test_it_prints_tables_and_writes_json(cinnema: Run, tiny_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    result = cinnema("validate", tiny_weights, "--data", tmp_path, "--json", path, "--threads", 1)
    assert result.code == 0, result.err
    text = "\n".join(result.out)
    for part in ("relative flow error", "LPIPS of stage 1", "LPIPS of the best sample", "drift",
                 "negative log-likelihood", "  clouds: d"):  # fmt: skip
        assert part in text, part
    values = json.loads(path.read_text())
    assert values["weights"]["name"] == "tiny"
    assert values["rows"]["cINN"]["parts"]["clouds: d"]["drift"]["num_clips"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["tiny", "--data", "."], "neither the name of bundled weights"),
        (["drift", "--data", "nowhere"], "nowhere is not a folder"),
        (["drift", "--data", ".", "--threads", 0], "--threads must be at least 1"),
    ],
)
def test_a_mistake_is_reported_in_one_line(
    cinnema: Run, options: list[object], message: str
) -> None:
    result = cinnema("validate", *options)
    assert result.code == 2
    assert message in result.err[-1]
