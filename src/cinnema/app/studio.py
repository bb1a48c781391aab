"""What the page computes: each method is a call or two of the pipeline."""

import secrets
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from cinnema.app.limits import Limits
from cinnema.app.uploads import Picture, fit
from cinnema.app.wishes import Point, Wish
from cinnema.core.errors import UserError
from cinnema.media.videos import write_video
from cinnema.models.control import DRIFT, END_POINT, Drift, EndPoint
from cinnema.models.nature.model import NatureModel
from cinnema.models.nature.rendering import shares
from cinnema.synthesis.certainty import Certainty
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.request import RequestOptions
from cinnema.synthesis.residual import Residual, draw_one, residual_of
from cinnema.synthesis.scene import Progress, ignore
from cinnema.synthesis.skyline import corrected
from cinnema.synthesis.transfer import Motion
from cinnema.synthesis.video import Video

PREVIEW_SIDE = 320
"""Longest side of a preview, in pixels."""

NUM_STEPS = 5
"""Number of videos from one future to another, both included."""

_PREVIEW_FPS = 10.0
# How high above the tray's floor a hand should end, in metres.
_HEIGHT = 0.05
# Parts of the settings that say where a motion comes from.
_ORIGINS = ("query", "keep", "path", "path_kept", "interpolation")


@dataclass(frozen=True, kw_only=True, eq=False)
class Future:
    """One video of a picture, which can be rendered again at any size.

    Attributes:
        picture: The picture.
        residual: The motion.
        wish: What is asked of the video.
        about: Where the motion comes from, as JSON values.
        options: Further options of the request.
    """

    picture: Picture
    residual: Residual
    wish: Wish
    about: dict[str, Any] = field(default_factory=dict)
    options: RequestOptions = field(default_factory=RequestOptions)


class Studio:
    """Animates pictures of visitors with one model.

    Args:
        pipeline: The model.
        limits: What a visitor may ask for.
    """

    def __init__(self, pipeline: Pipeline, limits: Limits) -> None:
        self.pipeline, self.limits = pipeline, limits
        self._model = pipeline.model

    @property
    def is_nature(self) -> bool:
        """Whether arrows and paint can steer the model."""
        return isinstance(self._model, NatureModel)

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats in which a video can be saved; html is a page that plays it without an end."""
        return ("mp4", "gif", "webp", "html") if self.is_nature else ("mp4", "gif", "webp")

    @property
    def has_drift(self) -> bool:
        """Whether the model's control is a direction and speed."""
        return self._model.control is not None and self._model.control.name == DRIFT

    @property
    def has_end_point(self) -> bool:
        """Whether the model's control is the point at which a hand ends."""
        return self._model.control is not None and self._model.control.name == END_POINT

    def draw(
        self, picture: Picture, wish: Wish, *, seed: int, samples: Sequence[int]
    ) -> list[Future]:
        """Draw futures of a picture.

        Args:
            picture: The picture.
            wish: What is asked, with the end point if one is chosen.
            seed: The seed.
            samples: Indices of the samples of the seed.
        """
        point = wish.hints.point
        eta = None if point is None or not self.has_end_point else end_point(point)
        resolved = None if eta is None else torch.tensor([eta.x, eta.y, eta.z])
        weights = self.pipeline.sha256
        drawn = (
            draw_one(self._model, seed=seed, sample=i, eta=resolved, weights=weights)
            for i in samples
        )
        return [Future(picture=picture, residual=residual, wish=wish) for residual in drawn]

    def previews(self, futures: Sequence[Future], progress: Progress = ignore) -> Iterator[Video]:
        """Yield small videos of one picture, one by one.

        Args:
            futures: Futures with the same picture, wish and options.
            progress: Called after each frame.

        Raises:
            UserError: As in `Pipeline.animate`.
        """
        first = futures[0]
        options = self._options(first.picture, first.wish, is_small=True)
        options.update(first.options)
        return self._videos(futures, options, progress)

    def render(
        self,
        future: Future,
        *,
        side: float,
        has_frames: bool = True,
        progress: Progress = ignore,
    ) -> Video:
        """Return the video of a future at the picture's size.

        Args:
            future: The future.
            side: Greatest width and height, in pixels.
            has_frames: Whether frames are rendered, which a page that plays the motion needs not.
            progress: Called after each frame.
        """
        options = self._options(future.picture, future.wish, is_small=False, side=side)
        options.update(future.options)
        options["render"] = has_frames
        return next(self._videos([future], options, progress))

    def _videos(
        self, futures: Sequence[Future], options: RequestOptions, progress: Progress
    ) -> Iterator[Video]:
        motions = [future.residual for future in futures]
        return self.pipeline.iterate(
            futures[0].picture.pixels, nu=motions, progress=progress, **options
        )

    def transfer(
        self,
        video: Path,
        picture: Picture,
        wish: Wish,
        *,
        start: float,
        progress: Progress = ignore,
    ) -> tuple[Future, Motion, Video]:
        """Move a picture as a video moves, frame by frame in step with it.

        Args:
            video: The video.
            picture: The picture.
            wish: What is asked; a transfer has the video's length, and does not loop.
            start: Time in the video at which its motion is taken, in seconds.
            progress: Called after each frame.

        Raises:
            UserError: As in `Pipeline.transfer`.
        """
        motion = self.pipeline.read_motion(video, start=start, steered=self.has_end_point)
        wish, pace = self._in_step(wish)
        options = self._options(picture, wish, is_small=True)
        options.update(pace)
        found = self.pipeline.transfer(motion, picture.pixels, progress=progress, **options)
        return self._kept(picture, found, wish, pace), motion, found

    def edit(
        self,
        video: Path,
        name: str,
        drift: Drift,
        wish: Wish,
        *,
        start: float,
        progress: Progress = ignore,
    ) -> tuple[Future, Motion, Video]:
        """Turn the wind of a video.

        Args:
            video: The video.
            name: The name that its owner gave it.
            drift: Direction and speed; None keeps that of the video.
            wish: What else is asked.
            start: Time in the video at which the clip begins, in seconds.
            progress: Called after each frame.

        Raises:
            UserError: As in `Pipeline.edit`.
        """
        motion = self.pipeline.read_motion(video, start=start, steered=True)
        first = motion.query.x0
        picture = Picture(name, "", (first.shape[1], first.shape[0]), first)
        wish, pace = self._in_step(wish)
        options = self._options(picture, wish, is_small=True)
        options.update(pace)
        found = self.pipeline.edit(motion, eta=drift, progress=progress, **options)
        return self._kept(picture, found, wish, pace), motion, found

    def between(
        self, start: Future, end: Future, wish: Wish, progress: Progress = ignore
    ) -> Iterator[tuple[Future, Video]]:
        """Yield small videos from one future of a picture to another, both included.

        Args:
            start: The first.
            end: The last.
            wish: What is asked of all.
            progress: Called after each frame.
        """
        ends = [
            replace(future.residual, nu=future.residual.nu * future.wish.temperature)
            for future in (start, end)
        ]
        wish = replace(wish, temperature=1.0)
        videos = self.pipeline.interpolate(
            start.picture.pixels,
            start=ends[0],
            end=ends[1],
            steps=NUM_STEPS,
            progress=progress,
            **self._options(start.picture, wish, is_small=True),
        )
        for video in videos:
            yield self._kept(start.picture, video, wish, {}), video

    def example(self, progress: Progress = ignore) -> Video:
        """Return a video of an example photograph.

        Args:
            progress: Called after each frame.
        """
        photo = Path(str(files("cinnema") / "examples"), "storm.jpg")
        options = self._in_step(Wish())[1]
        options.update({"size": (480, 300), "seconds": 2.5})
        (video,) = self.pipeline.animate(photo, num_samples=1, seed=1, progress=progress, **options)
        return video

    def guess(self, picture: Picture) -> UInt8[np.ndarray, "h w"] | None:
        """Return how surely each cell of a picture moves, from 0 to 255; None if nobody knows.

        Args:
            picture: The picture.
        """
        features = self.pipeline.recognise(picture.pixels)
        if features is None:
            return None
        seen = corrected(features.probabilities[0].float().cpu().numpy())  # as it is rendered
        moving = 1 - shares(torch.from_numpy(seen)[None])[0, 0]
        return np.asarray((255 * moving).round().to("cpu", torch.uint8))

    def certainty(self, picture: Picture) -> Certainty:
        """Return what the model knows about a picture.

        Args:
            picture: The picture.
        """
        return Certainty(self._model, picture.pixels, self.pipeline.recognise(picture.pixels))

    def _options(
        self, picture: Picture, wish: Wish, *, is_small: bool, side: float = PREVIEW_SIDE
    ) -> RequestOptions:
        if not 0 < wish.seconds <= self.limits.max_seconds:
            raise UserError(
                f"seconds: must be above 0 and at most {self.limits.max_seconds:g}, got "
                f"{wish.seconds:g}: choose a shorter video"
            )
        size = picture.pixels.shape[:2]
        options = wish.options(size, seamless=self.is_nature)
        height, width = fit(size, self.limits.max_video_megapixels * 1e6, side=side)
        options["size"] = (width, height)
        if is_small and self.is_nature:
            options["fps"] = _PREVIEW_FPS
        return options

    def _in_step(self, wish: Wish) -> tuple[Wish, RequestOptions]:
        """Return a wish and options with which a video goes on as the model's clips do."""
        model = self._model
        seconds = model.num_frames / (model.fps or 8.0)
        wish = replace(wish, loop=False, seconds=seconds, temperature=1.0)
        fps = 24.0 if self.is_nature else model.fps or 8.0
        return wish, {"protocol": "paper", "fps": fps}

    def _kept(self, picture: Picture, video: Video, wish: Wish, options: RequestOptions) -> Future:
        """Return the future of a video that was not drawn: nu holds what was asked of it."""
        hints = replace(wish.hints, arrows=())
        about = {name: video.settings[name] for name in _ORIGINS if name in video.settings}
        return Future(
            picture=picture,
            residual=residual_of(video),
            wish=replace(wish, temperature=1.0, hints=hints),
            about=about,
            options=options,
        )


def end_point(point: Point) -> EndPoint:
    """Return the place above the tray's floor that is seen at a point of the picture.

    It is where the line of sight meets the plane 5 cm above the floor, or the nearest place there
    that the hand reaches.

    Args:
        point: The point.
    """
    from cinnema.simulators.push import WORKSPACE
    from cinnema.simulators.push.tabletop import push_camera

    camera = push_camera(size=64)
    x, y = 2 * point[0] - 1, 1 - 2 * point[1]
    back = np.linalg.inv(camera.projection @ camera.view)
    near, far = (back @ [x, y, depth, 1.0] for depth in (-1.0, 1.0))
    near, far = near[:3] / near[3], far[:3] / far[3]
    place = near + (_HEIGHT - near[2]) / (far[2] - near[2]) * (far - near)
    reached = [min(max(p, low), high) for p, (low, high) in zip(place, WORKSPACE, strict=True)]
    return EndPoint(x=float(reached[0]), y=float(reached[1]), z=float(reached[2]))


def new_seed() -> int:
    """Return a seed that nobody can predict, short enough to be typed."""
    return secrets.randbelow(1_000_000)


def as_data_url(frames: UInt8[np.ndarray, "t h w 3"], *, fps: float) -> str:
    """Return a video as text that a browser plays.

    Args:
        frames: Its frames.
        fps: Frames per second.
    """
    with TemporaryDirectory() as folder:
        path = write_video(Path(folder, "video.mp4"), frames, fps=fps)
        return f"data:video/mp4;base64,{b64encode(path.read_bytes()).decode('ascii')}"
