"""The base class of the recipes of cinnema's own models.

A recipe is the full typed configuration of a set of weights: data, networks, and the training of
both stages. There are two kinds, `WarpingRecipe` and `KeypointRecipe`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.models.base import TwoStageModel
from cinnema.models.flow.conditioning import Conditioner, ConditionerConfig
from cinnema.models.flow.flow import ConditionalFlow, FlowConfig
from cinnema.training.latent_pool import LatentPool
from cinnema.training.losses import PerceptualDistance
from cinnema.training.stage2 import Stage2Training
from cinnema.training.video_step import VideoStep, VideoTraining

# Fields of trainings under the names that they had up to version 0.1.
_EARLIER_NAMES = {
    "adversaries": "discriminators",
    "twins": "symmetric_keypoints",
    "guided": "teacher_forcing",
}


class Recipe(ABC):
    """A recipe of either kind: the configuration for training and bundling both stages.

    Attributes:
        name: Name of the weights.
        stage1: Configuration of stage 1.
        motion: Training of stage 1, phase "motion".
        picture: Training of stage 1, phase "picture".
        conditioner: Configuration of the conditioner.
        flow: Configuration of the flow.
        stage2: Training of conditioner and flow.
    """

    name: str
    stage1: Any
    motion: VideoTraining
    picture: VideoTraining
    conditioner: ConditionerConfig
    flow: FlowConfig
    stage2: Stage2Training

    @property
    @abstractmethod
    def phases(self) -> tuple[VideoTraining, ...]:
        """The trainings of stage 1, in order."""

    @abstractmethod
    def new_stage1(self, *, seed: int = 0) -> nn.Module:
        """Build stage 1 with initial weights.

        Args:
            seed: Seed of the weights; torch's global random state is not changed.
        """

    @abstractmethod
    def new_step(
        self,
        stage1: Any,  # noqa: ANN401 - of the recipe's kind
        training: Any,  # noqa: ANN401
        *,
        device: torch.device,
        perceptual: PerceptualDistance | None = None,
        ranks: Ranks | None = None,
    ) -> VideoStep[Any, Any, Any]:
        """Return the step of one phase; arguments as of `VideoStep`."""

    @abstractmethod
    def encode(self, stage1: Any, batch: Any) -> LatentPool:  # noqa: ANN401 - of the kind
        """Encode a batch of clips for stage 2, with a stage 1 in evaluation mode."""

    @abstractmethod
    def new_model(self) -> TwoStageModel:
        """Build the model of both stages, with random weights."""

    @property
    def latent_phase(self) -> VideoTraining:
        """The last phase that changes the parts of stage 1 that stage 2 depends on."""
        return self.picture if self.picture.train_encoder else self.motion

    def new_flow(self) -> tuple[Conditioner, ConditionalFlow]:
        """Build conditioner and flow with the initial weights of the seed of `stage2`."""
        with torch.random.fork_rng():
            torch.manual_seed(self.stage2.seed)
            return Conditioner(self.conditioner), ConditionalFlow(self.flow)

    def require_phases(self, *names: str) -> None:
        """Raise a UserError if the phase of a training is not the name of its field."""
        for name in names:
            phase = getattr(self, name).phase
            if phase != name:
                raise UserError(f"{name}.phase must be {name}, got {phase}: change it")


def with_present_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe's file with earlier field names replaced by current ones.

    Args:
        values: A recipe as JSON values, written by this or an earlier version.
    """
    return {
        name: {_EARLIER_NAMES.get(field, field): held for field, held in value.items()}
        if name in ("motion", "picture", "mask") and isinstance(value, Mapping)
        else value
        for name, value in values.items()
    }
