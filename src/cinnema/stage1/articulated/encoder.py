"""q(z | X) of pixels: every frame beside x0, then all frames together."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

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

    Example:
        >>> encoder = ClipEncoder(size=64, num_frames=16, z_dim=64, width=24)
        >>> encoder(torch.zeros(2, 17, 3, 64, 64)).shape
        torch.Size([2, 64])
    """

    def __init__(self, *, size: int, num_frames: int, z_dim: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(6, width, 3, padding=1), nn.SiLU()]
        side = size // 2
        while side > _COARSEST:
            wider = width + width // 2
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.SiLU()]
            layers += [nn.Conv2d(wider, wider, 3, padding=1), nn.SiLU()]
            side, width = side // 2, wider
        self.see = nn.Sequential(*layers)
        self.gather = nn.Linear(width * _COARSEST**2, _FRAME_DIM)
        self.read = nn.Sequential(
            nn.SiLU(),
            nn.Linear(_FRAME_DIM * num_frames, _HIDDEN_DIM),
            nn.SiLU(),
            nn.Linear(_HIDDEN_DIM, _HIDDEN_DIM),
            nn.SiLU(),
            nn.Linear(_HIDDEN_DIM, z_dim),
        )

    def forward(self, video: Float[Tensor, "b t1 3 h w"]) -> Float[Tensor, "b z"]:
        """Return z, before any noise.

        Args:
            video: x0 and the T frames after it, in [-1, 1].
        """
        num_clips, num_frames = video.shape[0], video.shape[1] - 1
        half = functional.avg_pool2d(video.flatten(0, 1), 2).unflatten(0, video.shape[:2])
        first = half[:, :1].expand(-1, num_frames, -1, -1, -1)
        pairs = torch.cat([half[:, 1:], first], dim=2).flatten(0, 1)
        seen = self.see(pairs.contiguous(memory_format=torch.channels_last))
        vectors = self.gather(seen.flatten(1)).view(num_clips, -1)
        z: Tensor = self.read(vectors).float()
        z = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-6)
        return z.to(video.dtype)


_FRAME_DIM = 96
_HIDDEN_DIM = 512
