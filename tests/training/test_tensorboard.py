"""Numbers for TensorBoard, which need not be installed to be tested."""

import sys
import types
from pathlib import Path

import pytest
from torch import nn

from cinnema.core.errors import UserError
from cinnema.training.run import TrainingRun


class Writer:
    """Takes the place of torch's SummaryWriter."""

    made: list["Writer"] = []  # noqa: RUF012

    def __init__(self, folder: str, *, purge_step: int) -> None:
        self.folder, self.purge_step = folder, purge_step
        self.scalars: list[tuple[str, float, int]] = []
        self.is_closed = False
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, *, global_step: int) -> None:
        self.scalars.append((name, value, global_step))

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "made", [])
    return Writer.made


def make_run(folder: Path) -> TrainingRun:
    parts = {"network": nn.Linear(1, 1)}
    return TrainingRun(folder, config={}, parts=parts, total=64, tensorboard=True)


def test_numbers_are_written_by_clips_and_a_resumed_run_takes_back_what_it_repeats(
    tmp_path: Path, installed: list[Writer]
) -> None:
    for clips in (16, 32):
        with make_run(tmp_path) as run:
            run.advance(16)
            run.record(loss=0.5)
        writer = installed[-1]
        assert writer.folder == str(tmp_path / "tensorboard")
        assert writer.purge_step == clips - 16 + 1
        assert writer.scalars == [("loss", 0.5, clips)]
        assert writer.is_closed


def test_without_the_package_the_way_to_get_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"tensorboard.*pip install 'cinnema\[tensorboard\]'"):
        make_run(tmp_path)
