"""The record of a run's numbers."""

import doctest
import json
import math
from pathlib import Path

from cinnema.training import metrics_log
from cinnema.training.metrics_log import MetricsLog


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


def test_the_examples_run() -> None:
    assert doctest.testmod(metrics_log).failed == 0
