"""The recipe of the shipped `person` weights."""

from dataclasses import replace

from cinnema.data.augmentation import Augmentation
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.keypoint.stage1 import KeypointConfig
from cinnema.recipes.robot import robot
from cinnema.training.keypoint_losses import KeypointTraining
from cinnema.training.recipe import KeypointData, KeypointRecipe

# Joints of the walk simulator: legs (hip, knee, ankle, toe) and arms (shoulder, elbow, wrist).
_LIMBS = (((4, 5, 6, 7), (11, 12, 13, 14)), ((8, 9, 10), (15, 16, 17)))


def person() -> KeypointRecipe:
    """Return the recipe: people of the walk simulator; 64 px, 16 frames at 12.5 fps; no control.

    Trained on the output of `cinnema data simulate walk`. All other settings are those of `robot`.
    """
    base = robot()
    stage1 = KeypointConfig(size=64, fps=12.5, landmarks=36, encoder_width=32, points=True)
    conditioner = ConditionerConfig(
        feature_dim=stage1.feature_dim, width=48, condition_dim=48, dropout=0.05
    )
    return KeypointRecipe(
        name="person",
        data=KeypointData(
            landmarks="joints_2d",
            augmentation=Augmentation(
                mirror=0.5, brightness=0.15, contrast=0.15, saturation=0.2, hue=0.05
            ),
        ),
        stage1=stage1,
        motion=KeypointTraining(
            phase="motion", clips=24_000, symmetric_keypoints=_LIMBS, teacher_forcing=1.0
        ),
        picture=replace(
            base.picture, clips=16_000, symmetric_keypoints=_LIMBS, teacher_forcing=0.5
        ),
        conditioner=conditioner,
        flow=replace(base.flow, condition_dim=conditioner.out_dim),
        stage2=replace(base.stage2, pool=40_000),
    )
