"""The stage-1 encoder: from a clip to the Gaussian of its latent."""

from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.paper.resnet import PositiveCount, ResNet3d, ResNet3dConfig
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
        """Return the number of time steps and the height of the last map, which must be (1, 4).

        Args:
            length: Number of frames of the clip.
            size: Height and width of the frames, in pixels.
        """
        return self.final_size(length, size, stem_stride_t=_STEM_STRIDE_T)


class VideoEncoder(ResNet3d):
    """q(z | x1 ... xT) = N(mu, exp(log_var)): a 3-D ResNet and two 4x4 convolutions.

    Its input is the frames *after* x0. The strides must reduce them to one time step of 4x4: with
    those of the paper, 9 to 16 frames of 64 or 128 pixels.

    Source: the paper's stage 1. In the released code the heads of ResNet-50 and -101 expect a
    quarter of the channels that they receive and fail when called; ours expect all of them.

    Example:
        >>> from cinnema.paper import build, published_configs
        >>> with torch.device("meta"):
        ...     network = build("video_encoder", published_configs("bair")["video_encoder"])
        ...     mu, log_var = network(torch.zeros(2, 3, 16, 64, 64))
        >>> mu.shape
        torch.Size([2, 64])

    Args:
        config: Widths and strides.
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
        """Return the mean and log-variance of each clip's latent.

        Args:
            x: The frames after the first, in [-1, 1], channels before time.

        Returns:
            mu and log_var.

        Raises:
            UserError: The strides do not reduce clips of this length and size to one step of 4x4.
        """
        h = self.maps(x)[-1].squeeze(2)
        return self.conv_mu(h).flatten(1), self.conv_var(h).flatten(1)
