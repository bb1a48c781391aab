"""A scene of the nature model: each kind of thing in the photograph moves in its own way."""

import os
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from cinnema.core.allocator import release_freed_memory
from cinnema.core.devices import one_thread
from cinnema.media.pictures import resize, resize_mask
from cinnema.models.nature.kinds import KINDS, STILL, SceneFeatures
from cinnema.models.nature.model import NatureModel
from cinnema.models.nature.motion import KindMotion
from cinnema.models.nature.rendering import shares
from cinnema.synthesis.arrows import (
    Wanted,
    follow_arrows,
    require_free,
    wanted_by,
    warn_of_missed,
)
from cinnema.synthesis.nature_layers import NativeLayer, cut_layers, solve_alphas
from cinnema.synthesis.nature_renderer import NatureRenderer
from cinnema.synthesis.recognition import Recognition
from cinnema.synthesis.request import Request, shown_frames
from cinnema.synthesis.scene import OnFrame, Scene, ignore, require_finite
from cinnema.synthesis.skyline import corrected

# Probability from which a pixel surely stands still.
_SOLID = 0.9
# Share of solid pixels under a `move` mask from which a warning is issued.
_MUCH = 0.05
# Mean probability of a moving kind under a `move` mask from which it is believed.
_PLAUSIBLE = 0.02
_MAX_WORKERS = 8


class NatureScene(Scene):
    """Videos of any length and frame rate, as the motion is defined at any time.

    Time i of a video is step i rate_k / fps of kind k, with the rate at which it looks natural;
    with the protocol "paper" step i of the model's clips, for all kinds. The extensions "onward"
    and "continuous" are the same: textures that are renewed never drift away.

    Args:
        model: The model, on any device.
        pixels: The photograph.
        request: Length, speed, size and kind of the videos.
        still: Mask, 1 where nothing may move, at the photograph's size; None for none.
        move: Mask, 1 where things move though the model takes them for still; None for none. It
            moves as the moving kind that is most probable in each connected part, or as water if
            none is.
        features: What the model sees in the photograph; None to look at it now.
    """

    @one_thread()
    @torch.inference_mode()
    def __init__(
        self,
        model: NatureModel,
        pixels: UInt8[np.ndarray, "h w 3"],
        request: Request,
        *,
        still: Float32[np.ndarray, "h w"] | None = None,
        move: Float32[np.ndarray, "h w"] | None = None,
        features: SceneFeatures | None = None,
    ) -> None:
        size = request.frame_size(pixels.shape[:2], model.size)
        super().__init__(model.name, request, x0=resize(pixels, size))
        self.model, self._device = model, next(model.parameters()).device
        if features is None:
            features = Recognition(model)(pixels)
        seen = corrected(features.probabilities[0].float().cpu().numpy())
        parts: dict[int, np.ndarray] = {}
        if move is not None:
            _warn_of_solid_things(seen, move)
            parts = choose_kinds(seen, move)
            features = told(features, parts)
            seen = corrected(features.probabilities[0].float().cpu().numpy())
        self._features = features
        alphas = solve_alphas(seen, self.x0)
        for kind, mask in parts.items():
            _give(alphas, kind, resize_mask(mask, size))
        if still is not None:
            free = 1 - resize_mask(still, size)
            alphas = {kind: alpha * free for kind, alpha in alphas.items()}
        self._wanted = self._asked(features, still, size=pixels.shape[:2])
        layers = cut_layers(self.x0, alphas, seen)
        if not layers:
            _warn_of_stillness(is_masked=still is not None)
        del alphas  # of a large photograph, they take as much memory as all else
        self._renderer = NatureRenderer(self.x0, layers)
        release_freed_memory()

    def _asked(
        self, features: SceneFeatures, still: np.ndarray | None, *, size: tuple[int, int]
    ) -> list[Wanted]:
        """Return what the request asks of the motion of each kind."""
        request = self.request
        if not request.arrows and request.current is None:
            return []
        share = shares(features.probabilities)[0].float()
        if still is not None:
            rows, columns = share.shape[-2:]
            kept = torch.from_numpy(resize_mask(still, (rows, columns))).to(share)
            share = share * (1 - kept)
            share[STILL] += kept
        wanted = wanted_by(
            request.arrows, request.current, share, self.model, size=size, rates=self.rates
        )
        if wanted:
            condition = self.model.describe(features).flatten(1)
            warn_of_missed(self.model, condition, wanted)
        return wanted

    def require(self, eta: Float[Tensor, " e"] | None) -> None:
        """Raise a UserError if arrows or the current act on the kind that the control moves."""
        require_free(self.model, self._features, self._wanted, eta=eta)

    def steered(
        self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None
    ) -> Float[Tensor, " z"]:
        """Return the most likely residual near a given one that follows arrows and current."""
        if not self._wanted:
            return nu
        row = nu[None].to(self._device)
        # The correction of the control looks at another kind than those that follow arrows.
        condition = self._condition(row, eta)
        return follow_arrows(self.model, row, condition, self._wanted)[0].cpu()

    def render(
        self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None, on_frame: OnFrame = ignore
    ) -> tuple[UInt8[np.ndarray, "t h w 3"], Float[Tensor, " z"]]:
        """Render the frames of one motion, see `Scene.render`."""
        if not self.request.render:
            return np.empty((0, *self.x0.shape), np.uint8), self.latent(nu, eta)
        z, motions = self._motions(nu, eta)
        plan = self._plan()
        num_frames = self.request.num_frames
        frames = np.empty((len(plan), *self.x0.shape), np.uint8)
        for index, _ in enumerate(self._rendered(plan[:num_frames], motions, list(frames))):
            on_frame(index + 1, len(plan))
        for index in range(num_frames, len(plan)):
            frames[index] = frames[plan[index] - 1]  # pingpong shows frames twice
            on_frame(index + 1, len(plan))
        return frames, z

    def frames(
        self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None, on_frame: OnFrame = ignore
    ) -> tuple[Iterator[UInt8[np.ndarray, "h w 3"]], int, Float[Tensor, " z"]]:
        """Return the frames of one motion one by one, see `Scene.frames`.

        Some frames are held in memory, whatever their number; of a pingpong loop all.
        """
        if self.request.loop == "pingpong":
            return super().frames(nu, eta, on_frame)
        z, motions = self._motions(nu, eta)
        plan = self._plan()

        def frames() -> Iterator[np.ndarray]:
            buffers = [np.empty_like(self.x0) for _ in range(min(len(plan), num_workers() + 1))]
            for index, frame in enumerate(self._rendered(plan, motions, buffers)):
                yield frame
                on_frame(index + 1, len(plan))

        return frames(), len(plan), z

    def _plan(self) -> list[int]:
        """Return the number of the moment that each frame shows."""
        return shown_frames(self.request.loop, self.request.num_frames)

    @property
    def layers(self) -> list[NativeLayer]:
        """The layers of the photograph at the frames' size."""
        return self._renderer.layers

    @property
    def rates(self) -> list[float]:
        """Steps a second of each kind."""
        if self.request.protocol == "paper":
            return [self.model.fps] * len(KINDS)
        return [dynamics.rate for dynamics in self.model.config.dynamics]

    def steps(self, index: int) -> list[float]:
        """Return the time of each kind at a frame, in steps."""
        seconds = index / self.request.fps
        return [seconds * rate for rate in self.rates]

    @one_thread()
    @torch.inference_mode()
    def latent(
        self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None
    ) -> Float[Tensor, " z"]:
        """Return z of a residual, on the CPU."""
        row = nu[None].to(self._device)
        z, _ = self.model.to_latent(row, self._condition(row, eta))
        require_finite(z)
        return z[0].float().cpu()

    @one_thread()
    @torch.inference_mode()
    def _motions(self, nu: Tensor, eta: Tensor | None) -> tuple[Tensor, list[KindMotion]]:
        z = self.latent(nu, eta)
        motions = self.model.motions(
            z[None],
            num_steps=tuple(self.steps(self.request.num_frames)),
            loop=self.request.loop == "seamless",
            strength=self.request.motion_strength,
        )
        return z, motions

    @one_thread()
    @torch.inference_mode()
    def _condition(self, row: Tensor, eta: Tensor | None) -> Tensor:
        """Return the condition of the flow, with the control corrected for this residual."""
        control = None
        if eta is not None:
            requested = eta[None].to(self._device)
            control = self.model.corrected_control_on(self._features, row, requested)
        return self.model.describe(self._features, control).flatten(1)

    def _rendered(
        self, plan: list[int], motions: list[KindMotion], buffers: list[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Yield the frames of these numbers, written to the buffers in turn.

        Several are computed at once, ahead of what is fetched: no more than the buffers hold, and
        no more than keep the processor busy.
        """

        def render(place: int) -> np.ndarray:
            index, out = plan[place], buffers[place % len(buffers)]
            if self.request.loop == "seamless" and index == self.request.num_frames:
                np.copyto(out, self.x0)
                return out
            with torch.inference_mode():  # which holds for one thread
                return self._renderer.frame(motions, self.steps(index), out)

        ahead = min(len(buffers), 2 * num_workers())
        waiting = deque(_pool().submit(render, place) for place in range(min(ahead, len(plan))))
        try:
            for place in range(len(plan)):
                yield waiting.popleft().result()
                if place + ahead < len(plan):
                    waiting.append(_pool().submit(render, place + ahead))
        finally:
            for frame in waiting:
                frame.cancel()


def num_workers() -> int:
    """Return the number of threads that render frames."""
    return min(_MAX_WORKERS, os.cpu_count() or 1)


@cache
def _pool() -> ThreadPoolExecutor:
    """Return the threads that render all frames of this process."""
    return ThreadPoolExecutor(
        num_workers(), "frames", initializer=torch.set_num_threads, initargs=(1,)
    )


def choose_kinds(
    probabilities: Float32[np.ndarray, "c i j"], move: Float32[np.ndarray, "h w"]
) -> dict[int, Float32[np.ndarray, "h w"]]:
    """Return the parts of a `move` mask, by the kind that each moves as.

    A connected part moves as the moving kind with the highest mean probability in it; as water if
    all are improbable.

    Args:
        probabilities: Of all classes, still first.
        move: The mask.
    """
    count, labels = cv2.connectedComponents((move > 0.5).astype(np.uint8))
    height, width = move.shape
    moving = [
        cv2.resize(p, (width, height), interpolation=cv2.INTER_LINEAR) for p in probabilities[1:]
    ]
    parts: dict[int, np.ndarray] = {}
    for part in range(1, count):
        inside = labels == part
        means = [float(p[inside].mean()) for p in moving]
        best = int(np.argmax(means))
        kind = best if means[best] >= _PLAUSIBLE else KINDS.index("water")
        mask = parts.setdefault(kind, np.zeros_like(move))
        # With the soft edge of the drawn mask.
        near = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        mask[near] = np.maximum(mask[near], move[near])
    return parts


def told(features: SceneFeatures, parts: dict[int, Float32[np.ndarray, "h w"]]) -> SceneFeatures:
    """Return features as if the network had recognised the parts of a `move` mask.

    Args:
        features: Of one photograph.
        parts: From `choose_kinds`.
    """
    probabilities = features.probabilities[0].float().cpu()
    height, width = probabilities.shape[-2:]
    for kind, mask in parts.items():
        share = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        given = torch.from_numpy(share)
        probabilities = probabilities * (1 - given)
        probabilities[kind + 1] += given
    logits = probabilities.clamp_min(1e-4).log()[None].to(features.logits)
    return SceneFeatures(logits, features.deep)


def _give(alphas: dict[int, np.ndarray], kind: int, mask: np.ndarray) -> None:
    """Let a kind have the pixels of a mask, and the other kinds the rest."""
    for alpha in alphas.values():
        np.multiply(alpha, 1 - mask, out=alpha)
    alphas[kind] = alphas[kind] + mask if kind in alphas else mask.copy()


def _warn_of_solid_things(probabilities: np.ndarray, move: np.ndarray) -> None:
    height, width = probabilities.shape[1:]
    asked = cv2.resize(move, (width, height), interpolation=cv2.INTER_AREA)
    solid = float((asked * (probabilities[STILL] > _SOLID)).sum() / max(asked.sum(), 1e-6))
    if solid > _MUCH:
        warnings.warn(
            f"{solid:.0%} of what the mask of --move covers looks solid and will be dragged along: "
            "draw it tighter, or keep solid things with --keep-still MASK",
            stacklevel=5,
        )


def _warn_of_stillness(*, is_masked: bool) -> None:
    masked = " outside the mask of --keep-still" if is_masked else ""
    warnings.warn(
        f"nothing in this photograph{masked} looks like sky, water, fire, plants, rain or snow, so "
        "the video stands still: mark what may move with --move MASK",
        stacklevel=5,
    )
