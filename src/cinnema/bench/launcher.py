"""Run a command and print what it took, as JSON: `python -m cinnema.bench.launcher COMMAND...`.

Linux counts what a process had before `exec` to the peak memory of the command, and that is the
memory of the process that started it. So a small process, this one, starts what is measured.
"""

import json
import os
import subprocess
import sys
import time


def main() -> int:
    """Run the command; its output is dropped."""
    start = time.perf_counter()
    with subprocess.Popen(
        sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        # wait4 returns the usage of this child; RUSAGE_CHILDREN is the maximum over all children.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    took = [process.returncode, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]
    print(json.dumps(took))
    return 0


if __name__ == "__main__":
    sys.exit(main())
