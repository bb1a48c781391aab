"""`cinnema import`, and what can be done with what it wrote."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

from cinnema.cli.main import main
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.paper import build
from cinnema.synthesis.residual import load_motion
from official_folder import FILES, copy_of, save_checkpoint, write_official
from parity import recording_of

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_official(tmp_path_factory.mktemp("published") / "robot", control=True)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As large as the model's pictures, so that nothing is resized."""
    y, x = np.mgrid[:64, :64]
    waves = [np.sin(x / 9 + y / 5), np.cos(x / 7), np.sin(y / 6 - x / 11)]
    path = tmp_path_factory.mktemp("photographs") / "arm.png"
    Image.fromarray((128 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def imported(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("imported") / "arm.safetensors"
    assert main(["import", "official", str(published), "-o", str(output)]) == 0
    return output


def network(component: str) -> nn.Module:
    """A component as published, spectral norm and all."""
    recorded = recording_of(component)
    made = build(component, recorded.config)
    made.load_state_dict(recorded.state)
    return made.eval()


def one_hots(eta: list[float]) -> torch.Tensor:
    least, span = (0.42638585, -0.3080245, 0.19146784), (0.42850533, 0.54029283, 0.12564658)
    row = torch.zeros(1, 30)
    for axis, value in enumerate(eta):
        row[0, 10 * axis + int(10 * (value - least[axis]) / span[axis])] = 1
    return row


def test_an_imported_model_animates_as_the_published_parts_do(
    cinnema: Run, imported: Path, photograph: Path, tmp_path: Path
) -> None:
    options = ["--weights", imported, "-n", 1, "--frames", 16, "--format", "npy", "--device", "cpu"]
    options += ["--precision", "float32"]  # some machines are faster in bfloat16
    assert cinnema("animate", photograph, *options, "-o", tmp_path / "out").code == 0
    video = np.load(tmp_path / "out/arm_s0_00.npy")
    saved = load_motion(tmp_path / "out/arm_s0_00.nu.safetensors")

    x0 = to_tensor(np.asarray(Image.open(photograph)))[None]
    with torch.no_grad():
        c = torch.cat([network("image_encoder")(x0), one_hots(saved.about["eta"])], dim=1)
        z, _ = network("flow_control").to_latent(saved.nu[None], c)
        frames = network("decoder")(x0, z)[0]
    assert video.shape == (16, 64, 64, 3)
    assert np.abs(video.astype(int) - np.stack([to_pixels(f) for f in frames])).max() <= 1
    assert float((saved.z - z[0]).abs().max()) < 1e-4
    assert video.std(axis=0).mean() > 1  # it moves


def test_the_file_holds_folded_weights_and_nothing_of_the_training(imported: Path) -> None:
    with safe_open(imported, framework="pt") as file:
        names = set(file.keys())
    published = {
        f"{part}.{name}"
        for part, component in zip(FILES, [*list(FILES)[:3], "flow_control"], strict=True)
        for name in recording_of(component).state
    }
    folded = {name.removesuffix("_orig") for name in published if name.endswith("weight_orig")}
    plain = {name for name in published if not name.endswith(("_orig", "weight_u", "weight_v"))}
    assert names == plain | folded


def test_info_tells_its_kind_and_parts(cinnema: Run, imported: Path) -> None:
    text = "\n".join(cinnema("info", imported).out)
    for expected in ("arm", "kind = painting", "control = True", "spectral_norm = False", "flow "):
        assert expected in text


def test_names_and_files_that_are_there(cinnema: Run, published: Path, tmp_path: Path) -> None:
    output = tmp_path / "robot.safetensors"
    output.write_text("mine")
    refused = cinnema("import", "official", published, "-o", output)
    assert refused.code == 2
    assert "--overwrite" in refused.err[-1]
    assert output.read_text() == "mine"
    options = ["-o", output, "--overwrite", "--name", "robot arm"]
    assert cinnema("import", "official", published, *options) == (0, [str(output)], [])
    assert "robot arm" in cinnema("info", output).out[0]


def test_help_tells_the_layout(cinnema: Run) -> None:
    result = cinnema("import", "--help")
    assert result.code == 0
    assert "stage2_control" in "".join(result.out)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


def test_a_harmful_checkpoint_is_not_run_and_leaves_nothing(
    cinnema: Run, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = copy_of(published, tmp_path / "robot")
    state = recording_of("decoder").state
    save_checkpoint(folder / FILES["decoder"], state, best=Harmful())
    result = cinnema("import", "official", folder, "-o", tmp_path / "out" / "a.safetensors")
    assert result.code == 2
    assert len(result.err) == 1
    assert "best_PFVD_GEN.pth needs more than tensors" in result.err[0]
    assert "mkdir" in result.err[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["robot"]


def test_a_full_disk_leaves_nothing(
    cinnema: Run,
    published: Path,
    tmp_path: Path,
    small_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    with small_disk(1_000_000):
        result = cinnema("import", "official", published, "-o", tmp_path / "a.safetensors")
    assert result.code == 2
    assert "disk is full" in result.err[-1]
    assert not list(tmp_path.iterdir())


def test_parts_of_different_trainings_are_told(
    cinnema: Run, published: Path, tmp_path: Path
) -> None:
    folder = copy_of(published, tmp_path / "robot")
    config = folder / "stage2_control/config_stage2_AE.yaml"
    text = config.read_text().replace("in_size: 64", "in_size: 128")
    config.unlink()
    config.write_text(text)
    result = cinnema("import", "official", folder, "-o", tmp_path / "a.safetensors")
    assert result.code == 2
    assert "do not fit together" in result.err[-1]
    assert "in_size must be equal, got 64 and 128" in result.err[-1]
