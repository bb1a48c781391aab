"""An evaluation with one of everything."""

import math

import numpy as np
import pytest

from cinnema.evaluation.results import (
    Column,
    Curve,
    Evaluation,
    Example,
    Missing,
    Row,
)
from cinnema.evaluation.statistics.bootstrap import Estimate


def estimate(value: float, spread: float | None = 0.01, *, clips: int = 24) -> Estimate:
    low, high = (None, None) if spread is None else (value - spread, value + spread)
    return Estimate(value, low, high, num_clips=clips, num_sources=8)


def clip(seed: int, *, frames: int = 5, height: int = 24, width: int = 32) -> np.ndarray:
    wide = np.random.default_rng(seed).integers(0, 256, (height, width + frames, 3), np.uint8)
    return np.stack([wide[:, t : t + width] for t in range(frames)])


@pytest.fixture(scope="session")
def evaluation() -> Evaluation:
    no_file = Missing(reason="no Inception file: give its folder with --backbones")
    too_few = Missing(reason="12 clips are too few to extrapolate")
    return Evaluation(
        weights={"name": "sky <model> & co", "sha256": "ab" * 32},
        data={"name": "sky", "split": "test", "sha256": "cd" * 32},
        protocol={"name": "aligned", "about": "frames 1..4 beside the real ones"},
        settings={"samples": 2, "sizes": [32, 24]},
        backbones={"LPIPS VGG16": "ef" * 32},
        columns=(
            Column(name="LPIPS", better="lower", group="quality", about="VGG16"),
            Column(name="PSNR", better="higher", group="quality", unit="dB", digits=2),
            Column(name="FID", better="lower", group="distribution", digits=1),
            Column(name="FVD", better="lower", group="distribution", digits=1),
            Column(name="speed", better="real", group="motion"),
        ),
        rows=(
            Row(
                name="frozen <first> frame",
                kind="baseline",
                about="x0 & nothing else",
                cells={
                    "LPIPS": estimate(0.265, clips=23),
                    "PSNR": estimate(20.1, None),
                    "FID": no_file,
                    "FVD": estimate(1237.5, 10.0),
                    "speed": estimate(0.0, 0.0),
                },
            ),
            Row(
                name="cINN",
                kind="model",
                cells={
                    "LPIPS": estimate(0.231),
                    "PSNR": estimate(-21.325),
                    "FID": no_file,
                    "FVD": too_few,
                    "speed": estimate(0.385),
                },
            ),
            Row(
                name="reconstruction",
                kind="baseline",
                sees_real=True,
                cells={"LPIPS": estimate(0.1), "PSNR": estimate(math.nan, None), "FID": no_file},
            ),
            Row(
                name="real against real",
                kind="real",
                cells={"FVD": estimate(31.2, 1.0), "speed": estimate(0.412), "FID": no_file},
            ),
        ),
        curves=(
            Curve(
                title="LPIPS over frames",
                x_label="frame",
                y_label="LPIPS",
                x={"cINN": (1.0, 2.0, 3.0), "frozen <first> frame": (1.0, 2.0, 3.0)},
                y={"cINN": (0.111, 0.212, 0.313), "frozen <first> frame": (0.1, math.nan, 0.3)},
                low={"cINN": (0.101, 0.202, 0.303)},
                high={"cINN": (0.121, 0.222, 0.323)},
                about="Nearer is better.",
            ),
            Curve(
                title="Diversity against quality",
                x_label="LPIPS",
                y_label="diversity",
                x={"cINN": (0.231,), "frozen <first> frame": (0.265,)},
                y={"cINN": (0.84,), "frozen <first> frame": (0.0,)},
                style="points",
            ),
            Curve(
                title="Quantiles of nu",
                x_label="standard normal",
                y_label="nu",
                x={"cINN": (-1.0, 0.0, 1.0)},
                y={"cINN": (-1.1, 0.01, 1.2)},
                style="points",
                diagonal=True,
            ),
        ),
        examples=(
            Example(
                title="best by LPIPS",
                key="sky/12@0x1#0",
                videos={"real": clip(0), "cINN": clip(1)},
                score=0.081,
            ),
        ),
        notes=("8 source videos only: <intervals> are rough",),
        seconds=12.3,
    )
