"""Training of the flow of each kind's motion, by maximum likelihood, behind its linear layer."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.models.flow.transforms import ActNorm
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import (
    GEOMETRY_DIM,
    NatureModel,
)
from cinnema.training.loop import (
    FitResult,
    Position,
    Step,
    evaluating,
    fit,
    require_finite,
    take_gradients,
    warmup_cosine,
)
from cinnema.training.nature import KindFlowTraining, KindRows, held_out_scores
from cinnema.training.run import Stateful


@dataclass(frozen=True)
class RowBatch:
    """Rows with noise.

    Attributes:
        index: Their positions.
        z: Latents.
        c: Conditions.
    """

    index: Int64[Tensor, " b"]
    z: Float[Tensor, "b z"]
    c: Float[Tensor, "b c"]


class RowBatches:
    """Endless batches of rows; each depends on the seed and its number alone.

    Scenes of a kind count alike, and a kind with n scenes counts sqrt(n).

    Args:
        rows: The rows to train on.
        config: Noise, dropout and seed.
        narrow: Number of columns of the condition that describe the look.

    Raises:
        UserError: There are no rows.
    """

    def __init__(self, rows: KindRows, config: KindFlowTraining, *, narrow: int) -> None:
        if not len(rows):
            raise UserError("no clip shows a kind that moves: give clips of nature")
        self.rows, self.config, self.narrow, self.number = rows, config, narrow, 0
        self.weights = row_weights(rows)
        self._described = narrow + GEOMETRY_DIM
        self._deviation = rows.c[:, : self._described].std(0, correction=0)

    def __next__(self) -> RowBatch:
        """Return the next batch."""
        config, rows = self.config, self.rows
        generator = generator_for(config.seed, self.number)
        self.number += 1
        num = config.batch_size
        index = torch.multinomial(self.weights, num, replacement=True, generator=generator)
        given = torch.rand(num, 1, generator=generator) < config.control_share
        noise = torch.randn(num, rows.z.shape[1], generator=generator)
        blur = torch.randn(num, self._described, generator=generator)
        dropped = torch.rand(num, generator=generator) < config.look_dropout
        c = torch.where(given, rows.c_given[index], rows.c[index])
        c[:, : self._described] += config.condition_noise * self._deviation * blur
        c[dropped, : self.narrow] = 0
        return RowBatch(index, rows.z[index] + config.noise * noise, c)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state["clips"]` rows have been drawn."""
        self.number = state["clips"] // self.config.batch_size

    def names(self, batch: RowBatch) -> Sequence[str]:
        """Return the rows of a batch."""
        return [f"row {index}" for index in batch.index.tolist()]

    def close(self) -> None:
        """Do nothing: no process prepares these batches."""


def row_weights(rows: KindRows) -> Float[Tensor, " n"]:
    """Return the chance of each row, up to a factor; see `RowBatches`."""
    key = rows.scene * len(KINDS) + rows.kind
    weights = 1 / torch.bincount(key)[key].float()
    scenes = torch.bincount(rows.kind, weights=weights.double(), minlength=len(KINDS)).float()
    return weights / scenes[rows.kind].sqrt()


class KindFlowStep(Step[RowBatch]):
    """A step of AdamW on the flow's network; the linear-Gaussian layer stays as it is.

    Args:
        model: Its flow is trained in place.
        config: The training.
        data: What determines the rows, as JSON values.
    """

    def __init__(self, model: NatureModel, config: KindFlowTraining, *, data: object) -> None:
        self.config, self.data, self.ranks = config, data, Ranks()
        self.networks: nn.Module = model.flow.network
        self._model = model
        for module in self.networks.modules():
            if isinstance(module, ActNorm):
                module.initialised.fill_(True)  # the layer before has normalised already
        self._trained = list(self.networks.requires_grad_().parameters())
        self._optimiser = torch.optim.AdamW(self._trained, weight_decay=config.weight_decay)

    def about(self) -> dict[str, Any]:
        """Return everything that determines the outcome."""
        flow = config_to_dict(self._model.config.flow)
        return {"flow": flow, "training": config_to_dict(self.config), "data": self.data}

    def parts(self) -> dict[str, Stateful]:
        """Return the state that a checkpoint has to hold, by name."""
        return {"network": self.networks, "optimiser": self._optimiser}

    def take(self, batch: RowBatch, position: Position) -> dict[str, float]:
        """Take the step."""
        self.networks.train()
        with torch.random.fork_rng(devices=[]):
            seed = generator_for(self.config.seed, position.number).initial_seed()
            torch.manual_seed(seed)  # seeds dropout
            log_prob = self._model.flow.log_prob(batch.z, batch.c)
        losses = {"loss": -log_prob.mean() / batch.z.shape[1]}
        losses["loss"].backward()
        numbers = take_gradients(losses, self._trained, ranks=self.ranks, largest=1.0)
        require_finite(numbers, number=position.number)
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.learning_rate * warmup_cosine(position.progress)
        self._optimiser.step()
        self._optimiser.zero_grad()
        return numbers

    def averaged(self) -> AbstractContextManager[None]:
        """Set the network to evaluation mode for the time of a `with` block."""
        return evaluating(self.networks)


def fit_flow(
    model: NatureModel,
    rows: KindRows,
    used: Bool[Tensor, " s"],
    config: KindFlowTraining,
    *,
    folder: Path,
    validated: Bool[Tensor, " s"] | None = None,
    tensorboard: bool = False,
) -> FitResult:
    """Train the flow's network on the rows of some scenes; resumes.

    Args:
        model: With fitted closed-form parts, on the CPU; its flow is trained in place.
        rows: From `fit_closed_form`.
        used: Scenes to train on.
        config: The training.
        folder: Folder of the run.
        validated: Scenes on which the flow is scored; None for none. `config.keep` "best" and
            `config.patience` need them.
        tensorboard: Whether the numbers are written for TensorBoard as well.

    Returns:
        How the training ended; the model is in evaluation mode.

    Raises:
        UserError: There are no rows, or no scene to choose the best weights by; the folder holds
            another run or cannot be written to; a loss is not finite.
    """
    trained = rows.where(used[rows.scene])
    held_out = None if validated is None else rows.where(validated[rows.scene])
    if (config.keep == "best" or config.patience) and not (held_out is not None and len(held_out)):
        raise UserError(
            "the best weights and early stopping need held-out scenes that show a kind: hold some "
            'out, or set keep to "last" and patience to None'
        )
    batches = RowBatches(trained, config, narrow=model.config.narrow)
    data = [used.tolist(), len(trained), round(float(trained.z.double().square().mean()), 9)]
    result = fit(
        KindFlowStep(model, config, data=data),
        batches,
        config.schedule(),
        folder=folder,
        validate=None
        if held_out is None or not len(held_out)
        else lambda: held_out_scores(model, held_out),
        tensorboard=tensorboard,
    )
    model.requires_grad_(requires_grad=False)
    return result
