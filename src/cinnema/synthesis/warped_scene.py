"""A scene of the warping model: the photograph itself is warped, at its own size."""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from cinnema.core.devices import one_thread
from cinnema.media.pictures import resize, resize_for_model, resize_mask, to_pixels, to_tensor
from cinnema.models.warping.model import WarpingModel
from cinnema.models.warping.motion import Trajectory
from cinnema.models.warping.rendering import Layers, cut
from cinnema.synthesis.blending import mixed
from cinnema.synthesis.moments import Moment, looped, staggered
from cinnema.synthesis.native import NativeRenderer
from cinnema.synthesis.request import Request
from cinnema.synthesis.scene import OnFrame, Scene, ignore


class WarpedScene(Scene):
    """Videos of any length and frame rate, as the motion is defined at any time.

    Args:
        model: The model, on any device.
        pixels: The photograph.
        request: Length, speed, size and kind of the videos.
        still: Mask, 1 where nothing may move, at the photograph's size; None for none.
    """

    @one_thread()
    @torch.inference_mode()
    def __init__(
        self,
        model: WarpingModel,
        pixels: UInt8[np.ndarray, "h w 3"],
        request: Request,
        *,
        still: Float32[np.ndarray, "h w"] | None = None,
    ) -> None:
        size = request.frame_size(pixels.shape[:2], model.size)
        super().__init__(model.name, request, x0=resize(pixels, size))
        self._model, self._clip = model, clip_frames(model, request.fps)
        self._device = next(model.parameters()).device
        small = to_tensor(resize_for_model(pixels, model.size))[None].to(self._device)
        self._features = model.stage1.scene(small)
        moving = torch.sigmoid(model.stage1.mask(self._features.joint, self._features.fine))
        seen = None if still is None else resize_mask(still, (model.size, model.size))
        self._free = (
            None if seen is None else 1 - torch.from_numpy(seen)[None, None].to(self._device)
        )
        self._layers = self._cut(small, moving)
        self._moving = self._layers.moving[0, 0].float().cpu().numpy()
        self._native = None
        if request.size != "model":
            kept = None if still is None else resize_mask(still, size)
            mask = moving[0, 0].float().cpu().numpy()
            self._native = NativeRenderer(self.x0, mask, keep_still=kept)
            self._moving = self._native.moving
            self._at_rest = self._composed(torch.zeros(1, 2, 1, 1, device=self._device))[1]

    @one_thread()
    @torch.inference_mode()
    def render(
        self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None, on_frame: OnFrame = ignore
    ) -> tuple[UInt8[np.ndarray, "t h w 3"], Float[Tensor, " z"]]:
        """Render the frames of one motion, see `Scene.render`."""
        model = self._model
        row = nu[None].to(self._device)  # one at a time: a batch would change the last bits
        control = None
        if eta is not None:
            requested = eta[None].to(self._device)
            control = model.corrected_control_on(
                self._features, self._layers.moving, row, requested
            )
        z, _ = model.to_latent(row, model.condition_on(self._features, control))
        coefficients = model.stage1.motion(z, self._features.joint)
        trajectory = Trajectory(model.stage1.basis, coefficients * self.request.motion_strength)
        plan = self._plan()
        frames = np.empty((len(plan), *self.x0.shape), np.uint8)
        for index, mix in enumerate(plan):
            same = plan.index(mix)  # pingpong shows each frame twice
            frames[index] = frames[same] if same < index else self._mixed(mix, trajectory)
            on_frame(index + 1, len(plan))
        return frames, z[0]

    def _plan(self) -> list[tuple[Moment, ...]]:
        request = self.request
        if request.extension == "continuous":
            return staggered(request.num_frames, clip=self._clip)
        return looped(request.loop, request.num_frames)

    def _mixed(self, mix: tuple[Moment, ...], trajectory: Trajectory) -> np.ndarray:
        frames = [self._frame(moment.time, trajectory) for moment in mix]
        return mixed(frames, [moment.share for moment in mix], moving=self._moving)

    def _frame(self, index: float, trajectory: Trajectory) -> np.ndarray:
        flow = trajectory.at(index / self._clip)
        composite, painted = self._composed(flow)
        if self._native is None:
            return to_pixels(composite[0] + painted[0])
        return self._native.frame(flow, painted - self._at_rest)

    def _composed(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Return the composite at the networks' size, and what the painter adds to it."""
        composite = self._layers.composite(flow)
        painted: Tensor = self._model.stage1.painter(self._layers, composite, flow)
        return composite, painted if self._free is None else painted * self._free

    def _cut(self, x0: Tensor, moving: Tensor) -> Layers:
        if self._free is None:
            return cut(x0, moving)
        moving = torch.nn.functional.interpolate(
            moving, x0.shape[-2:], mode="bilinear", align_corners=False
        )
        return cut(x0, moving * self._free)


def clip_frames(model: WarpingModel, fps: float) -> float:
    """Return the number of frames of a video in one clip of the model; may be fractional.

    Args:
        model: The model, whose clips have a length in seconds.
        fps: Frames per second of the video.
    """
    return model.num_frames * fps / model.fps
