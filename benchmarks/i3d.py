"""How fast I3D is in each layout and precision, and by how much that moves FVD.

FVD is measured between simulated skies and the same skies standing still. Rates are the
processor's seconds for one clip of 16 frames on one thread, alone in its batch as `cinnema
evaluate` computes it: other programs on the machine disturb them least. The ways take turns.

    python benchmarks/i3d.py [--clips 24] [--threads 1]

"chosen" marks what `cinnema evaluate` takes on this machine.
"""

import argparse
import platform
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from cinnema.backbones.i3d import I3D, resize_frames
from cinnema.evaluation.precision import Precision, choose_precision, in_precision
from cinnema.evaluation.statistics.distances import GaussianStatistics, frechet_distance
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.simulators.sky.motion import draw_motion
from cinnema.simulators.sky.scene import draw_scene

_FRAMES, _SIZE = 16, 128


@dataclass
class Way:
    """One layout and precision of the network."""

    name: str
    network: I3D
    seconds: list[float] = field(default_factory=list)
    sets: tuple[GaussianStatistics, GaussianStatistics] = field(
        default_factory=lambda: (GaussianStatistics(400), GaussianStatistics(400))
    )

    def see(self, x: Tensor, which: int) -> None:
        """Take in a clip of one of the two sets."""
        start = time.process_time()
        logits = self.network.logits(x)
        self.seconds.append(time.process_time() - start)
        self.sets[which].add(logits)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure I3D's ways to compute.")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ways = [Way(name, network) for name, network in _ways().items()]
    with torch.inference_mode():
        for seed in range(options.clips):
            moving = _sky(seed)
            for which, clip in enumerate((moving, np.repeat(moving[:1], _FRAMES, axis=0))):
                x = resize_frames(to_tensor(clip)[None], method="tensorflow")
                for way in ways:
                    way.see(x, which)
    _print(ways, clips=options.clips, threads=options.threads)
    return 0


def _names() -> dict[Precision, str]:
    return {
        "float32": "float32, folded, channels last",
        "mixed": "bfloat16 where harmless, folded, channels last",
        "bfloat16": "bfloat16 throughout, folded, channels last",
    }


def _ways() -> dict[str, I3D]:
    fast = {name: in_precision(I3D.kinetics(), kind) for kind, name in _names().items()}
    return {"float32, eager": I3D.kinetics(), **fast}


def _sky(seed: int) -> UInt8[np.ndarray, "t h w 3"]:
    """Draw a sky that moves."""
    generator = torch.Generator().manual_seed(seed)
    motion = draw_motion(generator)
    scene = draw_scene(generator, size=_SIZE, plane=motion.plane)
    frames = [scene.frame(motion, t / _FRAMES) for t in range(1, _FRAMES + 1)]
    return to_pixels(torch.stack(frames))


def _print(ways: list[Way], *, clips: int, threads: int) -> None:
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    print(
        f"I3D, clips of {_FRAMES} frames, {clips} a set, {threads} thread(s), "
        f"{platform.machine()}, bfloat16 in hardware: {'yes' if has_bf16 else 'no'}"
    )
    print(f"{'':54}{'s a clip':>9}{'ratio':>7}{'FVD':>9}{'moved':>9}")
    base = ways[0]
    slowest, reference = float(np.median(base.seconds)), frechet_distance(*base.sets)
    chosen = _names()[choose_precision(torch.device("cpu"))]
    for way in ways:
        seconds, fvd = float(np.median(way.seconds)), frechet_distance(*way.sets)
        mark = "  chosen" if way.name == chosen else ""
        print(
            f"{way.name:54}{seconds:9.3f}{slowest / seconds:7.2f}{fvd:9.2f}"
            f"{100 * (fvd / reference - 1):+8.2f}%{mark}"
        )


if __name__ == "__main__":
    sys.exit(main())
