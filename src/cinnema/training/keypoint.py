"""The training step of a keypoint stage 1, apart from its losses.

Weights are kept in float32 beside a network that computes in the device's fast format; they are
moved by AdamW, averaged over time, and trained against discriminators of rendered frames.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.core.precision import MasterWeights, MovingAverage, fast_dtype
from cinnema.core.randomness import generator_for
from cinnema.data.loader import VideoBatch
from cinnema.models.keypoint.stage1 import KeypointStage1
from cinnema.training.adversarial import Discriminators
from cinnema.training.keypoint_losses import KeypointLosses, KeypointTraining, Rendered
from cinnema.training.loop import (
    Position,
    Step,
    count,
    require_finite,
    take_gradients,
    warmup_cosine,
)
from cinnema.training.losses import PerceptualDistance
from cinnema.training.run import Stateful


class KeypointStep(Step[VideoBatch]):
    """A step of AdamW on frames and landmarks at some times of each clip, and of discriminators.

    In phase "picture", what stage 2 depends on is frozen, unless `config.train_encoder`.

    Args:
        model: The stage 1 that is trained, in place; it computes in `dtype` from here on.
        config: The training.
        device: Device to compute on.
        perceptual: LPIPS in float32, on that device; None for no perceptual loss.
        ranks: The processes that share each batch; one by default.

    Attributes:
        dtype: Floating-point format in which the device is fast.

    Raises:
        UserError: The config does not fit the model; the ranks cannot share a batch evenly.

    Example:
        >>> step = KeypointStep(model, KeypointTraining(), device=torch.device("cpu"))
        >>> losses = step.take(batch, Position(number=0))
    """

    networks: KeypointStage1

    def __init__(
        self,
        model: KeypointStage1,
        config: KeypointTraining,
        *,
        device: torch.device,
        perceptual: PerceptualDistance | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.config, self.device = config, device
        self.ranks = ranks or Ranks()
        self.dtype = fast_dtype(device)
        self.networks = model.to(device)
        self.losses = KeypointLosses(
            model,
            config,
            share=self.ranks.share(config.batch_size),
            dtype=self.dtype,
            perceptual=perceptual,
        )
        _choose_trained(model, config)
        self._master = MasterWeights(model, dtype=self.dtype)
        self.networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._average = MovingAverage(self._master.parameters, decay=config.ema_decay)
        self._optimiser = torch.optim.AdamW(
            self._master.parameters,
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
        )
        self.discriminators = self._new_discriminators()

    def about(self) -> dict[str, Any]:
        """Return everything that determines the outcome."""
        return {
            "model": config_to_dict(self.networks.config),
            "training": config_to_dict(self.config),
        }

    def parts(self) -> dict[str, Stateful]:
        """Return the state that a checkpoint has to hold, by name."""
        own: dict[str, Stateful] = {
            "model": self._master,
            "optimiser": self._optimiser,
            "average": self._average,
        }
        return own | ({} if self.discriminators is None else self.discriminators.parts())

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors that must be equal on all ranks before the first step."""
        yield from super().tensors()
        yield from self._master.parameters
        yield from self._average.values
        if self.discriminators is not None:
            yield from self.discriminators.tensors()

    def count_parameters(self) -> dict[str, int]:
        """Return the number of parameters of each part, discriminators included."""
        found = super().count_parameters()
        if self.discriminators is None:
            return found
        judges = self.discriminators.networks.items()
        return found | {f"{name} discriminator": count(judge) for name, judge in judges}

    def take(self, batch: VideoBatch, position: Position) -> dict[str, float]:
        """Take the step; discriminators, if any, are trained on the frames that were rendered."""
        numbers, rendered = self._backward(batch, number=position.number)
        require_finite(numbers, number=position.number)
        if self.discriminators is not None:
            real, fake, x0 = rendered
            learned = self.discriminators.update(real, fake.detach(), x0, number=position.number)
            require_finite(learned, number=position.number)
            numbers |= learned
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.learning_rate * warmup_cosine(position.progress)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._average.update()
        self._master.publish()
        return numbers

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give `networks` their averaged weights, in float32, for the time of a `with` block."""
        self._average.exchange()
        self._master.restore()
        self.networks.eval()
        try:
            yield
        finally:
            self._average.exchange()
            self.networks.to(self.dtype).train()
            self._master.publish()

    def finish(self) -> None:
        """Leave `networks` in evaluation mode with their averaged weights, in float32."""
        self._average.exchange()
        self._master.restore()
        self.networks.eval()

    def _backward(self, batch: VideoBatch, *, number: int) -> tuple[dict[str, float], Rendered]:
        """Compute the gradient on the whole batch; return losses, norm and rendered frames."""
        self.networks.train()
        losses, rendered = self.losses(
            batch.to(self.device), generator_for(self.config.seed, number)
        )
        losses |= self._adversarial_losses(rendered, losses, number=number)
        torch.stack(list(losses.values())).sum().backward()
        self._master.take_gradients()
        numbers = take_gradients(losses, self._master.parameters, ranks=self.ranks, largest=1.0)
        return numbers, rendered

    def _new_discriminators(self) -> Discriminators | None:
        config = self.config
        if config.discriminators is None:
            return None
        return Discriminators(
            config.discriminators,
            batch_size=config.batch_size,
            device=self.device,
            seed=config.seed,
            ranks=self.ranks,
        )

    def _adversarial_losses(
        self, rendered: Rendered, losses: Mapping[str, Tensor], *, number: int
    ) -> dict[str, Tensor]:
        """Return the decoder's losses against the current discriminators."""
        if self.discriminators is None:
            return {}
        pictures = [losses[name] for name in ("pixels", "lpips") if name in losses]
        return self.discriminators.generator_losses(
            rendered.real,
            rendered.fake,
            rendered.x0,
            reconstruction=torch.stack(pictures).sum(),
            last=self.networks.decoder.last,
            number=number,
        )


def _choose_trained(model: KeypointStage1, config: KeypointTraining) -> None:
    """Set which parameters require gradients; the others are not trained."""
    if config.in_a_row and config.moments > model.config.num_frames:
        raise UserError(
            f"moments must be at most the model's num_frames, {model.config.num_frames}, for a "
            f"temporal discriminator, got {config.moments}: render fewer"
        )
    model.requires_grad_(requires_grad=True)
    # Stage 2 depends on these parts; while they are frozen, it can be trained in parallel.
    moves_latents = config.phase == "motion" or config.train_encoder
    for part in model.latent_parts().values():
        part.requires_grad_(requires_grad=moves_latents)
