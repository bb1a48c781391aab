"""The recipe of the weights `drift`."""

from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.warping.drift import DRIFT_DIM
from cinnema.models.warping.stage1 import Stage1Config
from cinnema.training.stage2 import Stage2Training
from cinnema.training.warping import CropData, WarpingRecipe, WarpingTraining


def drift() -> WarpingRecipe:
    """Return the recipe: mainly skies, with water and fire; 128 px, 16 frames; drift control."""
    # There are only a dozen scenes: a narrow condition, dropout and weight decay keep the flow from
    # memorising them.
    conditioner = ConditionerConfig(
        width=16, condition_dim=8, dropout=0.5, control_dim=DRIFT_DIM, control_scale=0.15
    )
    return WarpingRecipe(
        name="drift",
        data=CropData(
            textures={"clouds": 6.0, "water": 1.5, "fire": 1.0, "other": 0.7, "vegetation": 0.8},
            excluded=("nasa4_forest",),
            sky_share=0.65,
        ),
        stage1=Stage1Config(),
        motion=WarpingTraining(phase="motion", clips=32_000),
        picture=WarpingTraining(
            phase="picture",
            clips=12_000,
            batch_size=16,
            mask=1.0,
            learning_rate=5e-4,
            network="alex",
            window=128,
            train_encoder=False,
        ),
        mask=WarpingTraining(phase="mask", clips=12_000, learning_rate=5e-4, mask=1.0),
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
