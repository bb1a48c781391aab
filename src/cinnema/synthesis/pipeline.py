"""From a photograph to videos of it."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.stage1.rendering import Layers, cut
from cinnema.synthesis.animation import Animation
from cinnema.synthesis.loops import Loop, Moment, moments
from cinnema.synthesis.model import LoadedModel, VideoModel, load_model
from cinnema.synthesis.native import NativeRenderer
from cinnema.synthesis.photograph import (
    Mask,
    Photograph,
    as_mask_tensor,
    as_seen,
    photograph_pixels,
    resized,
    resized_mask,
    still_mask,
)
from cinnema.synthesis.residuals import SavedNu, load_nu
from cinnema.synthesis.settings import Settings, Size
from cinnema.synthesis.threads import one_thread
from cinnema.synthesis.trajectory import Trajectory

__all__ = ["Animation", "Pipeline"]

Nu = Float[Tensor, " z"] | Float[Tensor, "n z"] | SavedNu | str | Path


@dataclass(frozen=True)
class _Draw:
    """One residual and where it is from."""

    nu: Tensor
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
        self, loaded: LoadedModel | VideoModel, *, device: torch.device | str | None = None
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
        return self.model.config.name

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
    ) -> list[Animation]:
        """Return several futures of a photograph; all their frames are in memory at once.

        Sample i of a seed is the same, to the bit, whatever `num_samples` is.

        Args:
            image: A file, a PIL image, uint8 (height, width, 3), or a tensor (3, height, width)
                in [-1, 1].
            num_samples: How many, at least 1. With `nu` it does not count.
            seed: Of all draws, at least 0.
            num_frames: Frames after the photograph, from 1 to 10,000; beyond one clip the motion
                goes on.
            fps: Frames a second, above 0 and at most 240. It sets how finely the motion is
                sampled, not how fast it is.
            temperature: Factor on nu, at least 0; 0 gives one and the same motion for all seeds.
            motion_strength: Factor on the flow, at least 0.
            size: "native", "model", or (width, height) in pixels.
            loop: "none"; "pingpong", there and back, 2 num_frames - 2 frames; "crossfade", round
                and round in num_frames frames.
            keep_still: What must not move: a file or an array of the photograph's size.
            nu: Residuals to replay: a tensor (z,) or (n, z), or what `load_nu` reads, as its file
                or itself. `seed` then does not count.

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
        draws = self._draws(num_samples, seed) if nu is None else self._given(nu)
        pixels = photograph_pixels(image)
        still = None if keep_still is None else still_mask(keep_still, pixels.shape[:2])
        scene = _Scene(self.model, pixels, settings, still=still)
        return (self._animation(scene, draw, settings) for draw in draws)

    def _animation(self, scene: "_Scene", draw: _Draw, settings: Settings) -> Animation:
        frames, z, nu = scene.video(draw.nu)
        return Animation(
            frames=frames,
            x0=scene.x0,
            z=z,
            nu=nu,
            seed=draw.seed,
            sample=draw.sample,
            fps=settings.fps,
            settings={**settings.as_dict(), "keep_still": scene.is_kept, "model": self.name},
            weights=self.sha256,
        )

    def _draws(self, num_samples: int, seed: int) -> list[_Draw]:
        if not 1 <= num_samples <= 10_000:
            raise UserError(
                f"num_samples: must be from 1 to 10000, got {num_samples}: ask for some, "
                "and for more by another seed"
            )
        z_dim = self.model.config.stage1.z_dim
        return [
            _Draw(torch.randn(z_dim, generator=generator_for(seed, i)), seed, i)
            for i in range(num_samples)
        ]

    def _given(self, nu: Nu) -> list[_Draw]:
        saved = load_nu(nu) if isinstance(nu, str | Path) else nu
        values = saved.nu if isinstance(saved, SavedNu) else saved
        z_dim = self.model.config.stage1.z_dim
        if values.ndim not in (1, 2) or values.shape[-1] != z_dim or values.numel() == 0:
            raise UserError(
                f"nu: the model {self.name} needs ({z_dim},) or (n, {z_dim}) numbers, got "
                f"{tuple(values.shape)}: replay it with the weights that it was made with"
            )
        if not bool(values.isfinite().all()):
            raise UserError("nu: must be finite, but some values are not: draw it anew")
        rows = values.detach().float().cpu().reshape(-1, z_dim)
        if not isinstance(saved, SavedNu):
            return [_Draw(row, None, i) for i, row in enumerate(rows)]
        if saved.weights != self.sha256:
            warnings.warn(
                f"nu was made with other weights ({saved.weights[:12] or 'never saved'}) than "
                f"{self.name} ({self.sha256[:12] or 'never saved'}): the motion will differ",
                stacklevel=3,
            )
        return [_Draw(rows[0], saved.seed, saved.sample)]


class _Scene:
    """A photograph with all that its samples share."""

    @one_thread()
    @torch.inference_mode()
    def __init__(
        self,
        model: VideoModel,
        pixels: UInt8[np.ndarray, "h w 3"],
        settings: Settings,
        *,
        still: np.ndarray | None,
    ) -> None:
        self._model, self._settings = model, settings
        self.is_kept = still is not None
        size = model.config.stage1.size
        device = next(model.parameters()).device
        out_size = settings.frame_size(pixels.shape[:2], size)
        self.x0 = resized(pixels, out_size)
        small = to_tensor(as_seen(pixels, size))[None].to(device)
        self._features = model.stage1.scene(small)
        self._c = model.condition_on(self._features)
        moving = torch.sigmoid(model.stage1.mask(self._features.joint, self._features.fine))
        self._free = None if still is None else 1 - as_mask_tensor(still, size).to(device)
        self._layers = self._cut(small, moving)
        self._native = None
        if settings.size != "model":
            kept = None if still is None else resized_mask(still, out_size)
            mask = moving[0, 0].float().cpu().numpy()
            self._native = NativeRenderer(self.x0, mask, keep_still=kept)
            self._at_rest = self._painted(torch.zeros(1, 2, 1, 1, device=device))[1]

    @one_thread()
    @torch.inference_mode()
    def video(self, nu: Tensor) -> tuple[np.ndarray, Tensor, Tensor]:
        """Return the frames, z and nu with the temperature in it."""
        model, settings = self._model, self._settings
        nu = nu * settings.temperature
        z, _ = model.to_latent(nu[None].to(self._c.device), self._c)  # one at a time: see animate
        coefficients = model.stage1.motion(z, self._features.joint) * settings.motion_strength
        trajectory = Trajectory(model.stage1.basis, coefficients)
        plan = moments(settings.loop, settings.num_frames)
        frames = np.empty((len(plan), *self.x0.shape), np.uint8)
        for index, mix in enumerate(plan):
            same = plan.index(mix)  # on its way back a pingpong shows what it showed before
            frames[index] = frames[same] if same < index else self._mixed(mix, trajectory)
        # Tensors made in inference mode cannot be trained on; copies made outside can.
        with torch.inference_mode(mode=False):
            return frames, z[0].float().cpu().clone(), nu.clone()

    def _mixed(self, mix: tuple[Moment, ...], trajectory: Trajectory) -> np.ndarray:
        frames = [self._frame(moment.time, trajectory) for moment in mix]
        if len(frames) == 1:
            return frames[0]
        levels = np.zeros(self.x0.shape, np.float32)
        for moment, frame in zip(mix, frames, strict=True):
            levels += frame * np.float32(moment.share)
        return np.rint(levels).astype(np.uint8)

    def _frame(self, index: int, trajectory: Trajectory) -> np.ndarray:
        stage1 = self._model.config.stage1
        flow = trajectory.at(index * stage1.fps / self._settings.fps / stage1.num_frames)
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
