"""Training of the cINN on the latents of a frozen stage 1."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

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
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.paper.control import END_POINT_DIM, end_point_one_hots
from cinnema.paper.flow import PaperFlow, PaperFlowConfig
from cinnema.paper.image_encoder import ImageEncoder
from cinnema.paper.training.loop import Validate, fit
from cinnema.paper.training.losses import draw_latent, flow_nll
from cinnema.paper.training.phases import AdamConfig, Phase
from cinnema.paper.training.precision import Arithmetic, Precision
from cinnema.paper.video_encoder import VideoEncoder
from cinnema.training.run import Stateful


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FlowTraining:
    """How the cINN is trained; the defaults are what all published configs share.

    Attributes:
        epochs: How many.
        windows: Windows that an epoch takes of each clip.
        batch_size: Clips in a step, of all ranks together, at least 2: the first batch sets the
            ActNorms.
        adam: Of the optimiser.
        augmentation: How clips are varied.
        seed: Of every draw and of the first weights.
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
    """Return a cINN with first weights.

    Args:
        config: Its sizes.
        seed: Of the weights; torch's global stream is left as it was.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PaperFlow(config)


class FlowStep:
    """One step of the cINN, with everything that it changes.

    Descended is E[||nu||^2 / 2 - log abs det d nu / d z] for nu = T^-1(z; c), where z is drawn
    from q(z | X) and c is the embedding of x0, followed by the one-hots of the end point where the
    flow has a control. Encoders are frozen.

    Example:
        >>> step = FlowStep(
        ...     new_flow(recipe.flow),
        ...     recipe.flow_training,
        ...     video_encoder=stage1.encoder,
        ...     image_encoder=conditioner.encoder,
        ... )
        >>> losses = step(batch, number=0, epoch=0)

    Args:
        flow: On the device of training. The first batch sets its ActNorms.
        video_encoder: Trained, on that device.
        image_encoder: Trained, on that device.
        config: How.
        ranks: The processes that share each batch.
        precision: What the encoders compute in, with the weights that they have now; the cINN
            computes in float32, as its inverse has to give back what went in.

    Raises:
        UserError: The device is not fast in that precision.
    """

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
        self.flow, self.config = flow, config
        self.ranks = ranks or Ranks()
        self.video_encoder = video_encoder.eval().requires_grad_(requires_grad=False)
        self.image_encoder = image_encoder.eval().requires_grad_(requires_grad=False)
        self.arithmetic = Arithmetic(precision, device=video_encoder.conv_mu.weight.device)
        self._encode = self.arithmetic.ready(self.video_encoder, is_heavy=True)
        self._embed = self.arithmetic.ready(self.image_encoder)
        self.phase = Phase("cINN", [flow], config.adam, ranks=self.ranks)

    def parts(self) -> Mapping[str, Stateful]:
        """Return what a checkpoint holds, by name."""
        return {"flow": self.flow, "optimiser": self.phase.optimiser}

    def __call__(self, batch: VideoBatch, *, number: int, epoch: int) -> dict[str, Tensor]:
        """Take one step.

        Args:
            batch: Clips, on the device of the networks.
            number: Of the step, from 0.
            epoch: In which it lies, from 0.

        Returns:
            The loss, "nll" in nats a clip, but for the constant z log(2 pi) / 2.

        Raises:
            UserError: The loss is not finite, or a control is missing.
        """
        self.flow.train()
        z, c = self.latents(batch, number=number)
        if not self.flow.is_initialised:
            self.flow.initialise(self.ranks.joined(z), self.ranks.joined(c))
        loss = flow_nll(*self.flow.to_residual(z, c))
        return self.phase.descend({"nll": loss}, number, epoch=epoch)

    @torch.no_grad()
    def latents(
        self, batch: VideoBatch, *, number: int
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b c"]]:
        """Return z, drawn from q(z | X), and the condition of each clip.

        Args:
            batch: Clips.
            number: Of the step; the draw follows from it and the seed.

        Raises:
            UserError: The flow wants a control that the clips do not have.
        """
        generator = generator_for(self.config.seed, number)
        mu, log_var = self._encode(batch.video[:, 1:].transpose(1, 2))
        z = draw_latent(mu, log_var, generator=generator, ranks=self.ranks)
        embedding: Tensor = self._embed(batch.video[:, 0])
        if not self.flow.config.control:
            return z, embedding
        if batch.control.shape[1] != END_POINT_DIM:
            raise UserError(
                f"this flow is told the end point of the robot's arm, {END_POINT_DIM} numbers, but "
                f"the clips have a control of {batch.control.shape[1]}: pack BAIR with its end "
                "effector, or train without a control"
            )
        return z, torch.cat([embedding, end_point_one_hots(batch.control)], dim=1)


def train_flow(
    step: FlowStep,
    batches: ClipLoader,
    *,
    folder: Path,
    validate: Validate | None = None,
    tensorboard: bool = False,
) -> PaperFlow:
    """Train a cINN in place, resuming what `folder` holds.

    Args:
        step: Of the flow, its encoders and its config.
        batches: Clips of T + 1 frames where the networks are, in batches of the config's size.
        folder: Of the run.
        validate: Called after each epoch; its numbers are recorded.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Returns:
        The flow, in evaluation mode.

    Raises:
        UserError: `folder` holds another run (of other encoders, too) or cannot be written to, the
            loss is not finite, or clips do not fit the networks.
    """
    about = {
        "flow": config_to_dict(step.flow.config),
        "video_encoder": _fingerprint(step.video_encoder),
        "image_encoder": _fingerprint(step.image_encoder),
        **step.arithmetic.about(),
    }
    fit(
        step,
        batches,
        step.config,
        folder=folder,
        about=about,
        validate=validate,
        tensorboard=tensorboard,
    )
    return step.flow.eval()


def _fingerprint(network: nn.Module) -> str:
    """Return a hash of a network's weights, so that a run goes on with the same ones."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
