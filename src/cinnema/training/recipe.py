"""The recipe of a keypoint model: the full typed configuration of a set of weights.

It configures data, networks, and the training of both stages.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.augmentation import Augmentation
from cinnema.data.loader import VideoBatch
from cinnema.models.flow.conditioning import Conditioner, ConditionerConfig, pool_features
from cinnema.models.flow.flow import ConditionalFlow, FlowConfig
from cinnema.models.keypoint.keypoints import sort_symmetric
from cinnema.models.keypoint.model import EndPointRange, KeypointModel, KeypointModelConfig
from cinnema.models.keypoint.stage1 import KeypointConfig, KeypointStage1
from cinnema.training.keypoint import KeypointStep
from cinnema.training.keypoint_losses import KeypointTraining
from cinnema.training.latent_pool import LatentPool
from cinnema.training.losses import PerceptualDistance
from cinnema.training.stage2 import Stage2Training

# Fields of trainings under the names that they had up to version 0.1.
_EARLIER_NAMES = {
    "adversaries": "discriminators",
    "twins": "symmetric_keypoints",
    "guided": "teacher_forcing",
}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KeypointData:
    """The data of a keypoint model, from a packed data set.

    Attributes:
        landmarks: Name of the track with the landmarks, of the length of stage 1's; None for none.
        augmentation: Augmentation of the clips.
        validation_clips: Windows of held-out clips that are scored.
    """

    landmarks: str | None = None
    augmentation: Augmentation = Augmentation()
    validation_clips: int = Field(default=64, ge=2)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KeypointRecipe:
    """The recipe of a keypoint model.

    Attributes:
        name: Name of the weights.
        data: The training data.
        stage1: Configuration of stage 1.
        motion: Training of stage 1, first phase.
        picture: Training of stage 1, second phase.
        conditioner: Configuration of the conditioner of the flow.
        flow: Configuration of the flow.
        stage2: Training of conditioner and flow.
        end_point: Range of the end points that can be requested; None for a model without control.

    Raises:
        UserError: A training has the phase of another field, or sizes do not fit each other.
    """

    name: str
    data: KeypointData
    stage1: KeypointConfig
    motion: KeypointTraining
    picture: KeypointTraining
    conditioner: ConditionerConfig
    flow: FlowConfig
    stage2: Stage2Training
    end_point: EndPointRange | None = None

    def __post_init__(self) -> None:
        for name, phase in (("motion", self.motion.phase), ("picture", self.picture.phase)):
            if phase != name:
                raise UserError(f"{name}.phase must be {name}, got {phase}: change it")
        if bool(self.data.landmarks) != bool(self.stage1.landmarks):
            raise UserError(
                f"data.landmarks is {self.data.landmarks} and stage1.landmarks "
                f"{self.stage1.landmarks}: name a track and its length, or neither"
            )
        self.model_config()

    @property
    def phases(self) -> tuple[KeypointTraining, ...]:
        """The trainings of stage 1, in order."""
        return (self.motion, self.picture)

    @property
    def latent_phase(self) -> KeypointTraining:
        """The last phase that changes the parts of stage 1 that stage 2 depends on."""
        return self.picture if self.picture.train_encoder else self.motion

    def new_stage1(self, *, seed: int = 0) -> KeypointStage1:
        """Build stage 1 with random weights.

        Args:
            seed: Seed of the weights; torch's global random state is not changed.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return KeypointStage1(self.stage1)

    def new_step(
        self,
        stage1: KeypointStage1,
        training: KeypointTraining,
        *,
        device: torch.device,
        perceptual: PerceptualDistance | None = None,
        ranks: Ranks | None = None,
    ) -> KeypointStep:
        """Return the step of one phase."""
        return KeypointStep(stage1, training, device=device, perceptual=perceptual, ranks=ranks)

    @torch.no_grad()
    def encode(self, stage1: KeypointStage1, batch: VideoBatch) -> LatentPool:
        """Encode a batch of clips for stage 2; the control is the end point, centred in its range.

        For landmarks that are points of the image, z is that of the true points instead of the
        pixels, so that errors of the clip encoder do not enter the distribution of motion.
        """
        video = batch.video.to(next(stage1.parameters()))
        joint = stage1.features(stage1.scene(video[:, 0]))
        has_control = self.end_point is not None
        centre = torch.tensor(() if self.end_point is None else self.end_point.centre)
        return LatentPool(
            joint=pool_features(joint).half().contiguous(),
            z=self._latent(stage1, video, batch).float(),
            eta=batch.control - centre if has_control else batch.control[:, :0],
            known=batch.confidence * float(has_control),
        )

    def _latent(
        self, stage1: KeypointStage1, video: Float[Tensor, "b t 3 h w"], batch: VideoBatch
    ) -> Float[Tensor, "b z"]:
        if stage1.config.points:
            track = batch.track.to(video.device)
            return stage1.encode_path(sort_symmetric(track, self.motion.symmetric_keypoints))
        return stage1.encode(video)

    def model_config(self) -> KeypointModelConfig:
        """Return the configuration of the model of both stages."""
        return KeypointModelConfig(
            name=self.name,
            stage1=self.stage1,
            conditioner=self.conditioner,
            flow=self.flow,
            end_point=self.end_point,
        )

    def new_model(self) -> KeypointModel:
        """Build the model of both stages, with random weights."""
        return KeypointModel(self.model_config())

    def new_flow(self) -> tuple[Conditioner, ConditionalFlow]:
        """Build conditioner and flow with the initial weights of the seed of `stage2`."""
        with torch.random.fork_rng():
            torch.manual_seed(self.stage2.seed)
            return Conditioner(self.conditioner), ConditionalFlow(self.flow)


def with_present_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe's file with earlier field names replaced by current ones.

    Args:
        values: A recipe as JSON values, written by this or an earlier version.
    """
    return {
        name: {_EARLIER_NAMES.get(field, field): held for field, held in value.items()}
        if name in ("motion", "picture") and isinstance(value, Mapping)
        else value
        for name, value in values.items()
    }
