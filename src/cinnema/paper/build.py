"""One door to all published networks: a component's name and its published config."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from cinnema.backbones.i3d import I3D, I3DConfig
from cinnema.core.config import config_from_dict
from cinnema.core.errors import UserError
from cinnema.paper.decoder import Decoder, DecoderConfig
from cinnema.paper.flow import PaperFlow, PaperFlowConfig
from cinnema.paper.image_encoder import ImageEncoder, ImageEncoderConfig
from cinnema.paper.patch_discriminator import PatchDiscriminator, PatchDiscriminatorConfig
from cinnema.paper.temporal_discriminator import (
    TemporalDiscriminator,
    TemporalDiscriminatorConfig,
)
from cinnema.paper.video_encoder import VideoEncoder, VideoEncoderConfig


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DTI3DConfig:
    """What differs between the networks behind DTFVD.

    Attributes:
        num_classes: Length of the logits; 18 in DTDB.
        frames: Length of the clips, 16 or 32; the last average pool is (2, 7, 7) or (4, 7, 7).
    """

    num_classes: Annotated[int, Field(ge=1)]
    frames: Annotated[int, Field(ge=16, multiple_of=8)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KineticsI3DConfig:
    """What published configs say of the network behind FVD.

    Attributes:
        num_classes: Length of the logits; 400 in Kinetics.
    """

    num_classes: Annotated[int, Field(ge=1)]


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
        config: The section of the published config that describes it, and no more.

    Returns:
        The network in training mode, on the default device, its first weights from torch's global
        generator. Its state dict has the published keys, so `load_state_dict` is strict.

    Raises:
        UserError: If there is no such component, or its config has a field that is unknown,
            missing or out of range.

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
                "mend it or name another component"
            )
    _require_fields(component, about.config, values)
    return about.make(config_from_dict(about.config, values, source=component))


def config_fields(component: str) -> frozenset[str]:
    """Return the names of the fields that a component's config may have.

    Args:
        component: One that `build` knows.
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
