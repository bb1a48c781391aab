"""A photograph whose frames are what a model's decoder returns, and nothing else."""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.media.pictures import resize, resize_for_model, resize_mask, to_pixels, to_tensor
from cinnema.models.base import VideoModel
from cinnema.synthesis.loops import moments
from cinnema.synthesis.scene import Sample, Scene
from cinnema.synthesis.settings import Settings


class DecodedScene(Scene):
    """Clips of the model's length and size, joined and resized; any `VideoModel` will do.

    Where more frames are wanted than the decoder returns, it decodes again from the last one with
    the same nu, as the paper does: z_k = T(nu; x0_k, eta), where x0_k is the frame before clip k.
    The released code keeps z for that, which is a motion for another first frame. The continuous
    way decodes from a quarter of a clip before the end and fades over, so that no seam is seen;
    what has drifted by then stays.

    The decoder's frames are all there is. So `fps` says how fast they are shown; a factor on the
    flow, and a crossfade, which wants frames of before the photograph, are refused.

    Args:
        model: On any device.
        pixels: The photograph.
        settings: How it is to be animated.
        still: 1 where the photograph itself is to be seen, at its size.

    Raises:
        UserError: The settings ask for what no decoder of frames can do.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: VideoModel,
        pixels: UInt8[np.ndarray, "h w 3"],
        settings: Settings,
        *,
        still: Float32[np.ndarray, "h w"] | None = None,
    ) -> None:
        _require_possible(settings)
        self._model, self._settings = model, settings
        self._size = settings.frame_size(pixels.shape[:2], model.size)
        self._device = next(model.parameters()).device
        self._small = to_tensor(resize_for_model(pixels, model.size))[None].to(self._device)
        self._still = None if still is None else resize_mask(still, self._size)[..., None]
        self.x0 = resize(pixels, self._size)
        # A quarter of a clip: enough to hide the seam, and each clip still brings something new.
        self._overlap = model.num_frames // 4 if settings.extension == "continuous" else 0
        self.notes = {"note": _note(model.size, self._size, overlap=self._overlap)}

    @torch.inference_mode()
    def video(self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None) -> Sample:
        """Return one future.

        Args:
            nu: A residual without the temperature.
            eta: The control, the same for every clip of a long video; None where the model takes
                none.
        """
        nu = nu * self._settings.temperature
        plan = moments(self._settings.loop, self._settings.num_frames)
        painted, z = self._painted(nu, eta)
        frames = np.empty((len(plan), *self.x0.shape), np.uint8)
        for index, ((time, _),) in enumerate(plan):
            frames[index] = self._finished(to_pixels(painted[round(time) - 1]))
        # Tensors made in inference mode cannot be trained on; copies made outside can.
        with torch.inference_mode(mode=False):
            return Sample(frames, z.float().cpu().clone(), nu.clone())

    def _painted(self, nu: Tensor, eta: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return all frames at the model's size, and z of the first clip."""
        row = nu[None].to(self._device)
        control = None if eta is None else eta[None].to(self._device)
        x0 = self._small
        video: Tensor | None = None
        latents: list[Tensor] = []
        while video is None or len(video) < self._settings.num_frames:
            told = None if control is None else self._model.corrected_control(x0, row, control)
            z, _ = self._model.to_latent(row, self._model.condition(x0, told))
            clip = self._model.decode(x0, z)
            x0 = clip[:, -1 - self._overlap]
            frames = clip[0].float().cpu()
            video = frames if video is None else _faded(video, frames, self._overlap)
            latents.append(z[0])
        return video, latents[0]

    def _finished(self, frame: np.ndarray) -> np.ndarray:
        """Resize a frame, and lay the photograph over it where that is to be seen."""
        frame = resize(frame, self._size)
        if self._still is None:
            return frame
        levels = self._still * self.x0 + (1 - self._still) * frame
        return np.asarray(np.rint(levels), np.uint8)


def _require_possible(settings: Settings) -> None:
    if settings.motion_strength != 1:
        raise UserError(
            f"motion_strength: must be 1 with a model that paints its frames, as it has no flow to "
            f"scale, got {settings.motion_strength:g}: leave it out, or change the temperature"
        )
    if settings.loop == "crossfade":
        raise UserError(
            "loop: crossfade needs frames of before the photograph, which a model that paints its "
            "frames does not have: take pingpong"
        )


def _faded(
    video: Float[Tensor, "t 3 h w"], clip: Float[Tensor, "c 3 h w"], overlap: int
) -> Float[Tensor, "_ 3 h w"]:
    """Join a clip to what comes before it, which fades out over the clip's first frames."""
    if not overlap:
        return torch.cat([video, clip])
    share = torch.arange(1, overlap + 1).div(overlap + 1)[:, None, None, None]
    mixed = torch.lerp(video[-overlap:], clip[:overlap], share)
    return torch.cat([video[:-overlap], mixed, clip[overlap:]])


def _note(model_size: int, size: tuple[int, int], *, overlap: int) -> str:
    painted = f"{model_size}x{model_size}"
    shown = f"{size[1]}x{size[0]}"
    resizing = "" if painted == shown else f" and resized to {shown}"
    fading = f"; clips overlap by {overlap} frames" if overlap else ""
    return f"frames are painted at {painted} px{resizing}; fps is how fast they are shown{fading}"
