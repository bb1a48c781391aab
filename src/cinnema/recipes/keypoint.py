"""The recipes of the shipped `robot` and `person` weights."""

from dataclasses import replace

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from cinnema.core.errors import UserError
from cinnema.data.augmentation import Augmentation
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.keypoint.model import EndPointRange, KeypointModelConfig
from cinnema.models.keypoint.stage1 import KeypointConfig
from cinnema.training.keypoint import KeypointTraining
from cinnema.training.stage2 import Stage2Training


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ActingData:
    """What of a packed data set a model of a body is trained on.

    Attributes:
        landmarks: The track that says where the body is, of stage 1's length; None if there is
            none.
        augmentation: How clips are varied.
        validation_clips: Windows of held-out clips that are scored.
    """

    landmarks: str | None = None
    augmentation: Augmentation = Augmentation()
    validation_clips: int = Field(default=64, ge=2)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KeypointRecipe:
    """Everything that makes a set of weights of a body that acts.

    Attributes:
        name: Of the weights.
        data: What of the packed data set it is trained on.
        stage1: What stage 1 is made of.
        motion: Training of stage 1, first phase.
        picture: Training of stage 1, second phase.
        conditioner: What reads x0 and the control for the flow.
        flow: What the flow is made of.
        stage2: Training of the two.
        end_point: Where the end effector can be sent to; None for a model without a control.

    Raises:
        UserError: A training of stage 1 is of another phase than its name says, or sizes of
            neighbours differ.
    """

    name: str
    data: ActingData
    stage1: KeypointConfig
    motion: KeypointTraining
    picture: KeypointTraining
    conditioner: ConditionerConfig
    flow: FlowConfig
    stage2: Stage2Training
    end_point: EndPointRange | None = None

    def __post_init__(self) -> None:
        for name, training in (("motion", self.motion), ("picture", self.picture)):
            if training.phase != name:
                raise UserError(f"{name}.phase must be {name}, got {training.phase}: change it")
        if bool(self.data.landmarks) != bool(self.stage1.landmarks):
            raise UserError(
                f"data.landmarks is {self.data.landmarks} and stage1.landmarks "
                f"{self.stage1.landmarks}: name a track and its length, or neither"
            )
        self.model_config()

    def model_config(self) -> KeypointModelConfig:
        """Return the configuration of the model that comes of it."""
        return KeypointModelConfig(
            name=self.name,
            stage1=self.stage1,
            conditioner=self.conditioner,
            flow=self.flow,
            end_point=self.end_point,
        )


def robot() -> KeypointRecipe:
    """The push world's arm, 64 px, 16 frames of a tenth of a second; the control is where it ends.

    Trained on `cinnema data simulate push`.
    """
    stage1 = KeypointConfig(size=64, fps=10.0, landmarks=3)
    conditioner = ConditionerConfig(
        feature_dim=stage1.feature_dim,
        width=48,
        condition_dim=48,
        dropout=0.05,
        control_dim=3,
        control_scale=0.1,
    )
    return KeypointRecipe(
        name="robot",
        data=ActingData(
            landmarks="end_effector",
            augmentation=Augmentation(
                mirror=0.5, brightness=0.15, contrast=0.15, saturation=0.2, hue=0.03
            ),
        ),
        stage1=stage1,
        motion=KeypointTraining(phase="motion", clips=44_000),
        picture=_picture(),
        conditioner=conditioner,
        flow=_flow(conditioner),
        stage2=_stage2(),
        # What the arm reaches: the workspace it is sent to, and a centimetre.
        end_point=EndPointRange(low=(-0.25, -0.14, 0.005), high=(0.25, 0.15, 0.16)),
    )


# Of the walk world's joints: legs (hip, knee, ankle, toe) and arms (shoulder, elbow, wrist).
_TWINS = (((4, 5, 6, 7), (11, 12, 13, 14)), ((8, 9, 10), (15, 16, 17)))


def person() -> KeypointRecipe:
    """The walk world's people, 64 px, 16 frames at 12.5 a second.

    Trained on `cinnema data simulate walk`.
    """
    stage1 = KeypointConfig(size=64, fps=12.5, landmarks=36, encoder_width=32, points=True)
    conditioner = ConditionerConfig(
        feature_dim=stage1.feature_dim, width=48, condition_dim=48, dropout=0.05
    )
    return KeypointRecipe(
        name="person",
        data=ActingData(
            landmarks="joints_2d",
            augmentation=Augmentation(
                mirror=0.5, brightness=0.15, contrast=0.15, saturation=0.2, hue=0.05
            ),
        ),
        stage1=stage1,
        motion=KeypointTraining(phase="motion", clips=24_000, twins=_TWINS, guided=1.0),
        picture=replace(_picture(), clips=16_000, twins=_TWINS, guided=0.5),
        conditioner=conditioner,
        flow=_flow(conditioner),
        stage2=replace(_stage2(), pool=40_000),
    )


def _picture() -> KeypointTraining:
    return KeypointTraining(
        phase="picture",
        clips=12_000,
        learning_rate=7e-4,
        pixels=2.0,
        moved=2.0,
        perceptual=4.0,
        train_encoder=True,
    )


def _flow(conditioner: ConditionerConfig) -> FlowConfig:
    return FlowConfig(
        z_dim=64,
        condition_dim=conditioner.out_dim,
        num_blocks=10,
        hidden_dim=256,
        depth=1,
        dropout=0.05,
        leaky_relu=False,
        mixing="linear",
    )


def _stage2() -> Stage2Training:
    return Stage2Training(
        clips=256_000,
        pool=16_000,
        batch_size=128,
        learning_rate=1e-3,
        weight_decay=0.1,
        control_dropout=0.2,
        validate_every=12_800,
        patience=8,
    )
