"""Training of the articulated stage 1: first the shape of motion, then the look of frames.

Phase "motion" compares pixels and landmarks of a few moments of each clip; phase "picture" goes on
with a perceptual distance and, where asked for, adversaries.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from cinnema.core.config import config_to_dict
from cinnema.core.errors import UserError
from cinnema.core.precision import MasterWeights, MovingAverage, fast_dtype
from cinnema.core.randomness import generator_for
from cinnema.core.ranks import Ranks
from cinnema.core.running import Stateful, TrainingRun, warmup_cosine
from cinnema.data.loading import ClipLoader, VideoBatch
from cinnema.stage1.adversaries.adversaries import Adversaries, AdversariesConfig
from cinnema.stage1.articulated.model import (
    LANDMARK_UNIT,
    ArticulatedConfig,
    ArticulatedStage1,
    Moments,
)
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
        phase: "motion" trains everything on pixels and landmarks; "picture" compares how frames
            look as well.
        clips: Clips seen before the run ends.
        batch_size: Clips in a step, of all ranks together.
        moments: Frames rendered of each clip, at random moments spread over the clip; in a row
            where a temporal adversary looks at them.
        learning_rate: Of AdamW at its peak.
        weight_decay: Of AdamW.
        ema_decay: Of the weights that are kept.
        pixels: Weight of the L1 distance of frames.
        moved: How much more a pixel counts that is not what it was in x0.
        warped: Weight of the L1 distance of what is warped only, where the gate leaves it.
        landmarks: Weight of the distance of the landmarks' paths, and of where they are in x0, in
            tenths of their unit.
        twins: Pairs of landmarks that look alike, as a left and a right hand do, by their numbers:
            the one further left in x0 is taken for the first. Such landmarks are points in the
            picture, x and y in turn.
        perceptual: Weight of LPIPS, of one moment of each clip.
        train_encoder: Whether phase "picture" still moves what stage 2 stands on: the encoder of z
            and the features of x0.
        network: Of LPIPS.
        kl: Weight of KL(q(z | X) || N(0, I)), summed over z, where the spread of q is learned.
        adversaries: Discriminators of the rendered frames, or None.
        seed: Of every draw.

    Raises:
        UserError: Adversaries need more moments.
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
    twins: tuple[tuple[int, int], ...] = ()
    perceptual: float = Field(default=0.0, ge=0)
    network: Literal["vgg", "alex"] = "alex"
    train_encoder: bool = False
    kl: float = Field(default=1e-4, ge=0)
    adversaries: AdversariesConfig | None = None
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        if self.in_a_row and self.moments < 2:
            raise UserError(
                "moments must be at least 2 for a temporal adversary, got 1: render more, or leave "
                "it out"
            )

    @property
    def in_a_row(self) -> bool:
        """Whether the moments of a clip follow one another."""
        return self.adversaries is not None and self.adversaries.needs_motion


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
    about = {
        "model": _told(model.config, ArticulatedConfig(), later=("spread", "decoder")),
        "training": _told(
            config, ArticulatedTraining(), later=("kl", "adversaries", "train_encoder")
        ),
    }
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


def _told(config: object, defaults: object, *, later: tuple[str, ...]) -> dict[str, Any]:
    """Return what a run is known by, without later options where they change nothing.

    So that runs that were begun before there were those go on.
    """
    values, usual = config_to_dict(config), config_to_dict(defaults)
    return {n: v for n, v in values.items() if n not in later or v != usual[n]}


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

    Adversaries take part from the first step on, whenever they would begin.

    Args:
        model: Stage 1; trained.
        batch: This rank's share of a batch as large as the config says.
        config: How.
        device: Where to compute.
        perceptual: LPIPS on that device.
        ranks: The processes that train.
    """
    if config.adversaries is not None:
        config = replace(config, adversaries=replace(config.adversaries, start=0))
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


class _Shown(NamedTuple):
    """Frames of clips at some moments, as they are and as they were rendered."""

    real: Float[Tensor, "b n 3 h w"]
    fake: Float[Tensor, "b n 3 h w"]
    x0: Float[Tensor, "b 3 h w"]


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
        _require_moments(model, config)
        self.config, self.device, self.perceptual = config, device, perceptual
        self.ranks, self.share = ranks, ranks.share(config.batch_size)
        self.dtype = fast_dtype(device)
        self.model = model.to(device)
        model.requires_grad_(requires_grad=True)
        # Stage 2 reads both: held still, it can be trained beside the second phase.
        moves_latents = config.phase == "motion" or config.train_encoder
        model.encoder.requires_grad_(requires_grad=moves_latents)
        model.scene.requires_grad_(requires_grad=moves_latents)
        self.master = MasterWeights(model, dtype=self.dtype)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = MovingAverage(self.master.parameters, decay=config.ema_decay)
        self.optimiser = torch.optim.AdamW(
            self.master.parameters,
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
        )
        self.adversaries = self._new_adversaries()

    def _new_adversaries(self) -> Adversaries | None:
        config = self.config
        if config.adversaries is None:
            return None
        return Adversaries(
            config.adversaries,
            batch_size=config.batch_size,
            device=self.device,
            seed=config.seed,
            ranks=self.ranks,
        )

    def parts(self) -> dict[str, Stateful]:
        own: dict[str, Stateful] = {
            "model": self.master,
            "optimiser": self.optimiser,
            "average": self.average,
        }
        return own | ({} if self.adversaries is None else self.adversaries.parts())

    def tensors(self) -> Iterator[Tensor]:
        """All that has to be the same on all ranks before the first step."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        yield from self.master.parameters
        yield from self.average.values
        if self.adversaries is not None:
            yield from self.adversaries.tensors()

    def backward(self, batch: VideoBatch, *, number: int) -> dict[str, float]:
        """Leave the gradient on the whole batch in the master weights; return losses and norm.

        Adversaries, if there are any, learn from what was rendered, unless a number is not finite.
        """
        self.model.train()
        generator = generator_for(self.config.seed, number)
        losses, shown = self.losses(batch.to(self.device), generator)
        losses |= self._adversarial_losses(shown, losses, number=number)
        torch.stack(list(losses.values())).sum().backward()
        self.master.take_gradients()
        self.ranks.average_gradients(self.master.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.master.parameters, 1.0)
        values = torch.stack([*losses.values(), norm]).detach()
        self.ranks.average([values])
        numbers = dict(zip([*losses, "gradient"], values.tolist(), strict=True))
        if self.adversaries is None or not all(map(math.isfinite, numbers.values())):
            return numbers
        learned = self.adversaries.update(shown.real, shown.fake.detach(), shown.x0, number=number)
        return numbers | learned

    def update(self, learning_rate: float) -> None:
        """Move the weights down the gradient."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.average.update()
        self.master.publish()

    def losses(
        self, batch: VideoBatch, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], "_Shown"]:
        """Return weighted losses, without the adversaries', and what was rendered.

        The means of the losses over all ranks are those of the whole batch.
        """
        model, config = self.model, self.config
        video = batch.video.to(self.dtype)
        frames = model.config.num_frames
        shown = draw_moments(config, num_frames=frames, generator=generator)[self.share]
        shown = shown.to(self.device)
        vectors = model.encoder.vectors(video)
        code = model.posterior(vectors)
        noise = torch.randn((config.batch_size, model.config.z_dim), generator=generator)
        z = code.drawn(noise[self.share])
        x0 = video[:, 0].contiguous(memory_format=torch.channels_last)
        scene = model.scene(x0)
        made = model.at(scene, z, shown / frames)
        rows = torch.arange(len(video), device=self.device)[:, None]
        real = batch.video[rows, shown]
        losses = self._pixel_losses(made, real, batch.video[:, :1], generator)
        if code.log_variance is not None:
            losses["kl"] = config.kl * code.divergence().mean()
        if model.config.landmarks:
            places = sides_apart(batch.track, config.twins)
            path = places - places[:, :1]
            weight = config.landmarks
            found, seen = model.places(scene), model.seen_path(vectors)
            losses |= {
                "landmarks": weight * _landmark_distance(made.landmarks, path[rows, shown]),
                "seen": weight * _landmark_distance(seen, path[:, 1:]),
                "places": weight * _landmark_distance(found, places[:, 0]),
            }
        return losses, _Shown(real, made.frames.float(), batch.video[:, 0])

    def _adversarial_losses(
        self, shown: "_Shown", losses: Mapping[str, Tensor], *, number: int
    ) -> dict[str, Tensor]:
        if self.adversaries is None:
            return {}
        pictures = [losses[name] for name in ("pixels", "lpips") if name in losses]
        return self.adversaries.generator_losses(
            shown.real,
            shown.fake,
            shown.x0,
            reconstruction=torch.stack(pictures).sum(),
            last=self.model.decoder.last,
            number=number,
        )

    def _pixel_losses(
        self,
        made: Moments,
        true: Float[Tensor, "b n 3 h w"],
        x0: Float[Tensor, "b 1 3 h w"],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        config = self.config
        moved = ((true - x0).abs().mean(dim=2, keepdim=True) > _MOVED).float()
        weight = 1 + config.moved * moved
        frames = made.frames.float()
        out = {"pixels": config.pixels * ((frames - true).abs() * weight).mean()}
        if config.warped and self.model.config.decoder == "warp and paint":
            out["warped"] = config.warped * ((made.warped.float() - true).abs() * weight).mean()
        if config.perceptual and self.perceptual is not None:
            one = int(torch.randint(frames.shape[1], (), generator=generator))
            distance = self.perceptual(frames[:, one], true[:, one])
            out["lpips"] = config.perceptual * distance.mean()
        return out


def _require_moments(model: ArticulatedStage1, config: ArticulatedTraining) -> None:
    if config.in_a_row and config.moments > model.config.num_frames:
        raise UserError(
            f"moments must be at most the model's num_frames, {model.config.num_frames}, for a "
            f"temporal adversary, got {config.moments}: render fewer"
        )


def draw_moments(
    config: ArticulatedTraining, *, num_frames: int, generator: torch.Generator
) -> Int64[Tensor, "b n"]:
    """Draw the frames to render of each clip: one in each of n stretches of it, from 1 to T.

    Where they have to follow one another, n in a row from anywhere.

    Args:
        config: Of how many clips, how many frames.
        num_frames: T.
        generator: Of the draw.
    """
    if config.in_a_row:
        starts = num_frames - config.moments + 1
        first = torch.randint(starts, (config.batch_size, 1), generator=generator)
        shown: Tensor = first + torch.arange(config.moments) + 1
        return shown
    place = torch.rand((config.batch_size, config.moments), generator=generator)
    share = (torch.arange(config.moments) + place) / config.moments
    return (share * num_frames).long().clamp(max=num_frames - 1) + 1


def sides_apart(
    track: Float[Tensor, "b t l"], twins: tuple[tuple[int, int], ...]
) -> Float[Tensor, "b t l"]:
    """Let the first of each pair of points be the one further left in x0.

    A small picture does not show which hand is the left one, so that asking for it would teach
    the mean of both.

    Args:
        track: Points frame by frame, x and y in turn.
        twins: Pairs of points, by their numbers.
    """
    if not twins:
        return track
    points = track.unflatten(2, (-1, 2)).clone()
    for first, second in twins:
        crossed = points[:, 0, first, 0] > points[:, 0, second, 0]
        pair = points[:, :, [first, second]]
        points[:, :, [first, second]] = torch.where(
            crossed[:, None, None, None], pair.flip(2), pair
        )
    out: Tensor = points.flatten(2)
    return out


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
