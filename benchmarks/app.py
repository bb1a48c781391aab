"""Time and memory of `cinnema app`: one visitor, and many who drop a picture at once.

A server of its own. One visitor drops an example photograph, waits for four futures of 4 seconds
and draws arrows, three times; then many drop a photograph of 12 megapixels, for 4 futures of a
second:

    python benchmarks/app.py [--visitors 20] [--weights landscape]

Beside the seconds are those of the server's processor time, which other work does not change much.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gradio_client import Client, handle_file
from gradio_client.client import Job
from PIL import Image

from cinnema.bench.machine import num_cores
from cinnema.cli.demo import example_folder

_SIZE = (4000, 3000)
_WISH = (None, 1.0, 1.0, 1.0, True)  # nothing drawn, 1 second, speed, temperature, loop
_ARROWS = [[0.3, 0.2, 0.1, 0.0], [0.3, 0.2, 0.0, 0.1], [0.7, 0.2, -0.1, 0.0]]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure many visitors of the page at once.")
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--weights", default="landscape")
    options = parser.parse_args()
    command = [sys.executable, "-m", "cinnema", "app", "--no-browser", "--weights", options.weights]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server,
    ):
        try:
            assert server.stdout is not None
            url = re.findall(r"http://\S+", server.stdout.readline().decode())[0]
            photo = _photograph(Path(folder))
            idle = _memory(server.pid)
            _one_visitor(url, server.pid)
            seconds = _ask(url, photo, options.visitors) if options.visitors else []
            peak = _memory(server.pid, "VmHWM")
        finally:
            server.terminate()
    if not seconds:
        return 0
    print(f"cinnema app, {options.visitors} pictures of 12 megapixels at once, {num_cores()} cores")
    print(f"answered              {len(seconds)} of {options.visitors}")
    print(f"first, last answer    {min(seconds):.1f} s, {max(seconds):.1f} s")
    print(f"memory before, peak   {idle:.2f} GB, {peak:.2f} GB")
    return 0


def _photograph(folder: Path) -> Path:
    path = folder / "photograph.jpg"
    with Image.open(sorted(example_folder().glob("*.jpg"))[0]) as example:
        example.resize(_SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
    return path


def _one_visitor(url: str, process: int) -> None:
    """Print the seconds that one visitor waits."""
    client = Client(url, verbose=False)
    photo = sorted(example_folder().glob("*.jpg"))[-1]
    wish = (_WISH[0], 4.0, *_WISH[2:])
    print(f"cinnema app, one visitor with {photo.name}, {num_cores()} cores")
    for what in ("a first picture", "the same again"):
        waited = _waited(client.submit(handle_file(str(photo)), *wish, api_name="/draw"), process)
        for name, (seconds, computed) in {"first": waited[0], "fourth": waited[-1]}.items():
            print(
                f"{what}, {name + ' future':<14} {seconds:5.1f} s, {computed:5.1f} s of processor"
            )
    for arrow in _ARROWS:
        drawn = {"arrows": [arrow], "paint": None, "point": None}
        ((seconds, computed),) = _waited(
            client.submit(drawn, *wish[1:], api_name="/steer"), process
        )
        print(f"steered                        {seconds:5.1f} s, {computed:5.1f} s of processor")


def _waited(job: Job, process: int) -> list[tuple[float, float]]:
    """Return the seconds, and those of the processor, until each further video of an answer."""
    start, before = time.perf_counter(), _processor(process)
    waited, shown = [], set[str]()
    for update in job:
        new = {text for value in update if "data:video/mp4" in (text := str(value))} - shown
        waited += [(time.perf_counter() - start, _processor(process) - before)] * len(new)
        shown |= new
    return waited


def _processor(process: int) -> float:
    """Return the processor time that a process has taken, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ask(url: str, photo: Path, visitors: int) -> list[float]:
    """Return the seconds until each visitor has four futures."""
    clients = [Client(url, verbose=False) for _ in range(visitors)]
    start = time.perf_counter()

    def answered(client: Client) -> float | None:
        job = client.submit(handle_file(str(photo)), *_WISH, api_name="/draw")
        job.result()
        values = {str(value) for update in job.outputs() for value in update}
        is_full = sum("data:video/mp4" in value for value in values) == 4
        return time.perf_counter() - start if is_full else None

    with ThreadPoolExecutor(visitors) as pool:
        return [seconds for seconds in pool.map(answered, clients) if seconds is not None]


def _memory(process: int, entry: str = "VmRSS") -> float:
    """Return an entry of the process's status, in GB."""
    status = Path(f"/proc/{process}/status").read_text("utf-8")
    kilobytes = re.search(rf"{entry}:\s+(\d+)", status)
    assert kilobytes is not None
    return int(kilobytes[1]) / 1e6


if __name__ == "__main__":
    sys.exit(main())
