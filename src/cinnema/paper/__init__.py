"""The networks of the 2021 paper, under the names that their published weights have."""

from cinnema.paper.build import build
from cinnema.paper.decoder import Decoder, DecoderConfig
from cinnema.paper.flow import PaperFlow, PaperFlowConfig
from cinnema.paper.image_encoder import ImageEncoder, ImageEncoderConfig
from cinnema.paper.patch_discriminator import PatchDiscriminator, PatchDiscriminatorConfig
from cinnema.paper.published import PublishedName, published_configs
from cinnema.paper.spectral import fold_spectral_norm
from cinnema.paper.temporal_discriminator import (
    TemporalDiscriminator,
    TemporalDiscriminatorConfig,
)
from cinnema.paper.video_encoder import VideoEncoder, VideoEncoderConfig

__all__ = [
    "Decoder",
    "DecoderConfig",
    "ImageEncoder",
    "ImageEncoderConfig",
    "PaperFlow",
    "PaperFlowConfig",
    "PatchDiscriminator",
    "PatchDiscriminatorConfig",
    "PublishedName",
    "TemporalDiscriminator",
    "TemporalDiscriminatorConfig",
    "VideoEncoder",
    "VideoEncoderConfig",
    "build",
    "fold_spectral_norm",
    "published_configs",
]
