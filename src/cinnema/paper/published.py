"""The configs that the paper's networks were published with."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from cinnema.core.errors import UserError

PublishedName: TypeAlias = Literal["bair", "iper", "landscape", "dtdb"]

CONTROL_DIM = 30
"""Entries of BAIR's control: the end point in three one-hots of ten bins, one for each axis."""


@dataclass(frozen=True, kw_only=True)
class _Published:
    """What differs between the data sets."""

    size: int
    channel_factor: int
    encoder_channels: tuple[int, ...]
    embedding_dim: int
    image_norm: str


# The conditioning encoders are those of the released configs; only Landscape's has batch norm.
_PUBLISHED: dict[PublishedName, _Published] = {
    "bair": _Published(
        size=64,
        channel_factor=64,
        encoder_channels=(64, 128, 256, 512, 512),
        embedding_dim=64,
        image_norm="in",
    ),
    "iper": _Published(
        size=64,
        channel_factor=64,
        encoder_channels=(64, 128, 256, 512, 512),
        embedding_dim=128,
        image_norm="in",
    ),
    "landscape": _Published(
        size=128,
        channel_factor=32,
        encoder_channels=(64, 128, 128, 256, 512),
        embedding_dim=128,
        image_norm="bn",
    ),
    "dtdb": _Published(
        size=128,
        channel_factor=32,
        encoder_channels=(64, 64, 128, 256, 512),
        embedding_dim=128,
        image_norm="in",
    ),
}

_Z_DIM = 64


def published_configs(name: PublishedName, *, control: bool = False) -> dict[str, dict[str, Any]]:
    """Return the configs of one data set's networks, each as `build` takes it.

    Args:
        name: `"bair"`, `"iper"`, `"landscape"`, or `"dtdb"` for each of its textures.
        control: Whether the flow hears the end point too; only BAIR's was published.

    Returns:
        Configs by component: decoder, video_encoder, temporal_discriminator, patch_discriminator,
        image_encoder and flow.

    Raises:
        UserError: If there is no such data set, or none with a control.

    Example:
        >>> published_configs("landscape")["decoder"]["channel_factor"]
        32
    """
    if name not in _PUBLISHED:
        raise UserError(
            f"published networks: there are {', '.join(get_args(PublishedName))}, got {name!r}"
        )
    if control and name != "bair":
        raise UserError(f"published networks: only bair has a control, got {name!r}; leave it out")
    about = _PUBLISHED[name]
    return {
        **_stage1(about),
        "patch_discriminator": {
            "in_channels": 3,
            "ndf": 64,
            "n_layers": 3,
            "use_actnorm": True,
            "spectral_norm": True,
        },
        "image_encoder": {
            "deterministic": False,
            "in_size": about.size,
            "norm": about.image_norm,
            "encoder_type": "resnet50",
            "use_actnorm_in_dec": False,
            "z_dim": about.embedding_dim,
        },
        "flow": {
            "in_channels": _Z_DIM,
            "embedding_dim": about.embedding_dim + (CONTROL_DIM if control else 0),
            "hidden_dim": 8 * _Z_DIM,
            "hidden_depth": 2,
            "n_flows": 20,
            "conditioning_option": "None",
            "control": control,
        },
    }


def _stage1(about: _Published) -> dict[str, dict[str, Any]]:
    is_large = about.size == 128
    resnet = {"res_type_encoder": "resnet18", "deterministic": False}
    return {
        "decoder": {
            "channel_factor": about.channel_factor,
            "z_dim": _Z_DIM,
            "upsample_s": [2, 2 if is_large else 1],
            "upsample_t": [2, 1],
            "spectral_norm": True,
        },
        "video_encoder": {
            **resnet,
            "use_max_pool": False,
            "z_dim": _Z_DIM,
            "channels": list(about.encoder_channels),
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
    }
