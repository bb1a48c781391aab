"""The recipe of the shipped `landscape` weights."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from cinnema.core.errors import UserError
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.warping.drift import DRIFT_DIM
from cinnema.models.warping.stage1 import Stage1Config
from cinnema.training.stage2 import Stage2Training
from cinnema.training.warping import Stage1Training


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DataConfig:
    """What a model is trained on.

    Attributes:
        textures: Textures of the real scenes, and how often each is drawn.
        excluded: Scenes left out, by name: cameras that move.
        crops: Clips cut from each training scene.
        validation_crops: Clips cut from each validation scene.
        sky_share: Share of synthetic skies in a batch, in [0, 1].
    """

    textures: dict[str, Annotated[float, Field(ge=0)]]
    excluded: tuple[str, ...] = ()
    crops: int = Field(default=200, ge=1)
    validation_crops: int = Field(default=48, ge=1)
    sky_share: float = Field(default=0.5, ge=0, le=1)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """Everything that makes a set of weights.

    Attributes:
        name: Of the weights.
        data: What it is trained on.
        stage1: What stage 1 is made of.
        motion: Training of stage 1, first phase.
        picture: Training of stage 1, second phase.
        mask: Training of stage 1, last phase.
        conditioner: What reads x0 for the flow.
        flow: What the flow is made of.
        stage2: Training of the two.

    Raises:
        UserError: A training of stage 1 is of another phase than its name says, or sizes of
            neighbours differ.
    """

    name: str
    data: DataConfig
    stage1: Stage1Config
    motion: Stage1Training
    picture: Stage1Training
    mask: Stage1Training
    conditioner: ConditionerConfig
    flow: FlowConfig
    stage2: Stage2Training

    def __post_init__(self) -> None:
        for name, training in (
            ("motion", self.motion),
            ("picture", self.picture),
            ("mask", self.mask),
        ):
            if training.phase != name:
                raise UserError(f"{name}.phase must be {name}, got {training.phase}: change it")
        for name, value, other, wanted in (
            ("flow.z_dim", self.flow.z_dim, "stage1.z_dim", self.stage1.z_dim),
            (
                "flow.condition_dim",
                self.flow.condition_dim,
                "what the conditioner gives",
                self.conditioner.out_dim,
            ),
            (
                "conditioner.feature_dim",
                self.conditioner.feature_dim,
                "stage1.feature_dim",
                self.stage1.feature_dim,
            ),
        ):
            if value != wanted:
                raise UserError(f"{name} must be {other}, {wanted}, got {value}: change both")


def landscape() -> Recipe:
    """Skies above all, with water and fire: 128 px, 16 frames; the control is where they drift."""
    # A dozen scenes are few: a narrow condition, dropout and decay keep the flow from learning them
    # by heart.
    conditioner = ConditionerConfig(
        width=16, condition_dim=8, dropout=0.5, control_dim=DRIFT_DIM, control_scale=0.15
    )
    return Recipe(
        name="landscape",
        data=DataConfig(
            textures={"clouds": 6.0, "water": 1.5, "fire": 1.0, "other": 0.7, "vegetation": 0.8},
            excluded=("nasa4_forest",),
            sky_share=0.65,
        ),
        stage1=Stage1Config(),
        motion=Stage1Training(phase="motion", clips=32_000),
        picture=Stage1Training(
            phase="picture",
            clips=12_000,
            batch_size=16,
            mask=1.0,
            learning_rate=5e-4,
            network="alex",
            window=128,
            train_encoder=False,
        ),
        mask=Stage1Training(phase="mask", clips=12_000, learning_rate=5e-4, mask=1.0),
        conditioner=conditioner,
        flow=FlowConfig(
            z_dim=64,
            condition_dim=conditioner.out_dim,
            num_blocks=8,
            hidden_dim=192,
            depth=1,
            dropout=0.2,
            leaky_relu=False,
            mixing="linear",
        ),
        stage2=Stage2Training(
            clips=192_000,
            pool=40_000,
            learning_rate=1e-3,
            weight_decay=0.3,
            control_dropout=0.3,
            validate_every=6_400,
            patience=100,
            keep="last",
        ),
    )
