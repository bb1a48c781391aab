"""Stage 1: the video encoder q(z | X) and the warping decoder p(x0, z)."""

from dataclasses import asdict
from typing import NamedTuple

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from cinnema.backbones.efficientnet import FEATURE_CHANNELS, EfficientNetLite0
from cinnema.models.warping.motion import MotionDecoder, MotionEncoder, TemporalBasis
from cinnema.models.warping.rendering import Layers, MaskHead, Painter, cut

# Standard deviations of the backbone's five feature maps on photographs: inputs are divided by
# them, as the learned layers expect unit scale.
_FEATURE_DEVIATIONS = (8.5, 9.0, 6.3, 4.0, 1.5)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Stage1Config:
    """Sizes and options of stage 1.

    Attributes:
        size: Width and height of the networks' input pictures in pixels, a multiple of 32.
        num_frames: T, number of frames after x0.
        fps: Frame rate of these T frames, in frames a second.
        num_basis: K, number of basis functions of time for the flow.
        z_dim: Length of z; a multiple of 16, since z lies on a 4 x 4 grid.
        noise: Fixed standard deviation of q(z | X); its mean has unit root mean square.
        encoder_width: Channels of the motion encoder, a multiple of 8.
        motion_width: Channels of the motion decoder, a multiple of 8.
        feature_dim: Channels of the joint features of x0, a multiple of 8.
        mask_width: Channels of the mask head, a multiple of 16.
        painter_width: Channels of the painter at half of the full size, a multiple of 16.
    """

    size: int = Field(default=128, ge=64, multiple_of=32)
    num_frames: int = Field(default=16, ge=1)
    fps: float = Field(default=8.0, gt=0)
    num_basis: int = Field(default=4, ge=1)
    z_dim: int = Field(default=64, ge=16, multiple_of=16)
    noise: float = Field(default=0.1, ge=0)
    encoder_width: int = Field(default=64, ge=8, multiple_of=8)
    motion_width: int = Field(default=96, ge=8, multiple_of=8)
    feature_dim: int = Field(default=96, ge=8, multiple_of=8)
    mask_width: int = Field(default=48, ge=16, multiple_of=16)
    painter_width: int = Field(default=32, ge=16, multiple_of=16)

    def as_dict(self) -> dict[str, int | float]:
        """Return the fields as plain values."""
        return asdict(self)


class SceneFeatures(NamedTuple):
    """Features of a first frame.

    Attributes:
        joint: Features of strides 8, 16 and 32, joined at stride 8: 16 x 16 for a picture of
            128 x 128.
        fine: The backbone's features of strides 2 and 4.
    """

    joint: Float[Tensor, "b f i j"]
    fine: tuple[Float[Tensor, "b 16 i2 j2"], Float[Tensor, "b 24 i4 j4"]]


class SceneEncoder(nn.Module):
    """Features of x0: a frozen ImageNet backbone, and one learned layer that joins its scales.

    The backbone is built with random weights; code that builds a model for training loads the
    ImageNet weights.

    Args:
        feature_dim: Channels of the joint features.
    """

    def __init__(self, *, feature_dim: int) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0(folded=True).requires_grad_(requires_grad=False)
        self.join = nn.Conv2d(sum(FEATURE_CHANNELS[2:]), feature_dim, 1)

    def forward(self, x0: Float[Tensor, "b 3 h w"]) -> SceneFeatures:
        """Compute the features of x0.

        Args:
            x0: Pictures in [-1, 1], at the model's size.
        """
        with torch.no_grad():
            stride2, stride4, stride8, stride16, stride32 = self.backbone(x0)
        size = stride8.shape[-2:]
        scales = [
            functional.interpolate(f / deviation, size, mode="bilinear", align_corners=False)
            for f, deviation in zip(
                (stride8, stride16, stride32), _FEATURE_DEVIATIONS[2:], strict=True
            )
        ]
        joint = functional.silu(self.join(torch.cat(scales, dim=1)))
        fine = (stride2 / _FEATURE_DEVIATIONS[0], stride4 / _FEATURE_DEVIATIONS[1])
        return SceneFeatures(joint=joint, fine=fine)


class Stage1(nn.Module):
    """The video VAE of the warping model: encodes optical flow to z, decodes by warping x0.

    Source: the paper's encoder reads pixels and its decoder generates every pixel. We read optical
    flow and warp x0, because on natural motion that is sharper and trains in hours.

    Args:
        config: Sizes and options.

    Example:
        >>> model = Stage1(Stage1Config()).eval()
        >>> x0, z = torch.zeros(1, 3, 128, 128), torch.randn(1, 64)
        >>> model.decode(x0, z).shape
        torch.Size([1, 16, 3, 128, 128])
    """

    def __init__(self, config: Stage1Config) -> None:
        super().__init__()
        self.config = config
        self.basis = TemporalBasis(num_basis=config.num_basis, num_frames=config.num_frames)
        self.encoder = MotionEncoder(
            num_basis=config.num_basis, z_dim=config.z_dim, width=config.encoder_width
        )
        self.scene = SceneEncoder(feature_dim=config.feature_dim)
        self.motion = MotionDecoder(
            num_basis=config.num_basis,
            z_dim=config.z_dim,
            feature_dim=config.feature_dim,
            width=config.motion_width,
        )
        self.mask = MaskHead(
            feature_dim=config.feature_dim,
            fine_dims=(FEATURE_CHANNELS[0], FEATURE_CHANNELS[1]),
            width=config.mask_width,
        )
        self.painter = Painter(width=config.painter_width)

    def encode(self, flow: Float[Tensor, "b 2 t 16 16"]) -> Float[Tensor, "b z"]:
        """Return the mean of q(z | X) of a clip from its backward flow.

        Args:
            flow: From frames 1..T to x0, in picture widths and heights.

        Returns:
            z, with unit root mean square.
        """
        z: Tensor = self.encoder(self.basis.fit(flow))
        return z

    def latent_parts(self) -> dict[str, nn.Module]:
        """Return by name the networks that z and the features of x0 depend on."""
        return {"encoder": self.encoder, "join": self.scene.join}

    def layers(self, x0: Float[Tensor, "b 3 h w"], features: SceneFeatures) -> Layers:
        """Split x0 into its moving and its still layer, at the model's size."""
        return cut(x0, torch.sigmoid(self.mask(features.joint, features.fine)))

    def frame(self, layers: Layers, flow: Float[Tensor, "b 2 16 16"]) -> Float[Tensor, "b 3 h w"]:
        """Render one frame of each clip from its layers and its flow at one time."""
        composite = layers.composite(flow)
        painted: Tensor = self.painter(layers, composite, flow)
        return composite + painted

    def decode(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t 3 h w"]:
        """Return the T frames that follow x0, at the model's size, roughly in [-1, 1].

        Args:
            x0: First frames in [-1, 1], at the model's size.
            z: Latents.
        """
        features = self.scene(x0)
        flow = self.basis.clip(self.motion(z, features.joint))
        layers = self.layers(x0, features)
        frames = [self.frame(layers, flow[:, :, t]) for t in range(flow.shape[2])]
        return torch.stack(frames, dim=1)
