"""Arrows: how truly videos follow them, and what else moves.

    python benchmarks/arrows.py [--weights landscape] [--arrows 2] PHOTO|VIDEO ...

Of each photograph (of a video, its first frame), points that surely move get an arrow in a random
direction, as fast as the point is in another sample, but at least 1 % of a picture size a second.
Each arrow is followed in a video of its own, of 8 frames, about 3 pixels of motion apart.

- field: mean velocity along the path, over half a second, that the renderer integrates from the
  arrow's point.
- seen: optical flow (DIS) of the rendered frames around the point, where there is texture.
- without: the field of the same sample without the arrow.
- still: mean absolute change, in grey levels, of pixels that surely stand still, and the same
  without the arrow.

Errors are of the direction, in degrees, and of the speed, in per cent of the arrow's: medians,
and the share of arrows within 10 degrees and 25 %.
"""

import argparse
import math
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy import ndarray

from cinnema.backbones.optical_flow import forward_flow
from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.media.formats import VIDEO_SUFFIXES
from cinnema.media.pictures import read_photograph, resize_for_model, to_tensor
from cinnema.media.videos import read_video
from cinnema.models.files import load_model
from cinnema.models.nature.kinds import KIND_SIZE, KINDS
from cinnema.models.nature.model import NatureModel
from cinnema.models.nature.motion import GRID, follow
from cinnema.models.nature.reading import velocity_of
from cinnema.models.nature.rendering import shares
from cinnema.synthesis.hints import Arrow
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.video import Video

_NUM_FRAMES = 8
_STEP = 3.0  # pixels that the arrow's point moves from frame to frame
_FPS = (4.0, 60.0)
_SLOWEST = 0.01  # picture sizes a second
_SECONDS = 0.5
_SURE = 0.95
_MARGIN = 6  # cells of the networks' answer between an arrow and an edge of the kind
_PATCH = 0.03  # radius around a point in which flow is averaged, in picture sizes
_TEXTURED = 4.0  # standard deviation in grey levels of a patch in which flow can be seen


class Error(NamedTuple):
    """How a velocity differs from the arrow."""

    direction: float
    speed: float


class Followed(NamedTuple):
    """What became of one arrow."""

    kind: str
    field: Error
    seen: Error | None
    without: Error
    still: float
    still_without: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--weights", default="landscape")
    parser.add_argument("--arrows", type=int, default=2, help="for each kind of a photograph")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    loaded = load_model(options.weights)
    if not isinstance(loaded.model, NatureModel):
        raise UserError(f"{options.weights} cannot follow arrows: use the weights landscape")
    pipe = Pipeline(loaded)
    found: list[Followed] = []
    for number, source in enumerate(options.sources):
        random = np.random.default_rng((options.seed, number))
        found += followed_in(pipe, photograph(source), random, options.arrows)
        print(f"{source.name}: {len(found)} arrows so far", flush=True)
    report(found)
    return 0


def photograph(source: Path) -> ndarray:
    if source.is_dir() or source.suffix.lower() in VIDEO_SUFFIXES:
        return read_video(source, max_frames=1).frames[0]
    return read_photograph(source)


def followed_in(
    pipe: Pipeline, pixels: ndarray, random: np.random.Generator, count: int
) -> list[Followed]:
    """Return what becomes of random arrows on each kind that a photograph shows."""
    share = known_shares(pipe.model, pixels)
    still = enlarged(inside(share[0], 3), pixels) > 0.5
    found = []
    for kind, name in enumerate(KINDS):
        if pipe.model.config.dynamics[kind].gain == 0:
            continue
        rows, columns = np.nonzero(inside(share[kind + 1], _MARGIN))
        for place in random.choice(len(rows), min(count, len(rows)), replace=False):
            height, width, _ = pixels.shape
            x = (columns[place] + 0.5) / share.shape[2] * width
            y = (rows[place] + 0.5) / share.shape[1] * height
            arrow = random_arrow(pipe, pixels, kind, (float(x), float(y)), random)
            found.append(follow_one(pipe, pixels, arrow, name, still))
    return found


@torch.inference_mode()
def known_shares(model: NatureModel, pixels: ndarray) -> ndarray:
    small = to_tensor(resize_for_model(pixels, KIND_SIZE))[None]
    return shares(model.recognise(small).probabilities)[0].numpy()


def inside(share: ndarray, margin: int) -> ndarray:
    side = 2 * margin + 1
    sure = cv2.copyMakeBorder((share > _SURE).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    return cv2.erode(sure, np.ones((side, side), np.uint8), borderValue=0)[1:-1, 1:-1]


def enlarged(x: ndarray, pixels: ndarray) -> ndarray:
    height, width, _ = pixels.shape
    return cv2.resize(x.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def random_arrow(
    pipe: Pipeline,
    pixels: ndarray,
    kind: int,
    point: tuple[float, float],
    random: np.random.Generator,
) -> Arrow:
    model = pipe.model
    c = model.condition(to_tensor(resize_for_model(pixels, KIND_SIZE))[None])
    nu = torch.randn(1, model.z_dim, generator=generator_for(int(random.integers(1 << 20)), 0))
    with torch.inference_mode():
        z, _ = model.to_latent(nu, c)
    size = math.sqrt(pixels.shape[0] * pixels.shape[1])
    speed = max(float(np.hypot(*field(model, z[0], pixels, kind, point))), _SLOWEST * size)
    angle = random.uniform(0, 2 * math.pi)
    speed = min(speed, size)
    return Arrow(*point, speed * math.cos(angle), speed * math.sin(angle))


def field(
    model: NatureModel, z: torch.Tensor, pixels: ndarray, kind: int, point: tuple[float, float]
) -> ndarray:
    """Return the mean velocity in pixels a second along the path from a point."""
    dynamics = model.config.dynamics[kind]
    height, width, _ = pixels.shape
    velocity = velocity_of(model.read_motion(z[None])[kind][0]) * dynamics.gain
    num = max(1, round(_SECONDS * dynamics.rate))
    # The paths forwards are the paths back along the opposite velocity.
    path = follow(-velocity, num)[0, num].movedim(0, -1).numpy()
    column, row = (
        np.float32(p / side * GRID - 0.5) for p, side in zip(point, (width, height), strict=True)
    )
    moved = cv2.remap(path, np.array([[column]]), np.array([[row]]), cv2.INTER_LINEAR,
                      borderMode=cv2.BORDER_REPLICATE)[0, 0]  # fmt: skip
    return moved * (width, height) / num * dynamics.rate


def follow_one(
    pipe: Pipeline, pixels: ndarray, arrow: Arrow, name: str, still: ndarray
) -> Followed:
    kind, point = KINDS.index(name), (arrow.x, arrow.y)
    fps = min(max(arrow.speed / _STEP, _FPS[0]), _FPS[1])
    common = {"num_samples": 1, "num_frames": _NUM_FRAMES, "fps": fps}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        video, plain = (pipe(pixels, arrows=a, **common)[0] for a in ([arrow], []))
    for warning in told:
        print(f"  {warning.message}")
    velocity = seen(video, arrow)
    return Followed(
        name,
        error(field(pipe.model, video.z, pixels, kind, point), arrow),
        None if velocity is None else error(velocity, arrow),
        error(field(pipe.model, plain.z, pixels, kind, point), arrow),
        change(video, still),
        change(plain, still),
    )


def seen(video: Video, arrow: Arrow) -> ndarray | None:
    """Return the velocity around a point by optical flow; None where nothing can be seen."""
    height, width, _ = video.x0.shape
    radius = max(4, round(_PATCH * math.sqrt(height * width)))
    x, y = round(arrow.x), round(arrow.y)
    patch = (slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1))
    if cv2.cvtColor(video.x0, cv2.COLOR_RGB2GRAY)[patch].std() < _TEXTURED:
        return None
    flow = forward_flow(np.concatenate([video.x0[None], video.frames]), size=(height, width))
    return flow[:, *patch].mean(axis=(0, 1, 2)) * video.fps


def error(velocity: ndarray, arrow: Arrow) -> Error:
    speed = math.hypot(*velocity)
    cosine = (velocity[0] * arrow.dx + velocity[1] * arrow.dy) / max(speed * arrow.speed, 1e-9)
    degrees = math.degrees(math.acos(min(1.0, max(-1.0, cosine))))
    return Error(degrees, 100 * abs(speed / arrow.speed - 1))


def change(video: Video, still: ndarray) -> float:
    """Return the mean absolute change of still pixels in grey levels; nan if there are none."""
    if still.mean() < 0.01:
        return math.nan
    away = np.abs(video.frames[:, still].astype(np.float32) - video.x0[still])
    return float(away.mean())


def report(found: list[Followed]) -> None:
    print(f"\n{'':>8} {'arrows':>6} " + " ".join(
        f"{name:>24}" for name in ("field", "seen", "without arrow")
    ))  # fmt: skip
    for name in (*KINDS, "all"):
        rows = [one for one in found if name in ("all", one.kind)]
        if rows:
            columns = (
                [one.field for one in rows],
                [one.seen for one in rows if one.seen is not None],
                [one.without for one in rows],
            )
            print(f"{name:>8} {len(rows):>6} " + " ".join(f"{cell(c):>24}" for c in columns))
    still = [one for one in found if not math.isnan(one.still)]
    if still:
        after, before = (
            np.mean([getattr(o, n) for o in still]) for n in ("still", "still_without")
        )
        print(f"still pixels change by {after:.3f} grey levels, {before:.3f} without the arrow")


def cell(errors: list[Error]) -> str:
    if not errors:
        return "-"
    direction, speed = (np.array(values) for values in zip(*errors, strict=True))
    good = np.mean((direction <= 10) & (speed <= 25))
    return f"{np.median(direction):.1f} deg {np.median(speed):.0f}% ({good:.0%} good)"


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(code)
