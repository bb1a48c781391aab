"""Training of stage 2: the conditioner and the flow, on what stage 1 makes of clips.

Stage 1 is frozen, so each clip goes through it once: a pool of (features of x0, z) is encoded
first, and all steps draw from it, with fresh noise on z each time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_class
from torch import Tensor, nn

from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.precision import MovingAverage
from cinnema.core.randomness import generator_for
from cinnema.models.flow.conditioning import Conditioner
from cinnema.models.flow.flow import ConditionalFlow
from cinnema.training.latent_pool import LatentPool, LatentStage, fingerprint, load_or_encode
from cinnema.training.run import TrainingRun, warmup_cosine

_Stage = TypeVar("_Stage", bound=LatentStage)
_Batch = TypeVar("_Batch")

Validate = Callable[[Conditioner, ConditionalFlow], dict[str, float]]
"""Scores the two networks on scenes held out; "nll", in nats a dimension, decides what is kept."""

# Steps between two records of the loss.
_RECORD_EVERY = 100
# Rows from which every ActNorm is set.
_NUM_FIRST = 1024


@config_class(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Stage2Training:
    """How stage 2 is trained.

    Attributes:
        clips: Clips drawn from the pool before the run ends, at most.
        pool: Clips that stage 1 encodes once, for all steps; 13 KB each.
        batch_size: Clips in a step, of all ranks together.
        learning_rate: Of AdamW at its peak.
        weight_decay: Of AdamW, on matrices only.
        ema_decay: Of the weights that are kept.
        noise: Standard deviation of what is added to z; stage 1's own if None.
        control_dropout: Share of clips whose control is left out, from 0 to 1, so that the flow
            can do without.
        validate_every: Clips between two looks at the held-out scenes.
        patience: Looks without a better likelihood after which the run ends.
        keep: Which averaged weights are kept: the "best" on held-out scenes, or the "last". The
            best are chosen by those scenes, whose scores they then flatter.
        seed: Of every draw.
    """

    clips: int = Field(default=800_000, ge=1)
    pool: int = Field(default=20_000, ge=2)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    ema_decay: float = Field(default=0.998, ge=0, lt=1)
    noise: float | None = Field(default=None, ge=0)
    control_dropout: float = Field(default=0.2, ge=0, le=1)
    validate_every: int = Field(default=16_000, ge=1)
    patience: int = Field(default=15, ge=1)
    keep: Literal["best", "last"] = "best"
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Stage2Result:
    """What training leaves behind.

    Attributes:
        conditioner: In evaluation mode, with the averaged weights that are kept: the best on
            held-out scenes, or the last ones where that is asked for or nothing was held out.
        flow: Likewise.
        nll: The best ones' held-out negative log-likelihood in nats a dimension; None for the last.
        clips: Clips that they had been trained on.
        stopped_early: Whether the run ended because the likelihood got no better.
    """

    conditioner: Conditioner
    flow: ConditionalFlow
    nll: float | None
    clips: int
    stopped_early: bool


def train(
    stage1: _Stage,
    conditioner: Conditioner,
    flow: ConditionalFlow,
    batches: Iterator[_Batch],
    config: Stage2Training,
    *,
    folder: Path,
    device: torch.device,
    encode_batch: Callable[[_Stage, _Batch], LatentPool],
    validate: Validate | None = None,
    ranks: Ranks | None = None,
    tensorboard: bool = False,
) -> Stage2Result:
    """Train conditioner and flow in place, resuming what `folder` holds.

    Minimised is - log p(z + noise | c) / dim z. The random draws of a step depend on the seed and
    its number only, so a resumed run goes the same way.

    Args:
        stage1: Trained; it is frozen and set to evaluation.
        conditioner: Trained along with the flow.
        flow: Its ActNorms are set from the first clips of the pool.
        batches: Endless batches of clips, from which the pool is taken.
        config: How.
        folder: Of the run; the pool is kept there too.
        device: Where to compute.
        encode_batch: What stage 1 makes of a batch of clips.
        validate: Called with the averaged networks; has to return "nll" among its numbers.
        ranks: The processes that train; the first encodes the pool and validates.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Raises:
        UserError: `folder` holds another run, or cannot be written to; the ranks cannot share a
            batch evenly; the loss is no number any more (the last checkpoint is from before that).
    """
    ranks = ranks or Ranks()
    ranks.share(config.batch_size)
    path = folder / "pool.safetensors"
    pool = ranks.first_then_all(
        lambda: load_or_encode(
            path, stage1, batches, config.pool, device=device, encode_batch=encode_batch
        )
    )
    noise = stage1.config.noise if config.noise is None else config.noise
    networks = _Networks(conditioner, flow).to(device).float()
    step = _Step(networks, pool.to(device), config, noise=noise, ranks=ranks)
    about = {
        "stage1": fingerprint(stage1),
        "conditioner": config_to_dict(conditioner.config),
        "flow": config_to_dict(flow.config),
        "training": config_to_dict(config),
    }
    with (
        torch.random.fork_rng(),
        TrainingRun(
            folder,
            config=about,
            parts=step.parts(),
            total=config.clips,
            ranks=ranks,
            tensorboard=tensorboard,
        ) as run,
    ):
        ranks.broadcast(step.tensors())
        _fit(run, step, validate)
    return _result(step, run, keeps_best=validate is not None and config.keep == "best")


def trial(
    conditioner: Conditioner,
    flow: ConditionalFlow,
    pool: LatentPool,
    config: Stage2Training,
    *,
    noise: float,
) -> Callable[[int], dict[str, float]]:
    """Return a function that takes the step of a number, to see what it costs.

    Args:
        conditioner: Where to compute; trained.
        flow: There, too.
        pool: There, too.
        config: How.
        noise: Standard deviation of what is added to z.
    """
    networks = _Networks(conditioner, flow).float()
    step = _Step(networks, pool, config, noise=noise, ranks=Ranks())

    def take(number: int) -> dict[str, float]:
        losses, _ = step.backward(number)
        step.update(config.learning_rate)
        return losses

    return take


def _fit(run: TrainingRun, step: "_Step", validate: Validate | None) -> None:
    config, best = step.config, step.best
    while True:
        is_due = run.clips - best.checked >= config.validate_every
        if validate is not None and (is_due or (run.is_done and best.checked < run.clips)):
            numbers = step.validated(validate, clips=run.clips)
            run.record(**numbers)
            run.save()
        if run.is_done or best.num_stale >= config.patience:
            return
        number = run.clips // config.batch_size
        losses, rows = step.backward(number)
        run.require_finite(losses, step=number, ids=[f"row {row} of the pool" for row in rows])
        step.update(config.learning_rate * warmup_cosine(run.progress))
        run.advance(config.batch_size)
        if number % _RECORD_EVERY == _RECORD_EVERY - 1:
            run.record(**losses)
        run.save_if_due()


def _result(step: "_Step", run: TrainingRun, *, keeps_best: bool) -> Stage2Result:
    best, networks = step.best, step.networks
    if keeps_best:
        best.restore()
    else:
        step.average.exchange()
    networks.eval()
    return Stage2Result(
        conditioner=networks.conditioner,
        flow=networks.flow,
        nll=best.nll if keeps_best else None,
        clips=best.clips if keeps_best else run.clips,
        stopped_early=not run.is_done,
    )


class _Draw(NamedTuple):
    """Clips of the pool, with noise on z; `given` is 1 where the control counts."""

    joint: Tensor
    z: Tensor
    eta: Tensor
    given: Tensor


class _Networks(nn.Module):
    """What is trained, as one module with one state."""

    def __init__(self, conditioner: Conditioner, flow: ConditionalFlow) -> None:
        super().__init__()
        self.conditioner, self.flow = conditioner, flow

    def loss(self, draw: "_Draw") -> Float[Tensor, ""]:
        return -self.flow.log_prob(draw.z, self.condition(draw)).mean() / draw.z.shape[1]

    def condition(self, draw: "_Draw") -> Float[Tensor, "b c"]:
        if not self.conditioner.config.control_dim:
            return cast(Tensor, self.conditioner(draw.joint))
        return cast(Tensor, self.conditioner(draw.joint, draw.eta, draw.given))


class _Best:
    """The averaged weights that were best so far, and how long ago that was."""

    def __init__(self, networks: nn.Module) -> None:
        self.source = [p.detach() for p in networks.parameters()]
        self.values = [p.clone() for p in self.source]
        self.nll = float("inf")
        self.clips = self.checked = self.num_stale = 0

    def offer(self, nll: float, *, clips: int) -> None:
        """Keep the weights as they are now if they are the best."""
        self.checked = clips
        if nll < self.nll:
            self.nll, self.clips, self.num_stale = nll, clips, 0
            torch._foreach_copy_(self.values, self.source)
        else:
            self.num_stale += 1

    def restore(self) -> None:
        torch._foreach_copy_(self.source, self.values)

    def state_dict(self) -> dict[str, Any]:
        numbers = (self.nll, self.clips, self.checked, self.num_stale)
        return {"values": self.values, "numbers": numbers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        torch._foreach_copy_(self.values, [v.to(self.values[0]) for v in state["values"]])
        self.nll, self.clips, self.checked, self.num_stale = state["numbers"]


class _Step:
    """One step of the optimiser, with everything that it changes."""

    def __init__(
        self,
        networks: _Networks,
        pool: LatentPool,
        config: Stage2Training,
        *,
        noise: float,
        ranks: Ranks,
    ) -> None:
        self.networks, self.pool, self.config, self.noise = networks, pool, config, noise
        self.ranks, self.share = ranks, ranks.share(config.batch_size)
        self._initialise()
        parameters = list(networks.parameters())
        self.average = MovingAverage(parameters, decay=config.ema_decay)
        self.best = _Best(networks)
        # Scales, shifts and biases do not over-fit, and 0 is no better a guess for them.
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            betas=(0.9, 0.99),
        )

    def parts(self) -> dict[str, "_Networks | torch.optim.Optimizer | MovingAverage | _Best"]:
        return {
            "networks": self.networks,
            "optimiser": self.optimiser,
            "average": self.average,
            "best": self.best,
        }

    def tensors(self) -> Iterator[Tensor]:
        """All that has to be the same on all ranks before the first step."""
        yield from self.networks.parameters()
        yield from self.networks.buffers()
        yield from self.average.values
        yield from self.best.values

    def backward(self, number: int) -> tuple[dict[str, float], list[int]]:
        """Leave the gradient on the whole batch; return loss, norm, and this rank's rows."""
        generator = generator_for(self.config.seed, number)
        torch.manual_seed(generator.initial_seed() + self.ranks.rank)  # of dropout
        self.networks.train()
        rows = torch.randint(len(self.pool), (self.config.batch_size,), generator=generator)
        loss = self.networks.loss(self._draw(rows, generator, self.share))
        loss.backward()
        self.ranks.average_gradients(self.networks.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        values = torch.stack([loss, norm]).detach()
        self.ranks.average([values])
        losses = dict(zip(("loss", "gradient"), values.tolist(), strict=True))
        return losses, rows[self.share].tolist()

    def update(self, learning_rate: float) -> None:
        """Move the weights down the gradient."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.average.update()

    def validated(self, validate: Validate, *, clips: int) -> dict[str, float]:
        """Score the averaged networks on the first rank, and keep them if they are the best."""
        with self.averaged():
            numbers = self.ranks.from_first(
                lambda: validate(self.networks.conditioner, self.networks.flow)
            )
            self.best.offer(numbers["nll"], clips=clips)
        return numbers

    def averaged(self) -> "_Averaged":
        return _Averaged(self)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Set the ActNorms; a run that is resumed overwrites them with what it had."""
        if self.networks.flow.is_initialised:
            return
        first = torch.arange(min(_NUM_FIRST, len(self.pool)))
        draw = self._draw(first, torch.Generator().manual_seed(self.config.seed))
        self.networks.eval()
        self.networks.flow.initialise(draw.z, self.networks.condition(draw))

    def _draw(self, rows: Tensor, generator: torch.Generator, share: slice | None = None) -> _Draw:
        """Draw for all rows, whatever the number of ranks, and take a share of them."""
        share = slice(len(rows)) if share is None else share
        z, known = self.pool.z[rows], self.pool.known[rows]
        noise = torch.randn(z.shape, generator=generator).to(z)
        chance = torch.rand(known.shape, generator=generator).to(known)
        given = (chance < known * (1 - self.config.control_dropout)).to(z)
        z, own = z + self.noise * noise, rows[share]
        joint = self.pool.joint[own].float()
        return _Draw(joint, z[share], self.pool.eta[own], given[share])


class _Averaged:
    """The networks with their averaged weights, for the time of a `with` block."""

    def __init__(self, step: _Step) -> None:
        self.step = step

    def __enter__(self) -> None:
        self.step.average.exchange()
        self.step.networks.eval()

    def __exit__(self, *_: object) -> None:
        self.step.average.exchange()
        self.step.networks.train()
