"""A photograph encoded by a model, from which any number of videos can be rendered."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.synthesis.request import Request
from cinnema.synthesis.residual import Residual
from cinnema.synthesis.video import Video, VideoStream

Progress: TypeAlias = Callable[[str, int, int], None]
"""Callback with a description ("video 1 of 4"), the number of finished frames, and their total."""

OnFrame: TypeAlias = Callable[[int, int], None]
"""Callback with the number of finished frames of a video, and their total."""


def ignore(*_: object) -> None:
    """Report no progress."""


def require_finite(motion: Tensor) -> None:
    """Raise a UserError unless what was computed from a residual is finite."""
    if not bool(motion.isfinite().all()):
        raise UserError(
            "nu: these weights give it a motion that is not finite: use smaller numbers, as of a "
            "lower temperature, or other weights"
        )


class Scene(ABC):
    """The state shared by all videos of one photograph: pixels, request, network outputs.

    Subclasses must raise a UserError in the constructor for a request that the model cannot fulfil,
    and the result of `render` must not depend on earlier calls, to the bit.

    Args:
        name: Name of the model.
        request: Length, speed, size and kind of the videos.
        x0: The photograph at the frames' size.
        notes: Remarks on the videos, as JSON values.
    """

    def __init__(
        self,
        name: str,
        request: Request,
        *,
        x0: UInt8[np.ndarray, "h w 3"],
        notes: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.request, self.x0, self.notes = name, request, x0, notes or {}

    @abstractmethod
    def render(
        self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None, on_frame: OnFrame = ignore
    ) -> tuple[UInt8[np.ndarray, "t h w 3"], Float[Tensor, " z"]]:
        """Render the frames of one motion.

        Args:
            nu: The residual, multiplied by the temperature, on the CPU.
            eta: The control; None without one.
            on_frame: Called after each frame.

        Returns:
            The frames after the photograph, and z.
        """

    def require(self, eta: Float[Tensor, " e"] | None) -> None:  # noqa: B027 - most allow all
        """Raise a UserError if the request and a control contradict each other.

        Args:
            eta: The control; None without one.
        """

    def steered(
        self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None
    ) -> Float[Tensor, " z"]:
        """Return the residual near a given one that does what the request asks of the motion.

        Args:
            nu: The residual, multiplied by the temperature, on the CPU.
            eta: The control, which `require` accepts; None without one.
        """
        del eta
        return nu

    def frames(
        self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None, on_frame: OnFrame = ignore
    ) -> tuple[Iterator[UInt8[np.ndarray, "h w 3"]], int, Float[Tensor, " z"]]:
        """Return the frames of one motion one by one, their number, and z; see `render`.

        A frame is valid until the next one is fetched. Subclasses that need not hold all frames in
        memory override this.
        """
        rendered, z = self.render(nu, eta, on_frame)
        return iter(rendered), len(rendered), z

    def video(self, residual: Residual, on_frame: OnFrame = ignore) -> Video:
        """Return the video of one residual.

        Args:
            residual: The motion.
            on_frame: Called after each frame.
        """
        # Tensors of inference mode cannot take part in autograd; copies made outside can.
        with torch.inference_mode(mode=False):
            nu = self.steered(residual.nu * self.request.temperature, residual.eta)
            frames, z = self.render(nu, residual.eta, on_frame)
            return Video(frames=frames, **self._about(residual, nu, z))

    def stream(self, residual: Residual, on_frame: OnFrame = ignore) -> VideoStream:
        """Return the video of one residual, whose frames are rendered as they are fetched.

        Args:
            residual: The motion.
            on_frame: Called after each frame.
        """
        with torch.inference_mode(mode=False):
            nu = self.steered(residual.nu * self.request.temperature, residual.eta)
            frames, num_frames, z = self.frames(nu, residual.eta, on_frame)
            about = self._about(residual, nu, z)
        return VideoStream(frames=frames, num_frames=num_frames, **about)

    def _about(self, residual: Residual, nu: Tensor, z: Tensor) -> dict[str, Any]:
        """Return the attributes of `Generated`."""
        control = {} if residual.eta is None else {"eta": residual.eta.tolist()}
        about = {"model": self.name, **self.notes, **residual.about, **control}
        return {
            "x0": self.x0,
            "z": z.float().cpu().clone(),
            "nu": nu,
            "seed": residual.seed,
            "sample": residual.sample,
            "fps": self.request.fps,
            "settings": {**self.request.as_dict(), **about},
            "weights": residual.weights,
            "scene": self,
        }


class ChainedScene(Scene):
    """The extension of the paper: the last frame of each clip is the next x0, with the same nu.

        z_k = T(nu; x0_k, eta),   x0_k the last frame of clip k - 1

    Each clip smooths the one before, and errors at the edges accumulate.

    Args:
        open_scene: Maps a photograph and a request to a scene.
        pixels: The photograph.
        request: Request for the whole video.
        clip: Frames of one clip, at least 1.
    """

    def __init__(
        self,
        open_scene: Callable[[np.ndarray, Request], Scene],
        pixels: UInt8[np.ndarray, "h w 3"],
        request: Request,
        *,
        clip: int,
    ) -> None:
        first = open_scene(pixels, _part(request, min(clip, request.num_frames)))
        notes = {**first.notes, "note": f"decoded again from every frame {clip}"}
        super().__init__(first.name, request, x0=first.x0, notes=notes)
        self._open, self._clip, self._first = open_scene, clip, first

    def require(self, eta: Float[Tensor, " e"] | None) -> None:
        """Raise a UserError if the request and a control contradict each other."""
        self._first.require(eta)

    def steered(
        self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None
    ) -> Float[Tensor, " z"]:
        """Return the residual that the photograph needs; later clips use it as it is."""
        return self._first.steered(nu, eta)

    def render(
        self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None, on_frame: OnFrame = ignore
    ) -> tuple[UInt8[np.ndarray, "t h w 3"], Float[Tensor, " z"]]:
        """Render the frames of one motion, see `Scene.render`."""
        total = self.request.num_frames
        frames = np.empty((total, *self.x0.shape), np.uint8)
        clip, first_z = self._first.render(nu, eta)
        done = 0
        while True:
            frames[done : done + len(clip)] = clip
            done += len(clip)
            on_frame(done, total)
            if done == total:
                return frames, first_z
            part = _part(self.request, min(self._clip, total - done))
            part = replace(part, arrows=(), current=None)  # nu follows them
            clip, _ = self._open(frames[done - 1], part).render(nu, eta)


def _part(request: Request, num_frames: int) -> Request:
    return replace(request, num_frames=num_frames, extension="onward", render=True)
