"""Options that several commands share, and what their words mean."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file

if TYPE_CHECKING:
    from cinnema.models.control import Drift, EndPoint

Photos = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO...")]
Folder = Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")]


@dataclass(frozen=True, kw_only=True)
class RenderingOptions:
    """How videos are rendered and written; what follows has its own options beside these."""

    fps: float = 8.0
    """Frames a second."""
    motion_strength: float = 1.0
    """Factor on all displacements: 0 stands still, 1 as in training."""
    size: str = "native"
    """Of the videos: native (the photograph's), model (what the networks see) or WxH in pixels."""
    keep_still: Annotated[Path | None, tyro.conf.arg(metavar="MASK.png")] = None
    """A picture of the photograph's size, white where nothing may move."""
    format: Literal["mp4", "gif", "webp", "png", "npy"] = "mp4"
    """Of the videos; png is a folder of frames. The grid of png and npy is an mp4."""
    weights: str = "landscape"
    """Name of bundled weights, or a weights file."""
    overwrite: bool = False
    """Replace what is there already."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    def check_rendering(self) -> None:
        """Raise a UserError for the first option out of its range, before torch is loaded."""
        at_least({"--motion-strength": (self.motion_strength, 0)})
        parse_size(self.size)
        self._check_fps()
        if self.keep_still is not None:
            check_input_file(self.keep_still, kind="a mask")

    def rendering(self) -> dict[str, Any]:
        """Return them as the pipeline takes them."""
        return {
            "fps": self.fps,
            "motion_strength": self.motion_strength,
            "size": parse_size(self.size),
            "keep_still": self.keep_still,
        }

    def _check_fps(self) -> None:
        from cinnema.media.formats import MAX_FPS, MAX_GIF_FPS

        limit = MAX_GIF_FPS if self.format == "gif" else MAX_FPS
        if not 0 < self.fps <= limit:
            raise UserError(
                f"--fps must be above 0 and up to {limit:g} for {self.format}, got {self.fps:g}"
            )


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Which motions are drawn."""

    num_samples: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 4
    """How many futures of each photograph; the first ones are the same whatever the number."""
    seed: int = 0
    """Which futures; at least 0."""
    temperature: float = 1.0
    """Spread of the futures, at least 0: 0 is the most typical one, 1 as spread as in training."""
    nu: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Dynamics that an earlier call saved, its temperature and control included: one video a
    photograph; --seed and -n do not count."""

    def check_sampling(self) -> None:
        """Raise a UserError for the first option out of its range."""
        at_least({
            "--num-samples": (self.num_samples, 1),
            "--seed": (self.seed, 0),
            "--temperature": (self.temperature, 0),
        })  # fmt: skip
        if self.nu is not None:
            check_input_file(self.nu, kind="a nu file")

    def sampling(self) -> dict[str, Any]:
        """Return them as the pipeline takes them."""
        return {
            "num_samples": self.num_samples,
            "seed": self.seed,
            "temperature": self.temperature,
            "nu": self.nu,
        }

    def numbers(self) -> tuple[int, tuple[int, ...]]:
        """Return the seed and the samples' numbers: of a nu file, its own."""
        if self.nu is None:
            return self.seed, tuple(range(self.num_samples))
        from cinnema.synthesis.residuals import load_nu

        saved = load_nu(self.nu)
        return saved.seed or 0, (saved.sample,)


@dataclass(frozen=True, kw_only=True)
class ControlOptions:
    """What a model that takes a control is told of the motion."""

    direction: Annotated[str | None, tyro.conf.arg(metavar="DEGREES")] = None
    """Where what moves drifts to, for weights that can be told: counter-clockwise from the right,
    0 (or 0deg) right, 90 up, 180 left, 270 down; below 0 as in --direction=-45."""
    speed: float | None = None
    """How fast, as a factor on the typical speed (0.15 picture sizes in a clip of 2 seconds with
    the bundled weights); needs --direction, or a video whose own direction is kept."""
    end_point: Annotated[str | None, tyro.conf.arg(metavar="X,Y,Z")] = None
    """Where the robot's end effector is at the last frame, in metres, for weights of a robot."""

    def control(self) -> "Drift | EndPoint | None":
        """Return the control that was asked for; None if none was.

        Raises:
            UserError: one does not parse, or both kinds were asked for.
        """
        from cinnema.models.control import Drift

        steered = self.direction is not None or self.speed is not None
        if self.end_point is not None:
            if steered:
                raise UserError(
                    "--end-point cannot go with --direction or --speed, as no model takes both: "
                    "leave one out"
                )
            return parse_end_point(self.end_point, option="--end-point")
        if not steered:
            return None
        direction = None if self.direction is None else parse_direction(self.direction)
        return Drift(direction=direction, speed=self.speed)


def at_least(limits: dict[str, tuple[float, float]]) -> None:
    """Raise a UserError for the first option that is below its least value, or not finite.

    Args:
        limits: of each option its value and the least one.
    """
    for name, (value, least) in limits.items():
        if not least <= value < math.inf:
            raise UserError(f"{name} must be at least {least}, got {value}")


def parse_size(text: str) -> Literal["native", "model"] | tuple[int, int]:
    """Return what --size means.

    Args:
        text: native, model, or width and height in pixels as 640x360.

    Returns:
        The word, or (width, height).

    Raises:
        UserError: it is none of these.

    Example:
        >>> parse_size("640x360")
        (640, 360)
    """
    if text == "native":
        return "native"
    if text == "model":
        return "model"
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UserError(
            f"--size must be native, model or width and height as in 640x360, got {text!r}"
        )
    return int(width), int(height)


def parse_direction(text: str) -> float:
    """Return degrees.

    Args:
        text: a number, with or without deg after it.

    Raises:
        UserError: it is none, or not finite.

    Example:
        >>> parse_direction("30deg")
        30.0
    """
    number = text.strip().lower().removesuffix("deg").removesuffix("°").strip()
    try:
        degrees = float(number)
    except ValueError:
        degrees = math.nan
    if not math.isfinite(degrees):
        raise UserError(
            f"--direction must be degrees as in 30 or 30deg (0 right, 90 up), got {text!r}"
        )
    return degrees


def parse_end_point(text: str, *, option: str) -> "EndPoint":
    """Return a point.

    Args:
        text: three numbers with commas between them, in metres.
        option: what it was given to, for the message.

    Raises:
        UserError: it is none.
    """
    from cinnema.models.control import EndPoint

    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"{option} must be x, y and z in metres as in 0.6,0.0,0.25, got {text!r}"
        ) from None
    return EndPoint(x=x, y=y, z=z)
