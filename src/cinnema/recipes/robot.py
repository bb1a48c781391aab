"""The recipe of the shipped `robot` weights."""

from cinnema.data.augmentation import Augmentation
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.keypoint.model import EndPointRange
from cinnema.models.keypoint.stage1 import KeypointConfig
from cinnema.training.keypoint_losses import KeypointTraining
from cinnema.training.recipe import KeypointData, KeypointRecipe
from cinnema.training.stage2 import Stage2Training


def robot() -> KeypointRecipe:
    """Return the recipe: the arm of the push simulator; 64 px, 16 frames at 10 fps; end points.

    Trained on the output of `cinnema data simulate push`.
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
        data=KeypointData(
            landmarks="end_effector",
            augmentation=Augmentation(
                mirror=0.5, brightness=0.15, contrast=0.15, saturation=0.2, hue=0.03
            ),
        ),
        stage1=stage1,
        motion=KeypointTraining(phase="motion", clips=44_000),
        picture=KeypointTraining(
            phase="picture",
            clips=12_000,
            learning_rate=7e-4,
            pixels=2.0,
            moved=2.0,
            perceptual=4.0,
            train_encoder=True,
        ),
        conditioner=conditioner,
        flow=FlowConfig(
            z_dim=64,
            condition_dim=conditioner.out_dim,
            num_blocks=10,
            hidden_dim=256,
            depth=1,
            dropout=0.05,
            leaky_relu=False,
            mixing="linear",
        ),
        stage2=Stage2Training(
            clips=256_000,
            pool=16_000,
            batch_size=128,
            learning_rate=1e-3,
            weight_decay=0.1,
            control_dropout=0.2,
            validate_every=12_800,
            patience=8,
        ),
        # The arm's workspace, with a margin of one centimetre.
        end_point=EndPointRange(low=(-0.25, -0.14, 0.005), high=(0.25, 0.15, 0.16)),
    )
