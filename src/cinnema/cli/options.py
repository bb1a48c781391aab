"""Options that several commands share, and how their values are parsed."""

import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from cinnema.cli.ranges import NumSamples, Range, Seed, Temperature
from cinnema.core.bundled import find_weights
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file
from cinnema.media.formats import MAX_FPS, MAX_GIF_FPS
from cinnema.synthesis.hints import as_arrows
from cinnema.synthesis.request import Request, RequestOptions

if TYPE_CHECKING:
    from cinnema.models.control import Drift, EndPoint
    from cinnema.synthesis.pipeline import Pipeline
    from cinnema.synthesis.transfer import Motion

Photos = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO...")]
Folder = Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")]
Weights = Annotated[str, tyro.conf.arg(metavar="NAME|FILE")]
Device = Annotated[str, tyro.conf.arg(metavar="{auto,cpu,cuda,cuda:N,mps}")]


@dataclass(frozen=True, kw_only=True)
class RenderingOptions:
    """Options of rendering and writing videos."""

    num_frames: Annotated[int | None, Range(1, 10_000), tyro.conf.arg(aliases=["--frames"])] = None
    """Frames of a video; a pingpong loop shows them forwards, then backwards. Default: 4 seconds
    with weights of nature (landscape), 16 frames with others."""
    seconds: Annotated[float | None, Range(0.001, 10_000)] = None
    """Length of a video in seconds, instead of --num-frames."""
    fps: Annotated[float | None, Range(0.01, MAX_FPS)] = None
    """Frames per second. Default: 24 with weights of nature, 8 with others."""
    protocol: Literal["natural", "paper"] = "natural"
    """natural: with weights of nature, everything moves at the speed that it has in nature. paper:
    16 frames at 8 per second, in which everything moves as in the clips of the evaluation."""
    loop: Literal["none", "seamless", "pingpong"] = "none"
    """How the video repeats. seamless, which --loop alone means: the motion itself repeats, and the
    last frame is the photograph again (weights of nature). pingpong: forwards, then
    backwards."""
    extension: Literal["onward", "continuous", "paper"] = "onward"
    """How a video continues after one clip of the model (16 frames at 8 per second with the bundled
    weights). onward: the motion continues. continuous: clips fade into one another; with weights of
    nature, which renew what they show, the same as onward. paper: decoded again from each clip's
    last frame with the same nu."""
    motion_strength: Annotated[float, Range(0, 100)] = 1.0
    """Factor on all displacements: 0 gives a still video, 1 the motion of the training data."""
    size: Annotated[str, tyro.conf.arg(metavar="{native,model,WxH}")] = "native"
    """Size of the frames: native (the photograph's), model (the networks'), or width and height in
    pixels, such as 640x360."""
    keep_still: Annotated[Path | None, tyro.conf.arg(metavar="MASK.png")] = None
    """Picture of the photograph's size, white where nothing may move."""
    move: Annotated[Path | None, tyro.conf.arg(metavar="MASK.png")] = None
    """Picture of the photograph's size, white where things move although the weights take them for
    still (weights of nature). They move as the kind that is most probable there, or as water."""
    format: Literal["mp4", "gif", "webp", "png", "npy", "html"] = "mp4"
    """File format of the videos; png writes a folder of frames. html writes pages that play the
    motion in any browser, without an end (weights of nature) or as a small video, and a page with
    a slider from one video to the next."""
    grid: bool = False
    """Write a video that shows all of them beside the photograph, scaled down to fit 1280 pixels,
    in place of a picture of the frames in their middle; with png and npy it is an mp4."""
    weights: Weights = "landscape"
    """Weights to use: the name of bundled ones (landscape, robot, person) or a file."""
    overwrite: bool = False
    """Replace existing files."""
    device: Device = "auto"
    """Device to compute on; auto uses a GPU if available."""
    precision: Literal["fast", "float32"] = "fast"
    """How an imported model decodes its frames. fast: with fewer operations, and in bf16 if the
    device multiplies it faster; frames differ by less than a grey level in float32, by one to two
    in bf16. float32: exactly as in training. Other weights are in float32 anyway."""

    is_long: ClassVar[bool] = False
    streamed: ClassVar[tuple[str, ...]] = ("mp4", "png")  # formats written frame by frame
    bare: ClassVar[dict[str, tuple[str, ...]]] = {"--loop": ("seamless", "none", "pingpong")}

    def check_rendering(self) -> None:
        """Raise a UserError for the first option that is out of range, before torch is imported."""
        with named_as_options():
            request = Request.of(**self.rendering())
            if isinstance(request.size, tuple) and self.format not in (*self.streamed, "html"):
                request.require_memory(request.size[::-1])
        if self.format == "gif" and (self.fps or 0) > MAX_GIF_FPS:
            raise UserError(
                f"--fps must be at most {MAX_GIF_FPS:g} for gif, got {self.fps:g}: players show "
                "faster ones slowly"
            )
        for mask in (self.keep_still, self.move):
            if mask is not None:
                check_input_file(mask, kind="a mask")
        find_weights(self.weights)

    def rendering(self) -> RequestOptions:
        """Return the options under the names of the pipeline's arguments."""
        return {
            "num_frames": self.num_frames,
            "seconds": self.seconds,
            "long": self.is_long,
            "fps": self.fps,
            "protocol": self.protocol,
            "loop": self.loop,
            "extension": self.extension,
            "motion_strength": self.motion_strength,
            "size": parse_size(self.size),
            "keep_still": self.keep_still,
            "move": self.move,
            "render": self.format != "html",
        }


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Options of drawing futures."""

    num_samples: Annotated[NumSamples, tyro.conf.arg(aliases=["-n"])] = 4
    """Number of futures of each photograph. The first n are the same for any larger number."""
    seed: Seed = 0
    """Seed of the futures, at least 0."""
    temperature: Temperature = 1.0
    """Standard deviation of the residuals, at least 0: 0 gives the most typical future, 1 varies as
    in training."""
    nu: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Motion file (.nu.safetensors) of an earlier call to reuse, with its control, instead of
    drawing samples: one video for each photograph. --seed and --num-samples are then ignored."""

    def check_sampling(self) -> None:
        """Raise a UserError if the nu file cannot be read."""
        if self.nu is not None:
            check_input_file(self.nu, kind="a nu file")

    def sampling(self) -> dict[str, Any]:
        """Return the options under the names of the pipeline's arguments."""
        return {
            "num_samples": self.num_samples,
            "seed": self.seed,
            "temperature": self.temperature,
            "nu": self.nu,
        }

    def numbers(self) -> tuple[int, tuple[int, ...]]:
        """Return the seed and the numbers of the samples; of a nu file, those stored in it."""
        if self.nu is None:
            return self.seed, tuple(range(self.num_samples))
        from cinnema.synthesis.residual import load_motion

        saved = load_motion(self.nu)
        return saved.seed or 0, (saved.sample,)


@dataclass(frozen=True, kw_only=True)
class ControlOptions:
    """The control of the motion, for models that are conditioned on one."""

    direction: Annotated[str | None, tyro.conf.arg(metavar="DEGREES")] = None
    """Direction of the drift, for weights with a drift as control (landscape): degrees
    counter-clockwise from the right: 0 right, 90 up, 180 left, 270 down. Write negative values
    with an equals sign: --direction=-45."""
    speed: Annotated[float | None, Range(0, 1000)] = None
    """Speed of the drift, as a factor on the typical speed (0.1 picture sizes in 16 steps with
    the weights landscape, which is 2 seconds of a sky). Needs --direction, unless the
    direction comes from a video."""
    end_point: Annotated[str | None, tyro.conf.arg(metavar="X,Y,Z")] = None
    """Position of the robot's end effector at the last frame, in metres, for weights with an end
    point as control (robot)."""

    def control(self) -> "Drift | EndPoint | None":
        """Return the control given by the options; None if none is given.

        Raises:
            UserError: A value does not parse, or both kinds are given.
        """
        is_drift = self.direction is not None or self.speed is not None
        if self.end_point is not None and is_drift:
            raise UserError(
                "--end-point cannot go with --direction or --speed, as no model takes both: "
                "leave one out"
            )
        if self.end_point is not None:
            return parse_end_point(self.end_point, option="--end-point")
        if not is_drift:
            return None
        direction = None if self.direction is None else parse_direction(self.direction)
        from cinnema.models.control import Drift

        return Drift(direction=direction, speed=self.speed)


@dataclass(frozen=True, kw_only=True)
class ArrowOptions:
    """Hints of how things move, for weights of nature (landscape)."""

    arrow: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="X,Y,DX,DY")
    ] = ()
    """Velocity (DX, DY) of the point (X, Y): pixels of the photograph from its upper left corner,
    and pixels a second to the right and down. What is there moves so, each future in its own way.
    May be given again for other points."""
    current: Annotated[str | None, tyro.conf.arg(metavar="DEGREES[,SPEED]")] = None
    """Mean direction of the water, and its speed as a factor on the typical one, as with
    --direction and --speed. Write negative values with an equals sign: --current=-45,0.5."""

    def arrows(self) -> dict[str, Any]:
        """Return the options under the names of the pipeline's arguments.

        Raises:
            UserError: A value does not parse.
        """
        with named_as_options():
            arrows = as_arrows([parse_arrow(text) for text in self.arrow])
        options: dict[str, Any] = {"arrows": arrows}
        if self.current is not None:
            options["current"] = parse_current(self.current)
        return options


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """Options of the clip of a video whose motion is used."""

    start: Annotated[float, Range(0, 1e6), tyro.conf.arg(metavar="SECONDS")] = 0.0
    """Time in the video at which the clip begins."""
    query_fps: Annotated[float | None, Range(0.001, MAX_FPS)] = None
    """Frames per second of the video, if its file states none (a folder of frames or an array, of
    which otherwise every frame is used) or a wrong one."""
    query_end_point: Annotated[str | None, tyro.conf.arg(metavar="X,Y,Z")] = None
    """Position of the robot's end effector at the last frame of the video, in metres, for weights
    with an end point as control (robot)."""

    def check_query(self, video: Path) -> None:
        """Raise a UserError if an option is not valid, or the video is not a file or folder."""
        if video.suffix.lower() in (".jpg", ".jpeg", ".bmp", ".tif", ".tiff"):
            raise UserError(
                f"{video} is a photograph, and this takes a video: to animate it, "
                f"cinnema animate {video}"
            )
        if not video.is_dir():
            check_input_file(video, kind="a video")
        if self.query_end_point is not None:
            parse_end_point(self.query_end_point, option="--query-end-point")

    def read(self, pipeline: "Pipeline", video: Path, *, steered: bool) -> "Motion":
        """Read the motion of a video, and print a summary of the clip to standard error."""
        given = self.query_end_point
        motion = pipeline.read_motion(
            video,
            start=self.start,
            query_fps=self.query_fps,
            steered=steered,
            query_eta=None if given is None else parse_end_point(given, option="--query-end-point"),
        )
        print(f"cinnema: {motion.summary}", file=sys.stderr, flush=True)
        return motion


@contextmanager
def named_as_options() -> Iterator[None]:
    """Name options in errors about arguments: "--num-frames: ..." for "num_frames: ..."."""
    try:
        yield
    except UserError as error:
        name, colon, rest = str(error).partition(":")
        if not (colon and name.isidentifier()):
            raise
        rest = re.sub(r"\b[a-z]+_[a-z_]+\b", lambda word: _option(word[0]), rest)
        raise UserError(f"{_option(name)}:{rest}") from error


def _option(name: str) -> str:
    return {"arrows": "--arrow"}.get(name, f"--{name.replace('_', '-')}")


def parse_size(text: str) -> Literal["native", "model"] | tuple[int, int]:
    """Parse the value of --size.

    Args:
        text: native, model, or width and height in pixels as 640x360.

    Returns:
        The word, or (width, height).

    Raises:
        UserError: It is not one of these.

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
    """Parse the value of --direction, in degrees.

    Args:
        text: A number, with or without deg after it.

    Raises:
        UserError: It is not a finite number.

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


def parse_current(text: str) -> "Drift":
    """Parse the value of --current.

    Args:
        text: Degrees, and after a comma a factor on the typical speed; 1 if left out.

    Raises:
        UserError: It is not one or two finite numbers, or the speed is negative.
    """
    direction, _, speed = text.partition(",")
    try:
        degrees, factor = parse_direction(direction), float(speed or 1)
    except (UserError, ValueError):
        factor = math.nan
    if not 0 <= factor < math.inf:
        raise UserError(
            f"--current must be degrees and a speed as in 180 or 180,0.5 (0 right, 90 up), got "
            f"{text!r}"
        )
    from cinnema.models.control import Drift

    return Drift(direction=degrees, speed=factor)


def parse_arrow(text: str) -> tuple[float, ...]:
    """Parse a value of --arrow.

    Args:
        text: x, y, dx and dy, separated by commas.

    Raises:
        UserError: It is not four numbers.

    Example:
        >>> parse_arrow("400,300,30,-5")
        (400.0, 300.0, 30.0, -5.0)
    """
    try:
        x, y, dx, dy = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            "--arrow must be x,y,dx,dy as in 400,300,30,-5 (pixels, and pixels a second to the "
            f"right and down), got {text!r}"
        ) from None
    return x, y, dx, dy


def parse_end_point(text: str, *, option: str) -> "EndPoint":
    """Parse the value of an option that is a point.

    Args:
        text: Three numbers separated by commas, in metres.
        option: Name of the option, for the message.

    Raises:
        UserError: It is not three numbers.
    """
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"{option} must be x, y and z in metres as in 0.6,0.0,0.25, got {text!r}"
        ) from None
    from cinnema.models.control import EndPoint

    return EndPoint(x=x, y=y, z=z)
