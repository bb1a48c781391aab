"""How a photograph is to be rendered, and the scene that does so."""

from functools import partial
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float32, UInt8

from cinnema.media.pictures import Mask, Photograph, read_mask, read_photograph
from cinnema.models.base import VideoModel
from cinnema.models.warping.model import WarpingModel
from cinnema.synthesis.decoded_scene import DecodedScene
from cinnema.synthesis.extension import ChainedScene
from cinnema.synthesis.loops import Loop
from cinnema.synthesis.scene import Scene
from cinnema.synthesis.settings import Extension, Settings, Size
from cinnema.synthesis.warped_scene import WarpedScene, clip_frames


class RenderOptions(TypedDict, total=False):
    """How a video is rendered, whatever its motion is from; all as in `Pipeline.animate`.

    Attributes:
        num_frames: Frames after the photograph.
        fps: Frames a second.
        motion_strength: Factor on the flow.
        size: Of the frames.
        loop: How the video repeats.
        extension: How it goes on beyond one clip, see `Settings`.
        keep_still: What must not move.
    """

    num_frames: int
    fps: float
    motion_strength: float
    size: Size
    loop: Loop
    extension: Extension
    keep_still: Mask | None


class Look:
    """A photograph, and how it is to be rendered: all that is known before a motion is.

    Args:
        image: The photograph.
        model: That is to move it.
        temperature: Factor on nu.
        options: The rest.

    Attributes:
        settings: What was asked for, checked.
        pixels: The photograph.
        frame_size: Height and width of the frames.
        still: 1 where nothing may move, at the photograph's size; None if all may.

    Raises:
        UserError: An option is out of range, or the photograph or the mask cannot be read.
    """

    def __init__(
        self,
        image: Photograph,
        model: VideoModel,
        *,
        temperature: float,
        options: RenderOptions,
    ) -> None:
        shown: dict[str, Any] = {**options}
        keep_still = shown.pop("keep_still", None)
        self.settings = Settings(temperature=temperature, **shown)
        self.pixels = read_photograph(image)
        self.frame_size = self.settings.frame_size(self.pixels.shape[:2], model.size)
        self.still = None if keep_still is None else read_mask(keep_still, self.pixels.shape[:2])


def open_scene(
    model: VideoModel,
    pixels: UInt8[np.ndarray, "h w 3"],
    settings: Settings,
    *,
    still: Float32[np.ndarray, "h w"] | None,
) -> Scene:
    """Return a photograph as a model sees it.

    Its frames are of the photograph's own size from a model that warps it, else those of the
    decoder.

    Args:
        model: In evaluation mode.
        pixels: The photograph.
        settings: How it is to be animated.
        still: 1 where nothing may move, at the photograph's size.

    Raises:
        UserError: The settings ask for what the model cannot do.
    """
    if not isinstance(model, WarpingModel):
        return DecodedScene(model, pixels, settings, still=still)
    if settings.extension != "paper":
        return WarpedScene(model, pixels, settings, still=still)
    clip = max(1, round(clip_frames(model, settings.fps)))
    return ChainedScene(partial(WarpedScene, model), pixels, settings, clip=clip, still=still)
