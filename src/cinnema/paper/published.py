"""What was published of the networks: their configs for each data set, and how to build them."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import nn

from cinnema.backbones.i3d import I3D, I3DConfig
from cinnema.core.config import config_from_dict
from cinnema.core.errors import UserError
from cinnema.paper.control import ONE_HOT_DIM
from cinnema.paper.decoder import Decoder, DecoderConfig
from cinnema.paper.discriminators import (
    PatchDiscriminator,
    PatchDiscriminatorConfig,
    TemporalDiscriminator,
    TemporalDiscriminatorConfig,
)
from cinnema.paper.flow import PaperFlow, PaperFlowConfig
from cinnema.paper.image_encoder import ImageEncoder, ImageEncoderConfig
from cinnema.paper.video_encoder import VideoEncoder, VideoEncoderConfig

PublishedName: TypeAlias = Literal["bair", "iper", "landscape", "dtdb"]

_Z_DIM = 64


# --- Configs --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _DataSet:
    """What differs between the networks of the data sets."""

    size: int
    encoder_channels: tuple[int, ...]
    embedding_dim: int
    image_norm: str


# The conditioning encoders are those of the released configs; only Landscape's has batch norm.
_DATA_SETS: dict[PublishedName, _DataSet] = {
    "bair": _DataSet(
        size=64, encoder_channels=(64, 128, 256, 512, 512), embedding_dim=64, image_norm="in"
    ),
    "iper": _DataSet(
        size=64, encoder_channels=(64, 128, 256, 512, 512), embedding_dim=128, image_norm="in"
    ),
    "landscape": _DataSet(
        size=128, encoder_channels=(64, 128, 128, 256, 512), embedding_dim=128, image_norm="bn"
    ),
    "dtdb": _DataSet(
        size=128, encoder_channels=(64, 64, 128, 256, 512), embedding_dim=128, image_norm="in"
    ),
}


def published_configs(name: PublishedName, *, control: bool = False) -> dict[str, dict[str, Any]]:
    """Return the configs of one data set's networks, each as `build` takes it.

    Args:
        name: `"bair"`, `"iper"`, `"landscape"`, or `"dtdb"` for each of its textures.
        control: Whether the flow is also conditioned on the end point; published for BAIR only.

    Returns:
        Configs by component: decoder, video_encoder, temporal_discriminator, patch_discriminator,
        image_encoder and flow.

    Raises:
        UserError: The data set is unknown, or has no control.

    Example:
        >>> published_configs("landscape")["decoder"]["channel_factor"]
        32
    """
    if name not in _DATA_SETS:
        raise UserError(
            f"published networks: there are {', '.join(get_args(PublishedName))}, got {name!r}"
        )
    if control and name != "bair":
        raise UserError(f"published networks: only bair has a control, got {name!r}; leave it out")
    data = _DATA_SETS[name]
    return {
        **_stage1_configs(data),
        "image_encoder": {
            "deterministic": False,
            "in_size": data.size,
            "norm": data.image_norm,
            "encoder_type": "resnet50",
            "use_actnorm_in_dec": False,
            "z_dim": data.embedding_dim,
        },
        "flow": {
            "in_channels": _Z_DIM,
            "embedding_dim": data.embedding_dim + (ONE_HOT_DIM if control else 0),
            "hidden_dim": 8 * _Z_DIM,
            "hidden_depth": 2,
            "n_flows": 20,
            "conditioning_option": "None",
            "control": control,
        },
    }


def _stage1_configs(data: _DataSet) -> dict[str, dict[str, Any]]:
    is_large = data.size == 128
    resnet = {"res_type_encoder": "resnet18", "deterministic": False}
    return {
        "decoder": {
            "channel_factor": 32 if is_large else 64,
            "z_dim": _Z_DIM,
            "upsample_s": [2, 2 if is_large else 1],
            "upsample_t": [2, 1],
            "spectral_norm": True,
        },
        "video_encoder": {
            **resnet,
            "use_max_pool": False,
            "z_dim": _Z_DIM,
            "channels": list(data.encoder_channels),
            "stride_t": [1, 2, 2, 2],
            "stride_s": [2 if is_large else 1, 2, 2, 2],
        },
        "temporal_discriminator": {
            **resnet,
            "use_max_pool": True,
            "channels": [64, 64, 128, 256, 512],
            "stride_t": [2, 2, 2, 2],
            "stride_s": [1, 2 if is_large else 1, 2, 2],
            "spectral_norm": True,
        },
        "patch_discriminator": {
            "in_channels": 3,
            "ndf": 64,
            "n_layers": 3,
            "use_actnorm": True,
            "spectral_norm": True,
        },
    }


# --- Networks -------------------------------------------------------------------------------------


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DTI3DConfig:
    """What published configs contain for the networks behind DTFVD.

    Attributes:
        num_classes: Length of the logits; 18 in DTDB.
        frames: Length of the clips, 16 or 32; the last average pool is (2, 7, 7) or (4, 7, 7).
    """

    num_classes: Annotated[int, Field(ge=1)]
    frames: Annotated[int, Field(ge=16, multiple_of=8)]


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KineticsI3DConfig:
    """What published configs contain for the network behind FVD.

    Attributes:
        num_classes: Length of the logits; 400 in Kinetics.
    """

    num_classes: Annotated[int, Field(ge=1)]


class _Component(NamedTuple):
    config: type
    make: Callable[[Any], nn.Module]
    fixed: Mapping[str, Any] = {}


def _dti3d(config: DTI3DConfig) -> I3D:
    return I3D(I3DConfig(num_classes=config.num_classes, frames=config.frames, port="dtdb"))


def _i3d_kinetics(config: KineticsI3DConfig) -> I3D:
    return I3D(I3DConfig(num_classes=config.num_classes, port="kinetics"))


_COMPONENTS: dict[str, _Component] = {
    "decoder": _Component(DecoderConfig, Decoder),
    "video_encoder": _Component(VideoEncoderConfig, VideoEncoder),
    "temporal_discriminator": _Component(TemporalDiscriminatorConfig, TemporalDiscriminator),
    "patch_discriminator": _Component(PatchDiscriminatorConfig, PatchDiscriminator),
    "flow": _Component(PaperFlowConfig, PaperFlow),
    "flow_control": _Component(PaperFlowConfig, PaperFlow, {"control": True}),
    "image_encoder": _Component(ImageEncoderConfig, ImageEncoder),
    "dti3d": _Component(DTI3DConfig, _dti3d),
    "dti3d_16": _Component(DTI3DConfig, _dti3d, {"frames": 16}),
    "dti3d_32": _Component(DTI3DConfig, _dti3d, {"frames": 32}),
    "i3d_kinetics": _Component(KineticsI3DConfig, _i3d_kinetics),
}


def build(component: str, config: Mapping[str, Any]) -> nn.Module:
    """Build one of the paper's networks, ready to load its published state dict.

    | component | call |
    |---|---|
    | `decoder` | (x0, z) -> video, `b t c h w` |
    | `video_encoder` | (video, `b c t h w`) -> (mu, log_var) |
    | `temporal_discriminator` | (video, `b c t h w`) -> (score, four feature maps) |
    | `patch_discriminator` | (image) -> scores, `b 1 h w` |
    | `image_encoder` | (x0) -> embedding |
    | `flow`, `flow_control` | `.to_residual(z, c)`, `.to_latent(nu, c)` -> (value, log_det) |
    | `dti3d`, `dti3d_16`, `dti3d_32` | (video, `b c t h w`) -> logits; `.pooled` -> features |
    | `i3d_kinetics` | (video, `b c t h w`) -> logits |

    Args:
        component: The network's name. `flow_control` is `flow` with `control: true`, `dti3d_16` is
            `dti3d` with `frames: 16`, and so on.
        config: The section of the published config that describes it, without other fields.

    Returns:
        The network in training mode, on the default device; its initial weights are drawn from
        torch's global generator. Its state dict has the published keys, and `load_state_dict` is
        strict.

    Raises:
        UserError: There is no such component, or its config has a field that is unknown, missing
            or out of range.

    Example:
        >>> config = {"in_channels": 3, "ndf": 8, "n_layers": 2}
        >>> network = build(
        ...     "patch_discriminator", {**config, "use_actnorm": True, "spectral_norm": True}
        ... )
        >>> list(network.state_dict())[:2]
        ['main.0.bias', 'main.0.weight_orig']
    """
    if component not in _COMPONENTS:
        raise UserError(
            f"component: there are {', '.join(_COMPONENTS)}, got {component!r}; name one of them"
        )
    about = _COMPONENTS[component]
    values = dict(config)
    for field, value in about.fixed.items():
        if values.setdefault(field, value) != value:
            raise UserError(
                f"{component}: {field} must be {value!r}, got {values[field]!r}; "
                "correct it or choose another component"
            )
    _require_fields(component, about.config, values)
    return about.make(config_from_dict(about.config, values, source=component))


def config_fields(component: str) -> frozenset[str]:
    """Return the names of the fields that a component's config may have.

    Args:
        component: A name that `build` knows.
    """
    return frozenset(field.name for field in fields(_COMPONENTS[component].config))


def _require_fields(component: str, config: type, values: Mapping[str, Any]) -> None:
    required = [field.name for field in fields(config) if field.default is MISSING]
    missing = [name for name in required if name not in values]
    if missing:
        raise UserError(
            f"{component}: the config needs {', '.join(required)}, but has no "
            f"{', '.join(missing)}; take the whole section of the published config"
        )
