"""A scene of any model: frames are those of the model's decoder, resized."""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.media.pictures import resize, resize_for_model, resize_mask, to_pixels, to_tensor
from cinnema.models.base import VideoModel
from cinnema.synthesis.request import Request, shown_frames
from cinnema.synthesis.scene import OnFrame, Scene, ignore, require_finite


class DecodedScene(Scene):
    """Videos of clips of the model's length and size, joined and resized.

    If more frames are requested than the decoder returns, clips are decoded from the last frame of
    the one before with the same nu, as in the paper: z_k = T(nu; x0_k, eta), where x0_k is the
    frame before clip k. The released code keeps z instead, which is a motion for another first
    frame. The extension "continuous" decodes from a quarter of a clip before the end and fades
    over, so that no seam is visible; drift up to that frame remains.

    `fps` only sets how fast the decoder's frames are shown. A factor on the flow is refused.

    Args:
        model: The model, on any device.
        pixels: The photograph.
        request: Length, speed, size and kind of the videos.
        still: Mask, 1 where the photograph itself is shown, at its size; None for none.

    Raises:
        UserError: The request is not possible with a decoder of frames.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: VideoModel,
        pixels: UInt8[np.ndarray, "h w 3"],
        request: Request,
        *,
        still: Float32[np.ndarray, "h w"] | None = None,
    ) -> None:
        _require_possible(request)
        size = request.frame_size(pixels.shape[:2], model.size)
        # A quarter of a clip hides the seam, and each clip still adds enough new frames.
        overlap = model.num_frames // 4 if request.extension == "continuous" else 0
        notes = {"note": _note(model.size, size, overlap=overlap)}
        super().__init__(model.name, request, x0=resize(pixels, size), notes=notes)
        self._model, self._size, self._overlap = model, size, overlap
        self._device = next(model.parameters()).device
        self._small = to_tensor(resize_for_model(pixels, model.size))[None].to(self._device)
        self._still = None if still is None else resize_mask(still, size)[..., None]

    @torch.inference_mode()
    def render(
        self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None, on_frame: OnFrame = ignore
    ) -> tuple[UInt8[np.ndarray, "t h w 3"], Float[Tensor, " z"]]:
        """Render the frames of one motion, see `Scene.render`."""
        plan = shown_frames(self.request.loop, self.request.num_frames)
        decoded, z = self._decoded(nu, eta)
        frames = np.empty((len(plan), *self.x0.shape), np.uint8)
        for index, number in enumerate(plan):
            frames[index] = self._finished(to_pixels(decoded[number - 1]))
            on_frame(index + 1, len(plan))
        return frames, z

    def _decoded(self, nu: Tensor, eta: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return all frames at the model's size, and the z of the first clip."""
        row = nu[None].to(self._device)
        requested = None if eta is None else eta[None].to(self._device)
        x0 = self._small
        video: Tensor | None = None
        latents: list[Tensor] = []
        while video is None or len(video) < self.request.num_frames:
            control = None
            if requested is not None:
                control = self._model.corrected_control(x0, row, requested)
            z, _ = self._model.to_latent(row, self._model.condition(x0, control))
            clip = self._model.decode(x0, z)
            require_finite(clip)
            x0 = clip[:, -1 - self._overlap]
            frames = clip[0].float().cpu()
            video = frames if video is None else join_clips(video, frames, overlap=self._overlap)
            latents.append(z[0])
        return video, latents[0]

    def _finished(self, frame: np.ndarray) -> np.ndarray:
        """Resize a frame, and show the photograph where nothing may move."""
        frame = resize(frame, self._size)
        if self._still is None:
            return frame
        levels = self._still * self.x0 + (1 - self._still) * frame
        return np.asarray(np.rint(levels), np.uint8)


def join_clips(
    video: Float[Tensor, "t 3 h w"], clip: Float[Tensor, "c 3 h w"], *, overlap: int
) -> Float[Tensor, "_ 3 h w"]:
    """Append a clip to a video, which fades out over the first frames of the clip.

    Args:
        video: The frames so far.
        clip: The frames that follow.
        overlap: Number of frames of the fade; 0 appends the clip without a fade.
    """
    if not overlap:
        return torch.cat([video, clip])
    share = torch.arange(1, overlap + 1).div(overlap + 1)[:, None, None, None]
    mixed = torch.lerp(video[-overlap:], clip[:overlap], share)
    return torch.cat([video[:-overlap], mixed, clip[overlap:]])


def _require_possible(request: Request) -> None:
    if request.motion_strength != 1:
        raise UserError(
            "motion_strength: must be 1 with a model that decodes its frames, as it has no flow to "
            f"scale, got {request.motion_strength:g}: leave it out, change the temperature, or use "
            "weights that warp the photograph, as landscape"
        )


def _note(model_size: int, size: tuple[int, int], *, overlap: int) -> str:
    decoded = f"{model_size}x{model_size}"
    shown = f"{size[1]}x{size[0]}"
    resizing = "" if decoded == shown else f" and resized to {shown}"
    fading = f"; clips overlap by {overlap} frames" if overlap else ""
    return f"frames are decoded at {decoded} px{resizing}; fps is how fast they are shown{fading}"
