"""A generated video: its frames, and the residual and settings that produced them."""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.media.pictures import resize, to_tensor
from cinnema.media.videos import write_video

if TYPE_CHECKING:
    from cinnema.synthesis.scene import Scene

# Longest side of a video that is shown in a notebook or a page, in pixels.
_PAGE_SIDE = 640


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Generated:
    """What is known of a generated video beside its frames.

    Attributes:
        x0: The photograph at the frames' size, uint8, (height, width, 3).
        z: Latent of the video: `flow.to_latent(nu, c)`.
        nu: Residual, multiplied by the temperature. `pipe.animate(photo, nu=video)` animates
            another photograph with the same motion.
        seed: Seed that nu was drawn with; None if nu was given as a tensor.
        sample: Index of the sample within its seed, from 0.
        fps: Frames per second.
        settings: Settings of the video, as JSON values.
        weights: SHA-256 of the weights file, 64 hexadecimal digits; empty for a model from memory.
        scene: What the video was rendered from, for a page that plays it.
    """

    x0: UInt8[np.ndarray, "h w 3"]
    z: Float[Tensor, " z"]
    nu: Float[Tensor, " z"]
    seed: int | None
    sample: int
    fps: float
    settings: dict[str, Any]
    weights: str
    scene: "Scene"

    @property
    def eta(self) -> Float[Tensor, " e"] | None:
        """The control that the video was made with; None without one."""
        values = self.settings.get("eta")
        return None if values is None else torch.tensor(values)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class VideoStream(Generated):
    """One generated video whose frames are rendered as they are fetched.

    Attributes:
        frames: The frames, once; each is valid until the next one is fetched.
        num_frames: Number of frames.
    """

    frames: Iterator[UInt8[np.ndarray, "h w 3"]]
    num_frames: int


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Video(Generated):
    """One generated video.

    Attributes:
        frames: The frames that follow the photograph, sRGB, uint8, (t, height, width, 3); t is 0
            for a video of a nature model that was made with `render=False`.

    The other attributes are those of `Generated`.

    Example:
        >>> video = pipe("beach.jpg", num_samples=1)[0]
        >>> video.save("beach.mp4")
    """

    frames: UInt8[np.ndarray, "t h w 3"]

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.frames)

    @property
    def tensor(self) -> Float[Tensor, "t 3 h w"]:
        """The frames as a float32 tensor in [-1, 1], a copy."""
        return to_tensor(self.frames)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the video to a file, in the format given by its suffix.

        Args:
            path: A file ending in .mp4, .gif, .webp or .npy; in .png for a folder of frames named
                without the suffix; in .html for a page that plays the motion, see `write_player`.
            overwrite: Whether an existing file may be replaced.

        Returns:
            The file or folder that was written.

        Raises:
            UserError: The suffix is not supported, or the file exists or cannot be written.
        """
        if Path(path).suffix.lower() == ".html":
            from cinnema.synthesis.player import write_player

            return write_player(path, [self], overwrite=overwrite)
        return write_video(path, self.frames, fps=self.fps, overwrite=overwrite)

    def __repr__(self) -> str:
        num, height, width, _ = self.frames.shape
        source = f"seed {self.seed}, sample {self.sample}" if self.seed is not None else "given nu"
        return (
            f"Video({num} frames of {width}x{height}, {num / self.fps:.3g} s at {self.fps:g} fps, "
            f"{source}, weights {self.settings.get('model', '?')})"
        )

    def as_uri(self) -> str:
        """Return the video as the URI of a small mp4, for a page."""
        height, width = self._page_size()
        shown = (resize(frame, (height, width)) for frame in self.frames)
        with TemporaryDirectory() as folder:
            path = write_video(Path(folder, "video.mp4"), shown, fps=self.fps)
            return "data:video/mp4;base64," + b64encode(path.read_bytes()).decode("ascii")

    def _page_size(self) -> tuple[int, int]:
        scale = min(1.0, _PAGE_SIDE / max(self.frames.shape[1:3]))
        height, width = (max(1, round(side * scale)) for side in self.frames.shape[1:3])
        return height, width

    def _repr_html_(self) -> str:
        """Return a player with the video inside, for notebooks."""
        height, width = self._page_size()
        return (
            f'<video width="{width}" height="{height}" controls autoplay loop muted playsinline '
            f'src="{self.as_uri()}">{self!r}</video>'
        )

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """Return the representations that notebooks choose from."""
        return {"text/plain": repr(self), "text/html": self._repr_html_()}
