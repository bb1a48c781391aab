"""Commands of cinnema in processes of their own."""

import numpy as np
import pytest

from cinnema.bench.processes import run_command
from cinnema.core.errors import UserError


def test_the_memory_of_a_command_is_its_own_and_not_that_of_the_bench() -> None:
    kept = np.ones(40_000_000)  # 0.32 GB
    cost = run_command(["--version"])
    assert 0 < cost.peak < 0.2 < kept.nbytes / 1e9
    assert cost.processor > 0
    assert cost.wall > 0


def test_an_unexpected_exit_code_is_told_with_the_command() -> None:
    with pytest.raises(UserError, match="cinnema demmo ended with 2: run it to see why"):
        run_command(["demmo"])
    assert run_command(["demmo"], expected=2).wall > 0
