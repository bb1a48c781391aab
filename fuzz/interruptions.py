"""Bad days of the commands: killed, on a full or read-only disk, without memory, two at once.

`python fuzz/interruptions.py --count 50` is the size for a night; `--count 2 --levels 2` that of
the tests.

Each command first runs undisturbed. Then it runs again and again, each time in a folder of its own
with the same inputs, and is disturbed:

- kill: `kill -9` of the command and its processes, in turn after a random share of its work, and
  when it is about to make, open for writing, rename or remove a random one of its files;
- disk: a tmpfs with room for a part of what it writes, at --levels fill levels (where mounting is
  not permitted, a limit on the size of a file);
- read-only: that tmpfs mounted read-only;
- two: two such commands at once in one folder;
- clock: killed halfway, then run again with a clock that goes back by ten years, beside files from
  the future;
- memory: a limit on the address space (`ulimit -v`), at --levels levels; a library may crash then,
  after a warning;
- offline: no socket may be opened.

Afterwards, no result may be there under its name but with the bytes of the undisturbed run. Where
the command could end by itself, it has to report one line of error, and leave no temporary file.
Then the same command, run again undisturbed, has to end with all results, byte for byte those of
the undisturbed run, and no temporary file.
"""

import argparse
import contextlib
import faulthandler
import hashlib
import io
import json
import mmap
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interrupted_commands import CASES, Case

Disturbance = Callable[[], None]
FAULTS = ("kill", "disk", "read-only", "two", "clock", "memory", "offline")
_TIMEOUT = 300
_SOCKET = "a socket was used"
_TEN_YEARS = 10 * 365 * 86400
_HAS_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT
_TICK = 0.005
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"})


# --- Running a command ----------------------------------------------------------------------------


def start(folder: Path, arguments: str, disturb: Disturbance | None = None) -> int:
    """Start a command in a process of its own, forked from this one, and return its number.

    Modules are imported already, so a random moment is one of its work. What it prints goes to a
    file beside the folder.
    """
    process = os.fork()
    if process:
        return process
    try:
        os.setsid()  # so that its own processes are killed with it
        signal.alarm(_TIMEOUT)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        os.environ.pop("CINNEMA_CACHE", None)
        os.chdir(folder)
        printed = os.open(log_of(folder), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        faulthandler.dump_traceback_later(_TIMEOUT - 10, file=2)
        if disturb is not None:
            disturb()
        from cinnema.cli.main import main

        os._exit(main(arguments.split()))
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def log_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def end_of(process: int) -> int:
    """Wait for a process, and return its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def call(folder: Path, arguments: str, disturb: Disturbance | None = None) -> tuple[int, str]:
    """Run a command to its end; return its exit code and what it printed."""
    log = log_of(folder).resolve()
    log.unlink(missing_ok=True)
    code = end_of(start(folder, arguments, disturb))
    return code, log.read_text(errors="replace")


def killed_after(folder: Path, arguments: str, work: float) -> bool:
    """Run a command, and kill it after so much work; return whether it was still running.

    Work is seconds of the processor, as other programs slow a command down.
    """
    process = start(folder, arguments)
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        while os.waitid(os.P_PID, process, _HAS_ENDED) is None and work_of(process) < work:
            time.sleep(_TICK)
        os.kill(process, signal.SIGKILL)
        os.killpg(process, signal.SIGKILL)  # its processes, if it has got as far as having a group
    return end_of(process) == -signal.SIGKILL


def work_of(process: int) -> float:
    """Return the seconds of the processor that a process and its children have taken."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ticks = 0
    for number in (process, *children):
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # of itself, and of children that have ended
    return ticks / os.sysconf("SC_CLK_TCK")


def watch_files(touched: Callable[[], None]) -> None:
    """Call a function before each file is made, opened for writing, renamed or removed."""

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        is_write = event == "open" and bool((arguments[2] or 0) & _WRITING)
        if is_write or event in _CHANGES:
            touched()

    sys.addaudithook(watch)


class Touches:
    """The number of files that a command and its processes have touched, see `watch_files`."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    def __int__(self) -> int:
        return int.from_bytes(self._shared[:8], "little")

    def count(self) -> None:
        watch_files(self._one_more)

    def _one_more(self) -> None:
        self._shared[:8] = (int(self) + 1).to_bytes(8, "little")

    def die_at(self, number: int) -> Disturbance:
        """Return a disturbance that kills the command before it touches this file, from 1."""

        def touched() -> None:
            self._one_more()
            if int(self) == number:
                os.killpg(0, signal.SIGKILL)

        return lambda: watch_files(touched)


# --- What is expected -----------------------------------------------------------------------------


@dataclass
class Calm:
    """What an undisturbed run leaves and needs: processor time, files to touch, bytes."""

    results: dict[str, str]
    work: float
    touched: int
    size: int
    memory: int


def results_in(folder: Path, case: Case) -> dict[str, str]:
    """Return the hashes of the results that are in a folder, by their names."""
    paths = [path for pattern in case.results for path in folder.glob(pattern) if path.is_file()]
    shown = [path for path in paths if not path.name.startswith(".")]
    return {str(path.relative_to(folder)): digest_of(path) for path in shown}


def digest_of(path: Path) -> str:
    """Return the hash of a file, without how long something took."""
    content = path.read_bytes()
    if path.suffix == ".json":
        content = json.dumps(timeless(json.loads(content))).encode()
    elif path.suffix == ".md":
        content = re.sub(rb"Measured in [0-9.]+ s", b"", content)
    return hashlib.sha256(content).hexdigest()


def timeless(value: Any) -> Any:
    """Return JSON values without those named "seconds"."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key != "seconds"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def half_written(folder: Path, case: Case, calm: Calm) -> str:
    """Return what is wrong with the results in a folder, of which some may be missing."""
    found = results_in(folder, case)
    wrong = [name for name, digest in found.items() if calm.results.get(name) != digest]
    return f"{wrong[0]} is there with other bytes" if wrong else ""


def temporary(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob(".*.partial-*")]


def refused(code: int, printed: str, *words: str) -> str:
    """Return what is wrong with the end of a command that could not do its work."""
    errors = [line for line in printed.splitlines() if line.startswith("cinnema: error: ")]
    if "Traceback" in printed:
        return f"a traceback: {printed[printed.index('Traceback') :]!r}"
    if code == -signal.SIGALRM:
        return f"it did not end: {printed[-1500:]!r}"
    if code != 2 or len(errors) != 1:
        return f"code {code} and {len(errors)} lines of error: {printed[-200:]!r}"
    if words and not any(word in errors[0] for word in words):
        return f"its error does not say why: {errors[0]}"
    return ""


def run_again(folder: Path, case: Case, calm: Calm) -> str:
    """Run the command undisturbed, and return what is wrong then."""
    code, printed = call(folder, case.arguments)
    if code != 0:
        return f"run again, it ended with {code}: {printed[-300:]!r}"
    found = results_in(folder, case)
    if missing := sorted(calm.results.keys() - found.keys()):
        return f"run again, it left out {missing[0]}"
    if problem := half_written(folder, case, calm):
        return f"run again, {problem}"
    left = temporary(folder)
    return f"run again, it left {left[0]}" if left else ""


# --- Faults ---------------------------------------------------------------------------------------


class Trials:
    """Trials of one command.

    Args:
        name: Name of the case.
        place: Folder for all trials.
        seed: Seed of the random moments.
    """

    def __init__(self, name: str, place: Path, seed: int) -> None:
        self.name, self.case, self.place, self.seed = name, CASES[name], place, seed
        self.given = place / "given"
        self.given.mkdir()
        child = os.fork()  # what the inputs need, such as threads, is no part of later forks
        if not child:
            with contextlib.redirect_stdout(io.StringIO()):
                self.case.inputs(self.given)
            os._exit(0)
        if end_of(child):
            raise SystemExit(f"{name}: its inputs could not be made")
        self.calm = self._calm()

    def fresh(self, parent: Path | None = None) -> Path:
        """Return a folder with the inputs alone."""
        folder = (parent or self.place) / "work"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.given, folder)
        if parent:
            log_of(folder).symlink_to(self.place / "printed")  # which needs no room there
        return folder

    def _calm(self) -> Calm:
        folder = self.fresh()
        before, touches = size_of(folder), Touches()
        process = start(folder, self.case.arguments, touches.count)
        _, status, usage = os.wait4(process, 0)
        if status:
            raise SystemExit(f"{self.name} cannot be run: {log_of(folder).read_text()}")
        results = results_in(folder, self.case)
        assert results, f"{self.name} has no results"
        return Calm(
            results,
            usage.ru_utime + usage.ru_stime,
            int(touches),
            size_of(folder) - before,
            usage.ru_maxrss * 1024,
        )

    def kill(self, number: int) -> tuple[str, str]:
        folder = self.fresh()
        chance = random.Random(f"{self.seed}/{self.name}/{number}")
        if number % 2:
            die = Touches().die_at(chance.randint(1, self.calm.touched))
            is_killed = end_of(start(folder, self.case.arguments, die)) == -signal.SIGKILL
        else:
            work = chance.random() * self.calm.work
            is_killed = killed_after(folder, self.case.arguments, work)
        problem = half_written(folder, self.case, self.calm) or run_again(
            folder, self.case, self.calm
        )
        return "killed" if is_killed else "done", problem

    def ended(self, folder: Path, code: int, printed: str, *words: str) -> tuple[str, str]:
        """Judge the end of a command that was limited by itself."""
        kind = "done" if code == 0 else "refused"
        problem = "" if code == 0 else refused(code, printed, *words)
        left = temporary(folder)
        problem = problem or half_written(folder, self.case, self.calm)
        return kind, problem or (f"it left {left[0]}" if left else "")

    def disk(self, share: float) -> tuple[str, str]:
        room = int(share * self.calm.size)
        words = ("disk is full", "No space left")
        with tmpfs(self.place, (64 << 20) + size_of(self.given) + 4 * self.calm.size) as disk:
            if disk is None:
                folder = self.fresh()
                limit = limited(resource.RLIMIT_FSIZE, max(room, 1))
                code, printed = call(folder, self.case.arguments, limit)
                kind, problem = self.ended(folder, code, printed, *words, "File too large")
                return kind, problem or run_again(folder, self.case, self.calm)
            folder = self.fresh(disk)
            ballast = disk / "ballast"
            fill(ballast, leave=room)
            code, printed = call(folder, self.case.arguments)
            kind, problem = self.ended(folder, code, printed, *words)
            ballast.unlink()
            return kind, problem or run_again(folder, self.case, self.calm)

    def read_only(self, _: int) -> tuple[str, str]:
        with tmpfs(self.place, (64 << 20) + size_of(self.given) + 4 * self.calm.size) as disk:
            if disk is None:
                return "skipped", ""
            folder = self.fresh(disk)
            mount("-o", "remount,ro", str(disk))
            code, printed = call(folder, self.case.arguments)
            mount("-o", "remount,rw", str(disk))
            kind, problem = self.ended(folder, code, printed, "Read-only", "cannot be written")
            return kind, problem or run_again(folder, self.case, self.calm)

    def two(self, _: int) -> tuple[str, str]:
        folder = self.fresh()
        both = [start(folder, self.case.arguments) for _ in range(2)]
        codes = [end_of(process) for process in both]
        printed = log_of(folder).read_text()
        problem = ""
        if sorted(codes) not in ([0, 0], [0, 2]) or "Traceback" in printed:
            problem = f"two at once ended with {codes}: {printed[-400:]!r}"
        problem = problem or half_written(folder, self.case, self.calm)
        return ("done" if codes == [0, 0] else "refused"), problem or run_again(
            folder, self.case, self.calm
        )

    def clock(self, _: int) -> tuple[str, str]:
        folder = self.fresh()
        killed_after(folder, self.case.arguments, self.calm.work / 2)
        future = time.time() + _TEN_YEARS
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (future, future))
        code, printed = call(folder, self.case.arguments, clock_goes_back)
        kind, problem = self.ended(folder, code, printed)
        return kind, problem or ("" if code == 0 else printed[-200:]) or run_again(
            folder, self.case, self.calm
        )

    def memory(self, share: float) -> tuple[str, str]:
        folder = self.fresh()
        limit = limited(resource.RLIMIT_AS, address_space() + int(share * self.calm.memory))
        code, printed = call(folder, self.case.arguments, limit)
        is_crash = code < 0 and code != -signal.SIGALRM
        is_crash |= "panicked at" in printed  # as libraries in Rust end
        if is_crash and "cinnema: warning: memory is limited" in printed:
            kind, problem = "crashed", half_written(folder, self.case, self.calm)
        else:
            kind, problem = self.ended(folder, code, printed, "memory")
        return kind, problem or run_again(folder, self.case, self.calm)

    def offline(self, _: int) -> tuple[str, str]:
        folder = self.fresh()
        code, printed = call(folder, self.case.arguments, forbid_sockets)
        used = re.findall(f"{_SOCKET}.*", printed)
        problem = "; ".join(used) or ("" if code == 0 else f"it ended with {code}: {printed}")
        return "done", problem or half_written(folder, self.case, self.calm)

    def run(self, fault: str, count: int, levels: int) -> Iterator[tuple[str, str]]:
        """Yield the outcome and the fault (empty for none) of each trial with one fault."""
        shares = [(level + 0.5) / levels for level in range(levels)]
        attempts: dict[str, list[Callable[[], tuple[str, str]]]] = {
            "kill": [lambda n=n: self.kill(n) for n in range(count)],
            "disk": [lambda s=s: self.disk(s) for s in shares],
            "read-only": [lambda: self.read_only(0)],
            "two": [lambda: self.two(0)],
            "clock": [lambda: self.clock(0)],
            "memory": [lambda s=s: self.memory(s) for s in shares],
            "offline": [lambda: self.offline(0)],
        }
        for attempt in attempts[fault]:
            yield attempt()


def size_of(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def limited(what: int, limit: int) -> Disturbance:
    def disturb() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(what, (limit, resource.getrlimit(what)[1]))

    return disturb


def clock_goes_back() -> None:
    """Let each question for the time be answered with an earlier time than the one before."""
    real, step = time.time, iter(range(1, 1 << 30))
    time.time = lambda: real() - _TEN_YEARS - next(step)


def forbid_sockets() -> None:
    """Let each use of a socket fail, and be printed, as its user may handle the error."""

    def watch(event: str, _: object) -> None:
        if event.startswith("socket."):
            os.write(2, f"{_SOCKET}: {event}\n".encode())
            raise PermissionError(f"{event} is forbidden")

    sys.addaudithook(watch)


def address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def mount(*arguments: str) -> bool:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


@contextmanager
def tmpfs(place: Path, size: int) -> Iterator[Path | None]:
    """Yield the folder of a new tmpfs of so many bytes; None where that is not permitted."""
    disk = place / "disk"
    disk.mkdir(exist_ok=True)
    if not mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)):
        yield None
        return
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(ballast: Path, *, leave: int) -> None:
    free = os.statvfs(ballast.parent)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_bsize - leave))


# --- Command line ---------------------------------------------------------------------------------


def import_all() -> None:
    """Import what commands import, so that a forked process begins with its work."""
    import cinnema.cli.main
    import cinnema.evaluation.runner
    import cinnema.paper.training.assembly
    import cinnema.synthesis.pipeline
    import cinnema.training.finetune
    import cinnema.training.nature_recipe  # noqa: F401

    with contextlib.suppress(ImportError):
        import matplotlib.figure  # noqa: F401


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=5, help="kills of each command")
    parser.add_argument("--levels", type=int, default=20, help="fill levels, and limits of memory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=FAULTS)
    options = parser.parse_args(arguments)
    import_all()
    faults: list[str] = []
    print(f"{'command':<12}{'work':>8}{'files':>7}  outcomes")
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            trials = Trials(name, Path(folder), options.seed)
            calm = trials.calm
            print(f"{name:<12}{calm.work:>6.1f} s{calm.touched:>7}", end="", flush=True)
            for fault in options.faults:
                counts: Counter[str] = Counter()
                for kind, problem in trials.run(fault, options.count, options.levels):
                    counts["FAULT" if problem else kind] += 1
                    faults += [f"{name}, {fault}: {problem}"] if problem else []
                shown = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))
                print(f"  {fault}: {shown}", end="", flush=True)
            print(flush=True)
    for fault in faults:
        print(fault[:2000])
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
