"""A training run on disk: what resumes, what is refused, and what survives."""

import doctest
import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cinnema.core import running
from cinnema.core.errors import UserError
from cinnema.core.running import TrainingRun, clips_seen, warmup_cosine

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


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_run_starts_at_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "first")
    assert (run.clips, run.progress, run.is_done) == (0, 0.0, False)
    assert clips_seen(tmp_path / "runs" / "first") == 0
    assert clips_seen(tmp_path / "nowhere") == 0


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    counter = Counter()
    with make_run(tmp_path, counter) as run:
        for _ in range(3):
            counter.count += 1
            run.advance(16)
    again = Counter()
    resumed = make_run(tmp_path, again)
    assert (resumed.clips, again.count, clips_seen(tmp_path)) == (48, 3, 48)
    assert resumed.progress == pytest.approx(0.48)
    assert 0 <= run.seconds <= resumed.seconds


def test_a_run_is_saved_at_its_end_and_stays_done(tmp_path: Path) -> None:
    run = make_run(tmp_path, total=30, seconds_between=1e6)
    run.advance(16)
    assert names_in(tmp_path) == []
    run.advance(16)
    assert (run.is_done, run.progress) == (True, 1.0)
    assert names_in(tmp_path) == ["checkpoint.pt"]
    assert make_run(tmp_path, total=30).is_done


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
    with pytest.raises(UserError, match=r"checkpoint\.pt cannot be read.*move it away") as caught:
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


@pytest.mark.parametrize("error", [RuntimeError("a slip"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    run = make_run(tmp_path)
    run.advance(16)

    def stop_halfway(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(bytes(content)[:100])
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(Path, "write_bytes", stop_halfway)
        run.advance(16)
    assert names_in(tmp_path) == ["checkpoint.pt"]
    assert make_run(tmp_path).clips == 16


def test_a_full_disk_is_told_and_leaves_the_old_checkpoint(
    tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    run = TrainingRun(
        tmp_path, config={}, parts={"network": nn.Linear(64, 64)}, total=100, seconds_between=0.0
    )
    run.advance(16)
    with small_disk(5000), pytest.raises(UserError, match=r"checkpoint\.pt.*disk is full"):
        run.advance(16)
    assert names_in(tmp_path) == ["checkpoint.pt"]
    assert clips_seen(tmp_path) == 16


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match=r"file.* cannot be made a folder of a run"):
            make_run(folder)


def test_numbers_are_appended_line_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for expected in (16, 32):
        run = make_run(tmp_path)
        run.advance(16)
        run.record(loss=0.25, rate=1e-3)
        assert f"{expected}/100 clips  loss 0.25  rate 0.001" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["clips"] for line in lines] == [16, 32]
    assert lines[1]["loss"] == 0.25
    assert lines[0]["seconds"] <= lines[1]["seconds"]


@given(st.floats(0, 1))
def test_the_rate_is_never_nothing_and_never_above_its_peak(progress: float) -> None:
    assert 0 < warmup_cosine(progress) <= 1


def test_the_rate_goes_up_in_a_line_and_down_in_a_cosine() -> None:
    assert warmup_cosine(0.05, warmup=0.1) == pytest.approx(0.5)
    assert warmup_cosine(0.1, warmup=0.1) == pytest.approx(1.0)
    assert warmup_cosine(0.55, warmup=0.1, floor=0.2) == pytest.approx(0.6)
    assert warmup_cosine(1.0, floor=0.2) == pytest.approx(0.2)
    assert math.isclose(warmup_cosine(0.0, warmup=0.0), 1.0)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(running).failed == 0
