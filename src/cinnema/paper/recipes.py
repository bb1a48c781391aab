"""The published recipes of the 2021 models, and the published scores.

Source: Dorkenwald et al., "Stochastic Image-to-Video Synthesis using cINNs", 2021, and the released
configs, including the number of windows per clip and epoch. One number differs: the weight of the
image auto-encoder's KL is always 1e-4, whereas the configs of all data sets but Landscape have
1e-5.
"""

from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.errors import UserError
from cinnema.data.augmentation import PAPER, Augmentation
from cinnema.paper.flow import PaperFlowConfig
from cinnema.paper.model import PaperModelConfig
from cinnema.paper.published import PublishedName, published_configs
from cinnema.paper.training.autoencoding import AutoencodingConfig, AutoencodingTraining
from cinnema.paper.training.conditioning import ConditioningConfig, ConditioningTraining
from cinnema.paper.training.flow import FlowTraining
from cinnema.paper.training.phases import AdamConfig
from cinnema.paper.training.precision import Precision

Texture: TypeAlias = Literal["clouds", "fire", "vegetation", "waterfall"]

_POSTER = "the paper's poster and project page"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PublishedScore:
    """One score of the published model.

    Attributes:
        metric: Name of the metric, computed by the paper's protocol.
        value: The score.
        better: Whether "lower" or "higher" is better.
        source: Where the score was published.
    """

    metric: str
    value: float
    better: Literal["lower", "higher"] = "lower"
    source: str = _POSTER


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PaperRecipe:
    """Configuration of a model of the paper and of its trainings.

    Example:
        >>> recipe = landscape()
        >>> recipe.size, recipe.autoencoding.w_recon, recipe.flow_training.epochs
        (128, 20.0, 31)

    Attributes:
        name: Name of the weights.
        stage1: Config of video encoder, decoder and discriminators.
        autoencoding: Training of stage 1.
        conditioner: Config of the image encoder, and of the networks that it is trained with.
        conditioning: Training of the image encoder.
        flow: Config of the cINN.
        flow_training: Training of the cINN.
        precision: Number format of the trainings: "float32" as published, "fast" for bfloat16, or
            "compiled", which also compiles the largest networks.
        recompute_activations: Whether stage 1 computes activations again in the backward pass,
            which takes more time and less memory; the results are the same.
        scores: Scores of the published model; empty if none were published.

    Raises:
        ValueError: The parts do not match.
    """

    name: str = Field(min_length=1)
    stage1: AutoencodingConfig
    autoencoding: AutoencodingTraining
    conditioner: ConditioningConfig
    conditioning: ConditioningTraining
    flow: PaperFlowConfig
    flow_training: FlowTraining
    precision: Precision = "float32"
    recompute_activations: bool = False
    scores: tuple[PublishedScore, ...] = ()

    def __post_init__(self) -> None:
        self.model_config()

    @property
    def size(self) -> int:
        """Height and width of the frames, in pixels."""
        return self.stage1.decoder.size

    @property
    def num_frames(self) -> int:
        """T, the number of frames after x0."""
        return self.stage1.decoder.num_frames

    def about(self) -> dict[str, Any]:
        """Return the JSON values that identify a training with this recipe.

        They contain the precision only if it is not float32, so that trainings from before this
        option are recognised. What does not change the results is not among them.
        """
        values = config_to_dict(self)
        del values["recompute_activations"]
        if self.precision == "float32":
            del values["precision"]
        return values

    def model_config(self) -> PaperModelConfig:
        """Return the config of the trained model.

        Raises:
            UserError: The parts do not match.
        """
        parts: dict[str, Any] = {
            "decoder": config_to_dict(self.stage1.decoder) | {"spectral_norm": False},
            "video_encoder": config_to_dict(self.stage1.encoder),
            "image_encoder": config_to_dict(self.conditioner.encoder),
            "flow": config_to_dict(self.flow),
        }
        return config_from_dict(PaperModelConfig, {"name": self.name, **parts}, source=self.name)


def bair(*, control: bool = False) -> PaperRecipe:
    """Return the recipe of BAIR, a robot arm that pushes objects: 64 px, 16 frames.

    Args:
        control: Whether the cINN is conditioned on the position of the arm at the last frame.
    """
    return _recipe(
        "bair",
        name="bair-control" if control else "bair",
        control=control,
        autoencoding=AutoencodingTraining(
            epochs=55,
            batch_size=10,
            w_recon=10.0,
            w_percep=30.0,
            w_kl=1e-5,
            augmentation=PAPER["bair"],
        ),
        conditioning=ConditioningTraining(epochs=60, augmentation=_jitter(0.2, hue=0.1)),
        flow_training=FlowTraining(augmentation=PAPER["bair"]),
        scores=()
        if control
        else (
            PublishedScore("FVD", 99.3),
            PublishedScore("FVD", 103.7, source="a user's re-run"),
            PublishedScore("DIV-VGG", 0.98, "higher"),
            PublishedScore("DIV-I3D", 1.93, "higher"),
        ),
    )


def iper() -> PaperRecipe:
    """Return the recipe of iPER, people who move in front of a wall: 64 px, 16 frames."""
    return _recipe(
        "iper",
        autoencoding=AutoencodingTraining(
            epochs=100,
            windows=60,
            batch_size=10,
            w_recon=10.0,
            w_percep=40.0,
            w_kl=1e-4,
            augmentation=PAPER["iper"],
        ),
        conditioning=ConditioningTraining(
            epochs=140, windows=100, augmentation=_jitter(0.1, saturation=0.2)
        ),
        flow_training=FlowTraining(windows=80, augmentation=PAPER["iper"]),
    )


def landscape() -> PaperRecipe:
    """Return the recipe of Landscape, time-lapse videos of skies: 128 px, 16 frames."""
    return _recipe(
        "landscape",
        autoencoding=AutoencodingTraining(
            epochs=100,
            windows=10,
            batch_size=7,
            w_recon=20.0,
            w_percep=30.0,
            w_kl=1e-6,
            augmentation=PAPER["landscape"],
        ),
        conditioning=ConditioningTraining(
            epochs=200, windows=20, augmentation=replace(PAPER["landscape"], hue=0.1)
        ),
        flow_training=FlowTraining(
            windows=10,
            adam=_flow_adam(decay_every=6),
            augmentation=Augmentation(mirror=0.5, enlarge=PAPER["landscape"].enlarge),
        ),
        scores=(
            PublishedScore("LPIPS", 0.23),
            PublishedScore("FID", 10.5),
            PublishedScore("DTFVD", 0.59),
            PublishedScore("FVD", 134.4),
        ),
    )


def dtdb(texture: Texture) -> PaperRecipe:
    """Return the recipe of one of DTDB's dynamic textures: 128 px, 16 frames.

    Args:
        texture: "clouds", "fire", "vegetation" or "waterfall".

    Raises:
        UserError: There is no such texture.
    """
    if texture not in _TEXTURES:
        raise UserError(f"texture must be one of {', '.join(_TEXTURES)}, got {texture!r}")
    about = _TEXTURES[texture]
    return _recipe(
        "dtdb",
        name=f"dtdb-{texture}",
        image_norm=about.image_norm,
        autoencoding=AutoencodingTraining(
            epochs=60,
            windows=about.windows,
            batch_size=7,
            w_recon=10.0,
            w_percep=30.0,
            w_kl=1e-6,
            augmentation=PAPER["dtdb"],
        ),
        conditioning=ConditioningTraining(
            epochs=about.image_epochs, windows=about.windows, augmentation=PAPER["dtdb"]
        ),
        flow_training=FlowTraining(
            windows=about.flow_windows,
            adam=_flow_adam(decay_every=6),
            augmentation=PAPER["dtdb"],
        ),
    )


def tiny(recipe: PaperRecipe) -> PaperRecipe:
    """Return a recipe of the same structure that trains in seconds, for tests.

    64 px and 8 frames, narrow networks, a few clips per step, and two epochs: one without
    discriminators and one with them.

    Args:
        recipe: The recipe to shrink.
    """
    flow, adam = recipe.flow, recipe.flow_training.adam
    control_dim = flow.embedding_dim - recipe.conditioner.encoder.z_dim
    short: dict[str, Any] = {"epochs": 2, "windows": 1, "batch_size": 2, "network": "alex"}
    return replace(
        recipe,
        name=f"{recipe.name}-tiny",
        stage1=_tiny_stage1(recipe.stage1),
        autoencoding=replace(recipe.autoencoding, **short, sub_clip=6, num_pictures=4),
        conditioner=_tiny_conditioner(recipe.conditioner),
        conditioning=replace(recipe.conditioning, **short, adversarial_from=1),
        flow=replace(
            flow, in_channels=_TINY_Z, embedding_dim=_TINY_Z + control_dim, hidden_dim=32,
            hidden_depth=1, n_flows=5 if flow.control else 2,
        ),
        flow_training=replace(
            recipe.flow_training, epochs=2, windows=2, batch_size=4,
            adam=replace(adam, learning_rate=1e-3),
        ),
        scores=(),
    )  # fmt: skip


_TINY_SIZE, _TINY_Z = 64, 16


@plain_dataclass(frozen=True, kw_only=True)
class _Texture:
    """Numbers that differ between the textures."""

    windows: int
    image_epochs: int
    flow_windows: int
    image_norm: Literal["bn", "in"] = "in"


_TEXTURES: Mapping[str, _Texture] = {
    "clouds": _Texture(windows=100, image_epochs=200, flow_windows=50),
    "fire": _Texture(windows=80, image_epochs=120, flow_windows=40),
    "vegetation": _Texture(windows=55, image_epochs=60, flow_windows=40),
    "waterfall": _Texture(windows=120, image_epochs=100, flow_windows=30, image_norm="bn"),
}


def _recipe(
    data: PublishedName,
    *,
    name: str = "",
    control: bool = False,
    image_norm: str = "",
    autoencoding: AutoencodingTraining,
    conditioning: ConditioningTraining,
    flow_training: FlowTraining,
    scores: tuple[PublishedScore, ...] = (),
) -> PaperRecipe:
    """Combine the published networks with a training."""
    networks = published_configs(data, control=control)
    image_encoder = networks["image_encoder"] | ({"norm": image_norm} if image_norm else {})
    image_decoder = {"z_dim": image_encoder["z_dim"], "size": image_encoder["in_size"]}
    patch = networks["patch_discriminator"]
    return PaperRecipe(
        name=name or data,
        stage1=config_from_dict(AutoencodingConfig, {
            "encoder": networks["video_encoder"], "decoder": networks["decoder"],
            "temporal": networks["temporal_discriminator"], "patch": patch,
        }),
        autoencoding=autoencoding,
        conditioner=config_from_dict(ConditioningConfig, {
            "encoder": image_encoder, "decoder": image_decoder, "patch": patch,
        }),
        conditioning=conditioning,
        flow=config_from_dict(PaperFlowConfig, networks["flow"]),
        flow_training=flow_training,
        scores=scores,
    )  # fmt: skip


def _flow_adam(*, decay_every: int) -> AdamConfig:
    return replace(FlowTraining().adam, decay_every=decay_every)


def _jitter(amount: float, *, saturation: float | None = None, hue: float = 0.0) -> Augmentation:
    return Augmentation(
        mirror=0.5,
        brightness=amount,
        contrast=amount,
        saturation=amount if saturation is None else saturation,
        hue=hue,
    )


def _tiny_stage1(stage1: AutoencodingConfig) -> AutoencodingConfig:
    widths = (16, 16, 16, 32, 32)
    return AutoencodingConfig(
        encoder=replace(
            stage1.encoder, z_dim=_TINY_Z, channels=widths, stride_t=(1, 2, 2, 1),
            stride_s=(1, 2, 2, 2),
        ),
        decoder=replace(
            stage1.decoder, z_dim=_TINY_Z, channel_factor=8, upsample_s=(2, 1), upsample_t=(1, 1)
        ),
        temporal=replace(
            stage1.temporal, channels=widths, stride_t=(1, 2, 2, 2), stride_s=(1, 1, 2, 2)
        ),
        patch=replace(stage1.patch, ndf=8),
    )  # fmt: skip


def _tiny_conditioner(conditioner: ConditioningConfig) -> ConditioningConfig:
    return ConditioningConfig(
        encoder=replace(
            conditioner.encoder, encoder_type="resnet18", z_dim=_TINY_Z, in_size=_TINY_SIZE
        ),
        decoder=replace(conditioner.decoder, z_dim=_TINY_Z, size=_TINY_SIZE, width=16),
        patch=replace(conditioner.patch, ndf=8),
    )
