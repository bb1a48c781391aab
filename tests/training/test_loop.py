"""The training loop, with steps of the test's own."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.training.loop import (
    Position,
    Schedule,
    Step,
    fit,
    require_finite,
    take_gradients,
    warmup_cosine,
)
from cinnema.training.run import Stateful
from two_processes import in_two_processes

SCHEDULE = Schedule(clips=20, batch_size=4, validate_every=8, record_every=1, save_every=0.0)


class Line(Step[Tensor]):
    """Learns to double numbers by plain descent; its average is one more than the weight."""

    def __init__(self, *, start: float = 0.0) -> None:
        self.networks = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.networks.weight, start)
        self.ranks = Ranks()
        self.positions: list[Position] = []
        self.is_averaged = False

    @property
    def weight(self) -> float:
        return self.networks.weight.item()

    def about(self) -> dict[str, Any]:
        return {"line": 1}

    def parts(self) -> dict[str, Stateful]:
        return {"networks": self.networks}

    def take(self, batch: Tensor, position: Position) -> dict[str, float]:
        self.positions.append(position)
        loss = (self.networks(batch) - 2 * batch).square().mean()
        require_finite({"error": loss.item()}, number=position.number)
        (gradient,) = torch.autograd.grad(loss, self.networks.weight)
        with torch.no_grad():
            self.networks.weight -= 0.05 * gradient
        return {"error": loss.item()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        self.is_averaged = True
        with torch.no_grad():
            self.networks.weight += 1
        yield
        with torch.no_grad():
            self.networks.weight -= 1
        self.is_averaged = False


class Numbers:
    """Batches of four numbers."""

    def __init__(self, *, stop: int | None = None, bad: int | None = None) -> None:
        self.stop, self.bad, self.number, self.is_closed = stop, bad, 0, False

    def __next__(self) -> Tensor:
        if self.number == self.stop:
            raise KeyboardInterrupt
        self.number += 1
        batch = torch.tensor([[-1.0], [0.5], [1.0], [2.0]]) * self.number
        return batch * math.nan if self.number - 1 == self.bad else batch

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["clips"] // 4

    def names(self, batch: Tensor) -> Sequence[str]:
        return [f"row {row}" for row in range(len(batch))]

    def close(self) -> None:
        self.is_closed = True


def lines_of(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def scores(*values: float) -> Any:
    left = iter(values)
    return lambda: {"nll": next(left)}


def test_a_run_that_was_stopped_ends_as_an_uninterrupted_one_to_the_bit(tmp_path: Path) -> None:
    whole = Line()
    result = fit(whole, Numbers(), SCHEDULE, folder=tmp_path / "whole")
    assert (result.clips, result.nll, result.stopped_early) == (20, None, False)
    for stop in (2, 3):
        batches = Numbers(stop=stop)
        with pytest.raises(KeyboardInterrupt):
            fit(Line(), batches, SCHEDULE, folder=tmp_path / "broken")
        assert batches.is_closed
    resumed = Line()
    fit(resumed, Numbers(), SCHEDULE, folder=tmp_path / "broken")
    assert resumed.weight == whole.weight
    assert [p.number for p in resumed.positions] == [3, 4]
    assert lines_of(tmp_path / "broken") == lines_of(tmp_path / "whole")
    again = Line()
    fit(again, Numbers(stop=5), SCHEDULE, folder=tmp_path / "broken")  # finished: no step is taken
    assert again.positions == []
    assert again.weight == whole.weight
    assert not again.networks.training


def test_averaged_weights_are_validated_and_shown_at_intervals_and_at_the_end(
    tmp_path: Path,
) -> None:
    step, seen, shown = Line(), [], []

    def validate() -> dict[str, float]:
        seen.append(step.weight)
        assert step.is_averaged
        return {"score": 0.5}

    fit(step, Numbers(), SCHEDULE, folder=tmp_path, validate=validate, show=shown.append)
    assert [line["clips"] for line in lines_of(tmp_path) if "score" in line] == [8, 16, 20]
    assert seen[-1] == step.weight + 1
    names = [f"{clips:09d}.png" for clips in (8, 16, 20)]
    assert shown == [tmp_path / "grids" / name for name in names]


@pytest.mark.parametrize(
    ("keep", "expected"), [("best", (1.0, 16, True)), ("last", (None, 24, True))]
)
def test_a_run_ends_early_when_the_validation_loss_stops_falling(
    tmp_path: Path, keep: str, expected: tuple[float | None, int, bool]
) -> None:
    schedule = replace(SCHEDULE, clips=80, patience=1, keep_best=keep == "best")
    step = Line()
    result = fit(step, Numbers(), schedule, folder=tmp_path, validate=scores(2.0, 1.0, 1.5))
    assert (result.nll, result.clips, result.stopped_early) == expected
    again, forbidden = Line(), scores()  # it stays ended
    assert fit(again, Numbers(stop=0), schedule, folder=tmp_path, validate=forbidden) == result
    assert again.weight == step.weight
    uninterrupted = Line()
    few = replace(SCHEDULE, clips=16)
    fit(uninterrupted, Numbers(), few, folder=tmp_path / "few")
    if keep == "best":  # the averaged weights of that time
        assert step.weight == uninterrupted.weight + 1


def test_the_early_stop_counts_on_after_a_resumption(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, clips=80, patience=2, keep_best=True)
    values = (4.0, 3.0, 3.5, 3.4)
    whole = fit(Line(), Numbers(), schedule, folder=tmp_path / "a", validate=scores(*values))
    with pytest.raises(StopIteration):
        fit(Line(), Numbers(), schedule, folder=tmp_path / "b", validate=scores(*values[:3]))
    left = scores(*values[3:])
    assert fit(Line(), Numbers(), schedule, folder=tmp_path / "b", validate=left) == whole


def test_epochs_are_counted_recorded_and_validated(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, clips=24, epoch=12, validate_every=12, record_every=100)
    step = Line()
    fit(step, Numbers(), schedule, folder=tmp_path, validate=lambda: {"score": 0.5})
    assert [p.epoch for p in step.positions] == [0, 0, 0, 1, 1, 1]
    assert [p.progress for p in step.positions][:2] == [0, 4 / 24]
    found = [(line["clips"], line["epoch"], "score" in line) for line in lines_of(tmp_path)]
    assert found == [(4, 0, False), (12, 0, False), (12, 0, True), (24, 1, False), (24, 1, True)]


def test_a_loss_that_is_not_finite_names_its_clips_and_leaves_the_last_checkpoint(
    tmp_path: Path,
) -> None:
    step = Line()
    with pytest.raises(UserError, match=r"error nan at step 2 is not finite.*clips row 0, row 1"):
        fit(step, Numbers(bad=2), SCHEDULE, folder=tmp_path)
    kept = json.loads((tmp_path / "nan-2.json").read_text())
    assert (kept["clips"], kept["batch"]) == (8, [f"row {row}" for row in range(4)])
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["clips"] == 8
    assert checkpoint["parts"]["networks"]["weight"].item() == step.weight


def test_another_step_or_another_length_does_not_resume_a_run(tmp_path: Path) -> None:
    fit(Line(), Numbers(), SCHEDULE, folder=tmp_path)
    with pytest.raises(UserError, match="another configuration"):
        fit(Line(), Numbers(), replace(SCHEDULE, clips=24), folder=tmp_path)
    other = Line()
    other.about = lambda: {"line": 2}  # type: ignore[method-assign]
    with pytest.raises(UserError, match="another configuration"):
        fit(other, Numbers(), SCHEDULE, folder=tmp_path)


def test_a_run_that_fails_at_once_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(Line(), Numbers(stop=0), SCHEDULE, folder=tmp_path / "runs" / "mine" / "line")
    assert list(tmp_path.iterdir()) == []


def test_ranks_start_from_the_first_ones_weights_and_validation(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, clips=80, patience=1, keep_best=True)

    def trained(ranks: Ranks) -> dict[str, Any]:
        step = Line(start=float(ranks.rank))
        step.ranks = ranks
        values = scores(2.0, 1.0, 1.5) if ranks.is_first else None
        result = fit(step, Numbers(), schedule, folder=tmp_path, validate=values or scores())
        return {"weight": step.weight, "nll": result.nll}

    first, second = in_two_processes(trained)
    assert first == second


def test_gradients_and_losses_are_means_over_the_ranks() -> None:
    def taken(ranks: Ranks) -> dict[str, Any]:
        weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        x = torch.tensor([[3.0, 0.0], [0.0, 8.0]])[ranks.share(2)]
        losses = {"line": (x @ weight).mean()}
        losses["line"].backward()
        numbers = take_gradients(losses, [weight], ranks=ranks, largest=1.0)
        return {"numbers": numbers, "gradient": weight.grad}

    one = taken(Ranks())
    assert one["numbers"] == {"line": 9.5, "gradient": pytest.approx(math.hypot(1.5, 4))}
    assert one["gradient"].norm() == pytest.approx(1)
    for two in in_two_processes(taken):
        torch.testing.assert_close(two, one)


@given(st.floats(0, 1))
def test_the_rate_is_never_zero_and_never_above_its_peak(progress: float) -> None:
    assert 0 < warmup_cosine(progress) <= 1


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    assert warmup_cosine(0.05, warmup=0.1) == pytest.approx(0.5)
    assert warmup_cosine(0.1, warmup=0.1) == pytest.approx(1.0)
    assert warmup_cosine(0.55, warmup=0.1, floor=0.2) == pytest.approx(0.6)
    assert warmup_cosine(1.0, floor=0.2) == pytest.approx(0.2)
    assert math.isclose(warmup_cosine(0.0, warmup=0.0), 1.0)
