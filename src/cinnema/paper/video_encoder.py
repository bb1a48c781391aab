"""The stage-1 encoder: a clip to the Gaussian of its latent."""

from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.paper.resnet3d import PositiveCount, ResNet3d, ResNet3dConfig
from cinnema.paper.spectral import draw_first_weights

_STEM_STRIDE_T = 2


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class VideoEncoderConfig(ResNet3dConfig):
    """The section `Encoder` of a published stage-1 config.

    Attributes:
        z_dim: Number of latent dimensions.
    """

    z_dim: PositiveCount

    def map_size(self, length: int, size: int) -> tuple[int, int]:
        """Return the steps and the height of the last map of a square clip; (1, 4) is right.

        Args:
            length: Its frames.
            size: Their height, in pixels.
        """
        return self.final_size(length, size, stem_stride_t=_STEM_STRIDE_T)


class VideoEncoder(ResNet3d):
    """q(z | x1 ... xT) = N(mu, exp(log_var)): a 3-D ResNet and two 4x4 convolutions.

    It sees the frames *after* x0. Strides must bring the clip to one step of 4x4: with those of
    the paper, 9 to 16 frames of 64 or of 128 pixels.

    Source: the method's stage 1. In the released code the heads of ResNet-50 and -101 have a
    quarter of the channels that reach them, so that these fail when called; ours have them all.

    Example:
        >>> from cinnema.paper import build, published_configs
        >>> with torch.device("meta"):
        ...     network = build("video_encoder", published_configs("bair")["video_encoder"])
        ...     mu, log_var = network(torch.zeros(2, 3, 16, 64, 64))
        >>> mu.shape
        torch.Size([2, 64])

    Args:
        config: Its widths and strides.
    """

    def __init__(self, config: VideoEncoderConfig) -> None:
        super().__init__(config, stem_stride_t=_STEM_STRIDE_T)
        self.config = config
        self.conv_mu = nn.Conv2d(self.num_features, config.z_dim, 4)
        self.conv_var = nn.Conv2d(self.num_features, config.z_dim, 4)
        draw_first_weights(
            self, nn.Conv3d, lambda weight: nn.init.kaiming_normal_(weight, mode="fan_out")
        )

    def forward(
        self, x: Float[Tensor, "b c t h w"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b z"]]:
        """Return mean and log-variance.

        Args:
            x: The frames after the first, in [-1, 1], channels before time.

        Returns:
            mu and log_var of each clip.

        Raises:
            UserError: If the clip has another shape than the strides ask for.
        """
        h = self.maps(x)[-1].squeeze(2)
        return self.conv_mu(h).flatten(1), self.conv_var(h).flatten(1)
