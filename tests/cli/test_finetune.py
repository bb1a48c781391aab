"""`cinnema finetune`: from a folder of clips to a weights file that other commands take."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinnema.cli.finetune import verdict_of
from cinnema.core.errors import UserError
from cinnema.evaluation.metrics.latents import BITS
from cinnema.evaluation.results import MODEL, Evaluation, Row
from cinnema.evaluation.statistics.bootstrap import Estimate
from cinnema.media.videos import write_video

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes that drift to the right, for five seconds."""
    y, x = np.mgrid[:48, :64]
    grey = np.stack([128 + 80 * np.sin((x - t + 2 * y) / 6) for t in range(40)])
    frames = np.stack([grey] * 3, axis=-1).astype(np.uint8)
    folder = tmp_path_factory.mktemp("data") / "clips"
    write_video(folder / "waves.mp4", frames, fps=8)
    return folder


def full_disk(*_: object, **__: object) -> None:
    raise UserError("the disk is full")


def test_clips_become_weights_that_animate_and_the_numbers_of_before_and_after(
    cinnema: Run,
    clips: Path,
    tiny_weights: Path,
    photo: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "mine.safetensors"
    options = ["--data", clips, "-o", output, "--set", "starts=2", "--device", "cpu"]
    files = [output.with_suffix(suffix) for suffix in (".safetensors", ".json", ".png", ".md")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cinnema.models.files.save_model", full_disk)
        assert cinnema("finetune", tiny_weights, *options).is_mistake("the disk is full")
    assert not any(path.exists() for path in files)
    done = cinnema("finetune", tiny_weights, *options)
    assert done.code == 0, done.err
    assert done.out[-4:] == [str(path) for path in files]
    assert all(path.is_file() for path in files)
    assert "cinnema: held out: waves, end" in done.err
    assert any("cINN: change from tiny" in line for line in done.out)
    verdict = done.out[-5]
    assert "nats a dimension before" in verdict
    assert verdict in files[3].read_text()
    values = json.loads(files[1].read_text())
    assert values["videos"] == {"trained on": ["waves"], "held out": ["waves, end"]}
    change = values["numbers"]["changes"]["cINN"][BITS]["value"]
    assert verdict.startswith("WORSE than tiny" if change > 0 else "Better than tiny")

    told = cinnema("info", output).out
    assert any(line.split() == ["name", "tiny+mine"] for line in told)
    quick = ["--weights", output, "-n", 1, "--frames", 2, "--direction", 90, "--device", "cpu"]
    assert cinnema("animate", photo, "-o", tmp_path / "out", *quick).code == 0

    again = cinnema("finetune", tiny_weights, *options)
    assert again.code == 2
    assert "mine.safetensors exists already: choose another --output" in again.err[-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Estimate(0.1, -0.2, 0.3, 4, 3), "WORSE than landscape .* Keep landscape"),
        (Estimate(-0.1, None, None, 4, 1), "but not surely: .* 4 clips of 1 held-out video"),
        (Estimate(-0.1, -0.2, 0.1, 4, 3), "but not surely: 0.762 nats a dimension before, 0.693"),
        (Estimate(-0.1, -0.2, -0.05, 4, 3), "^Better than landscape on the held-out videos: 0.762"),
    ],
)
def test_what_is_worse_on_held_out_videos_is_told(change: Estimate, words: str) -> None:
    row = Row(name=MODEL, kind="model", cells={BITS: Estimate(1.0, None, None, 4, 3)})
    evaluation = Evaluation(
        weights={}, data={}, protocol={}, settings={}, backbones={}, columns=(), rows=(row,),
        changes={MODEL: {BITS: change}},
    )  # fmt: skip
    verdict = verdict_of(evaluation, "landscape")
    assert re.search(words, verdict), verdict


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "mine.pt"], "--output must end in .safetensors, got mine.pt"),
        (["-o", "m.safetensors", "--minutes", 0], "--minutes must be at least 0.001, got 0"),
        (["-o", "m.safetensors", "--flow.rate", 1], "there is no field --flow.rate"),
        (["-o", "m.safetensors", "--clips-seen", 8], "it is --flow.clips"),
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
    done = cinnema("finetune", tiny_weights, "--data", tmp_path / "empty", "-o", output)
    assert done.code == 2
    assert "empty contains no video" in done.err[-1]
    # One clip of the model's length can be trained on, but nothing would be left to measure on.
    done = cinnema("finetune", tiny_weights, "--data", query.parent, "-o", output)
    assert done.code == 2
    assert "no scene is held out" in done.err[-1]
    assert not output.exists()


def test_weights_that_are_not_of_nature_are_refused(
    cinnema: Run, clips: Path, body_weights: Path, tmp_path: Path
) -> None:
    output = tmp_path / "mine.safetensors"
    done = cinnema("finetune", body_weights, "--data", clips, "-o", output)
    assert done.code == 2
    assert "body are not of nature" in done.err[-1]
    assert "train stage1" in done.err[-1]
    assert not output.with_suffix(".run").exists()
