"""Time and memory of `cinnema app` when many visitors drop a picture at once.

A server of its own, 4 futures of 1 second of a photograph of 12 megapixels for each visitor:

    python benchmarks/app.py [--visitors 20] [--weights landscape]
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gradio_client import Client, handle_file
from PIL import Image

from cinnema.bench.machine import num_cores
from cinnema.cli.demo import example_folder

_SIZE = (4000, 3000)
_WISH = (None, 1.0, 1.0, 1.0, True)  # nothing drawn, 1 second, speed, temperature, loop


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
            seconds = _ask(url, photo, options.visitors)
            peak = _memory(server.pid, "VmHWM")
        finally:
            server.terminate()
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
