"""Training of the cINN on the latents of a frozen stage 1."""

import hashlib
from typing import Any

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.data.augmentation import Augmentation
from cinnema.data.loader import VideoBatch
from cinnema.paper.control import END_POINT_DIM, end_point_one_hots
from cinnema.paper.flow import PaperFlow, PaperFlowConfig
from cinnema.paper.image_encoder import ImageEncoder
from cinnema.paper.training.losses import draw_latent, flow_nll
from cinnema.paper.training.phases import AdamConfig, Phase
from cinnema.paper.training.precision import Arithmetic, Precision
from cinnema.paper.video_encoder import VideoEncoder
from cinnema.training.loop import Position, Step
from cinnema.training.run import Stateful


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FlowTraining:
    """The training of the cINN; the defaults are those that all published configs share.

    Attributes:
        epochs: Number of epochs.
        windows: Windows cut from each clip in an epoch.
        batch_size: Clips per step, over all ranks; at least 2, as the first batch initialises the
            ActNorms.
        adam: Configuration of the optimiser.
        augmentation: Augmentation of the clips.
        seed: Seed of all random draws and of the initial weights.
    """

    epochs: int = Field(default=31, ge=1)
    windows: int = Field(default=1, ge=1)
    batch_size: int = Field(default=50, ge=2)
    adam: AdamConfig = AdamConfig(
        learning_rate=1e-5, betas=(0.9, 0.99), amsgrad=True, decay=0.5, decay_every=7
    )
    augmentation: Augmentation = Augmentation()
    seed: int = Field(default=0, ge=0)


def new_flow(config: PaperFlowConfig, *, seed: int = 0) -> PaperFlow:
    """Return a cINN with initial weights.

    Args:
        config: Sizes.
        seed: Seed of the weights; torch's global random state is not changed.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PaperFlow(config)


class FlowStep(Step[VideoBatch]):
    """A step of the cINN.

    It minimises E[||nu||^2 / 2 - log abs det d nu / d z] for nu = T^-1(z; c), where z is drawn
    from q(z | X) and c is the embedding of x0, followed by the one-hot vectors of the end point for
    a flow with a control. Encoders are frozen.

    Example:
        >>> step = FlowStep(
        ...     new_flow(recipe.flow),
        ...     recipe.flow_training,
        ...     video_encoder=stage1.encoder,
        ...     image_encoder=conditioner.encoder,
        ... )
        >>> losses = step.take(batch, Position(number=0))

    Args:
        flow: Trained in place, on the device of training. The first batch initialises its ActNorms.
        config: The training.
        video_encoder: The trained encoder of z, on that device.
        image_encoder: The trained encoder of x0, on that device.
        ranks: The processes that share each batch; one by default.
        precision: Format in which the encoders compute, with their present weights. The cINN
            computes in float32, for the precision of its inverse.

    Raises:
        UserError: The device is not fast in that precision.
    """

    networks: PaperFlow

    def __init__(
        self,
        flow: PaperFlow,
        config: FlowTraining,
        *,
        video_encoder: VideoEncoder,
        image_encoder: ImageEncoder,
        ranks: Ranks | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.networks, self.config = flow, config
        self.ranks = ranks or Ranks()
        self.video_encoder = video_encoder.eval().requires_grad_(requires_grad=False)
        self.image_encoder = image_encoder.eval().requires_grad_(requires_grad=False)
        self.arithmetic = Arithmetic(precision, device=video_encoder.conv_mu.weight.device)
        self._encode = self.arithmetic.ready(self.video_encoder, is_heavy=True)
        self._embed = self.arithmetic.ready(self.image_encoder)
        self.phase = Phase("cINN", [flow], config.adam, ranks=self.ranks)

    def about(self) -> dict[str, Any]:
        """Return what decides the outcome."""
        return {
            "flow": config_to_dict(self.networks.config),
            "video_encoder": _fingerprint(self.video_encoder),
            "image_encoder": _fingerprint(self.image_encoder),
            "training": config_to_dict(self.config),
            "precision": self.arithmetic.precision,
        }

    def parts(self) -> dict[str, Stateful]:
        """Return the state that a checkpoint has to hold, by name."""
        return {"flow": self.networks, "optimiser": self.phase.optimiser}

    def take(self, batch: VideoBatch, position: Position) -> dict[str, float]:
        """Take the step; its loss "nll" is in nats per clip, without z log(2 pi) / 2."""
        flow = self.networks.train()
        z, c = self.latents(batch, number=position.number)
        if not flow.is_initialised:
            flow.initialise(self.ranks.joined(z), self.ranks.joined(c))
        losses = {"nll": flow_nll(*flow.to_residual(z, c))}
        return self.phase.descend(losses, position.number, epoch=position.epoch)

    @torch.no_grad()
    def latents(
        self, batch: VideoBatch, *, number: int
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b c"]]:
        """Return z, drawn from q(z | X), and the condition c of each clip.

        Args:
            batch: Clips, on the device of the networks.
            number: Number of the step, which decides the draw, with the seed.

        Raises:
            UserError: The flow needs a control that the clips do not have.
        """
        generator = generator_for(self.config.seed, number)
        mu, log_var = self._encode(batch.video[:, 1:].transpose(1, 2))
        z = draw_latent(mu, log_var, generator=generator, ranks=self.ranks)
        embedding: Tensor = self._embed(batch.video[:, 0])
        if not self.networks.config.control:
            return z, embedding
        if batch.control.shape[1] != END_POINT_DIM:
            raise UserError(
                f"this flow is conditioned on the end point of the robot's arm, {END_POINT_DIM} "
                f"numbers, but the clips have a control of {batch.control.shape[1]}: pack BAIR "
                "with its end effector, or train without a control"
            )
        return z, torch.cat([embedding, end_point_one_hots(batch.control)], dim=1)


def _fingerprint(network: nn.Module) -> str:
    """Return a hash of a network's weights."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
