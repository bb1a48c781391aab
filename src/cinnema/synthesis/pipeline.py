"""From a photograph to videos of it, and from a video to its motion."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from cinnema.media.pictures import Mask, Photograph, resize_for_model, to_tensor
from cinnema.models.base import VideoModel
from cinnema.models.control import Control, resolve_control
from cinnema.models.files import LoadedModel, load_model
from cinnema.synthesis.animation import Animation
from cinnema.synthesis.draws import Draw, Nu, drawn, given
from cinnema.synthesis.interpolation import End, between
from cinnema.synthesis.loops import Loop
from cinnema.synthesis.queries import QueryVideo, read_query
from cinnema.synthesis.rendering import Look, RenderOptions, open_scene
from cinnema.synthesis.scene import Scene
from cinnema.synthesis.settings import Extension, Size
from cinnema.synthesis.transfer import Keep, Motion, carry, read_motion, what_is_kept

__all__ = ["Animation", "Pipeline", "RenderOptions"]


class Pipeline:
    """Animates photographs with one model.

    Example:
        >>> pipe = Pipeline.from_pretrained("landscape")
        >>> animations = pipe.animate("beach.jpg", num_samples=4, seed=0)
        >>> animations[0].frames.shape
        (16, 720, 1280, 3)

    Args:
        loaded: The model, and where it is from.
        device: Where the networks compute; their own device if None. Frames are made on the CPU.
    """

    def __init__(
        self, loaded: LoadedModel | VideoModel, *, device: torch.device | str | None = None
    ) -> None:
        self._loaded = loaded if isinstance(loaded, LoadedModel) else LoadedModel(loaded)
        model = self._loaded.model.eval()
        self.model = model if device is None else model.to(device)
        self.device = next(self.model.parameters()).device

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path = "landscape", *, device: torch.device | str | None = None
    ) -> "Pipeline":
        """Load a model, see `cinnema.models.warping.model.load_model`.

        Args:
            name_or_path: A bundled name, a weights file, or (extra `hub`) a hub id.
            device: Where the networks compute; the CPU if None.

        Raises:
            UserError: There is no such model, or the file holds something else.
        """
        return cls(load_model(name_or_path), device=device)

    @property
    def name(self) -> str:
        """What the weights are called."""
        return self.model.name

    @property
    def sha256(self) -> str:
        """Hash of the weights file; empty for a model from memory."""
        return self._loaded.sha256

    def animate(
        self,
        image: Photograph,
        *,
        num_samples: int = 4,
        seed: int = 0,
        num_frames: int = 16,
        fps: float = 8.0,
        temperature: float = 1.0,
        motion_strength: float = 1.0,
        size: Size = "native",
        loop: Loop = "none",
        keep_still: Mask | None = None,
        nu: Nu | None = None,
        eta: Control | None = None,
    ) -> list[Animation]:
        """Return several futures of a photograph; all their frames are in memory at once.

        Sample i of a seed is the same, to the bit, whatever `num_samples` is.

        A model that warps moves the photograph itself. Of one that paints its frames they are
        resized to `size`, and `settings["note"]` says so; it cannot follow every option.

        Args:
            image: A file, a PIL image, uint8 (height, width, 3), or a tensor (3, height, width)
                in [-1, 1].
            num_samples: How many, at least 1. With `nu` it does not count.
            seed: Of all draws, at least 0.
            num_frames: Frames after the photograph, from 1 to 10,000; beyond one clip the motion
                goes on.
            fps: Frames a second, above 0 and at most 240. It sets how finely the motion is
                sampled, not how fast it is; with a model that paints, how fast its frames are
                shown.
            temperature: Factor on nu, at least 0; 0 gives one and the same motion for all seeds.
            motion_strength: Factor on the flow, at least 0; 1 with a model that paints.
            size: "native", "model", or (width, height) in pixels.
            loop: "none"; "pingpong", there and back, 2 num_frames - 2 frames; "crossfade", round
                and round in num_frames frames, which a model that paints cannot.
            keep_still: What must not move: a file or an array of the photograph's size.
            nu: Residuals to replay: a tensor (z,) or (n, z), or what `load_nu` reads, as its file
                or itself. `seed` then does not count.
            eta: The control, for a model that takes one: a `Drift`, an `EndPoint`, or its numbers.
                Left out, a file's nu brings its own; a model that can do without has none, of
                another each sample draws its own.

        Returns:
            One animation for each sample.

        Raises:
            UserError: An option is out of range, a file cannot be read, or a video would take
                more than 2 GB.
        """
        return list(
            self.iterate(
                image,
                num_samples=num_samples,
                seed=seed,
                num_frames=num_frames,
                fps=fps,
                temperature=temperature,
                motion_strength=motion_strength,
                size=size,
                loop=loop,
                keep_still=keep_still,
                nu=nu,
                eta=eta,
            )
        )

    def iterate(
        self,
        image: Photograph,
        *,
        num_samples: int = 4,
        seed: int = 0,
        temperature: float = 1.0,
        nu: Nu | None = None,
        eta: Control | None = None,
        **options: Unpack[RenderOptions],
    ) -> Iterator[Animation]:
        """Yield what `animate` returns one at a time, so that memory holds one video.

        Everything is checked, and the photograph read, before this returns.

        Args:
            image: As in `animate`, like all that follow.
            num_samples: How many.
            seed: Of all draws.
            temperature: Factor on nu.
            nu: Residuals to replay.
            eta: The control.
            options: See `RenderOptions`.

        Returns:
            An iterator over the samples.

        Raises:
            UserError: As in `animate`.
        """
        look = Look(image, self.model, temperature=temperature, options=options)
        told = self._told(eta, look)
        draws = (
            drawn(self.model, num_samples=num_samples, seed=seed, eta=told)
            if nu is None
            else given(self.model, nu, eta=told, weights=self.sha256)
        )
        return self._videos(look, draws)

    def extend(
        self,
        image: Photograph,
        *,
        method: Extension = "continuous",
        num_samples: int = 4,
        seed: int = 0,
        temperature: float = 1.0,
        nu: Nu | None = None,
        eta: Control | None = None,
        **options: Unpack[RenderOptions],
    ) -> list[Animation]:
        """Return several futures that are longer than a clip.

        `iterate(image, extension=method, ...)` yields the same one at a time.

        Args:
            image: The photograph, as in `animate`.
            method: "continuous": warps of x0 of at most 1.5 clips, faded one into the other, so
                that nothing drifts. "paper": decoded again from each clip's last frame with the
                same nu. "onward": the motion leads on from x0, ever further.
            num_samples: How many, as in `animate`, like all that follow.
            seed: Of all draws.
            temperature: Factor on nu.
            nu: Residuals to replay.
            eta: The control.
            options: See `RenderOptions`; `num_frames` is 48 if left out, and there is no loop.

        Raises:
            UserError: As in `animate`; a loop was asked for.
        """
        options = {"num_frames": 48, **options, "extension": method}
        return list(
            self.iterate(
                image,
                num_samples=num_samples,
                seed=seed,
                temperature=temperature,
                nu=nu,
                eta=eta,
                **options,
            )
        )

    def read_motion(
        self,
        video: QueryVideo,
        *,
        start: float = 0.0,
        query_fps: float | None = None,
        steered: bool = False,
        query_eta: Control | None = None,
    ) -> Motion:
        """Return the motion of a video, ready for any number of other pictures.

        Args:
            video: A file, a folder of frames, or what `read_video` returned; of any size, frame
                rate and length from half a clip on: see `read_query`.
            start: Where the clip begins, in seconds.
            query_fps: The video's frames a second, where its file says nothing or something wrong.
            steered: Whether it is going to be given another control.
            query_eta: The video's own control; left out, it is estimated where that can be done.

        Raises:
            UserError: The video cannot be read, or is too short; its control is needed and unknown.
        """
        query = read_query(video, self.model, start=start, fps=query_fps)
        return read_motion(self.model, query, steered=steered, eta=query_eta)

    def transfer(
        self,
        motion: Motion | QueryVideo,
        image: Photograph,
        *,
        eta: Control | None = None,
        keep: Keep | None = None,
        **options: Unpack[RenderOptions],
    ) -> Animation:
        """Move a photograph as something else moves.

            nu~ = T^-1(q(X~); x~0, eta~),   z = T(nu~; x0, eta)

        Args:
            motion: What `read_motion` returned; or the video, which is then read with its defaults.
            image: The photograph that is to move, as in `animate`.
            eta: Another control; of a drift, what it does not name is the video's own. Left out,
                the model hears of no control, or of the video's if that had to be told.
            keep: "residual": nu~ alone, with eta as told above. "way": the robot's hand goes the
                way of the video's from where it is in the photograph, see `carry_way`; for a model
                that is told an end point and tells its path. None is "way" for these unless eta is
                given, and "residual" for all others.
            options: See `RenderOptions`.

        Raises:
            UserError: As in `animate` and `read_motion`; "way" was asked for and cannot be kept.

        Example:
            >>> motion = pipe.read_motion("waves.mp4")
            >>> videos = [pipe.transfer(motion, photo) for photo in ("a.jpg", "b.jpg")]
        """
        kept = what_is_kept(self.model, keep, steered=eta is not None)
        if not isinstance(motion, Motion):
            motion = self.read_motion(motion, steered=eta is not None or kept == "way")
        look = Look(image, self.model, temperature=1.0, options=options)
        if kept == "way":
            draw = carry(
                self.model, motion, to_tensor(resize_for_model(look.pixels, self.model.size))
            )
        else:
            told = self._told(eta, look, measured=motion.eta)
            control = motion.eta if told is None else told
            draw = Draw(motion.nu, control, None, 0, {**motion.about, "keep": kept})
        return next(self._videos(look, [draw]))

    def edit(
        self,
        video: Motion | QueryVideo,
        *,
        eta: Control,
        **options: Unpack[RenderOptions],
    ) -> Animation:
        """Let a video go on from its own first frame with another control: nu kept, eta changed.

        With the control that the video has itself, this is its reconstruction.

        Args:
            video: A video, or what `read_motion(..., steered=True)` made of it.
            eta: The control; of a drift, what it does not name is the video's own.
            options: See `RenderOptions`.

        Raises:
            UserError: As in `transfer`.
        """
        motion = video if isinstance(video, Motion) else self.read_motion(video, steered=True)
        return self.transfer(motion, motion.query.x0, eta=eta, **options)

    def interpolate(
        self,
        image: Photograph,
        *,
        start: End = 0,
        end: End = 1,
        steps: int = 5,
        seed: int = 0,
        temperature: float = 1.0,
        eta: Control | None = None,
        **options: Unpack[RenderOptions],
    ) -> Iterator[Animation]:
        """Yield videos of one photograph whose motions lead from one to another, see `slerp`.

        Args:
            image: The photograph, as in `animate`.
            start: A sample's number within the seed, a nu file, or a tensor (z,).
            end: The same.
            steps: How many videos, both ends among them, from 2 to 100.
            seed: Of the ends that are numbers.
            temperature: Factor on these.
            eta: The control of all; left out, it leads from that of one end to that of the other.
            options: See `RenderOptions`.

        Raises:
            UserError: As in `animate`; only one of the ends has a control.
        """
        look = Look(image, self.model, temperature=1.0, options=options)
        draws = between(
            self.model,
            start,
            end,
            steps=steps,
            seed=seed,
            temperature=temperature,
            eta=self._told(eta, look),
            weights=self.sha256,
        )
        return self._videos(look, draws)

    def _told(
        self, control: Control | None, look: Look, *, measured: Tensor | None = None
    ) -> Tensor | None:
        """Return eta of what was asked for; None if nothing was."""
        if control is None:
            return None
        model = self.model
        return resolve_control(
            control, model.control, model=model.name, size=look.frame_size, measured=measured
        )

    def _videos(self, look: Look, draws: list[Draw]) -> Iterator[Animation]:
        scene = open_scene(self.model, look.pixels, look.settings, still=look.still)
        about = {"keep_still": look.still is not None, "model": self.name, **scene.notes}
        about = {**look.settings.as_dict(), **about}
        return (self._animation(scene, draw, fps=look.settings.fps, about=about) for draw in draws)

    def _animation(
        self, scene: Scene, draw: Draw, *, fps: float, about: dict[str, Any]
    ) -> Animation:
        sample = scene.video(draw.nu, draw.eta)
        control = {} if draw.eta is None else {"eta": draw.eta.tolist()}
        return Animation(
            frames=sample.frames,
            x0=scene.x0,
            z=sample.z,
            nu=sample.nu,
            seed=draw.seed,
            sample=draw.sample,
            fps=fps,
            settings={**about, **draw.about, **control},
            weights=self.sha256,
        )
