"""The networks of the 2021 paper, with the parameter names of the published weights."""

from cinnema.paper.decoder import Decoder, DecoderConfig
from cinnema.paper.discriminators import (
    PatchDiscriminator,
    PatchDiscriminatorConfig,
    TemporalDiscriminator,
    TemporalDiscriminatorConfig,
)
from cinnema.paper.flow import PaperFlow, PaperFlowConfig
from cinnema.paper.image_encoder import ImageEncoder, ImageEncoderConfig
from cinnema.paper.published import PublishedName, build, published_configs
from cinnema.paper.spectral import fold_spectral_norm
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
