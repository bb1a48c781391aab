"""A training run on disk: what resumes, what is refused, and what survives."""

import doctest
import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.training import run as running
from cinnema.training.checkpoints import Checkpoints
from cinnema.training.run import TrainingRun, require_same_run

CONFIG = {"rate": 0.1, "widths": (1, 2)}  # the tuple comes back from JSON as a list


class Counter:
    """The smallest thing that a checkpoint can hold."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def make_run(folder: Path, counter: Counter | None = None, **options: Any) -> TrainingRun:
    settings = {"config": CONFIG, "total": 100, "seconds_between": 0.0, **options}
    return TrainingRun(folder, parts={"counter": counter or Counter()}, **settings)


def numbers_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def clips_seen(folder: Path) -> int:
    """As of the checkpoint that a resumption takes up."""
    state = Checkpoints(folder).read()
    assert state is not None
    return int(state["clips"])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_run_starts_at_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "first")
    assert (run.clips, run.progress, run.is_done) == (0, 0.0, False)


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    counter = Counter()
    with make_run(tmp_path, counter) as run:
        for _ in range(3):
            counter.count += 1
            run.advance(16)
            run.save_if_due()
    again = Counter()
    resumed = make_run(tmp_path, again)
    assert (resumed.clips, again.count, clips_seen(tmp_path)) == (48, 3, 48)
    assert resumed.progress == pytest.approx(0.48)
    assert 0 <= run.seconds <= resumed.seconds


def test_a_run_is_saved_at_its_end_and_stays_done(tmp_path: Path) -> None:
    run = make_run(tmp_path, total=30, seconds_between=1e6)
    run.advance(16)
    run.save_if_due()
    assert names_in(tmp_path) == []
    run.advance(16)
    run.save_if_due()
    assert (run.is_done, run.progress) == (True, 1.0)
    assert names_in(tmp_path) == ["checkpoint.pt"]
    assert make_run(tmp_path, total=30).is_done


def test_a_block_that_ends_well_is_saved_and_one_that_fails_is_not(tmp_path: Path) -> None:
    with pytest.raises(KeyError), make_run(tmp_path, seconds_between=1e6) as run:
        run.advance(16)
        raise KeyError("a slip")
    assert names_in(tmp_path) == []
    with make_run(tmp_path, seconds_between=1e6) as run:
        run.advance(16)
    assert make_run(tmp_path).clips == 16


def test_networks_and_optimisers_come_back_to_the_bit(tmp_path: Path) -> None:
    def parts() -> dict[str, Any]:
        network = nn.Linear(2, 2)
        return {"network": network, "optimiser": torch.optim.AdamW(network.parameters())}

    first, second = parts(), parts()
    first["network"](torch.ones(1, 2)).sum().backward()
    first["optimiser"].step()
    TrainingRun(tmp_path, config={}, parts=first, total=10).save()
    TrainingRun(tmp_path, config={}, parts=second, total=10)
    assert torch.equal(first["network"].weight, second["network"].weight)
    moments = [part["optimiser"].state_dict()["state"][0]["exp_avg"] for part in (first, second)]
    assert torch.equal(*moments)


def test_a_run_of_another_configuration_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path).save()
    with pytest.raises(UserError, match=r"another configuration.*another folder"):
        make_run(tmp_path, config={**CONFIG, "rate": 0.2})
    make_run(tmp_path)


def damage_by_halving(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_by_text(path: Path) -> None:
    path.write_text("not a checkpoint\nat all")


def replace_by_nothing(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_a_foreign_one(path: Path) -> None:
    torch.save({"weights": torch.ones(2)}, path)


def replace_by_a_list(path: Path) -> None:
    torch.save([1, 2], path)


def take_out_a_part(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    del state["parts"]["counter"]
    torch.save(state, path)


@pytest.mark.parametrize(
    "damage",
    [damage_by_halving, replace_by_text, replace_by_nothing, replace_by_a_foreign_one,
     replace_by_a_list, take_out_a_part],
)  # fmt: skip
def test_a_damaged_checkpoint_is_named_in_one_line(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    make_run(tmp_path).save()
    damage(tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match=r"checkpoint\.pt cannot be read.*move .* away") as caught:
        make_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
            return ran.touch, ()

    torch.save({"config": "{}", "clips": 0, "seconds": 0, "parts": Trap()}, tmp_path / "t.pt")
    (tmp_path / "t.pt").rename(tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        make_run(tmp_path)
    assert not ran.exists()


def test_a_full_disk_is_told_and_leaves_the_old_checkpoint(
    tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    run = TrainingRun(tmp_path, config={}, parts={"network": nn.Linear(64, 64)}, total=100)
    run.advance(16)
    run.save()
    run.advance(16)
    with small_disk(5000), pytest.raises(UserError, match=r"checkpoint\.pt.*disk is full"):
        run.save()
    assert names_in(tmp_path) == ["checkpoint.pt"]
    assert clips_seen(tmp_path) == 16


def test_numbers_that_do_not_fit_the_disk_are_told_and_cut_at_the_next_start(
    tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    run = make_run(tmp_path)
    run.advance(16)
    run.record(loss=0.5)
    run.save()
    run.advance(16)
    with small_disk(60), pytest.raises(UserError, match=r"metrics\.jsonl cannot be written.*good"):
        run.record(loss=0.25)
    make_run(tmp_path)
    assert [line["clips"] for line in numbers_of(tmp_path)] == [16]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match=r"file.* cannot be created"):
            make_run(folder)


def test_numbers_are_appended_line_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for expected in (16, 32):
        run = make_run(tmp_path)
        run.advance(16)
        run.record(loss=0.25, rate=1e-3)
        run.save()
        told = capsys.readouterr().err
        assert f"{expected}/100 clips  loss 0.25  rate 0.001" in told
        assert "clips/s" in told
        assert "left" in told
    lines = numbers_of(tmp_path)
    assert [line["clips"] for line in lines] == [16, 32]
    assert lines[1]["loss"] == 0.25
    assert lines[0]["seconds"] <= lines[1]["seconds"]


def test_lines_after_the_last_checkpoint_are_not_there_twice(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for _ in range(3):
        run.advance(16)
        run.record(loss=0.5)
        if run.clips <= 32:
            run.save()
    resumed = make_run(tmp_path)
    assert resumed.clips == 32
    resumed.advance(16)
    resumed.record(loss=0.5)
    assert [line["clips"] for line in numbers_of(tmp_path)] == [16, 32, 48]


def test_lines_of_a_run_that_never_came_to_a_checkpoint_are_written_anew(tmp_path: Path) -> None:
    for _ in range(2):
        run = make_run(tmp_path)
        run.advance(16)
        run.record(loss=0.5)
    assert [line["clips"] for line in numbers_of(tmp_path)] == [16]


@pytest.mark.parametrize("state", ["new", "saved"])
def test_a_check_of_a_folder_refuses_what_a_run_refuses_and_writes_nothing(
    tmp_path: Path, state: str
) -> None:
    folder = tmp_path / "runs" / "mine"
    if state == "saved":
        make_run(folder).save()
        with pytest.raises(UserError, match="another configuration"):
            require_same_run(folder, config={**CONFIG, "rate": 0.2})
    require_same_run(folder, config=CONFIG)
    assert folder.exists() == (state == "saved")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be created"):
        require_same_run(tmp_path / "file" / "run", config=CONFIG)


STEPS = 30


def fit_a_line(folder: Path, *, seconds_between: float = 0.01) -> None:
    """A training whose every draw follows from the number of its step."""
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    parts = {"network": network, "optimiser": optimiser}
    with TrainingRun(
        folder, config={}, parts=parts, total=STEPS, seconds_between=seconds_between
    ) as run:
        while not run.is_done:
            x = torch.randn(8, 3, generator=generator_for(0, run.clips))
            loss = (network(x) - x.sum(dim=1, keepdim=True)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            run.advance(1)
            run.record(loss=loss.item())
            run.save_if_due()


def outcome_of(folder: Path) -> tuple[list[dict[str, float]], Any]:
    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in numbers_of(folder)]
    return lines, torch.load(folder / "checkpoint.pt", weights_only=True)["parts"]


def start(work: Callable[[], object]) -> int:
    """Run something in a child process; return its number."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return child


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, float]], Any]:
    folder = tmp_path_factory.mktemp("unbroken")
    fit_a_line(folder)
    return outcome_of(folder)


@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_at_any_moment_ends_as_an_unbroken_one_to_the_bit(
    seed: int, tmp_path: Path, unbroken: tuple[list[dict[str, float]], Any]
) -> None:
    chance = random.Random(seed)
    for _ in range(8):
        child = start(lambda: fit_a_line(tmp_path))
        time.sleep(chance.uniform(0.0, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(os.waitpid(start(lambda: fit_a_line(tmp_path)), 0)[1]) == 0
    lines, parts = outcome_of(tmp_path)
    assert lines == unbroken[0]
    assert [line["clips"] for line in lines] == list(range(1, STEPS + 1))
    torch.testing.assert_close(parts, unbroken[1], rtol=0, atol=0)
    assert not list(tmp_path.glob(".*"))  # what the killed ones left is gone


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_run_killed_within_a_save_goes_on_from_a_good_checkpoint(
    call: int, tmp_path: Path, unbroken: tuple[list[dict[str, float]], Any]
) -> None:
    replace, calls = Path.replace, []

    def killed(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2 * call:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    def fit_and_die() -> None:
        Path.replace = killed  # type: ignore[method-assign] # in the child alone
        fit_a_line(tmp_path, seconds_between=0)  # so that every step saves, however fast they are

    assert os.waitstatus_to_exitcode(os.waitpid(start(fit_and_die), 0)[1]) == -signal.SIGKILL
    assert 0 < clips_seen(tmp_path) < STEPS
    fit_a_line(tmp_path)
    lines, parts = outcome_of(tmp_path)
    assert lines == unbroken[0]
    torch.testing.assert_close(parts, unbroken[1], rtol=0, atol=0)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(running).failed == 0
