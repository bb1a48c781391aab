"""Futures as files: a video with its motion and JSON, and back from the motion or the JSON."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cinnema import __version__
from cinnema.app.studio import Future
from cinnema.app.uploads import Picture, SavedKind, named
from cinnema.app.wishes import ARROW_SECONDS, Hints, Wish, read_hints
from cinnema.core.documents import parse_json
from cinnema.core.errors import UserError
from cinnema.core.files import write_json
from cinnema.media.formats import MOTION_SUFFIX
from cinnema.models.base import VideoModel
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.request import RequestOptions
from cinnema.synthesis.residual import Residual, draw_one, load_motion, save_motion
from cinnema.synthesis.video import Video

_PAINT = "paint"  # key of the painting in the settings


def save_future(
    folder: Path, name: str, future: Future, video: Video, pipeline: Pipeline
) -> list[Path]:
    """Write a video, its motion and its JSON, and return the files.

    Args:
        folder: Folder of the files; older ones of the same names are replaced.
        name: Name of the video's file, whose suffix gives the format.
        future: What the video shows.
        video: The video.
        pipeline: The pipeline that made it.
    """
    video = replace(video, settings=_settings(future, video))
    path = video.save(folder / name, overwrite=True)
    motion = path.with_suffix(MOTION_SUFFIX)
    save_motion(motion, video, overwrite=True)
    height, width, _ = video.x0.shape
    values = {
        "cinnema": __version__,
        "weights": {"name": pipeline.name, "sha256": pipeline.sha256},
        "source": {"file": future.picture.name, "sha256": future.picture.sha256},
        "seed": video.seed,
        "sample": video.sample,
        "settings": video.settings,
        "output": {
            "video": path.name,
            "nu": motion.name,
            "format": path.suffix[1:],
            "width": width,
            "height": height,
            "num_frames": video.settings["num_frames"],
            "fps": video.fps,
        },
    }
    return [path, motion, write_json(path.with_suffix(".json"), values, overwrite=True)]


def _settings(future: Future, video: Video) -> dict[str, Any]:
    """Return the settings, with arrows in pixels of the photograph as it was dropped."""
    own = {**video.settings, **future.about}
    height, width = future.picture.pixels.shape[:2]
    scale = np.tile(np.array(future.picture.size) / (width, height), 2)
    own["arrows"] = [(scale * arrow).tolist() for arrow in own["arrows"]]
    if future.wish.hints.paint is not None:
        own[_PAINT] = future.wish.hints.paint.as_json()
    return own


def read_future(
    path: Path, name: str, kind: SavedKind, picture: Picture, pipeline: Pipeline
) -> Future:
    """Return the future that a motion file or a JSON describes, for a picture.

    Args:
        path: The file.
        name: The name that its owner gave it.
        kind: What the file is.
        picture: The picture.
        pipeline: The pipeline that is to render it.

    Raises:
        UserError: The file cannot be read, or does not fit the model.
    """
    try:
        with named(path, name):
            if kind == "motion":
                motion = load_motion(path)
                return _restored(
                    picture, motion, {**motion.about, "temperature": 1.0, "arrows": []}
                )
            values = parse_json(path.read_text("utf-8"))
            settings = values["settings"]
            return _restored(picture, _drawn_again(values, name, pipeline.model), settings)
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{name} is not a JSON of cinnema ({' '.join(str(error).split())[:80]}): drop one that "
            "was saved beside a video"
        ) from error


def _drawn_again(values: dict[str, Any], name: str, model: VideoModel) -> Residual:
    if values["seed"] is None:
        raise UserError(
            f"{name} describes a motion that was not drawn from a seed: drop its motion file "
            "(.nu.safetensors) instead"
        )
    eta = values["settings"].get("eta")
    return draw_one(
        model,
        seed=int(values["seed"]),
        sample=int(values["sample"]),
        eta=None if eta is None else torch.tensor([float(x) for x in eta]),
        weights=str(values["weights"]["sha256"]),
    )


def _restored(picture: Picture, motion: Residual, settings: dict[str, Any]) -> Future:
    width, height = picture.size
    scale = np.array([width, height, width, height]) / (1, 1, ARROW_SECONDS, ARROW_SECONDS)
    hints = read_hints({
        "arrows": [(np.array(arrow) / scale).tolist() for arrow in settings["arrows"]],
        "paint": settings.get(_PAINT),
    })  # fmt: skip
    options: RequestOptions = {}
    if settings["protocol"] == "paper":
        options = {"protocol": "paper", "fps": float(settings["fps"])}
    wish = Wish(
        seconds=settings["num_frames"] / settings["fps"],
        speed=float(settings["motion_strength"]),
        temperature=float(settings["temperature"]),
        loop=settings["loop"] != "none",
        hints=Hints(hints.arrows, hints.paint),
    )
    return Future(picture=picture, residual=motion, wish=wish, options=options)
