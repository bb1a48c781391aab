"""The bad days of `fuzz/interruptions.py`, in a small size."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def tried(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "fuzz/interruptions.py", *options],
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_killed_commands_and_full_disks_leave_nothing_half_written_and_a_rerun_completes() -> None:
    sizes = ["--count", "2", "--levels", "1", "--only", "animate", "prepare"]
    assert tried(*sizes, "--faults", "kill", "disk").count("disk: 1 refused") == 2


def test_animating_training_and_evaluating_open_no_socket_and_give_the_same_bytes_again() -> None:
    commands = ["animate", "kinds", "evaluate"]
    assert tried("--only", *commands, "--faults", "offline").count("offline: 1 done") == 3
