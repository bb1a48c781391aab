"""From a recipe and a folder of clips to a weights file, in small."""

import dataclasses
import functools
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cinnema.backbones.efficientnet import EfficientNetLite0
from cinnema.core.config import config_from_dict
from cinnema.core.errors import UserError
from cinnema.core.weights import load_weights
from cinnema.media.videos import write_video
from cinnema.models.files import load_model
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.warping.stage1 import Stage1Config
from cinnema.recipes import DataConfig, Recipe
from cinnema.recipes.assembly import (
    bundle,
    new_stage1,
    split_crops,
    train_stage1,
    train_stage2,
    training_stream,
)
from cinnema.training import loop
from cinnema.training.run import TrainingRun
from cinnema.training.stage2 import Stage2Training
from cinnema.training.warping import Stage1Training

CPU = torch.device("cpu")
SMALL = Stage1Config(
    size=64, num_frames=4, num_basis=2, z_dim=16, encoder_width=8, motion_width=8, feature_dim=8,
    mask_width=16, painter_width=16,
)  # fmt: skip
RECIPE = Recipe(
    name="small",
    data=DataConfig(textures={"clouds": 1.0}, crops=4, validation_crops=2),
    stage1=SMALL,
    motion=Stage1Training(phase="motion", clips=8, batch_size=4),
    picture=Stage1Training(phase="picture", clips=8, batch_size=4, network="alex"),
    mask=Stage1Training(phase="mask", clips=8, batch_size=4),
    conditioner=ConditionerConfig(feature_dim=8, width=8, condition_dim=4),
    flow=FlowConfig(z_dim=16, condition_dim=4, num_blocks=2, hidden_dim=16, depth=1),
    stage2=Stage2Training(clips=32, pool=8, batch_size=4, validate_every=16),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes of clouds, of which the first and the last validate."""
    root = tmp_path_factory.mktemp("data")
    y, x = np.mgrid[:48, :64]
    for seed, name in enumerate("abcd"):
        frames = [
            128 + 50 * np.sin((x - 2 * t) / (4 + seed)) + 40 * np.cos(y / 5) for t in range(9)
        ]
        pixels = np.repeat(np.stack(frames)[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)
        write_video(root / f"{name}.mp4", pixels, fps=8)
    entries = [{"path": f"{name}.mp4", "texture": "clouds"} for name in "abcd"]
    (root / "manifest.json").write_text(json.dumps(entries))
    return root


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    for name in ("wall", "wood"):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def test_no_scene_is_on_both_sides_of_the_split(data: Path, tmp_path: Path) -> None:
    crops = split_crops(RECIPE.data, SMALL, root=data)
    assert [c.scene.name for c in crops.train] == ["b", "c"]
    assert [c.scene.name for c in crops.held_out] == ["a", "d"]
    assert [len(c) for c in crops.train + crops.held_out] == [4, 4, 2, 2]
    again = split_crops(RECIPE.data, SMALL, root=data)
    assert np.array_equal(crops.train[0].frames, again.train[0].frames)


@pytest.mark.parametrize(
    ("phase", "num_rendered"), [("motion", 0), ("picture", 1), ("picture", 3), ("mask", 0)]
)
def test_a_phase_gets_the_frames_that_it_looks_at(
    data: Path, tmp_path: Path, photographs: Path, phase: str, num_rendered: int
) -> None:
    crops = split_crops(RECIPE.data, SMALL, root=data)
    training = dataclasses.replace(getattr(RECIPE, phase), frames=max(1, num_rendered))
    stream = training_stream(RECIPE, training, crops.train, seed=0, foregrounds=photographs)
    batch = next(stream)
    assert batch.x0.shape == (4, 3, 64, 64)
    assert batch.flow.shape == (4, 2, 4, 16, 16)
    assert batch.frames.shape == (4, num_rendered, 3, 64, 64)


def test_a_new_stage_1_stands_on_imagenet() -> None:
    model, x0 = new_stage1(SMALL), torch.rand(1, 3, 64, 64) * 2 - 1
    published = EfficientNetLite0.imagenet().eval()
    with torch.no_grad():
        pairs = zip(model.scene.backbone(x0), published(x0), strict=True)
        assert all(torch.allclose(mine, theirs, atol=1e-3) for mine, theirs in pairs)


def test_a_seed_decides_a_new_stage_1_and_no_other_stream() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second, other = (new_stage1(SMALL, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.motion.join.weight, second.motion.join.weight)
    assert not torch.equal(first.motion.join.weight, other.motion.join.weight)


def test_a_recipe_becomes_a_weights_file(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "small"
    with pytest.raises(UserError, match=r"motion\.safetensors is not there"):
        train_stage2(RECIPE, data=data, run=run, device=CPU)
    stage1 = train_stage1(RECIPE, data=data, run=run, device=CPU)
    assert stage1.is_file()
    with pytest.raises(UserError, match=r"stage2\.safetensors is not there"):
        bundle(RECIPE, run=run, output=tmp_path / "small.safetensors")
    stage2 = train_stage2(RECIPE, data=data, run=run, device=CPU)
    assert stage2.is_file()
    output = bundle(RECIPE, run=run, output=tmp_path / "small.safetensors")
    model = load_model(str(output)).model
    assert model.config.name == "small"
    assert model.flow.is_initialised
    with pytest.raises(UserError, match="exists already"):
        bundle(RECIPE, run=run, output=output)

    wider = dataclasses.replace(RECIPE, stage1=dataclasses.replace(SMALL, motion_width=16))
    with pytest.raises(UserError, match="another recipe"):
        bundle(wider, run=run, output=tmp_path / "wider.safetensors")

    before = stage1.read_bytes()
    train_stage1(RECIPE, data=data, run=run, device=CPU)  # done: nothing changes
    assert stage1.read_bytes() == before


def test_a_run_keeps_its_recipe_strips_and_a_plot(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "small"
    train_stage1(RECIPE, data=data, run=run, device=CPU)
    kept = json.loads((run / "recipe.json").read_text())
    assert config_from_dict(Recipe, kept) == RECIPE
    other = dataclasses.replace(RECIPE, motion=Stage1Training(phase="motion", clips=9))
    with pytest.raises(UserError, match="another configuration"):
        train_stage1(other, data=data, run=run, device=CPU)
    assert json.loads((run / "recipe.json").read_text()) == kept
    for phase in ("motion", "picture", "mask"):
        assert (run / phase / "summary.svg").is_file()
        assert [path.name for path in (run / phase / "strips").iterdir()] == ["000000008.png"]


LONGER = dataclasses.replace(
    RECIPE,
    motion=Stage1Training(phase="motion", clips=24, batch_size=4),
    picture=Stage1Training(phase="picture", clips=12, batch_size=4, network="alex"),
)


def numbers_of(run: Path) -> list[list[dict[str, float]]]:
    files = [run / phase / "metrics.jsonl" for phase in ("motion", "picture", "mask")]
    lines = [map(json.loads, file.read_text().splitlines()) for file in files]
    return [[{k: v for k, v in line.items() if k != "seconds"} for line in of] for of in lines]


def test_a_training_that_is_killed_again_and_again_ends_as_an_unbroken_one_to_the_bit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "TrainingRun", functools.partial(TrainingRun, seconds_between=0.0))
    monkeypatch.setattr(loop, "_RECORD_EVERY", 1)
    whole, broken = tmp_path / "runs" / "whole", tmp_path / "runs" / "broken"
    train_stage1(LONGER, data=data, run=whole, device=CPU)

    def killed_at(phase: str, *, lines: int) -> None:
        file = broken / phase / "metrics.jsonl"
        child = os.fork()
        if not child:
            train_stage1(LONGER, data=data, run=broken, device=CPU)
            os._exit(0)
        while not file.exists() or file.read_text().count("\n") < lines:
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended before it could be killed"
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    killed_at("motion", lines=2)
    killed_at("motion", lines=4)
    killed_at("picture", lines=2)
    train_stage1(LONGER, data=data, run=broken, device=CPU)
    assert numbers_of(broken) == numbers_of(whole)
    for name in ("motion", "picture", "stage1"):
        file = f"{name}.safetensors"
        assert load_weights(broken / file).sha256 == load_weights(whole / file).sha256
