"""A generated video: its frames, and the residual and settings that produced them."""

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.media.pictures import resize, to_tensor
from cinnema.media.videos import write_video

# Longest side of a video that is shown in a notebook, in pixels.
_NOTEBOOK_SIDE = 640


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Video:
    """One generated video.

    Attributes:
        frames: The frames that follow the photograph, sRGB, uint8, (t, height, width, 3).
        x0: The photograph at the frames' size, uint8, (height, width, 3).
        z: Latent of the video: `flow.to_latent(nu, c)`.
        nu: Residual, multiplied by the temperature. `pipe.animate(photo, nu=video)` animates
            another photograph with the same motion.
        seed: Seed that nu was drawn with; None if nu was given as a tensor.
        sample: Index of the sample within its seed, from 0.
        fps: Frames per second.
        settings: Settings of the video, as JSON values.
        weights: SHA-256 of the weights file, 64 hexadecimal digits; empty for a model from memory.

    Example:
        >>> video = pipe("beach.jpg", num_samples=1)[0]
        >>> video.save("beach.mp4")
    """

    frames: UInt8[np.ndarray, "t h w 3"]
    x0: UInt8[np.ndarray, "h w 3"]
    z: Float[Tensor, " z"]
    nu: Float[Tensor, " z"]
    seed: int | None
    sample: int
    fps: float
    settings: dict[str, Any]
    weights: str

    @property
    def tensor(self) -> Float[Tensor, "t 3 h w"]:
        """The frames as a float32 tensor in [-1, 1], a copy."""
        return to_tensor(self.frames)

    @property
    def eta(self) -> Float[Tensor, " e"] | None:
        """The control that the video was made with; None without one."""
        values = self.settings.get("eta")
        return None if values is None else torch.tensor(values)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the video to a file, in the format given by its suffix.

        Args:
            path: A file ending in .mp4, .gif, .webp or .npy, or in .png for a folder of frames
                named without the suffix.
            overwrite: Whether an existing file may be replaced.

        Returns:
            The file or folder that was written.

        Raises:
            UserError: The suffix is not supported, or the file exists or cannot be written.
        """
        return write_video(path, self.frames, fps=self.fps, overwrite=overwrite)

    def __repr__(self) -> str:
        num, height, width, _ = self.frames.shape
        source = f"seed {self.seed}, sample {self.sample}" if self.seed is not None else "given nu"
        return (
            f"Video({num} frames of {width}x{height}, {num / self.fps:.3g} s at {self.fps:g} fps, "
            f"{source}, weights {self.settings.get('model', '?')})"
        )

    def _repr_html_(self) -> str:
        """Return a player with the video inside, for notebooks."""
        scale = min(1.0, _NOTEBOOK_SIDE / max(self.frames.shape[1:3]))
        height, width = (max(1, round(side * scale)) for side in self.frames.shape[1:3])
        shown = (resize(frame, (height, width)) for frame in self.frames)
        with TemporaryDirectory() as folder:
            path = write_video(Path(folder, "video.mp4"), shown, fps=self.fps)
            content = b64encode(path.read_bytes()).decode("ascii")
        return (
            f'<video width="{width}" height="{height}" controls autoplay loop muted playsinline '
            f'src="data:video/mp4;base64,{content}">{self!r}</video>'
        )

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """Return the representations that notebooks choose from."""
        return {"text/plain": repr(self), "text/html": self._repr_html_()}
