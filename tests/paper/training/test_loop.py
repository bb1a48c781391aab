"""The loop that all three trainings share: stopping, resuming, numbers, refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import ClipLoader
from cinnema.paper.training import loop
from cinnema.paper.training.autoencoding import train_autoencoder
from cinnema.paper.training.conditioning import train_conditioning
from cinnema.paper.training.flow import train_flow
from paper.training.small_networks import is_same, state_of

Loaders = Callable[..., ClipLoader]
TRAIN = {
    "autoencoding": train_autoencoder,
    "conditioning": train_conditioning,
    "flow": train_flow,
}


def numbers_of(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


class Interrupting:
    """A step that is interrupted before it is taken for the n-th time."""

    def __init__(self, step: Any, *, at: int) -> None:
        self.step, self.at = step, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self.step, name)

    def __call__(self, batch: Any, *, number: int, epoch: int) -> Any:
        if number == self.at:
            raise KeyboardInterrupt
        return self.step(batch, number=number, epoch=epoch)


def run(step: Any, batches: ClipLoader, folder: Path, **options: Any) -> None:
    config = options.pop("config", step.config)
    loop.fit(step, batches, config, folder=folder, about={}, **options)


@pytest.mark.parametrize("name", TRAIN)
def test_a_run_that_was_stopped_ends_where_an_unbroken_one_does(
    name: str,
    request: pytest.FixtureRequest,
    loader: Loaders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "_RECORD_EVERY", 1)
    make, size = request.getfixturevalue(name), 32 if name == "autoencoding" else 64
    whole = make(epochs=1)
    run(whole, loader(size=size), tmp_path / "whole")
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(Interrupting(make(epochs=1), at=1), loader(size=size), tmp_path / "broken")
    resumed = make(epochs=1)
    torch.manual_seed(99)  # nothing may depend on the global stream
    run(resumed, loader(size=size), tmp_path / "broken")
    assert len(numbers_of(tmp_path / "whole")) == 2
    assert numbers_of(tmp_path / "whole") == numbers_of(tmp_path / "broken")
    for part, mine in whole.parts().items():
        other = resumed.parts()[part]
        if isinstance(mine, torch.nn.Module):
            assert is_same(state_of(mine), state_of(other))
        elif isinstance(mine, torch.optim.Optimizer):
            assert str(mine.state_dict()) == str(other.state_dict())


def test_a_finished_run_is_not_trained_again(
    flow: Callable[..., Any], loader: Loaders, tmp_path: Path
) -> None:
    step = flow(epochs=1)
    trained = train_flow(step, loader(), folder=tmp_path)
    batches = loader()
    again = train_flow(flow(epochs=1), batches, folder=tmp_path)
    assert batches.clips == 4  # as many as before: no further one was asked for
    assert is_same(state_of(trained), state_of(again))
    assert not again.training


def test_an_epoch_takes_so_many_windows_of_each_clip(
    flow: Callable[..., Any], loader: Loaders, tmp_path: Path
) -> None:
    looks = []

    def validate() -> dict[str, float]:
        looks.append(None)
        return {"score": 0.5}

    run(flow(epochs=2, windows=3), loader(), tmp_path, validate=validate)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["clips"] == 2 * 3 * 4  # four training clips
    assert len(looks) == 2
    scores = [(line["clips"], line["epoch"]) for line in numbers_of(tmp_path) if "score" in line]
    assert scores == [(12, 0), (24, 1)]


def test_another_configuration_does_not_resume_a_run(
    flow: Callable[..., Any], loader: Loaders, tmp_path: Path
) -> None:
    train_flow(flow(epochs=1), loader(), folder=tmp_path)
    with pytest.raises(UserError, match="another configuration"):
        train_flow(flow(epochs=2), loader(), folder=tmp_path)
    other = flow(epochs=1)
    with torch.no_grad():
        next(other.image_encoder.parameters()).add_(1.0)
    with pytest.raises(UserError, match="another configuration"):
        train_flow(other, loader(), folder=tmp_path)


def test_batches_of_another_size_are_refused(
    flow: Callable[..., Any], loader: Loaders, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"batches must hold 2 clips.* got 3"):
        run(flow(), loader(batch_size=3), tmp_path)


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint(
    flow: Callable[..., Any], loader: Loaders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN", 0.0)
    step = flow(epochs=2)
    whole = step.latents

    def spoilt(batch: Any, *, number: int) -> Any:
        z, c = whole(batch, number=number)
        return (z * float("nan"), c) if number == 2 else (z, c)

    monkeypatch.setattr(step, "latents", spoilt)
    with pytest.raises(UserError, match=r"cINN: nll nan at step 2.*on the clips"):
        run(step, loader(), tmp_path)
    assert len(json.loads((tmp_path / "nan-2.json").read_text())["batch"]) == 2
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["clips"] == 4
    assert all(value.isfinite().all() for value in checkpoint["parts"]["flow"].values())


def test_clips_that_are_too_short_are_refused(squares: PackedDataset, loader: Loaders) -> None:
    with pytest.raises(UserError, match="windows of 40 frames"):
        loader(num_frames=40)
