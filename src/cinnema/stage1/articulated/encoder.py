"""q(z | X) of pixels: every frame beside x0, then all frames together."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

FRAME_DIM = 96
"""Length of the vector that each frame becomes."""

# Rows and columns that the frames are brought down to before they become vectors.
_COARSEST = 4


class ClipEncoder(nn.Module):
    """Frames 1..T and x0 to z, of unit root mean square.

    Each frame is seen beside x0 at half of the size, by the same convolutions; a perceptron then
    reads the T vectors at once. As what acts is one body, z needs no map: where it is in x0 the
    decoder sees for itself.

    Args:
        size: Width and height of the frames, in pixels, a power of 2 from 32 on.
        num_frames: T.
        z_dim: Length of z.
        width: Channels after the first convolution, a multiple of 8.
        learns_spread: Whether it tells a variance for each number of z as well; z is then as large
            as it comes.

    Example:
        >>> encoder = ClipEncoder(size=64, num_frames=16, z_dim=64, width=24)
        >>> encoder(torch.zeros(2, 17, 3, 64, 64)).shape
        torch.Size([2, 64])
    """

    def __init__(
        self,
        *,
        size: int,
        num_frames: int,
        z_dim: int,
        width: int,
        learns_spread: bool = False,
    ) -> None:
        super().__init__()
        self.learns_spread = learns_spread
        layers: list[nn.Module] = [nn.Conv2d(6, width, 3, padding=1), *_settled(width)]
        side = size // 2
        while side > _COARSEST:
            wider = width + width // 2
            wider -= wider % _GROUPS
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), *_settled(wider)]
            layers += [nn.Conv2d(wider, wider, 3, padding=1), *_settled(wider)]
            side, width = side // 2, wider
        self.see = nn.Sequential(*layers)
        self.gather = nn.Linear(width * _COARSEST**2, FRAME_DIM)
        self.read = nn.Sequential(
            nn.LayerNorm(FRAME_DIM * num_frames),
            nn.SiLU(),
            nn.Linear(FRAME_DIM * num_frames, _HIDDEN_DIM),
            nn.LayerNorm(_HIDDEN_DIM),
            nn.SiLU(),
            nn.Linear(_HIDDEN_DIM, _HIDDEN_DIM),
            nn.LayerNorm(_HIDDEN_DIM),
            nn.SiLU(),
            nn.Linear(_HIDDEN_DIM, 2 * z_dim if learns_spread else z_dim),
        )

    def forward(self, video: Float[Tensor, "b t1 3 h w"]) -> Float[Tensor, "b z"]:
        """Return z, before any noise.

        Args:
            video: x0 and the T frames after it, in [-1, 1].
        """
        return self.read_off(self.vectors(video))

    def vectors(self, video: Float[Tensor, "b t1 3 h w"]) -> Float[Tensor, "b t v"]:
        """Return what is seen in frames 1..T, each beside x0.

        Args:
            video: x0 and the T frames after it, in [-1, 1].
        """
        num_clips, num_frames = video.shape[0], video.shape[1] - 1
        half = functional.avg_pool2d(video.flatten(0, 1), 2).unflatten(0, video.shape[:2])
        first = half[:, :1].expand(-1, num_frames, -1, -1, -1)
        pairs = torch.cat([half[:, 1:], first], dim=2).flatten(0, 1)
        seen = self.see(pairs.contiguous(memory_format=torch.channels_last))
        out: Tensor = self.gather(seen.flatten(1)).view(num_clips, num_frames, FRAME_DIM)
        return out

    def read_off(self, vectors: Float[Tensor, "b t v"]) -> Float[Tensor, "b z"]:
        """Return z of what was seen in all frames."""
        return self.distribution(vectors)[0]

    def distribution(
        self, vectors: Float[Tensor, "b t v"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b z"] | None]:
        """Return z, and the logarithm of its variance if that is learned.

        Args:
            vectors: Of what was seen in all frames.
        """
        z: Tensor = self.read(vectors.flatten(1)).float()
        if self.learns_spread:
            mean, log_variance = z.chunk(2, dim=1)
            return mean.to(vectors.dtype), log_variance
        z = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-6)
        return z.to(vectors.dtype), None


def _settled(width: int) -> tuple[nn.Module, nn.Module]:
    """Keep the scale from layer to layer: without, so deep a stack learns next to nothing."""
    return nn.GroupNorm(_GROUPS, width), nn.SiLU()


_GROUPS = 4
_HIDDEN_DIM = 512
