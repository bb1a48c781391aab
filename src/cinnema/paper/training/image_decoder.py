"""What turns embeddings back into pictures, for the training of the conditioning encoder only."""

from itertools import pairwise
from typing import Annotated

from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.errors import UserError

_GROUPS = 16
_SLOPE = 0.2
_START = 4  # height and width of the first map
_LARGEST_FACTOR = 8


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ImageDecoderConfig:
    """Everything that makes an `ImageDecoder`, weights apart.

    Attributes:
        z_dim: Length of the embedding.
        size: Height and width of the pictures, in pixels: 4 times a power of 2, at least 8.
        width: Of the last map, a multiple of 16; earlier ones are up to 8 times as wide.

    Raises:
        ValueError: A number is out of its range.
    """

    z_dim: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=2 * _START)]
    width: Annotated[int, Field(ge=_GROUPS, multiple_of=_GROUPS)] = 64

    def __post_init__(self) -> None:
        if _START * 2**self.num_doublings != self.size:
            raise UserError(
                f"size must be {_START} times a power of 2, got {self.size}: "
                f"take {_START * 2**self.num_doublings}"
            )

    @property
    def num_doublings(self) -> int:
        """How often the first map is enlarged."""
        return (self.size // _START).bit_length() - 1


class ImageDecoder(nn.Module):
    """An embedding to a picture: a linear map, then maps that double, each convolved once.

    Before each convolution values are repeated, after it come GroupNorm of 16 groups and a leaky
    ReLU of slope 0.2; the last layer is tanh(conv(h)).

    Source: The released code takes a BigGAN generator here. Nothing of it is kept after training,
    so we do with a plain one.

    Example:
        >>> ImageDecoder(ImageDecoderConfig(z_dim=8, size=64, width=16))(torch.zeros(2, 8)).shape
        torch.Size([2, 3, 64, 64])

    Args:
        config: Its sizes.
    """

    def __init__(self, config: ImageDecoderConfig) -> None:
        super().__init__()
        self.config = config
        factors = [min(_LARGEST_FACTOR, 2**i) for i in reversed(range(config.num_doublings + 1))]
        widths = [factor * config.width for factor in factors]
        self.start = nn.Linear(config.z_dim, widths[0] * _START * _START)
        self.convs = nn.ModuleList(
            nn.Conv2d(n_in, n_out, 3, padding=1) for n_in, n_out in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, width) for width in widths[1:])
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: Float[Tensor, "b z"]) -> Float[Tensor, "b 3 h w"]:
        """Return pictures in [-1, 1].

        Args:
            z: Embeddings.
        """
        h = self.start(z).unflatten(1, (-1, _START, _START))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = conv(functional.interpolate(h, scale_factor=2))
            h = functional.leaky_relu(norm(h), _SLOPE)
        picture: Tensor = self.last(h).tanh()
        return picture
