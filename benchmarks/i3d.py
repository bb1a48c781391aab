"""Speed of I3D in each layout and precision, and the effect of each on FVD.

FVD is measured between simulated skies and the first frames of the same skies, repeated. Times are
processor time for one clip of 16 frames on one thread at batch size 1, as in `cinnema evaluate`;
they depend little on other programs. The variants take turns.

    python benchmarks/i3d.py [--clips 24] [--threads 1]

"chosen" marks the variant that `cinnema evaluate` uses on this machine.
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
from cinnema.evaluation.features import Precision, choose_precision, in_precision
from cinnema.evaluation.statistics.distances import GaussianStatistics, frechet_distance
from cinnema.media.pictures import to_tensor
from cinnema.simulators.sky import Skies

_FRAMES, _SIZE = 16, 128


@dataclass
class Variant:
    """One layout and precision of the network."""

    name: str
    network: I3D
    seconds: list[float] = field(default_factory=list)
    sets: tuple[GaussianStatistics, GaussianStatistics] = field(
        default_factory=lambda: (GaussianStatistics(400), GaussianStatistics(400))
    )

    def add(self, x: Tensor, which: int) -> None:
        """Add a clip to one of the two sets."""
        start = time.process_time()
        logits = self.network.logits(x)
        self.seconds.append(time.process_time() - start)
        self.sets[which].add(logits)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    variants = [Variant(name, network) for name, network in _networks().items()]
    with torch.inference_mode():
        for seed in range(options.clips):
            moving = _sky(seed)
            for which, clip in enumerate((moving, np.repeat(moving[:1], _FRAMES, axis=0))):
                x = resize_frames(to_tensor(clip)[None], method="tensorflow")
                for variant in variants:
                    variant.add(x, which)
    _print(variants, clips=options.clips, threads=options.threads)
    return 0


def _names() -> dict[Precision, str]:
    return {
        "float32": "float32, folded, channels last",
        "mixed": "bfloat16 where harmless, folded, channels last",
        "bfloat16": "bfloat16 throughout, folded, channels last",
    }


def _networks() -> dict[str, I3D]:
    fast = {name: in_precision(I3D.kinetics(), kind) for kind, name in _names().items()}
    return {"float32, eager": I3D.kinetics(), **fast}


def _sky(seed: int) -> UInt8[np.ndarray, "t h w 3"]:
    """Draw a moving sky."""
    skies = Skies(1, futures=1, seed=seed, size=_SIZE, num_frames=_FRAMES + 1)
    (clip,) = skies.read(skies.items()[0])
    return clip.frames[1:]


def _print(variants: list[Variant], *, clips: int, threads: int) -> None:
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    print(
        f"I3D, clips of {_FRAMES} frames, {clips} per set, {threads} thread(s), "
        f"{platform.machine()}, bfloat16 in hardware: {'yes' if has_bf16 else 'no'}"
    )
    print(f"{'':54}{'s/clip':>9}{'speed-up':>10}{'FVD':>9}{'change':>9}")
    base = variants[0]
    slowest, reference = float(np.median(base.seconds)), frechet_distance(*base.sets)
    chosen = _names()[choose_precision(torch.device("cpu"))]
    for variant in variants:
        seconds, fvd = float(np.median(variant.seconds)), frechet_distance(*variant.sets)
        mark = "  chosen" if variant.name == chosen else ""
        print(
            f"{variant.name:54}{seconds:9.3f}{slowest / seconds:10.2f}{fvd:9.2f}"
            f"{100 * (fvd / reference - 1):+8.2f}%{mark}"
        )


if __name__ == "__main__":
    sys.exit(main())
