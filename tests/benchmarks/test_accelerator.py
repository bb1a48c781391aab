"""The measurement for accelerators runs, also where few packages are installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Other packages than torch, numpy, safetensors, einops and pydantic are not found.
BARE = """
import runpy, sys
from importlib.machinery import PathFinder

HIDDEN = set("PIL av cv2 google_crc32c jaxtyping pi_heif rich scipy tyro yaml".split())

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
path = sys.argv.pop(1)
runpy.run_path(path, run_name="__main__")
"""


def test_a_tiny_size_is_measured_on_the_cpu_with_five_packages() -> None:
    path = str(ROOT / "benchmarks" / "accelerator.py")
    sources = {"PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", BARE, path, "--tiny", "--runs", "1"],
        capture_output=True, text=True, check=False, env=os.environ | sources,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    titles = [line for line in lines if not line.startswith(" ")]
    assert [title.split("  ")[0] for title in titles[2:]] == [
        "decode 1 photographs", "to_residual, 1 rows", "to_latent, 1 rows",
        "training step of 1 clips",
    ]  # fmt: skip
    psnr = re.search(r"PSNR (\S+) dB", done.stdout)
    assert psnr is not None
    assert float(psnr[1]) > 40
    times = re.findall(r"(\S+) ms +(\S+) x", done.stdout)
    assert len(times) in (7, 8)  # a training step in bf16 where that is fast
    assert all(float(ms) > 0 and float(ratio) > 0 for ms, ratio in times)
