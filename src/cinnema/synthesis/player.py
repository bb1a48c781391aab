"""Pages that play the futures of a photograph in a browser, each one file without a network.

Layers of a nature model are warped by the page itself, at the screen's rate and without an end:
player.js computes what `cinnema.synthesis.nature_renderer` does. Other models paint their frames,
and their pages hold small videos. Both have one slider for the speed and one from future to future.
"""

import io
import json
import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from cinnema import __version__
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path
from cinnema.media.pictures import resize, to_pixels, to_tensor
from cinnema.models.nature.model import MOTION_DIM, NatureModel
from cinnema.models.nature.motion import (
    CHURN_SHAPE,
    GRID,
    MAX_JITTER,
    churn_blur,
    churn_spectrum,
    renewal_of,
)
from cinnema.models.nature.reflection import SOFT
from cinnema.models.nature.rendering import low_pass
from cinnema.synthesis.interpolate import between
from cinnema.synthesis.nature_layers import NativeLayer
from cinnema.synthesis.nature_scene import NatureScene
from cinnema.synthesis.residual import Residual
from cinnema.synthesis.video import Video

STOPS = 4
"""Motions that are computed from one future to the next; between them they are mixed linearly."""

MAX_BYTES = 1_000_000
"""Largest size of a page of a photograph of 1280x720 pixels; of larger ones in proportion."""

_MAX_SIDE = 2048  # the largest picture that every browser with WebGL 2 draws
_QUALITIES = (95, 90, 85, 80, 70, 60, 50)
# Largest difference, in levels, of a plate from the photograph that is none.
_SAME = 2
# Width and height of the copy of a plate that holds the mean under its detail.
_SMALL = 128


def write_player(path: str | Path, videos: Sequence[Video], *, overwrite: bool = False) -> Path:
    """Write a page that plays videos of one photograph, with a slider from one to the next.

    Of nature models it shows the motion itself: it goes on without an end, or repeats with a loop,
    and between two futures it is that of `Pipeline.interpolate`. No frame of the videos is used,
    so they may be made with `render=False`.

    Args:
        path: The file to write, which ends in .html.
        videos: At least one video; all were returned by one call.
        overwrite: Whether an existing file may be replaced.

    Returns:
        `path`.

    Raises:
        UserError: The videos show several photographs, or the file exists or cannot be written.

    Example:
        >>> videos = pipe("beach.jpg", num_samples=4, render=False)
        >>> write_player("beach.html", videos)
    """
    scene = videos[0].scene
    if any(video.scene is not scene for video in videos):
        raise UserError(
            "videos: a page shows the futures of one photograph: write the videos of one call"
        )
    if isinstance(scene, NatureScene):
        page = _page_of_layers(scene, videos)
    else:
        page = _page_of_videos(videos)
    with atomic_path(path, overwrite=overwrite) as partial:
        partial.write_text(page, encoding="utf-8")
    return Path(path)


def _page_of_videos(videos: Sequence[Video]) -> str:
    height, width = videos[0].frames.shape[1:3]
    content = {"videos": [video.as_uri() for video in videos], "numFutures": len(videos)}
    return _page(_picture(videos[0].x0, 90), content, size=(height, width))


def _page_of_layers(scene: NatureScene, videos: Sequence[Video]) -> str:
    """Return the page of the best quality that is as small as `MAX_BYTES` says."""
    height, width = size = _page_size(scene.x0.shape[:2])
    most = MAX_BYTES * max(1.0, height * width / (1280 * 720))
    content, motions = _motions(scene, videos)
    still, page = resize(scene.x0, size), ""
    for quality in _QUALITIES:
        content["layers"] = [
            {**_pictures(layer, still, quality), "motion": motion}
            for layer, motion in zip(scene.layers, motions, strict=True)
        ]
        page = _page(_picture(still, quality), content, size=size)
        if len(page) < most:
            break
    return page


def _page(still: str, content: dict[str, Any], *, size: tuple[int, int]) -> str:
    folder = files("cinnema.synthesis")
    height, width = size
    return Template(folder.joinpath("player.html").read_text("utf-8")).substitute(
        version=__version__,
        width=width,
        height=height,
        still=still,
        scene=json.dumps(content, separators=(",", ":")),
        script=folder.joinpath("player.js").read_text("utf-8"),
    )


def _page_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, _MAX_SIDE / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def _pictures(layer: NativeLayer, still: np.ndarray, quality: int) -> dict[str, Any]:
    """Return alpha and plate of a layer as pictures.

    The plate is given as a patch, which hides the photograph where the two differ. For things that
    fall it is the photograph without them, and the plate is the difference.
    """
    height, width, _ = still.shape
    levels = cv2.resize(layer.alpha, (width, height), interpolation=cv2.INTER_AREA)
    out = {"alpha": _picture(levels, quality), "falls": layer.base is not None, "low": None}
    if layer.reflection is not None:
        out["reflection"] = {**asdict(layer.reflection), "soft": SOFT}
    if layer.base is not None:
        return {**out, "patch": _picture(resize(layer.base, (height, width)), quality)}
    plate = resize(layer.plate, (height, width))
    is_same = np.abs(plate.astype(np.int16) - still).max(axis=-1) <= _SAME
    kernel = np.ones((9, 9), np.uint8)  # single pixels that agree cost more than they save
    opened = cv2.morphologyEx(is_same.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    patch = np.dstack([plate, 255 * (1 - opened)])
    small = to_tensor(cv2.resize(layer.plate, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA))
    low = to_pixels(low_pass(small[None])[0])
    return {**out, "patch": _picture(patch, quality), "low": _picture(low, 95)}


def _picture(pixels: np.ndarray, quality: int) -> str:
    """Return a picture as a data URI: a JPEG with all its colours, or a WebP if it is RGBA."""
    kind = "webp" if pixels.shape[2:] == (4,) else "jpeg"
    options: dict[str, Any] = {"subsampling": 0, "progressive": True} if kind == "jpeg" else {}
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=quality, optimize=True, **options)
    return f"data:image/{kind};base64," + b64encode(file.getvalue()).decode("ascii")


def _motions(
    scene: NatureScene, videos: Sequence[Video]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what all layers share: times, futures, the churn's numbers; and each one's motion."""
    request, model = scene.request, scene.model
    latents = torch.stack([scene.latent(stop.nu, stop.eta) for stop in _stops(model, videos)])
    numbers, mixes = _mixed(latents[:, MOTION_DIM:])
    read = model.read_motion(latents)
    content = {
        "loop": request.loop,
        "seconds": request.num_frames / request.fps,
        "numFutures": len(videos),
        "stopsPerFuture": STOPS,
        "numbers": numbers,
        "mixes": mixes,
    }
    return content, [_motion_of(scene, layer.kind, *read[layer.kind]) for layer in scene.layers]


def _stops(model: NatureModel, videos: Sequence[Video]) -> list[Residual]:
    """Return the motions from the first video to the last, with `STOPS` steps from each to next."""
    ends = [Residual(nu=video.nu, eta=video.eta) for video in videos]
    stops = [ends[0]]
    for start, end in pairwise(ends):
        steps = between(
            model, start, end, steps=STOPS + 1, seed=0, temperature=1.0, eta=None, weights=""
        )
        stops += steps[1:]
    return stops


def _mixed(rows: Float[Tensor, "s n"]) -> tuple[list[dict[str, Any]], list[list[float]]]:
    """Return the churn's numbers of as few stops as all can be mixed from, in 8 bits, and how.

    Args:
        rows: The churn's numbers at each stop.
    """
    basis = rows[:1].double()
    for row in rows[STOPS::STOPS].double():
        rest = row - _solved(basis, row[None])[0] @ basis
        if float(rest.norm()) > 1e-3 * float(row.norm()):
            basis = torch.cat([basis, row[None]])
    numbers = []
    for row in basis:
        scale = float(row.abs().max()) / 127 or 1.0
        values = (row / scale).round().to(torch.int8).numpy()
        numbers.append({"scale": scale, "values": b64encode(values.tobytes()).decode("ascii")})
    mixes: list[list[float]] = _solved(basis, rows.double()).tolist()
    return numbers, mixes


def _solved(basis: Tensor, rows: Tensor) -> Tensor:
    """Return the factors with which the rows of a basis add up to rows."""
    out: Tensor = torch.linalg.lstsq(basis.T, rows.T, driver="gelsd").solution.T
    return out


def _motion_of(
    scene: NatureScene, kind: int, coefficients: Tensor, strength: Tensor
) -> dict[str, Any]:
    """Return what `KindMotion` is made from, with the same factors, at all stops."""
    request = scene.request
    dynamics, factor = scene.model.config.dynamics[kind], request.motion_strength
    loop, steps = request.loop == "seamless", scene.steps(request.num_frames)[kind]
    endless = request.loop == "none"
    renewal = renewal_of(dynamics, num_steps=math.inf if endless else steps, loop=loop)
    omega, power = churn_spectrum(dynamics, renewal.churn_period)
    blur = churn_blur(dynamics)[None, None]
    smooth = functional.interpolate(blur, (GRID, CHURN_SHAPE[-1]), mode="bicubic")
    return {
        "rate": scene.rates[kind],
        "renewed": renewal.is_on,
        "half": renewal.half if renewal.is_on else 0.0,
        "longest": renewal.longest if renewal.is_on else steps,
        "last": round(steps / renewal.half) if loop else None,
        "jitter": dynamics.jitter,
        "maxJitter": MAX_JITTER,
        "upright": dynamics.upright,
        "omega": omega.tolist(),
        "reach": (power.sqrt() / omega * dynamics.churn * factor).tolist(),
        "flicker": (power.sqrt() * dynamics.flicker * factor).tolist(),
        "smooth": _floats(smooth),
        "velocities": _floats(coefficients * dynamics.gain * factor),
        "strengths": strength.tolist(),
    }


def _floats(values: Tensor) -> str:
    return b64encode(values.float().numpy().tobytes()).decode("ascii")
