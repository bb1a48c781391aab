"""The encoders q(z | X): each frame together with x0 becomes a vector, all vectors become z."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.models.keypoint.keypoints import PointFinder
from cinnema.models.layers import ResidualBlock

FRAME_DIM = 96
"""Length of the vector of each frame."""

# Rows and columns of the feature maps from which the vectors are computed.
_COARSEST = 4
_GROUPS = 4
_HIDDEN_DIM = 512


class Seen(NamedTuple):
    """Per-frame features of clips.

    Attributes:
        vectors: One vector for each frame, in order.
        maps: Log-probability maps of each keypoint in each frame; None without keypoints.
    """

    vectors: Float[Tensor, "b _ v"]
    maps: Float[Tensor, "b _ k s s"] | None = None


class ClipReader(nn.Module):
    """Base class of the encoders: maps the vectors of all frames to z, of unit root mean square.

    Args:
        in_dim: Length of all vectors together.
        z_dim: Length of z.
        learns_std: Whether it also outputs the variance of each number of z; z is then not
            normalised.
    """

    read: nn.Sequential

    def __init__(self, *, in_dim: int, z_dim: int, learns_std: bool) -> None:
        super().__init__()
        self.learns_std = learns_std
        self.read = nn.Sequential(
            nn.LayerNorm(in_dim),
            nn.SiLU(),
            nn.Linear(in_dim, _HIDDEN_DIM),
            nn.LayerNorm(_HIDDEN_DIM),
            nn.SiLU(),
            nn.Linear(_HIDDEN_DIM, _HIDDEN_DIM),
            nn.LayerNorm(_HIDDEN_DIM),
            nn.SiLU(),
            nn.Linear(_HIDDEN_DIM, 2 * z_dim if learns_std else z_dim),
        )

    def forward(self, video: Float[Tensor, "b t1 3 h w"]) -> Float[Tensor, "b z"]:
        """Return the mean of q(z | X).

        Args:
            video: x0 and the T frames after it, in [-1, 1].
        """
        return self.distribution(self.look(video).vectors)[0]

    def look(self, video: Float[Tensor, "b t1 3 h w"]) -> Seen:
        """Return the features of the frames, each computed together with x0.

        Args:
            video: x0 and the T frames after it, in [-1, 1].
        """
        raise NotImplementedError

    def distribution(
        self, vectors: Float[Tensor, "b t v"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b z"] | None]:
        """Return the mean of q(z | X), and the logarithm of its variance if that is learned.

        Args:
            vectors: `Seen.vectors` of all frames.
        """
        z: Tensor = self.read(vectors.flatten(1)).float()
        if self.learns_std:
            mean, log_variance = z.chunk(2, dim=1)
            return mean.to(vectors.dtype), log_variance
        return _of_unit_size(z).to(vectors.dtype), None


class ClipEncoder(ClipReader):
    """Encodes x0 and frames 1..T without keypoints.

    Each frame, joined with x0, passes the same convolutions at half of the size; a perceptron then
    maps the T vectors to z. z needs no spatial map, as there is one body, whose position in x0 the
    decoder sees.

    Args:
        size: Width and height of the frames, in pixels, a power of 2 from 32 on.
        num_frames: T.
        z_dim: Length of z.
        width: Channels after the first convolution, a multiple of 8.
        learns_std: Whether it also outputs the variance of each number of z; z is then not
            normalised.

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
        learns_std: bool = False,
    ) -> None:
        super().__init__(in_dim=FRAME_DIM * num_frames, z_dim=z_dim, learns_std=learns_std)
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

    def look(self, video: Float[Tensor, "b t1 3 h w"]) -> Seen:
        """Return a vector for each of the frames 1..T."""
        num_clips, num_frames = video.shape[0], video.shape[1] - 1
        half = functional.avg_pool2d(video.flatten(0, 1), 2).unflatten(0, video.shape[:2])
        first = half[:, :1].expand(-1, num_frames, -1, -1, -1)
        pairs = torch.cat([half[:, 1:], first], dim=2).flatten(0, 1)
        seen = self.see(pairs.contiguous(memory_format=torch.channels_last))
        return Seen(self.gather(seen.flatten(1)).view(num_clips, num_frames, FRAME_DIM))


class PointClipEncoder(ClipReader):
    """Encodes every second frame through maps of the keypoints.

    Each frame, joined with x0, becomes a probability map for each keypoint; the maps become a
    vector, vectors of neighbouring frames are compared, and a perceptron maps all of them to z. A
    map that does not tell a left foot from a right one is resolved by the frames around it.

    Args:
        size: Width and height of the frames, in pixels, a power of 2 from 32 on; maps are a
            quarter of it.
        num_frames: T.
        z_dim: Length of z.
        width: Channels of the first layers, a multiple of 8.
        num_points: k, number of keypoints.

    Attributes:
        looked_at: Indices of the encoded frames, among 0..T.

    Example:
        >>> encoder = PointClipEncoder(size=64, num_frames=16, z_dim=64, width=24, num_points=18)
        >>> encoder(torch.zeros(2, 17, 3, 64, 64)).shape
        torch.Size([2, 64])
    """

    def __init__(
        self, *, size: int, num_frames: int, z_dim: int, width: int, num_points: int
    ) -> None:
        # Half of the frames determine a path of eight waves, at half of the cost.
        looked_at = (*range(0, num_frames, 2), num_frames)
        super().__init__(in_dim=FRAME_DIM * len(looked_at), z_dim=z_dim, learns_std=False)
        self.looked_at = looked_at
        self.enter = nn.Sequential(
            nn.Conv2d(24, width, 3, padding=1), ResidualBlock(width), *_settled(width)
        )
        widths = (2 * width, 3 * width, 4 * width)
        self.halve = nn.ModuleList(
            nn.Conv2d(wide, wider, 3, stride=2, padding=1)
            for wide, wider in zip((width, *widths[:-1]), widths, strict=True)
        )
        self.blocks = nn.ModuleList(ResidualBlock(wide) for wide in widths)
        self.find = PointFinder(widths=widths, num_points=num_points)
        self.gather = nn.Linear(num_points * (size // 4) ** 2, FRAME_DIM)
        self.compare = nn.ModuleList(
            nn.Conv1d(FRAME_DIM, FRAME_DIM, 5, padding=2) for _ in range(2)
        )

    def look(self, video: Float[Tensor, "b t1 3 h w"]) -> Seen:
        """Return a vector and maps for each of the encoded frames."""
        video = video[:, list(self.looked_at)]
        blocks = functional.pixel_unshuffle(video.flatten(0, 1), 2).unflatten(0, video.shape[:2])
        first = blocks[:, :1].expand_as(blocks)
        pairs = torch.cat([blocks, first], dim=2).flatten(0, 1)
        h = self.enter(pairs.contiguous(memory_format=torch.channels_last))
        levels = []
        for halve, block in zip(self.halve, self.blocks, strict=True):
            h = block(halve(h))
            levels.append(h)
        maps = self.find(*levels)
        share = maps.flatten(2).softmax(dim=2).flatten(1)
        vectors = self.gather(share).unflatten(0, video.shape[:2])
        return Seen(self._compared(vectors), maps.unflatten(0, video.shape[:2]))

    def _compared(self, vectors: Float[Tensor, "b t v"]) -> Float[Tensor, "b t v"]:
        h = vectors.transpose(1, 2)
        for layer in self.compare:
            h = h + layer(functional.silu(h))
        return h.transpose(1, 2)


class PathEncoder(nn.Module):
    """Encodes the true path of landmarks to z, as a target for the encoder of pixels.

    Args:
        num_landmarks: Number of landmark coordinates in a frame.
        num_frames: T.
        z_dim: Length of z.
    """

    def __init__(self, *, num_landmarks: int, num_frames: int, z_dim: int) -> None:
        super().__init__()
        in_dim = num_landmarks * (num_frames + 1)
        self.pass_on = nn.Linear(in_dim, z_dim)
        self.layers = nn.Sequential(
            nn.Linear(in_dim, _HIDDEN_DIM),
            nn.SiLU(),
            nn.Linear(_HIDDEN_DIM, _HIDDEN_DIM),
            nn.SiLU(),
            nn.Linear(_HIDDEN_DIM, z_dim),
        )

    def forward(
        self, start: Float[Tensor, "b l"], path: Float[Tensor, "b t l"]
    ) -> Float[Tensor, "b z"]:
        """Return z, with unit root mean square.

        Args:
            start: Landmarks in x0, centred at 0, at unit scale.
            path: Displacement of the landmarks from x0 in frames 1..T, at unit scale.
        """
        known = torch.cat([start[:, None], path], dim=1).flatten(1)
        z: Tensor = self.pass_on(known) + self.layers(known)
        return _of_unit_size(z)


def _of_unit_size(z: Float[Tensor, "b z"]) -> Float[Tensor, "b z"]:
    exact = z.float()
    return (exact * torch.rsqrt(exact.square().mean(1, keepdim=True) + 1e-6)).to(z.dtype)


def _settled(width: int) -> tuple[nn.Module, nn.Module]:
    """Normalise and activate; without the normalisation so deep a stack hardly trains."""
    return nn.GroupNorm(_GROUPS, width), nn.SiLU()
