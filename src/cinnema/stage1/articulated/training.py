"""Training of the articulated stage 1: first the shape of motion, then the look of frames.

Phase "motion" compares pixels and landmarks of a few moments of each clip; phase "picture" goes on
with a perceptual distance and, where asked for, adversaries.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal

import torch
from jaxtyping import Float, Int64
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from cinnema.core.config import config_to_dict
from cinnema.core.precision import MasterWeights, MovingAverage, fast_dtype
from cinnema.core.randomness import generator_for
from cinnema.core.ranks import Ranks
from cinnema.core.running import Stateful, TrainingRun, warmup_cosine
from cinnema.data.loading import ClipLoader, VideoBatch
from cinnema.stage1.articulated.decoder import Scene
from cinnema.stage1.articulated.model import LANDMARK_UNIT, ArticulatedStage1, Moments
from cinnema.stage1.losses import PerceptualDistance

Validate = Callable[[ArticulatedStage1], dict[str, float]]
"""Scores the model on held-out clips; it comes in float32, on the device of training."""

Show = Callable[[ArticulatedStage1, Path], object]
"""Draws what the model makes of held-out clips into a PNG file."""

_RECORD_EVERY, _VALIDATE_EVERY = 50, 1000
# Change of a level, of 2 from black to white, from which a pixel is said to have moved.
_MOVED = 0.1


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ArticulatedTraining:
    """How a phase is trained.

    Attributes:
        phase: "motion" trains everything on pixels and landmarks; "picture" holds the encoder still
            and compares how frames look as well.
        clips: Clips seen before the run ends.
        batch_size: Clips in a step, of all ranks together.
        moments: Frames rendered of each clip, at random moments spread over the clip.
        learning_rate: Of AdamW at its peak.
        weight_decay: Of AdamW.
        ema_decay: Of the weights that are kept.
        pixels: Weight of the L1 distance of frames.
        moved: How much more a pixel counts that is not what it was in x0.
        warped: Weight of the L1 distance of what is warped only, where the gate leaves it.
        landmarks: Weight of the distance of the landmarks' paths, and of where they are in x0, in
            tenths of their unit.
        perceptual: Weight of LPIPS, of one moment of each clip.
        network: Of LPIPS.
        seed: Of every draw.
    """

    phase: Literal["motion", "picture"] = "motion"
    clips: int = Field(default=60_000, ge=1)
    batch_size: int = Field(default=16, ge=1)
    moments: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    pixels: float = Field(default=4.0, ge=0)
    moved: float = Field(default=4.0, ge=0)
    warped: float = Field(default=0.5, ge=0)
    landmarks: float = Field(default=1.0, ge=0)
    perceptual: float = Field(default=0.0, ge=0)
    network: Literal["vgg", "alex"] = "alex"
    seed: int = Field(default=0, ge=0)


def train(
    model: ArticulatedStage1,
    batches: ClipLoader,
    config: ArticulatedTraining,
    *,
    folder: Path,
    device: torch.device,
    perceptual: PerceptualDistance | None = None,
    validate: Validate | None = None,
    show: Show | None = None,
    ranks: Ranks | None = None,
    tensorboard: bool = False,
) -> ArticulatedStage1:
    """Train `model` in place, resuming what `folder` holds, and return it with averaged weights.

    As with the warping stage 1, the draws of a step depend on the seed and its number only, and the
    clips go on from where the run was.

    Args:
        model: Stage 1; for phase "picture", one that phase "motion" has trained.
        batches: Windows of clips, with the landmarks' track if the model tells any; under several
            ranks, this rank's share.
        config: How.
        folder: Of the run.
        device: Where to compute.
        perceptual: LPIPS on that device, in float32; without it no perceptual distance counts.
        validate: Called with the averaged model now and then; its numbers are recorded.
        show: Called then, too, with a file in `strips`, in the folder of the run.
        ranks: The processes that train.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Returns:
        `model`, in float32 and on `device`.

    Raises:
        UserError: `folder` holds another run, or cannot be written to; the ranks cannot share a
            batch evenly; the loss is no number any more (the last checkpoint is from before that).
    """
    step = _Step(model, config, device=device, perceptual=perceptual, ranks=ranks or Ranks())
    about = {"model": config_to_dict(model.config), "training": config_to_dict(config)}
    with TrainingRun(
        folder,
        config=about,
        parts=step.parts(),
        total=config.clips,
        ranks=step.ranks,
        tensorboard=tensorboard,
    ) as run:
        batches.load_state_dict({"clips": run.clips})
        step.ranks.broadcast(step.tensors())
        _fit(run, step, batches, validate, show)
    batches.close()
    step.average.exchange()
    step.master.restore()
    return model


def trial(
    model: ArticulatedStage1,
    batch: VideoBatch,
    config: ArticulatedTraining,
    *,
    device: torch.device,
    perceptual: PerceptualDistance | None = None,
    ranks: Ranks | None = None,
) -> Callable[[int], dict[str, float]]:
    """Return a function that takes the step of a number on a batch, to see what it costs.

    Args:
        model: Stage 1; trained.
        batch: This rank's share of a batch as large as the config says.
        config: How.
        device: Where to compute.
        perceptual: LPIPS on that device.
        ranks: The processes that train.
    """
    step = _Step(model, config, device=device, perceptual=perceptual, ranks=ranks or Ranks())

    def take(number: int) -> dict[str, float]:
        losses = step.backward(batch, number=number)
        step.update(config.learning_rate)
        return losses

    return take


def _fit(
    run: TrainingRun,
    step: "_Step",
    batches: ClipLoader,
    validate: Validate | None,
    show: Show | None,
) -> None:
    config = step.config
    while not run.is_done:
        number = run.clips // config.batch_size
        batch = next(batches)
        losses = step.backward(batch, number=number)
        run.require_finite(losses, step=number, ids=[f"clip {n}" for n in batch.number.tolist()])
        step.update(config.learning_rate * warmup_cosine(run.progress))
        run.advance(config.batch_size)
        if number % _RECORD_EVERY == 0:
            run.record(**losses)
        if number % _VALIDATE_EVERY == _VALIDATE_EVERY - 1 or run.is_done:
            _look(run, step, validate, show)
        run.save_if_due()


def _look(run: TrainingRun, step: "_Step", validate: Validate | None, show: Show | None) -> None:
    """Score and show the averaged model, on the first rank; the others wait at their next step."""
    if not step.ranks.is_first:
        return
    with _Averaged(step):
        numbers = {} if validate is None else validate(step.model)
        if show is not None:
            show(step.model, run.folder / "strips" / f"{run.clips:09d}.png")
    if numbers:
        run.record(**numbers)


class _Step:
    """One step of the optimiser, with everything that it changes."""

    def __init__(
        self,
        model: ArticulatedStage1,
        config: ArticulatedTraining,
        *,
        device: torch.device,
        perceptual: PerceptualDistance | None,
        ranks: Ranks,
    ) -> None:
        self.config, self.device, self.perceptual = config, device, perceptual
        self.ranks, self.share = ranks, ranks.share(config.batch_size)
        self.dtype = fast_dtype(device)
        self.model = model.to(device)
        model.requires_grad_(requires_grad=True)
        # Stage 2 reads both: held still, it can be trained beside the second phase.
        model.encoder.requires_grad_(requires_grad=config.phase == "motion")
        model.scene.requires_grad_(requires_grad=config.phase == "motion")
        self.master = MasterWeights(model, dtype=self.dtype)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = MovingAverage(self.master.parameters, decay=config.ema_decay)
        self.optimiser = torch.optim.AdamW(
            self.master.parameters,
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
        )

    def parts(self) -> dict[str, Stateful]:
        return {"model": self.master, "optimiser": self.optimiser, "average": self.average}

    def tensors(self) -> Iterator[Tensor]:
        """All that has to be the same on all ranks before the first step."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        yield from self.master.parameters
        yield from self.average.values

    def backward(self, batch: VideoBatch, *, number: int) -> dict[str, float]:
        """Leave the gradient on the whole batch in the master weights; return losses and norm."""
        self.model.train()
        losses = self.losses(batch.to(self.device), generator_for(self.config.seed, number))
        torch.stack(list(losses.values())).sum().backward()
        self.master.take_gradients()
        self.ranks.average_gradients(self.master.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.master.parameters, 1.0)
        values = torch.stack([*losses.values(), norm]).detach()
        self.ranks.average([values])
        return dict(zip([*losses, "gradient"], values.tolist(), strict=True))

    def update(self, learning_rate: float) -> None:
        """Move the weights down the gradient."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.average.update()
        self.master.publish()

    def losses(self, batch: VideoBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return weighted losses, whose means over all ranks are those of the whole batch."""
        model, config = self.model, self.config
        video = batch.video.to(self.dtype)
        frames = model.config.num_frames
        shown = draw_moments(config, num_frames=frames, generator=generator)[self.share]
        shown = shown.to(self.device)
        z = model.encode(video)
        noise = torch.randn((config.batch_size, z.shape[1]), generator=generator)[self.share]
        z = z + model.config.noise * noise.to(z)
        x0 = video[:, 0].contiguous(memory_format=torch.channels_last)
        scene = model.scene(x0)
        made = model.at(scene, z, shown / frames)
        rows = torch.arange(len(video), device=self.device)[:, None]
        losses = self._pixel_losses(made, batch.video[rows, shown], batch.video[:, :1])
        if model.config.landmarks:
            path = batch.track[rows, shown] - batch.track[:, :1]
            losses |= self._landmark_losses(scene, made, path, batch.track[:, 0])
        return losses

    def _landmark_losses(
        self,
        scene: Scene,
        made: Moments,
        path: Float[Tensor, "b n l"],
        place: Float[Tensor, "b l"],
    ) -> dict[str, Tensor]:
        weight = self.config.landmarks
        found = self.model.places(scene)
        return {
            "landmarks": weight * _landmark_distance(made.landmarks, path),
            "places": weight * _landmark_distance(found, place),
        }

    def _pixel_losses(
        self,
        made: Moments,
        true: Float[Tensor, "b n 3 h w"],
        x0: Float[Tensor, "b 1 3 h w"],
    ) -> dict[str, Tensor]:
        config = self.config
        moved = ((true - x0).abs().mean(dim=2, keepdim=True) > _MOVED).float()
        weight = 1 + config.moved * moved
        frames = made.frames.float()
        out = {"pixels": config.pixels * ((frames - true).abs() * weight).mean()}
        if config.warped:
            out["warped"] = config.warped * ((made.warped.float() - true).abs() * weight).mean()
        if config.perceptual and self.perceptual is not None:
            last = frames.shape[1] - 1
            distance = self.perceptual(frames[:, last], true[:, last])
            out["lpips"] = config.perceptual * distance.mean()
        return out


def draw_moments(
    config: ArticulatedTraining, *, num_frames: int, generator: torch.Generator
) -> Int64[Tensor, "b n"]:
    """Draw the frames to render of each clip: one in each of n stretches of it, from 1 to T.

    Args:
        config: Of how many clips, how many frames.
        num_frames: T.
        generator: Of the draw.
    """
    place = torch.rand((config.batch_size, config.moments), generator=generator)
    share = (torch.arange(config.moments) + place) / config.moments
    return (share * num_frames).long().clamp(max=num_frames - 1) + 1


def _landmark_distance(told: Tensor, true: Tensor) -> Tensor:
    return functional.smooth_l1_loss(told.float() / LANDMARK_UNIT, true / LANDMARK_UNIT, beta=0.1)


class _Averaged:
    """The model with its averaged weights, in float32, for the time of a `with` block."""

    def __init__(self, step: _Step) -> None:
        self.step = step

    def __enter__(self) -> None:
        self.step.average.exchange()
        self.step.master.restore()
        self.step.model.eval()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.step.average.exchange()
        self.step.model.to(self.step.dtype).train()
        self.step.master.publish()
