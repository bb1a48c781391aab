"""From a photograph to videos of it."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.synthesis.animation import Animation
from cinnema.synthesis.decoded_scene import DecodedScene
from cinnema.synthesis.loops import Loop
from cinnema.synthesis.model import LoadedModel, VideoModel, load_model
from cinnema.synthesis.photograph import Mask, Photograph, photograph_pixels, still_mask
from cinnema.synthesis.residuals import SavedNu, load_nu
from cinnema.synthesis.scene import Scene
from cinnema.synthesis.settings import Settings, Size
from cinnema.synthesis.synthesizer import Synthesizer
from cinnema.synthesis.warped_scene import WarpedScene

__all__ = ["Animation", "Pipeline"]

Nu = Float[Tensor, " z"] | Float[Tensor, "n z"] | SavedNu | str | Path


@dataclass(frozen=True)
class _Draw:
    """One residual with the control that goes with it, and where they are from."""

    nu: Tensor
    eta: Tensor | None
    seed: int | None
    sample: int


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
        self, loaded: LoadedModel | Synthesizer, *, device: torch.device | str | None = None
    ) -> None:
        self._loaded = loaded if isinstance(loaded, LoadedModel) else LoadedModel(loaded)
        model = self._loaded.model.eval()
        self.model = model if device is None else model.to(device)
        self.device = next(self.model.parameters()).device

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path = "landscape", *, device: torch.device | str | None = None
    ) -> "Pipeline":
        """Load a model, see `cinnema.synthesis.model.load_model`.

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
        eta: Float[Tensor, " e"] | None = None,
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
            eta: The control, for a model that takes one; left out, each sample draws its own, and
                a file's nu brings its own.

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
        num_frames: int = 16,
        fps: float = 8.0,
        temperature: float = 1.0,
        motion_strength: float = 1.0,
        size: Size = "native",
        loop: Loop = "none",
        keep_still: Mask | None = None,
        nu: Nu | None = None,
        eta: Float[Tensor, " e"] | None = None,
    ) -> Iterator[Animation]:
        """Yield what `animate` returns one at a time, so that memory holds one video.

        Everything is checked, and the photograph read, before this returns.

        Args:
            image: As in `animate`, like all that follow.
            num_samples: How many.
            seed: Of all draws.
            num_frames: Frames after the photograph.
            fps: Frames a second.
            temperature: Factor on nu.
            motion_strength: Factor on the flow.
            size: Of the frames.
            loop: How the video repeats.
            keep_still: What must not move.
            nu: Residuals to replay.
            eta: The control.

        Returns:
            An iterator over the samples.

        Raises:
            UserError: As in `animate`.
        """
        settings = Settings(
            num_frames=num_frames,
            fps=fps,
            temperature=temperature,
            motion_strength=motion_strength,
            size=size,
            loop=loop,
        )
        self._require_control(eta)
        draws = self._draws(num_samples, seed, eta) if nu is None else self._given(nu, eta)
        pixels = photograph_pixels(image)
        still = None if keep_still is None else still_mask(keep_still, pixels.shape[:2])
        scene = _open_scene(self.model, pixels, settings, still=still)
        about = {"keep_still": still is not None, "model": self.name, **scene.notes}
        about = {**settings.as_dict(), **about}
        return (self._animation(scene, draw, fps=settings.fps, about=about) for draw in draws)

    def _animation(
        self, scene: Scene, draw: _Draw, *, fps: float, about: dict[str, Any]
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
            settings={**about, **control},
            weights=self.sha256,
        )

    def _draws(self, num_samples: int, seed: int, eta: Tensor | None) -> list[_Draw]:
        if not 1 <= num_samples <= 10_000:
            raise UserError(
                f"num_samples: must be from 1 to 10000, got {num_samples}: ask for some, "
                "and for more by another seed"
            )
        draws = []
        for sample in range(num_samples):
            generator = generator_for(seed, sample)
            nu = torch.randn(self.model.z_dim, generator=generator)
            control = eta
            if eta is None and self.model.control_dim:
                control = self.model.draw_eta(generator=generator)
            draws.append(_Draw(nu, control, seed, sample))
        return draws

    def _given(self, nu: Nu, eta: Tensor | None) -> list[_Draw]:
        saved = load_nu(nu) if isinstance(nu, str | Path) else nu
        values = saved.nu if isinstance(saved, SavedNu) else saved
        z_dim = self.model.z_dim
        if values.ndim not in (1, 2) or values.shape[-1] != z_dim or values.numel() == 0:
            raise UserError(
                f"nu: the model {self.name} needs ({z_dim},) or (n, {z_dim}) numbers, got "
                f"{tuple(values.shape)}: replay it with the weights that it was made with"
            )
        if not bool(values.isfinite().all()):
            raise UserError("nu: must be finite, but some values are not: draw it anew")
        rows = values.detach().float().cpu().reshape(-1, z_dim)
        if isinstance(saved, SavedNu) and eta is None and self.model.control_dim:
            eta = _saved_eta(saved, self.model.control_dim)
        if eta is None and self.model.control_dim:
            raise UserError(f"eta: nu alone does not tell the control of {self.name}: give it too")
        if not isinstance(saved, SavedNu):
            return [_Draw(row, eta, None, i) for i, row in enumerate(rows)]
        if saved.weights != self.sha256:
            warnings.warn(
                f"nu was made with other weights ({saved.weights[:12] or 'never saved'}) than "
                f"{self.name} ({self.sha256[:12] or 'never saved'}): the motion will differ",
                stacklevel=3,
            )
        return [_Draw(rows[0], eta, saved.seed, saved.sample)]

    def _require_control(self, eta: Tensor | None) -> None:
        num = self.model.control_dim
        if eta is None:
            return
        if not num:
            raise UserError(f"eta: the model {self.name} takes no control: leave it out")
        if eta.shape != (num,) or not bool(eta.isfinite().all()):
            raise UserError(
                f"eta: the model {self.name} takes {num} finite numbers, got {eta.tolist()}: give "
                "one control for all samples"
            )


def _saved_eta(saved: SavedNu, num: int) -> Tensor | None:
    """The control that a nu file's video was made with, if it had one."""
    values = saved.settings.get("eta")
    return torch.tensor(values) if isinstance(values, list) and len(values) == num else None


def _open_scene(
    model: Synthesizer,
    pixels: UInt8[np.ndarray, "h w 3"],
    settings: Settings,
    *,
    still: np.ndarray | None,
) -> Scene:
    """Frames at the photograph's own size from a model that warps it, else those of the decoder."""
    if isinstance(model, VideoModel):
        return WarpedScene(model, pixels, settings, still=still)
    return DecodedScene(model, pixels, settings, still=still)
