"""A node for ComfyUI (V3 API): a photograph of nature in, the frames of a future of it out."""

from functools import lru_cache

import torch
from comfy_api.latest import ComfyAPISync, ComfyExtension, io
from torch import Tensor
from torch.nn import functional

from cinnema import Pipeline


class AnimatePhotograph(io.ComfyNode):
    """Animates each picture of a batch; its frames follow each other in the output."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return what the node takes and gives; ranges are those of `cinnema animate`."""
        return io.Schema(
            node_id="CinnemaAnimatePhotograph",
            display_name="Animate photograph (cinnema)",
            category="image/animation",
            description="Sky, water, fire, plants, rain and snow move; the rest stands.",
            inputs=[
                io.Image.Input("image"),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**63 - 1, control_after_generate=True,
                    tooltip="Another seed is another future.",
                ),
                io.Float.Input(
                    "seconds", default=4.0, min=0.1, max=60.0, step=0.1,
                    tooltip="All frames are in memory: 4 s at 24 a second of 1280x720 are 1.1 GB.",
                ),
                io.Float.Input("fps", default=24.0, min=1.0, max=60.0, step=1.0),
                io.Boolean.Input(
                    "loop", default=True, tooltip="The last frame is the photograph again."
                ),
                io.Float.Input(
                    "temperature", default=1.0, min=0.0, max=2.0, step=0.05,
                    tooltip="Calm (0, the most likely motion) to wild; 1 as in nature.",
                ),
                io.Float.Input(
                    "speed", default=1.0, min=0.0, max=4.0, step=0.05,
                    tooltip="Factor on the motion; 1 as in nature.",
                ),
                io.String.Input(
                    "weights", default="landscape",
                    tooltip="A bundled name, a weights file, or a hub id owner/name@revision.",
                ),
                io.Mask.Input("keep_still", optional=True, tooltip="White: nothing moves."),
                io.Mask.Input("move", optional=True, tooltip="White: it moves."),
            ],
            outputs=[
                io.Image.Output(display_name="frames"),
                io.Float.Output(display_name="fps"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(  # noqa: PLR0917 - as ComfyUI calls it
        cls,
        image: Tensor,
        seed: int,
        seconds: float,
        fps: float,
        loop: bool,  # noqa: FBT001
        temperature: float,
        speed: float,
        weights: str,
        keep_still: Tensor | None = None,
        move: Tensor | None = None,
    ) -> io.NodeOutput:
        """Return the frames (t, height, width, 3) in [0, 1] of all pictures, and their rate.

        Args:
            image: Pictures (b, height, width, 3) in [0, 1].
            seed: Seed of the first picture; each further one has the next.
            seconds: Length for each picture.
            fps: Frames per second.
            loop: Whether the last frame is the photograph again.
            temperature: Factor on nu.
            speed: Factor on the motion.
            weights: Weights, see `cinnema.Pipeline.from_pretrained`.
            keep_still: Masks (b, h, w), or one for all, in [0, 1]; resized to the picture.
            move: The same, of what moves.

        Raises:
            UserError: As in `cinnema.Pipeline.animate`.
        """
        pipe, api = _pipeline(weights), ComfyAPISync()
        pictures = (image[..., :3] * 255).round().clamp(0, 255).to("cpu", torch.uint8).numpy()
        frames = []
        for index, pixels in enumerate(pictures):

            def report(_: str, done: int, total: int, before: int = index) -> None:
                value = before * total + done
                api.execution.set_progress(value=value, max_value=len(pictures) * total)

            (video,) = pipe(
                pixels,
                num_samples=1,
                seed=seed + index,
                seconds=seconds,
                fps=fps,
                loop="seamless" if loop else "none",
                temperature=temperature,
                motion_strength=speed,
                keep_still=_mask(keep_still, index, pixels.shape[:2]),
                move=_mask(move, index, pixels.shape[:2]),
                progress=report,
            )
            frames.append(torch.from_numpy(video.frames).float() / 255)
        return io.NodeOutput(torch.cat(frames), fps)


class CinnemaExtension(ComfyExtension):
    """The nodes of this folder."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes."""
        return [AnimatePhotograph]


async def comfy_entrypoint() -> CinnemaExtension:
    """Return the extension; ComfyUI calls this."""
    return CinnemaExtension()


@lru_cache(maxsize=1)
def _pipeline(weights: str) -> Pipeline:
    return Pipeline.from_pretrained(weights)


def _mask(mask: Tensor | None, index: int, size: tuple[int, int]):  # noqa: ANN202 - array or None
    """Return a mask at the picture's size: one without alpha comes as 64x64 zeros."""
    if mask is None:
        return None
    masks = mask.float().reshape(-1, *mask.shape[-2:])
    one = masks[min(index, len(masks) - 1)]
    large = functional.interpolate(one[None, None], size, mode="bilinear", antialias=True)
    return large[0, 0].clamp(0, 1).cpu().numpy()
