"""The pipeline: generates videos of a photograph, and extracts the motion of a video."""

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.media.formats import VIDEO_SUFFIXES
from cinnema.media.pictures import (
    Photograph,
    read_mask,
    read_photograph,
    resize_for_model,
    to_tensor,
)
from cinnema.media.videos import VideoFile
from cinnema.models.base import VideoModel
from cinnema.models.control import Control, resolve_control
from cinnema.models.files import LoadedModel, load_model
from cinnema.models.hub import push_model
from cinnema.models.nature.kinds import SceneFeatures
from cinnema.models.nature.model import NatureModel
from cinnema.synthesis.decoded_scene import DecodedScene
from cinnema.synthesis.interpolate import End, between
from cinnema.synthesis.nature_scene import NatureScene
from cinnema.synthesis.query import QueryVideo, read_query
from cinnema.synthesis.recognition import Recognition
from cinnema.synthesis.request import CLIP, NATURAL, Request, RequestOptions
from cinnema.synthesis.residual import Motions, Residual, draw, given
from cinnema.synthesis.scene import ChainedScene, OnFrame, Progress, Scene, ignore
from cinnema.synthesis.transfer import Keep, Motion, choose_keep, keep_path, read_motion
from cinnema.synthesis.video import Video, VideoStream


class SampleOptions(RequestOptions, total=False):
    """Keyword arguments of `Pipeline.iterate`, `stream` and `extend`, as in `Pipeline.animate`.

    Attributes:
        num_samples: Number of videos.
        seed: Seed of all samples.
        nu: Motion to use instead of drawing samples.
        eta: The control.
    """

    num_samples: int
    seed: int
    nu: Motions | None
    eta: Control | None


class Pipeline:
    """Animates photographs with one model.

    Example:
        >>> pipe = Pipeline.from_pretrained("landscape")
        >>> videos = pipe("beach.jpg", num_samples=4, seed=0)
        >>> videos[0].frames.shape
        (96, 720, 1280, 3)
        >>> videos[0].save("beach.mp4")

    Args:
        loaded: The model, or a loaded model with its file.
        device: Device of the networks. Defaults to that of the model. Frames are rendered on the
            CPU.
        precision: "fast" lets a model that decodes its frames compute them in the format that the
            device is fastest in, rounded to at least 40 dB; "float32" computes them exactly as in
            training. Other models are in float32 anyway.
    """

    def __init__(
        self,
        loaded: LoadedModel | VideoModel,
        *,
        device: torch.device | str | None = None,
        precision: Literal["fast", "float32"] = "fast",
    ) -> None:
        self._loaded = loaded if isinstance(loaded, LoadedModel) else LoadedModel(loaded)
        model = self._loaded.model.eval()
        model = model if device is None else model.to(device)
        self.model = model.accelerated() if precision == "fast" else model
        self.device = next(self.model.parameters()).device
        self._recognition: Recognition | None = None
        if isinstance(self.model, NatureModel):
            self._recognition = Recognition(self.model)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "landscape",
        *,
        sha256: str | None = None,
        device: torch.device | str | None = None,
        precision: Literal["fast", "float32"] = "fast",
    ) -> "Pipeline":
        """Load a model, see `cinnema.models.files.load_model`.

        Args:
            name_or_path: Name of bundled weights (landscape, robot, person), a weights file, or
                (extra `hub`) a hub id "owner/name@revision".
            sha256: SHA-256 that the weights file must have. Defaults to any.
            device: Device of the networks, such as "cpu" or "cuda". Defaults to the CPU.
            precision: See `Pipeline`.

        Raises:
            UserError: The model does not exist, the file is not a weights file, or has another
                hash.
        """
        loaded = load_model(name_or_path, sha256=sha256)
        return cls(loaded, device=device, precision=precision)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: str | None = None,
        private: bool = True,
        token: str | None = None,
        message: str = "Upload weights",
    ) -> str:
        """Upload the weights to the Hugging Face hub (extra `hub`), see `push_model`.

        Args:
            repo_id: The repository, "owner/name"; it is created if it does not exist.
            card: Text of the model card, Markdown. Defaults to the card beside the weights file
                (of the same name, with the ending .md), or to what the model says of itself.
            private: Whether a new repository can be seen by its owner only.
            token: Token of an account that may write. Defaults to that of `hf auth login`.
            message: Message of the commit.

        Returns:
            "owner/name@commit": the id that loads exactly these weights.

        Raises:
            UserError: The extra or the weights file is missing, or the hub refuses.

        Example:
            >>> pinned = pipe.push_to_hub("someone/my-sky")
            >>> Pipeline.from_pretrained(pinned, sha256=pipe.sha256)
        """
        return push_model(
            self._loaded, repo_id, card=card, private=private, token=token, message=message
        )

    def __repr__(self) -> str:
        model = self.model
        return (
            f"Pipeline({model.name}, {type(model).__name__} of {model.size}x{model.size} pixels "
            f"and {model.num_frames} frames, {self.device})"
        )

    @property
    def name(self) -> str:
        """Name of the weights."""
        return self.model.name

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights file; empty for a model from memory."""
        return self._loaded.sha256

    def recognise(self, image: Photograph) -> SceneFeatures | None:
        """Return what the kind network sees in a photograph; None with models that have none.

        The last few photographs are remembered, also those that were animated.

        Args:
            image: The photograph, as in `animate`.

        Raises:
            UserError: The file cannot be read.
        """
        return None if self._recognition is None else self._recognition(_read(image))

    def animate(
        self,
        image: Photograph,
        *,
        num_samples: int = 4,
        seed: int = 0,
        nu: Motions | None = None,
        eta: Control | None = None,
        progress: Progress = ignore,
        **options: Unpack[RequestOptions],
    ) -> list[Video]:
        """Return several videos of a photograph; the frames of all of them are in memory.

        Sample i of a seed does not depend on `num_samples`, to the bit.

        Nature models warp the photograph itself. Other models decode frames at their
        own size, which are resized to `size`; `settings["note"]` then states this, and some options
        are refused.

        Args:
            image: A file, a PIL image, uint8 (height, width, 3), or a tensor (3, height, width)
                in [-1, 1].
            num_samples: Number of videos, at least 1. Ignored if `nu` is given.
            seed: Seed of all samples, at least 0. Ignored if `nu` is given.
            nu: Motion to use instead of drawing samples: a tensor (z,) or (n, z), a video, a
                motion file, or a `Residual` from `load_motion`.
            eta: The control, for a model that takes one: a `Drift`, an `EndPoint`, or a tensor.
                Defaults to the control stored with `nu`; without one, models with an optional
                control run without it, and others draw one for each sample.
            progress: Called after each frame with a description, such as "video 1 of 4", the number
                of finished frames of that video, and their total.
            options: See `RequestOptions`: num_frames or seconds (4 s with a nature model, 16 frames
                with others), fps (24 or 8), protocol ("natural"), temperature (1.0),
                motion_strength (1.0), size ("native"), loop ("none"), extension ("onward"),
                keep_still (None), move (None), arrows (()), current (None).

        Returns:
            One video for each sample.

        Raises:
            UserError: An option is out of range, a file cannot be read, or a video would take
                more than 4 GB.
        """
        return list(
            self.iterate(
                image,
                num_samples=num_samples,
                seed=seed,
                nu=nu,
                eta=eta,
                progress=progress,
                **options,
            )
        )

    __call__ = animate

    def iterate(
        self,
        image: Photograph,
        *,
        progress: Progress = ignore,
        **options: Unpack[SampleOptions],
    ) -> Iterator[Video]:
        """Yield the videos of `animate` one by one, so that memory holds one video.

        All arguments are checked, and the photograph is read, before this returns.

        Args:
            image: The photograph, as in `animate`.
            progress: Called after each frame, as in `animate`.
            options: All other arguments of `animate`.

        Raises:
            UserError: As in `animate`.
        """
        request, pixels, residuals = self._drawn(image, **options)
        return self._videos(request, pixels, residuals, progress)

    def stream(
        self,
        image: Photograph,
        *,
        progress: Progress = ignore,
        **options: Unpack[SampleOptions],
    ) -> Iterator[VideoStream]:
        """Yield the videos of `animate` as streams, whose frames are rendered as they are fetched.

        With a nature model, memory holds some frames, whatever their number.

        Args:
            image: The photograph, as in `animate`.
            progress: Called after each frame, as in `animate`.
            options: All other arguments of `animate`.

        Raises:
            UserError: As in `animate`.

        Example:
            >>> for video in pipe.stream("beach.jpg", seconds=60):
            ...     write_video(f"beach-{video.sample}.mp4", video.frames, fps=video.fps)
        """
        request, pixels, residuals = self._drawn(image, **options)
        if not self._streams(request):
            request.require_memory(request.frame_size(pixels.shape[:2], self.model.size))
        scene = self._scene(request, pixels, residuals)
        return (
            scene.stream(residual, report) for residual, report in _numbered(residuals, progress)
        )

    def _streams(self, request: Request) -> bool:
        is_whole = request.loop == "pingpong" or request.extension == "paper"
        return isinstance(self.model, NatureModel) and not is_whole

    def _drawn(
        self,
        image: Photograph,
        *,
        num_samples: int = 4,
        seed: int = 0,
        nu: Motions | None = None,
        eta: Control | None = None,
        **options: Unpack[RequestOptions],
    ) -> tuple[Request, UInt8[np.ndarray, "h w 3"], list[Residual]]:
        """Check the arguments of `animate`, and return what they ask for of which photograph."""
        request, pixels = self._request(**options), _read(image)
        control = self._resolved(eta, request, pixels)
        if nu is not None:
            residuals = given(self.model, nu, eta=control, weights=self.sha256)
        else:
            residuals = draw(
                self.model, num_samples=num_samples, seed=seed, eta=control, weights=self.sha256
            )
        return request, pixels, residuals

    def extend(
        self,
        image: Photograph,
        *,
        progress: Progress = ignore,
        **options: Unpack[SampleOptions],
    ) -> list[Video]:
        """Return long videos: `animate` with other defaults.

        Args:
            image: The photograph, as in `animate`.
            progress: Called after each frame, as in `animate`.
            options: All other arguments of `animate`; extension is "continuous" by default, and the
                length 12 s with a nature model and 48 frames with others.

        Raises:
            UserError: As in `animate`; a loop was requested.
        """
        options.setdefault("extension", "continuous")
        options.setdefault("long", True)
        return list(self.iterate(image, progress=progress, **options))

    def read_motion(
        self,
        video: QueryVideo,
        *,
        start: float = 0.0,
        query_fps: float | None = None,
        steered: bool = False,
        query_eta: Control | None = None,
    ) -> Motion:
        """Return the motion of a video, for use with any number of pictures.

        Args:
            video: A video file, a folder of frames, or a video from `read_video`; of any size and
                frame rate, at least half a clip long: see `read_query`.
            start: Time at which the clip begins, in seconds.
            query_fps: Frames per second of the video, if its file states none or a wrong one.
            steered: Whether the motion will be used with another control.
            query_eta: The control of the video. Defaults to an estimate, if the model needs one.

        Raises:
            UserError: The video cannot be read or is too short, or its control is needed and cannot
                be estimated.
        """
        query = read_query(video, self.model, start=start, fps=query_fps)
        return read_motion(self.model, query, steered=steered, eta=query_eta, weights=self.sha256)

    def transfer(
        self,
        motion: Motion | QueryVideo,
        image: Photograph,
        *,
        eta: Control | None = None,
        keep: Keep | None = None,
        progress: Progress = ignore,
        **options: Unpack[RequestOptions],
    ) -> Video:
        """Animate a photograph with the motion of a video.

            nu~ = T^-1(q(X~); x~0, eta~),   z = T(nu~; x0, eta)

        Args:
            motion: A motion from `read_motion`, or a video, which is read with default options.
            image: The photograph, as in `animate`.
            eta: Another control; a direction or speed of None in a `Drift` is that of the video.
                Defaults to no control, or to that of the video if the model needs one.
            keep: "residual" transfers nu~ alone, with eta as above. "path" moves the robot's hand
                along its path in the video, from its place in the photograph, see `transfer_path`;
                this needs a model with an end point as control. Defaults to "path" for these
                unless eta is given, and to "residual" for others.
            progress: Called after each frame, as in `animate`.
            options: See `RequestOptions`.

        Raises:
            UserError: As in `animate` and `read_motion`; the path cannot be kept.

        Example:
            >>> motion = pipe.read_motion("waves.mp4")
            >>> videos = [pipe.transfer(motion, photo) for photo in ("a.jpg", "b.jpg")]
        """
        kept = choose_keep(self.model, keep, steered=eta is not None)
        if not isinstance(motion, Motion):
            motion = self.read_motion(motion, steered=eta is not None or kept == "path")
        request, pixels = self._request(**options), _read(image)
        if kept == "path":
            x0 = to_tensor(resize_for_model(pixels, self.model.size))
            residual = keep_path(self.model, motion, x0)
        else:
            control = self._resolved(eta, request, pixels, measured=motion.eta)
            residual = Residual(
                nu=motion.nu,
                eta=motion.eta if control is None else control,
                weights=self.sha256,
                about={**motion.about, "keep": kept},
            )
        return next(self._videos(request, pixels, [residual], progress))

    def edit(
        self,
        video: Motion | QueryVideo,
        *,
        eta: Control,
        progress: Progress = ignore,
        **options: Unpack[RequestOptions],
    ) -> Video:
        """Change the control of a video; nu and the first frame are kept.

        With the control of the video itself, the result is its reconstruction.

        Args:
            video: A video, or a motion from `read_motion(..., steered=True)`.
            eta: The new control; a direction or speed of None in a `Drift` is that of the video.
            progress: Called after each frame, as in `animate`.
            options: See `RequestOptions`.

        Raises:
            UserError: As in `transfer`.
        """
        motion = video if isinstance(video, Motion) else self.read_motion(video, steered=True)
        return self.transfer(motion, motion.query.x0, eta=eta, progress=progress, **options)

    def interpolate(
        self,
        image: Photograph,
        *,
        start: End = 0,
        end: End = 1,
        steps: int = 5,
        seed: int = 0,
        eta: Control | None = None,
        progress: Progress = ignore,
        **options: Unpack[RequestOptions],
    ) -> Iterator[Video]:
        """Yield videos of one photograph with motions interpolated between two, see `slerp`.

        Args:
            image: The photograph, as in `animate`.
            start: First motion: index of a sample of the seed, from 0, or a motion as in `animate`.
            end: Last motion: index of a sample of the seed, from 0, or a motion as in `animate`.
            steps: Number of videos, both ends included, from 2 to 100.
            seed: Seed of ends that are indices.
            eta: Control of all videos. Defaults to interpolating between the controls of the ends.
            progress: Called after each frame, as in `animate`.
            options: See `RequestOptions`; temperature is a factor on ends that are indices.

        Raises:
            UserError: As in `animate`; only one of the ends has a control.
        """
        temperature = options.pop("temperature", 1.0)
        request, pixels = self._request(**options), _read(image)
        residuals = between(
            self.model,
            start,
            end,
            steps=steps,
            seed=seed,
            temperature=temperature,
            eta=self._resolved(eta, request, pixels),
            weights=self.sha256,
        )
        return self._videos(request, pixels, residuals, progress)

    def _request(self, **options: Unpack[RequestOptions]) -> Request:
        return Request.of(NATURAL if isinstance(self.model, NatureModel) else CLIP, **options)

    def _resolved(
        self,
        control: Control | None,
        request: Request,
        pixels: np.ndarray,
        *,
        measured: Tensor | None = None,
    ) -> Tensor | None:
        """Return eta of the given control; None if no control was given."""
        model = self.model
        size = request.frame_size(pixels.shape[:2], model.size)
        if control is None:
            return None
        return resolve_control(
            control, model.control, model=model.name, size=size, measured=measured
        )

    def _videos(
        self, request: Request, pixels: np.ndarray, residuals: list[Residual], progress: Progress
    ) -> Iterator[Video]:
        request.require_memory(request.frame_size(pixels.shape[:2], self.model.size))
        scene = self._scene(request, pixels, residuals)
        return (
            scene.video(residual, report) for residual, report in _numbered(residuals, progress)
        )

    def _scene(self, request: Request, pixels: np.ndarray, residuals: list[Residual]) -> Scene:
        size = pixels.shape[:2]
        still = None if request.keep_still is None else read_mask(request.keep_still, size)
        move = None if request.move is None else read_mask(request.move, size, name="move")
        seen = None if request.extension == "paper" else self.recognise(pixels)
        scene = open_scene(self.model, pixels, request, still=still, move=move, features=seen)
        for residual in residuals:
            scene.require(residual.eta)
        return scene


def _numbered(residuals: list[Residual], progress: Progress) -> Iterator[tuple[Residual, OnFrame]]:
    """Yield each residual with the callback for the frames of its video."""
    num = len(residuals)
    for number, residual in enumerate(residuals, start=1):
        yield residual, partial(progress, f"video {number} of {num}")


def open_scene(
    model: VideoModel,
    pixels: UInt8[np.ndarray, "h w 3"],
    request: Request,
    *,
    still: Float32[np.ndarray, "h w"] | None = None,
    move: Float32[np.ndarray, "h w"] | None = None,
    features: SceneFeatures | None = None,
) -> Scene:
    """Return the scene of a photograph for a model.

    Args:
        model: The model, in evaluation mode.
        pixels: The photograph.
        request: Length, speed, size and kind of the videos.
        still: Mask, 1 where nothing may move, at the photograph's size; None for none.
        move: Mask, 1 where things move though the model takes them for still; None for none.
        features: What a nature model sees in the photograph; None to look at it now.

    Raises:
        UserError: The request is not possible with this model.
    """
    _warn_of_other_scenes(model, pixels)
    if isinstance(model, NatureModel):
        natural = partial(NatureScene, model, still=still, move=move)
        if request.extension != "paper":
            return natural(pixels, request, features=features)
        clip = max(1, round(model.num_frames * request.fps / model.fps))
        return ChainedScene(natural, pixels, request, clip=clip)
    _require_no_kinds(model, request)
    return DecodedScene(model, pixels, request, still=still)


def _require_no_kinds(model: VideoModel, request: Request) -> None:
    """Raise a UserError for what only nature models can do."""
    if request.move is not None:
        raise UserError(
            f"move: the weights {model.name} cannot be told what moves: leave the mask out, or use "
            "weights of nature, as landscape"
        )
    for name, asked in (("arrows", request.arrows), ("current", request.current)):
        if asked:
            raise UserError(
                f"{name}: the weights {model.name} cannot follow them: leave them out, or use the "
                "weights landscape"
            )
    if request.loop == "seamless":
        raise UserError(
            f"loop: the motion of the weights {model.name} does not repeat, got seamless: use "
            "pingpong, or weights of nature, as landscape"
        )


def _read(image: Photograph) -> UInt8[np.ndarray, "h w 3"]:
    """Read a photograph; the error for a video names `edit` and `transfer`."""
    is_file = isinstance(image, str | Path) and Path(image).suffix.lower() in VIDEO_SUFFIXES
    if is_file or isinstance(image, VideoFile | Video):
        name = image if isinstance(image, str | Path) else f"a {type(image).__name__}"
        raise UserError(
            f"{name} is a video, and this takes a photograph: edit(video, eta=...) changes the "
            "motion of a video, transfer(video, photograph) applies it to a photograph"
        )
    return read_photograph(image)


def _warn_of_other_scenes(model: VideoModel, pixels: np.ndarray) -> None:
    """Warn if a picture cannot be one of the scenes that a model was trained on."""
    height, width, _ = pixels.shape
    if model.scenes is None or (height == width and height <= 2 * model.size):
        return
    warnings.warn(
        f"the weights {model.name} animate {model.scenes}, pictures of {model.size}x{model.size} "
        f"pixels, and this one has {width}x{height}: for skies and water use the weights landscape",
        stacklevel=4,
    )
