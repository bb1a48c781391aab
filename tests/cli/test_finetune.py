"""`cinnema finetune`: from a folder of clips to a weights file that other commands take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bodies import tiny_body
from cinnema.media.videos import write_video
from cinnema.models.files import save_model

Run = Callable[..., Any]
QUICK = [
    "--clips-seen", 8, "--sky-share", 0, "--set", "num_train=8", "--set", "num_held_out=2",
    "--set", "motion.batch_size=2", "--set", "picture.batch_size=2", "--set", "stage2.batch_size=4",
    "--set", "stage2.pool=8", "--device", "cpu",
]  # fmt: skip


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Stripes that drift to the right, for five seconds."""
    y, x = np.mgrid[:48, :64]
    grey = np.stack([128 + 80 * np.sin((x - t + 2 * y) / 6) for t in range(40)])
    write_video(
        tmp_path / "clips" / "waves.mp4", np.stack([grey] * 3, axis=-1).astype(np.uint8), fps=8
    )
    return tmp_path / "clips"


def test_clips_become_weights_that_animate(
    cinnema: Run, clips: Path, steered_weights: Path, photo: Path, tmp_path: Path
) -> None:
    output = tmp_path / "mine.safetensors"
    done = cinnema("finetune", steered_weights, "--data", clips, "-o", output, *QUICK)
    assert done.code == 0, done.err
    files = [output.with_suffix(suffix) for suffix in (".safetensors", ".json", ".png", ".md")]
    assert done.out[-4:] == [str(path) for path in files]
    assert all(path.is_file() for path in files)
    assert any("steered" in line and "steered+mine" in line for line in done.out)
    assert any(line.startswith("cinnema: motion: ") for line in done.err)
    assert (tmp_path / "mine.run" / "plan.json").is_file()

    told = cinnema("info", output).out
    assert any(line.split() == ["name", "steered+mine"] for line in told)
    assert any(line.startswith("card") and "steered (sha256 " in line for line in told)
    options = ["--weights", output, "-n", 1, "--frames", 2, "--direction", 90, "--device", "cpu"]
    assert cinnema("animate", photo, "-o", tmp_path / "out", *options).code == 0

    again = cinnema("finetune", steered_weights, "--data", clips, "-o", output, *QUICK)
    assert again.code == 2
    assert "mine.safetensors exists already: choose another --output" in again.err[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "mine.pt"], "--output must end in .safetensors, got mine.pt"),
        (["-o", "m.safetensors", "--minutes", 0], "the options: minutes does not fit Finetuning"),
        (["-o", "m.safetensors", "--motion.rate", 1], "there is no field --motion.rate"),
        (["-o", "m.safetensors", "--speed", 0.5], "it is --slow-motion"),
        (["-o", "m.safetensors", "--clips", "."], "it is --data"),
    ],
)
def test_options_that_do_not_fit_are_told(
    cinnema: Run, clips: Path, tiny_weights: Path, options: list[object], said: str
) -> None:
    done = cinnema("finetune", tiny_weights, "--data", clips, *options)
    assert done.code == 2
    assert said in done.err[-1]


def test_a_folder_without_clips_is_told(
    cinnema: Run, tiny_weights: Path, query: Path, tmp_path: Path
) -> None:
    output = tmp_path / "mine.safetensors"
    (tmp_path / "empty").mkdir()
    done = cinnema("finetune", tiny_weights, "--data", tmp_path / "empty", "-o", output, *QUICK)
    assert done.code == 2
    assert "empty contains no video" in done.err[-1]
    # One clip of the model's length can be trained on, but nothing would be left to measure on.
    done = cinnema("finetune", tiny_weights, "--data", query.parent, "-o", output, *QUICK)
    assert done.code == 2
    assert "nothing is held out" in done.err[-1]
    assert not output.exists()


def test_weights_that_paint_are_refused(cinnema: Run, clips: Path, tmp_path: Path) -> None:
    painting = tmp_path / "painting.safetensors"
    save_model(painting, tiny_body())
    output = tmp_path / "mine.safetensors"
    done = cinnema("finetune", painting, "--data", clips, "-o", output)
    assert done.code == 2
    assert "`cinnema finetune` needs one that warps the photograph" in done.err[-1]
    assert not output.with_suffix(".run").exists()
