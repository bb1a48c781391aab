"""The discriminator of motion: a clip to a score and to the features that are matched."""

from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from cinnema.paper.resnet3d import PositiveCount, ResNet3d, ResNet3dConfig
from cinnema.paper.spectral import draw_first_weights


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TemporalDiscriminatorConfig(ResNet3dConfig):
    """The section `Discriminator_Temporal` of a published stage-1 config.

    Attributes:
        spectral_norm: Whether convolutions carry spectral norm.
        eval_seq_length: Has no effect; published configs have it.
    """

    spectral_norm: bool
    eval_seq_length: PositiveCount = 16


class TemporalDiscriminator(ResNet3d):
    """A 3-D ResNet, the mean over 4x4, and a linear map to one score, without a bias.

    Strides must bring the clip to one step of 4x4: with those of the paper, the 12 frames that it
    is trained on, or up to 16, of 64 or of 128 pixels.

    Example:
        >>> from cinnema.paper import build, published_configs
        >>> with torch.device("meta"):
        ...     network = build(
        ...         "temporal_discriminator", published_configs("bair")["temporal_discriminator"]
        ...     )
        ...     score, features = network(torch.zeros(2, 3, 12, 64, 64))
        >>> score.shape, len(features)
        (torch.Size([2, 1]), 4)

    Args:
        config: Its widths and strides.
    """

    def __init__(self, config: TemporalDiscriminatorConfig) -> None:
        super().__init__(config, stem_stride_t=1, spectral_norm=config.spectral_norm)
        self.config = config
        self.fc = nn.Linear(self.num_features, 1, bias=False)
        draw_first_weights(self, nn.Conv3d, nn.init.orthogonal_)

    def forward(
        self, x: Float[Tensor, "b c t h w"]
    ) -> tuple[Float[Tensor, "b 1"], list[Float[Tensor, "b _ _ _ _"]]]:
        """Return the score, high for real clips, and the map after each of the four stages.

        Args:
            x: Clips in [-1, 1], channels before time.

        Raises:
            UserError: If the clip has another shape than the strides ask for.
        """
        features = self.maps(x)
        # In 2-D, over the one step that is left: in 3-D the CPU has no average of bf16.
        pooled = functional.avg_pool2d(features[-1].squeeze(2), 4)
        return self.fc(pooled.flatten(1)), features
