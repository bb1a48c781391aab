"""Stage 1 of the keypoint model: the video encoder q(z | X) and the decoder p(x0, z)."""

import math
import warnings
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.models.keypoint.decoder import (
    DecoderMode,
    MomentCode,
    MomentDecoder,
    Posture,
    Rendering,
    SceneEncoder,
    SceneFeatures,
)
from cinnema.models.keypoint.encoder import (
    FRAME_DIM,
    ClipEncoder,
    ClipReader,
    PathEncoder,
    PointClipEncoder,
    Seen,
)
from cinnema.models.keypoint.keypoints import PointFinder, expected_points

LANDMARK_UNIT = 0.1
"""Scale of landmarks inside the networks, in their unit: metres for an arm, else picture widths."""

_PLACE_DIM = 16
# Factor that brings positions, centred at the middle of the picture, to unit scale.
_PLACE_SCALE = 4.0
# Number of basis functions of time for the path of a landmark.
_NUM_WAVES = 8
# Channels in multiples of `width`: at a half, a quarter, an eighth, a sixteenth of the size.
_GROWTH = (1, 2, 3, 4)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KeypointConfig:
    """Sizes and options of stage 1.

    Attributes:
        size: Width and height of the frames in pixels: 32, 64, 128 or 256.
        num_frames: T, number of frames after x0.
        fps: Frame rate of the training clips, in frames a second.
        z_dim: Length of z.
        noise: Fixed standard deviation of q(z | X), whose mean has unit root mean square. If the
            standard deviation is learned, only stage 2 uses `noise`, and adds it to the mean.
        spread: Standard deviation of q(z | X): "fixed" to `noise`, or "learned" with a penalty on
            the divergence from N(0, I), as in the paper; z is then not normalised.
        encoder_width: Channels of the encoder's first layer, a multiple of 8.
        width: Channels of the decoder at half of the size, a multiple of 8; 2, 3 and 4 times as
            many at smaller scales.
        code_dim: Length of the code that modulates the decoder.
        decoder: How frames are made: by warping x0 and a pixel decoder ("warp and paint"), by the
            pixel decoder alone, as in the paper ("paint"), or by warping alone ("warp").
        landmarks: Number of landmark coordinates that z has to predict: x, y and z of an arm's
            end, or x and y of each joint; 0 without landmarks.
        points: Whether landmarks are keypoints of the picture, x and y in turn, which the encoder
            finds and the decoder draws.
    """

    size: Literal[32, 64, 128, 256] = 64
    num_frames: int = Field(default=16, ge=1)
    fps: float = Field(default=10.0, gt=0)
    z_dim: int = Field(default=64, ge=1)
    noise: float = Field(default=0.1, ge=0)
    spread: Literal["fixed", "learned"] = "fixed"
    encoder_width: int = Field(default=24, ge=8, multiple_of=8)
    width: int = Field(default=24, ge=8, multiple_of=8)
    code_dim: int = Field(default=128, ge=1)
    decoder: DecoderMode = "warp and paint"
    landmarks: int = Field(default=0, ge=0)
    points: bool = False

    def __post_init__(self) -> None:
        if self.points and (self.landmarks == 0 or self.landmarks % 2):
            raise UserError(
                f"landmarks must be an even number, x and y of each keypoint, got "
                f"{self.landmarks}: give two for each keypoint, or points=False"
            )
        if self.points and self.spread != "fixed":
            raise UserError(
                f"spread must be fixed with points=True, got {self.spread}: leave it out"
            )

    @property
    def num_points(self) -> int:
        """Number of keypoints of the picture."""
        return self.landmarks // 2 if self.points else 0

    @property
    def feature_dim(self) -> int:
        """Channels of the features of x0 that the conditioner takes."""
        return self.widths[2] + self.widths[3] + 2 * self.num_points

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the features of x0, from fine to coarse."""
        return tuple(self.width * growth for growth in _GROWTH)


class Posterior(NamedTuple):
    """q(z | X) = N(mean, std^2).

    Attributes:
        mean: Mean of z.
        log_variance: Logarithm of the variance of each number; None if the standard deviation is
            fixed.
        noise: The fixed standard deviation.
    """

    mean: Float[Tensor, "b z"]
    log_variance: Float[Tensor, "b z"] | None
    noise: float

    def sample(self, noise: Float[Tensor, "b z"]) -> Float[Tensor, "b z"]:
        """Return mean + std * noise.

        Args:
            noise: Standard normal numbers.
        """
        noise = noise.to(self.mean)
        if self.log_variance is None:
            return self.mean + self.noise * noise
        return self.mean + (0.5 * self.log_variance).exp().to(noise) * noise

    def divergence(self) -> Float[Tensor, " b"]:
        """Return KL(q(z | X) || N(0, I)) = sum_z (mean^2 + variance - 1 - log variance) / 2, nats.

        0 if the standard deviation is fixed.
        """
        if self.log_variance is None:
            return self.mean.new_zeros(len(self.mean)).float()
        square, log_variance = self.mean.float().square(), self.log_variance.float()
        return 0.5 * (square + log_variance.exp() - 1 - log_variance).sum(dim=1)


class Moments(NamedTuple):
    """Decoded frames of clips at some times.

    Attributes:
        frames: The frames, roughly in [-1, 1].
        warped: x0 warped by the flow, without the pixel decoder.
        landmarks: Displacement of each landmark from x0, in its unit; l is 0 without landmarks.
    """

    frames: Float[Tensor, "b n 3 h w"]
    warped: Float[Tensor, "b n 3 h w"]
    landmarks: Float[Tensor, "b n l"]


class KeypointStage1(nn.Module):
    """The video VAE of the keypoint model: z describes the motion, x0 appearance and position.

    Source: the paper's encoder reads pixels and its decoder generates all frames at once. We
    predict the path of landmarks from z where they are labelled, so that so small a z learns
    motion first; warp x0 where that suffices; and decode one frame at a time.

    Args:
        config: Sizes and options.

    Example:
        >>> model = KeypointStage1(KeypointConfig()).eval()
        >>> x0, z = torch.zeros(1, 3, 64, 64), torch.randn(1, 64)
        >>> model.decode(x0, z).shape
        torch.Size([1, 16, 3, 64, 64])
    """

    def __init__(self, config: KeypointConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _new_encoder(config)
        self.scene = SceneEncoder(widths=config.widths)
        self.code = MomentCode(
            in_dim=config.z_dim + config.landmarks,
            hidden_dim=2 * config.code_dim,
            code_dim=config.code_dim,
        )
        self.decoder = MomentDecoder(
            widths=config.widths,
            code_dim=config.code_dim,
            mode=config.decoder,
            num_points=config.num_points,
        )
        with warnings.catch_warnings():  # of no landmarks
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.path_of_z = nn.Linear(config.z_dim, config.landmarks * _NUM_WAVES)
            if config.points:
                self.find = PointFinder(widths=config.widths[1:], num_points=config.num_points)
                self.path_encoder = PathEncoder(
                    num_landmarks=config.landmarks,
                    num_frames=config.num_frames,
                    z_dim=config.z_dim,
                )
                return
            self.path_of_frames = nn.Linear(FRAME_DIM, config.landmarks)
            self.place = nn.Sequential(
                nn.Conv2d(config.widths[2] + config.widths[3], _PLACE_DIM, 1),
                nn.SiLU(),
                nn.Flatten(),
                nn.Linear(_PLACE_DIM * (config.size // 8) ** 2, config.landmarks),
            )

    def encode(self, video: Float[Tensor, "b t1 3 h w"]) -> Float[Tensor, "b z"]:
        """Return the mean of q(z | X) of clips.

        Args:
            video: x0 and the T frames after it, in [-1, 1].

        Returns:
            z, with unit root mean square if the standard deviation is fixed.
        """
        z: Tensor = self.encoder(video)
        return z

    def encode_path(self, places: Float[Tensor, "b t1 l"]) -> Float[Tensor, "b z"]:
        """Return z of clips from their keypoints, without looking at their frames.

        Args:
            places: Keypoints in x0 and the T frames after it, x and y in turn.
        """
        start = (places[:, 0] - 0.5) * _PLACE_SCALE
        path = (places[:, 1:] - places[:, :1]) / LANDMARK_UNIT
        dtype = self.path_of_z.weight.dtype
        z: Tensor = self.path_encoder(start.to(dtype), path.to(dtype))
        return z

    def posterior(self, vectors: Float[Tensor, "b t v"]) -> Posterior:
        """Return q(z | X) of clips.

        Args:
            vectors: `Seen.vectors` of the encoder.
        """
        mean, log_variance = self.encoder.distribution(vectors)
        return Posterior(mean, log_variance, self.config.noise)

    def latent_parts(self) -> dict[str, nn.Module]:
        """Return by name the networks that z and the features of x0 depend on."""
        parts: dict[str, nn.Module] = {"encoder": self.encoder, "scene": self.scene}
        if self.config.points:
            parts |= {"find": self.find, "path_encoder": self.path_encoder}
        return parts

    def features(self, scene: SceneFeatures) -> Float[Tensor, "b f i j"]:
        """Return the features of x0 for the conditioner, at an eighth of its size.

        With keypoints, the last channels are their coordinates, constant over the picture.
        """
        eighth, sixteenth = scene.maps[2:]
        enlarged = nn.functional.interpolate(sixteenth, eighth.shape[-2:], mode="nearest")
        seen = [eighth, enlarged]
        if self.config.points:
            places = (self.places(scene) - 0.5) * _PLACE_SCALE
            seen.append(places[..., None, None].expand(-1, -1, *eighth.shape[-2:]))
        return torch.cat(seen, dim=1)

    def place_maps(self, scene: SceneFeatures) -> Float[Tensor, "b k i j"]:
        """Return a log-probability map of each keypoint in x0."""
        maps: Tensor = self.find(*scene.maps[1:])
        return maps

    def places(self, scene: SceneFeatures) -> Float[Tensor, "b l"]:
        """Predict the landmarks in x0 from its features, in their unit."""
        if self.config.points:
            return expected_points(self.place_maps(scene)).flatten(1)
        out: Tensor = self.place(self.features(scene)) * LANDMARK_UNIT
        return out

    def path(self, z: Float[Tensor, "b z"], times: Float[Tensor, "b n"]) -> Float[Tensor, "b n l"]:
        """Return the displacement of the landmarks from x0, in their unit.

        Linear in z, so that z learns to hold the path; the basis functions are 0 at x0:

            path(s) = sum_k a_k(z) B_k(s),   B_0(s) = s,  B_k(s) = sin(pi k s / 2).

        Args:
            z: Latents.
            times: s, in clips: 0 is x0, 1 the last frame.
        """
        waves = torch.arange(1, _NUM_WAVES, device=times.device, dtype=torch.float32)
        s = times.float()[..., None]
        basis = torch.cat([s, (math.pi / 2 * waves * s).sin()], dim=-1).to(z)
        weights = self.path_of_z(z).view(len(z), -1, _NUM_WAVES)
        return torch.einsum("blk,bnk->bnl", weights, basis) * LANDMARK_UNIT

    def look(self, video: Float[Tensor, "b t1 3 h w"]) -> Seen:
        """Return the encoder's features of the frames of clips.

        Args:
            video: x0 and the T frames after it, in [-1, 1].
        """
        return self.encoder.look(video)

    def seen_path(self, vectors: Float[Tensor, "b t v"]) -> Float[Tensor, "b t l"]:
        """Predict the displacement of the landmarks in each frame from that frame alone.

        Args:
            vectors: `Seen.vectors` of the encoder.
        """
        out: Tensor = self.path_of_frames(vectors) * LANDMARK_UNIT
        return out

    def at(
        self,
        scene: SceneFeatures,
        z: Float[Tensor, "b z"],
        times: Float[Tensor, "b n"],
        known: Float[Tensor, "b n1 l"] | None = None,
    ) -> Moments:
        """Decode the frames of clips at some of their times.

        Args:
            scene: Features of x0, `scene(x0)`.
            z: Latents.
            times: In clips: 0 is x0, 1 the last frame.
            known: Keypoints in x0 and at each time. Defaults to those predicted from x0 and z.
        """
        path = self.path(z, times)
        num = times.shape[1]
        code = self.code(torch.cat([_rows(z, num), path / LANDMARK_UNIT], dim=-1), times)
        posture = None
        if self.config.points:
            posture = _posture(self.landmarks(scene, path) if known is None else known)
        made: Rendering = self.decoder(scene.repeated(num), code.flatten(0, 1), posture)
        return Moments(
            frames=made.frame.unflatten(0, (-1, num)),
            warped=made.warped.unflatten(0, (-1, num)),
            landmarks=path,
        )

    def landmarks(
        self, scene: SceneFeatures, path: Float[Tensor, "b n l"]
    ) -> Float[Tensor, "b n1 l"]:  # fmt: skip
        """Return the predicted landmarks in x0, and then along a path.

        Args:
            scene: Features of x0.
            path: Displacement of the landmarks from x0, at some times.
        """
        start = self.places(scene)[:, None]
        return torch.cat([start, start + path], dim=1)

    def decode(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t 3 h w"]:
        """Return the T frames that follow x0, roughly in [-1, 1].

        Args:
            x0: First frames in [-1, 1], at the model's size.
            z: Latents.
        """
        times = torch.arange(1, self.config.num_frames + 1, device=x0.device) / float(
            self.config.num_frames
        )
        return self.at(self.scene(x0), z, times.expand(len(x0), -1)).frames


def _new_encoder(config: KeypointConfig) -> ClipReader:
    if config.points:
        return PointClipEncoder(
            size=config.size,
            num_frames=config.num_frames,
            z_dim=config.z_dim,
            width=config.encoder_width,
            num_points=config.num_points,
        )
    return ClipEncoder(
        size=config.size,
        num_frames=config.num_frames,
        z_dim=config.z_dim,
        width=config.encoder_width,
        learns_std=config.spread == "learned",
    )


def _posture(places: Float[Tensor, "b n1 l"]) -> Posture:
    """Return the keypoints of x0 and of each time, one row for each time."""
    points = places.unflatten(2, (-1, 2))
    start = points[:, :1].expand_as(points[:, 1:])
    return Posture(start.flatten(0, 1), points[:, 1:].flatten(0, 1))


def _rows(z: Tensor, num: int) -> Float[Tensor, "b n z"]:
    return z[:, None].expand(-1, num, -1)
