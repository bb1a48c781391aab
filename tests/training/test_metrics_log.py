"""The numbers of a run: their file, TensorBoard, and their plot."""

import doctest
import json
import math
import sys
import types
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from cinnema.core.errors import UserError
from cinnema.training import metrics_log
from cinnema.training.metrics_log import MetricsLog, plot_metrics
from cinnema.training.run import TrainingRun


def test_numbers_come_back_to_the_bit(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"clips": 1, "loss": 0.1 + 0.2})
    assert list(log.lines()) == [{"clips": 1, "loss": 0.1 + 0.2}]


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"clips": 1, "loss": math.nan, "norm": -math.inf})
    assert json.loads(log.path.read_text()) == {"clips": 1, "loss": None, "norm": None}


def test_a_cut_takes_what_came_after_it(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"clips": 1})
    length = log.length()
    log.append({"clips": 2})
    log.cut(length)
    assert [line["clips"] for line in log.lines()] == [1]
    log.cut(10 * length)  # longer than it is: nothing to do
    assert log.length() == length


def test_a_line_that_broke_off_is_passed_over(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"clips": 1})
    with log.path.open("a") as file:
        file.write('{"clips": 2, "lo')
    assert [line["clips"] for line in log.lines()] == [1]


def test_a_file_that_is_not_there_is_empty(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.cut(0)
    assert (log.length(), list(log.lines())) == (0, [])


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


def write_numbers(folder: Path, *lines: dict[str, float | None]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)


def test_numbers_are_plotted_in_rows_of_three(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    line = {"clips": 32, "seconds": 3600.0, "flow": 0.9, "mask": None}
    sizes = []
    for names in ("abc", "abcd"):
        write_numbers(tmp_path, line, {**line, "clips": 64, **dict.fromkeys(names, 0.5)})
        path = plot_metrics(tmp_path)
        assert path == tmp_path / "metrics.png"
        sizes.append(Image.open(path).size)
    assert sizes[0] == sizes[1]  # flow beside three or four others, but no mask
    write_numbers(tmp_path, {**line, **dict.fromkeys("ab", 0.5)})
    plot_metrics(tmp_path)
    assert Image.open(tmp_path / "metrics.png").height < sizes[0][1]


def test_a_run_without_numbers_has_no_plot(tmp_path: Path) -> None:
    assert plot_metrics(tmp_path) is None
    write_numbers(tmp_path, {"clips": 1, "seconds": 1.0})
    assert plot_metrics(tmp_path) is None
    assert not (tmp_path / "metrics.png").exists()


def test_without_matplotlib_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    write_numbers(tmp_path, {"clips": 1, "seconds": 1.0, "flow": 0.5})
    assert plot_metrics(tmp_path) is None
    assert "pip install 'cinnema[report]'" in capsys.readouterr().err


def test_the_examples_run() -> None:
    assert doctest.testmod(metrics_log).failed == 0
