"""A photograph that is moved itself, at its own size, by the model that warps."""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from cinnema.core.devices import one_thread
from cinnema.media.pictures import resize, resize_for_model, resize_mask, to_pixels, to_tensor
from cinnema.models.warping.model import WarpingModel
from cinnema.models.warping.rendering import Layers, cut
from cinnema.synthesis.blending import mixed
from cinnema.synthesis.extension import staggered
from cinnema.synthesis.loops import Moment, moments
from cinnema.synthesis.native import NativeRenderer
from cinnema.synthesis.scene import Sample, Scene
from cinnema.synthesis.settings import Settings
from cinnema.synthesis.trajectory import Trajectory


class WarpedScene(Scene):
    """Frames of any number and at any rate, as the motion is known at every time.

    Args:
        model: On any device.
        pixels: The photograph.
        settings: How it is to be animated.
        still: 1 where nothing may move, at the photograph's size.
    """

    @one_thread()
    @torch.inference_mode()
    def __init__(
        self,
        model: WarpingModel,
        pixels: UInt8[np.ndarray, "h w 3"],
        settings: Settings,
        *,
        still: Float32[np.ndarray, "h w"] | None = None,
    ) -> None:
        self._model, self._settings = model, settings
        self._clip = clip_frames(model, settings.fps)
        self.notes = {}
        device = next(model.parameters()).device
        out_size = settings.frame_size(pixels.shape[:2], model.size)
        self.x0 = resize(pixels, out_size)
        small = to_tensor(resize_for_model(pixels, model.size))[None].to(device)
        self._features = model.stage1.scene(small)
        self._device = device
        moving = torch.sigmoid(model.stage1.mask(self._features.joint, self._features.fine))
        seen = None if still is None else resize_mask(still, (model.size, model.size))
        self._free = None if seen is None else 1 - torch.from_numpy(seen)[None, None].to(device)
        self._layers = self._cut(small, moving)
        self._moving = self._layers.moving[0, 0].float().cpu().numpy()
        self._native = None
        if settings.size != "model":
            kept = None if still is None else resize_mask(still, out_size)
            mask = moving[0, 0].float().cpu().numpy()
            self._native = NativeRenderer(self.x0, mask, keep_still=kept)
            self._moving = self._native.moving
            self._at_rest = self._painted(torch.zeros(1, 2, 1, 1, device=device))[1]

    @one_thread()
    @torch.inference_mode()
    def video(self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None) -> Sample:
        """Return one future.

        Args:
            nu: A residual without the temperature.
            eta: Where what moves is to drift to; None leaves it to nu.
        """
        model, settings = self._model, self._settings
        nu = nu * settings.temperature
        row = nu[None].to(self._device)  # one at a time: see animate
        told = None
        if eta is not None:
            asked = eta[None].to(self._device)
            told = model.corrected_control_on(self._features, self._layers.moving, row, asked)
        z, _ = model.to_latent(row, model.condition_on(self._features, told))
        coefficients = model.stage1.motion(z, self._features.joint) * settings.motion_strength
        trajectory = Trajectory(model.stage1.basis, coefficients)
        plan = self._plan()
        frames = np.empty((len(plan), *self.x0.shape), np.uint8)
        for index, mix in enumerate(plan):
            same = plan.index(mix)  # on its way back a pingpong shows what it showed before
            frames[index] = frames[same] if same < index else self._mixed(mix, trajectory)
        # Tensors made in inference mode cannot be trained on; copies made outside can.
        with torch.inference_mode(mode=False):
            return Sample(frames, z[0].float().cpu().clone(), nu.clone())

    def _plan(self) -> list[tuple[Moment, ...]]:
        settings = self._settings
        if settings.extension == "continuous":
            return staggered(settings.num_frames, clip=self._clip)
        return moments(settings.loop, settings.num_frames)

    def _mixed(self, mix: tuple[Moment, ...], trajectory: Trajectory) -> np.ndarray:
        frames = [self._frame(moment.time, trajectory) for moment in mix]
        return mixed(frames, [moment.share for moment in mix], moving=self._moving)

    def _frame(self, index: float, trajectory: Trajectory) -> np.ndarray:
        flow = trajectory.at(index / self._clip)
        composite, painted = self._painted(flow)
        if self._native is None:
            return to_pixels(composite[0] + painted[0])
        return self._native.frame(flow, painted - self._at_rest)

    def _painted(self, flow: Tensor) -> tuple[Tensor, Tensor]:
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
    """Return how many frames of a video make one clip of the model; it need not be whole.

    Args:
        model: Its clips have a length in seconds.
        fps: Frames a second of the video.
    """
    return model.num_frames * fps / model.fps
