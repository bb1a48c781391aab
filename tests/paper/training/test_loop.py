"""The three trainings in the loop: resumption to the bit, epochs, names of clips."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import ClipLoader
from cinnema.paper.training.assembly import schedule_of
from cinnema.training.loop import fit

Loaders = Callable[..., ClipLoader]


def numbers_of(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


class Interrupted(ClipLoader):
    """Batches that end after the first."""

    def __next__(self) -> Any:
        if self.clips >= 2:
            raise KeyboardInterrupt
        return super().__next__()


@pytest.mark.parametrize("name", ["autoencoding", "conditioning", "flow"])
def test_a_run_that_was_stopped_ends_as_an_uninterrupted_one_to_the_bit(
    name: str, request: pytest.FixtureRequest, squares: PackedDataset, tmp_path: Path
) -> None:
    make, size = request.getfixturevalue(name), 32 if name == "autoencoding" else 64

    def run(folder: str, kind: type[ClipLoader] = ClipLoader) -> Any:
        step = make(epochs=1, windows=1, batch_size=2)
        batches = kind(squares, batch_size=2, num_frames=9, size=size, num_workers=0)
        schedule = replace(schedule_of(step.config, 4), record_every=1, save_every=0.0)
        fit(step, batches, schedule, folder=tmp_path / folder)
        return {name: part.state_dict() for name, part in step.parts().items()}

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("broken", Interrupted)
    torch.manual_seed(99)  # nothing may depend on the global random state
    torch.testing.assert_close(run("broken"), whole, rtol=0, atol=0)
    assert len(numbers_of(tmp_path / "whole")) == 2
    assert numbers_of(tmp_path / "whole") == numbers_of(tmp_path / "broken")


def test_an_epoch_takes_a_number_of_windows_of_each_clip(
    flow: Callable[..., Any], loader: Loaders, tmp_path: Path
) -> None:
    step = flow(epochs=2, windows=3)
    schedule, looks = schedule_of(step.config, 4), []
    fit(step, loader(), schedule, folder=tmp_path, validate=lambda: looks.append(0) or {"score": 1})
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["clips"] == 2 * 3 * 4  # four training clips
    scores = [(line["clips"], line["epoch"]) for line in numbers_of(tmp_path) if "score" in line]
    assert scores == [(12, 0), (24, 1)]
    assert not step.networks.training


def test_other_encoders_do_not_resume_the_run_of_a_flow(
    flow: Callable[..., Any], loader: Loaders, tmp_path: Path
) -> None:
    step = flow(epochs=1)
    fit(step, loader(), schedule_of(step.config, 4), folder=tmp_path)
    other = flow(epochs=1)
    with torch.no_grad():
        next(other.image_encoder.parameters()).add_(1.0)
    with pytest.raises(UserError, match="another configuration"):
        fit(other, loader(), schedule_of(other.config, 4), folder=tmp_path)


def test_a_loss_that_is_not_finite_names_the_packed_clips(
    flow: Callable[..., Any], loader: Loaders, tmp_path: Path
) -> None:
    step = flow(epochs=1)
    z, c = step.latents(next(loader()), number=0)
    step.networks.initialise(*(torch.randn(8, x.shape[1]) for x in (z, c)))
    with torch.no_grad():
        step.video_encoder.conv_mu.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"cINN: nll nan.* at step 0 is not finite, on the clips"):
        fit(step, loader(), schedule_of(step.config, 4), folder=tmp_path)
    clips = {clip.clip for clip in loader().sequence.dataset.manifest.clips}
    assert set(json.loads((tmp_path / "nan-0.json").read_text())["batch"]) <= clips
    assert not (tmp_path / "checkpoint.pt").exists()


def test_clips_that_are_too_short_are_refused(loader: Loaders) -> None:
    with pytest.raises(UserError, match="windows of 40 frames"):
        loader(num_frames=40)
