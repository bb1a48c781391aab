"""Recipes that train in seconds, and folders of clips for them."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from cinnema.data.augmentation import Augmentation
from cinnema.data.prepare import prepare
from cinnema.media.videos import write_video
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.keypoint.model import EndPointRange
from cinnema.models.keypoint.stage1 import KeypointConfig
from cinnema.training.keypoint_losses import KeypointTraining
from cinnema.training.recipe import KeypointData, KeypointRecipe
from cinnema.training.stage2 import Stage2Training
from walking_square import WalkingSquare

_STAGE1 = KeypointConfig(
    size=32, num_frames=4, z_dim=8, encoder_width=8, width=8, code_dim=16, landmarks=3
)
_CONDITIONER = ConditionerConfig(
    feature_dim=_STAGE1.feature_dim, width=8, condition_dim=4, control_dim=3, control_scale=0.3
)
KEYPOINT = KeypointRecipe(
    name="square",
    data=KeypointData(landmarks="where", validation_clips=4),
    stage1=_STAGE1,
    motion=KeypointTraining(clips=16, batch_size=4, moments=2),
    picture=KeypointTraining(
        phase="picture", clips=8, batch_size=4, moments=2, perceptual=1.0, network="alex"
    ),
    conditioner=_CONDITIONER,
    flow=FlowConfig(
        z_dim=8, condition_dim=_CONDITIONER.out_dim, num_blocks=2, hidden_dim=16, depth=1
    ),
    stage2=Stage2Training(clips=32, pool=16, batch_size=8, validate_every=16),
    end_point=EndPointRange(low=(0.0, 0.0, -1.0), high=(1.0, 1.0, 1.0)),
)


def points() -> KeypointRecipe:
    """A keypoint model whose landmarks are points of the image, without a control."""
    stage1 = dataclasses.replace(_STAGE1, landmarks=4, points=True)
    conditioner = dataclasses.replace(
        _CONDITIONER, feature_dim=stage1.feature_dim, control_dim=0, control_scale=0.15
    )
    return dataclasses.replace(
        KEYPOINT,
        data=KeypointData(
            landmarks="corners", validation_clips=4, augmentation=Augmentation(mirror=0.5)
        ),
        stage1=stage1,
        conditioner=conditioner,
        motion=dataclasses.replace(KEYPOINT.motion, teacher_forcing=0.5),
        flow=dataclasses.replace(KEYPOINT.flow, condition_dim=conditioner.out_dim),
        end_point=None,
    )


def write_clouds(root: Path, *, length: int = 9) -> Path:
    """Write four scenes of clouds, of which the first and the last validate."""
    y, x = np.mgrid[:48, :64]
    for seed, name in enumerate("abcd"):
        frames = [
            128 + 50 * np.sin((x - 2 * t) / (4 + seed)) + 40 * np.cos(y / 5) for t in range(length)
        ]
        pixels = np.repeat(np.stack(frames)[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)
        write_video(root / f"{name}.mp4", pixels, fps=8)
    entries = [{"path": f"{name}.mp4", "texture": "clouds"} for name in "abcd"]
    (root / "manifest.json").write_text(json.dumps(entries))
    return root


def write_squares(folder: Path) -> Path:
    """Pack squares that walk about."""
    prepare(WalkingSquare(), folder, encoding="raw")
    return folder
