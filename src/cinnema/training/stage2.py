"""Training of stage 2: the conditioner and the flow, on the latents of a frozen stage 1.

Each clip is encoded once, into a pool of (features of x0, z, control); steps draw from the pool,
with new noise on z each time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int64
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_class
from torch import Tensor, nn

from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.precision import MovingAverage
from cinnema.core.randomness import generator_for
from cinnema.data.loader import VideoBatch
from cinnema.models.flow.conditioning import Conditioner
from cinnema.models.flow.flow import ConditionalFlow
from cinnema.models.keypoint.stage1 import KeypointStage1
from cinnema.training.latent_pool import EncodeBatch, LatentPool, fingerprint, load_or_encode
from cinnema.training.loop import (
    FitResult,
    Position,
    Schedule,
    Step,
    fit,
    require_finite,
    take_gradients,
    warmup_cosine,
)
from cinnema.training.run import Stateful

Validate = Callable[[Conditioner, ConditionalFlow], dict[str, float]]
"""Scores the two networks on held-out clips; "nll", in nats per dimension, selects the weights."""

_RECORD_EVERY = 100  # steps
_NUM_FIRST = 1024  # clips of the pool from which the ActNorms are initialised


@config_class(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Stage2Training:
    """The training of stage 2.

    Attributes:
        clips: Clips drawn from the pool before the training ends, at most.
        pool: Clips that stage 1 encodes; 13 KB each.
        batch_size: Clips per step, over all ranks.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW, on matrices only.
        ema_decay: Decay of the moving average of the weights, which is what is kept.
        noise: Standard deviation of the noise that is added to z; stage 1's by default.
        control_dropout: Share of clips whose control is left out, from 0 to 1, so that the flow
            also works without a control.
        validate_every: Clips between two validations.
        patience: Validations without a lower negative log-likelihood after which the training ends.
        keep: Which averaged weights are kept: the "best" in validation, or the "last". On
            clips that select the best weights, their score is optimistic.
        seed: Seed of all random draws.
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

    def schedule(self) -> Schedule:
        """Return the schedule of the training; validations fall on whole steps."""
        steps = -(-self.validate_every // self.batch_size)
        return Schedule(
            clips=self.clips,
            batch_size=self.batch_size,
            validate_every=steps * self.batch_size,
            patience=self.patience,
            keep_best=self.keep == "best",
            record_every=_RECORD_EVERY,
        )


@dataclass(frozen=True)
class NoisyLatents:
    """Clips of a pool, with noise on z.

    Attributes:
        rows: Their rows in the pool.
        joint: Features of x0.
        z: Latents with noise.
        eta: Controls.
        given: 1 where the flow is conditioned on the control, 0 where it is left out.
    """

    rows: Int64[Tensor, " b"]
    joint: Float[Tensor, "b f 8 8"]
    z: Float[Tensor, "b z"]
    eta: Float[Tensor, "b e"]
    given: Float[Tensor, " b"]


class PoolBatches:
    """Endless batches drawn from a pool; each depends on the seed and its number alone.

    Args:
        pool: The encoded clips, on the device of training.
        config: Batch size, control dropout and seed.
        noise: Standard deviation of the noise that is added to z.
        ranks: The processes that share each batch; one by default.

    Raises:
        UserError: The ranks cannot share a batch evenly.
    """

    def __init__(
        self,
        pool: LatentPool,
        config: Stage2Training,
        *,
        noise: float,
        ranks: Ranks | None = None,
    ) -> None:
        self.pool, self.config, self.noise = pool, config, noise
        self.number = 0
        self._share = (ranks or Ranks()).share(config.batch_size)

    def __next__(self) -> NoisyLatents:
        """Return this rank's part of the next batch."""
        generator = generator_for(self.config.seed, self.number)
        self.number += 1
        rows = torch.randint(len(self.pool), (self.config.batch_size,), generator=generator)
        return self._draw(rows, generator, self._share)

    def first(self) -> NoisyLatents:
        """Return the first clips of the pool, from which the ActNorms are initialised."""
        rows = torch.arange(min(_NUM_FIRST, len(self.pool)))
        return self._draw(rows, torch.Generator().manual_seed(self.config.seed), slice(len(rows)))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state["clips"]` clips have been drawn."""
        self.number = state["clips"] // self.config.batch_size

    def names(self, batch: NoisyLatents) -> Sequence[str]:
        """Return the rows of a batch's clips."""
        return [f"row {row} of the pool" for row in batch.rows.tolist()]

    def close(self) -> None:
        """Do nothing: no process prepares these batches."""

    def _draw(self, rows: Tensor, generator: torch.Generator, share: slice) -> NoisyLatents:
        """Make the draws for all rows, for any number of ranks, and return a part of them."""
        z, known = self.pool.z[rows], self.pool.known[rows]
        noise = torch.randn(z.shape, generator=generator).to(z)
        chance = torch.rand(known.shape, generator=generator).to(known)
        given = (chance < known * (1 - self.config.control_dropout)).to(z)
        z, own = z + self.noise * noise, rows[share]
        joint = self.pool.joint[own].float()
        return NoisyLatents(own, joint, z[share], self.pool.eta[own], given[share])


class FlowNetworks(nn.Module):
    """Conditioner and flow in one module.

    Args:
        conditioner: Embeds x0 and the control.
        flow: Conditioned on the embedding.
    """

    def __init__(self, conditioner: Conditioner, flow: ConditionalFlow) -> None:
        super().__init__()
        self.conditioner, self.flow = conditioner, flow

    def loss(self, batch: NoisyLatents) -> Float[Tensor, ""]:
        """Return the mean of -log p(z + noise | c) / dim z over a batch."""
        return -self.flow.log_prob(batch.z, self.condition(batch)).mean() / batch.z.shape[1]

    def condition(self, batch: NoisyLatents) -> Float[Tensor, "b c"]:
        """Return c, the embedding that the flow is conditioned on."""
        if not self.conditioner.config.control_dim:
            return cast(Tensor, self.conditioner(batch.joint))
        return cast(Tensor, self.conditioner(batch.joint, batch.eta, batch.given))


class LatentStep(Step[NoisyLatents]):
    """A step of AdamW on conditioner and flow.

    Args:
        networks: Trained in place. ActNorms that are not initialised are set from `first`.
        config: The training.
        first: The first clips of the pool.
        stage1: Hash of the stage 1 that encoded the pool.
        ranks: The processes that share each batch; one by default.
    """

    networks: FlowNetworks

    def __init__(
        self,
        networks: FlowNetworks,
        config: Stage2Training,
        *,
        first: NoisyLatents,
        stage1: str = "",
        ranks: Ranks | None = None,
    ) -> None:
        self.networks, self.config, self.stage1 = networks.float(), config, stage1
        self.ranks = ranks or Ranks()
        self._initialise(first)
        parameters = list(networks.parameters())
        self._average = MovingAverage(parameters, decay=config.ema_decay)
        # No decay on scales, shifts and biases: they do not over-fit, and need not be near 0.
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        self._optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            betas=(0.9, 0.99),
        )

    def about(self) -> dict[str, Any]:
        """Return everything that determines the outcome."""
        return {
            "stage1": self.stage1,
            "conditioner": config_to_dict(self.networks.conditioner.config),
            "flow": config_to_dict(self.networks.flow.config),
            "training": config_to_dict(self.config),
        }

    def parts(self) -> dict[str, Stateful]:
        """Return the state that a checkpoint has to hold, by name."""
        return {
            "networks": self.networks,
            "optimiser": self._optimiser,
            "average": self._average,
        }

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors that must be equal on all ranks before the first step."""
        yield from super().tensors()
        yield from self._average.values

    def take(self, batch: NoisyLatents, position: Position) -> dict[str, float]:
        """Take the step."""
        parameters = list(self.networks.parameters())
        self.networks.train()
        devices = [batch.z.device] if batch.z.is_cuda else []
        with torch.random.fork_rng(devices=devices):
            seed = generator_for(self.config.seed, position.number).initial_seed()
            torch.manual_seed(seed + self.ranks.rank)  # seeds dropout
            losses = {"loss": self.networks.loss(batch)}
        losses["loss"].backward()
        numbers = take_gradients(losses, parameters, ranks=self.ranks, largest=1.0)
        require_finite(numbers, number=position.number)
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.learning_rate * warmup_cosine(position.progress)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._average.update()
        return numbers

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give `networks` their averaged weights for the time of a `with` block."""
        self._average.exchange()
        self.networks.eval()
        try:
            yield
        finally:
            self._average.exchange()
            self.networks.train()

    def finish(self) -> None:
        """Leave `networks` in evaluation mode with their averaged weights."""
        self._average.exchange()
        self.networks.eval()

    @torch.no_grad()
    def _initialise(self, first: NoisyLatents) -> None:
        """Set the ActNorms; a checkpoint overwrites them."""
        if self.networks.flow.is_initialised:
            return
        self.networks.eval()
        self.networks.flow.initialise(first.z, self.networks.condition(first))


def fit_latents(
    stage1: KeypointStage1,
    conditioner: Conditioner,
    flow: ConditionalFlow,
    batches: Iterator[VideoBatch],
    config: Stage2Training,
    *,
    folder: Path,
    device: torch.device,
    encode_batch: EncodeBatch,
    validate: Validate | None = None,
    ranks: Ranks | None = None,
    tensorboard: bool = False,
) -> FitResult:
    """Encode clips with stage 1, and train conditioner and flow on them; resumes.

    Args:
        stage1: The trained stage 1; set to evaluation mode.
        conditioner: Trained in place.
        flow: Trained in place.
        batches: Endless batches of clips, from which the pool is encoded.
        config: The training.
        folder: Folder of the run, which also keeps the pool.
        device: Device to compute on.
        encode_batch: Encodes a batch of clips.
        validate: Scores the averaged networks; must return "nll".
        ranks: The processes that train; one by default. The first encodes the pool and validates.
        tensorboard: Whether the numbers are written for TensorBoard as well.

    Returns:
        How the training ended. The networks are in evaluation mode with the weights that are kept:
        the best in validation, or the last ones without validation or with `keep` "last".

    Raises:
        UserError: `folder` holds another run or cannot be written to; the ranks cannot share a
            batch evenly; a loss is not finite.
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
    drawn = PoolBatches(pool.to(device), config, noise=noise, ranks=ranks)
    networks = FlowNetworks(conditioner, flow).to(device)
    step = LatentStep(
        networks, config, first=drawn.first(), stage1=fingerprint(stage1), ranks=ranks
    )
    return fit(
        step,
        drawn,
        config.schedule(),
        folder=folder,
        validate=None if validate is None else lambda: validate(conditioner, flow),
        tensorboard=tensorboard,
    )
