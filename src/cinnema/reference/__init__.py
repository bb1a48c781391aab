"""The networks of the 2021 paper, under the names that their published weights have."""

from cinnema.reference.build import build
from cinnema.reference.decoder import Decoder, DecoderConfig
from cinnema.reference.flow import ReferenceFlow, ReferenceFlowConfig
from cinnema.reference.image_encoder import ImageEncoder, ImageEncoderConfig
from cinnema.reference.patch_discriminator import PatchDiscriminator, PatchDiscriminatorConfig
from cinnema.reference.published import PublishedName, published_configs
from cinnema.reference.spectral import fold_spectral_norm
from cinnema.reference.temporal_discriminator import (
    TemporalDiscriminator,
    TemporalDiscriminatorConfig,
)
from cinnema.reference.video_encoder import VideoEncoder, VideoEncoderConfig

__all__ = [
    "Decoder",
    "DecoderConfig",
    "ImageEncoder",
    "ImageEncoderConfig",
    "PatchDiscriminator",
    "PatchDiscriminatorConfig",
    "PublishedName",
    "ReferenceFlow",
    "ReferenceFlowConfig",
    "TemporalDiscriminator",
    "TemporalDiscriminatorConfig",
    "VideoEncoder",
    "VideoEncoderConfig",
    "build",
    "fold_spectral_norm",
    "published_configs",
]
