"""The complete model of 2021, whose decoder synthesises every pixel of every frame."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from cinnema.core.allocator import keep_freed_memory
from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.errors import UserError
from cinnema.core.precision import fast_dtype
from cinnema.models.base import VideoModel
from cinnema.models.control import END_POINT, ControlSpec
from cinnema.paper.control import (
    END_POINT_HIGH,
    END_POINT_LOW,
    ONE_HOT_DIM,
    draw_end_point,
    end_point_one_hots,
)
from cinnema.paper.decoder import Decoder, DecoderConfig
from cinnema.paper.fast_decoder import FastDecoder
from cinnema.paper.flow import PaperFlow, PaperFlowConfig
from cinnema.paper.image_encoder import ImageEncoder, ImageEncoderConfig
from cinnema.paper.spectral import fold_spectral_norm
from cinnema.paper.video_encoder import VideoEncoder, VideoEncoderConfig

END_POINT_SPEC = ControlSpec(
    name=END_POINT,
    labels=("x", "y", "z"),
    unit="metres",
    low=END_POINT_LOW,
    high=END_POINT_HIGH,
    typical=1.0,
    optional=False,
)
"""The end point, within the bounding box of BAIR's training set."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PaperModelConfig:
    """Config of a `PaperModel`.

    Attributes:
        kind: Identifies the model class in files.
        name: Name of the weights.
        decoder: Config of the decoder; `spectral_norm` must be false (it is folded in).
        video_encoder: Config of the encoder, for the decoder's z, length and size.
        image_encoder: Config of the conditioning encoder, for the decoder's size.
        flow: Config of the flow, for the decoder's z. Its condition is the embedding of x0; with
            `control: true` 30 columns more.

    Raises:
        ValueError: The parts do not match.
    """

    kind: Literal["painting"] = "painting"
    name: str
    decoder: DecoderConfig
    video_encoder: VideoEncoderConfig
    image_encoder: ImageEncoderConfig
    flow: PaperFlowConfig

    def __post_init__(self) -> None:
        if self.decoder.spectral_norm:
            raise UserError(
                "decoder.spectral_norm must be false, because a model has it folded into its "
                "weights: create the model with PaperModel.of_networks"
            )
        condition_dim = self.image_encoder.z_dim + (ONE_HOT_DIM if self.flow.control else 0)
        beside = f" and the {ONE_HOT_DIM} of the control" if self.flow.control else ""
        pairs = {
            "decoder.z_dim and video_encoder.z_dim": (self.decoder.z_dim, self.video_encoder.z_dim),
            "decoder.z_dim and flow.in_channels": (self.decoder.z_dim, self.flow.in_channels),
            f"flow.embedding_dim and image_encoder.z_dim{beside}": (
                self.flow.embedding_dim,
                condition_dim,
            ),
            "decoder's size and image_encoder.in_size": (
                self.decoder.size,
                self.image_encoder.in_size,
            ),
        }
        for names, (mine, other) in pairs.items():
            if mine != other:
                raise UserError(f"{names} must be equal, got {mine} and {other}: change one")
        self._require_a_common_clip()

    def _require_a_common_clip(self) -> None:
        length, size = self.decoder.num_frames, self.decoder.size
        found = self.video_encoder.map_size(length, size)
        if found != (1, 4):
            raise UserError(
                f"video_encoder must reduce the decoder's clips, {length} frames of {size} px, to "
                f"1 step of 4x4, but its strides reduce them to {found[0]} of "
                f"{found[1]}x{found[1]}: take both from one training"
            )


class PaperModel(VideoModel):
    """The paper's four networks: nu to z to video, and video to z to nu.

    The flow is conditioned on the embedding of x0 and, if it has a control, on the position of the
    robot's end effector at the last frame: eta is x, y and z in metres.

    Source: Dorkenwald et al., "Stochastic Image-to-Video Synthesis using cINNs", 2021.

    Example:
        >>> model = PaperModel.of_networks(
        ...     "mine", decoder=p, video_encoder=q, image_encoder=phi, flow=flow
        ... )
        >>> c = model.condition(x0)
        >>> z, _ = model.to_latent(torch.randn(len(x0), model.z_dim), c)
        >>> video = model.decode(x0, z)

    Args:
        config: Configs of the networks.
    """

    config: PaperModelConfig
    stored_dtype: ClassVar[torch.dtype] = torch.float32

    def __init__(self, config: PaperModelConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = Decoder(config.decoder)
        self.video_encoder = VideoEncoder(config.video_encoder)
        self.image_encoder = ImageEncoder(config.image_encoder)
        self.flow = PaperFlow(config.flow)
        self._fast_decoder: FastDecoder | None = None

    @classmethod
    def of_networks(
        cls,
        name: str,
        *,
        decoder: Decoder,
        video_encoder: VideoEncoder,
        image_encoder: ImageEncoder,
        flow: PaperFlow,
    ) -> "PaperModel":
        """Create a model from trained networks, with the decoder's spectral norm folded in.

        The networks are copied; they are not modified.

        Args:
            name: Name of the weights.
            decoder: The decoder.
            video_encoder: An encoder for the decoder's z, length and size.
            image_encoder: A conditioning encoder for the decoder's size.
            flow: A flow for the decoder's z and the image encoder's embedding.

        Returns:
            The model in evaluation mode, without gradients, on the networks' device.

        Raises:
            UserError: The networks do not match.
        """
        networks = {
            "decoder": copy.deepcopy(decoder),
            "video_encoder": video_encoder,
            "image_encoder": image_encoder,
            "flow": flow,
        }
        fold_spectral_norm(networks["decoder"])
        configs: dict[str, Any] = {
            part: config_to_dict(network.config) for part, network in networks.items()
        }
        configs["decoder"]["spectral_norm"] = False
        config = config_from_dict(PaperModelConfig, {"name": name, **configs}, source=name)
        state = {
            f"{part}.{key}": value.detach().clone()
            for part, network in networks.items()
            for key, value in network.state_dict().items()
        }
        return cls.with_weights(config, state)

    @classmethod
    def with_weights(cls, config: PaperModelConfig, state: Mapping[str, Tensor]) -> "PaperModel":
        """Create a model from a state dict, without initialising weights first.

        Args:
            config: Configs of the networks.
            state: State dict of the model; its tensors are used without a copy.

        Raises:
            RuntimeError: An entry is missing or unknown.
        """
        with torch.device("meta"):  # initialising 250 million parameters is slow
            model = cls(config)
        model.load_state_dict(state, assign=True)
        return model.eval().requires_grad_(requires_grad=False)

    def accelerated(self) -> "PaperModel":
        """Return the model with a `FastDecoder` in the format that its device is fastest in.

        In float32, frames agree with those of the model itself to 80 dB, in bf16 to 40 (to 57 at
        the published width).
        """
        model = copy.copy(self)
        device = next(self.parameters()).device
        if device.type == "cpu":
            keep_freed_memory()
        model._fast_decoder = FastDecoder(self.decoder, dtype=fast_dtype(device))
        return model

    @property
    def name(self) -> str:
        """Name of the weights."""
        return self.config.name

    @property
    def size(self) -> int:
        """Height and width of the networks' frames, in pixels."""
        return self.config.decoder.size

    @property
    def num_frames(self) -> int:
        """T, the number of frames after x0 that `decode` returns."""
        return self.config.decoder.num_frames

    @property
    def z_dim(self) -> int:
        """Length of z and nu."""
        return self.config.decoder.z_dim

    @property
    def control(self) -> ControlSpec | None:
        """The end point, which is then required; None for a flow without a control."""
        return END_POINT_SPEC if self.config.flow.control else None

    def draw_eta(self, *, generator: torch.Generator) -> Float[Tensor, " e"] | None:
        """Draw an end point uniformly from the bounding box of BAIR's training set.

        Args:
            generator: A generator on the CPU; not used if the model has no control.

        Returns:
            x, y and z in metres; None if the model has no control.
        """
        if self.control_dim:
            return draw_end_point(generator=generator)
        return super().draw_eta(generator=generator)

    def encode(
        self, video: Float[Tensor, "b t1 3 h w"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "b z"]:
        """Return the latents of clips, from the frames after x0.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.
            generator: A generator on the CPU to draw z from q(z | X) with. Defaults to returning
                the mean of q.

        Raises:
            UserError: The number of frames or the size is not the model's.
        """
        self.require_clips(video)
        z: Tensor
        z, log_var = self.video_encoder(video[:, 1:].transpose(1, 2))
        if generator is not None:
            z = z + (0.5 * log_var).exp() * torch.randn(z.shape, generator=generator).to(z)
        return z

    def condition(
        self, x0: Float[Tensor, "b 3 h w"], eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Return the embedding of x0, followed by the one-hots of eta if there is a control.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            eta: x, y and z of the robot's end effector at the last frame, in metres; required by a
                model with a control, None otherwise.

        Raises:
            UserError: eta is missing or not finite, or the model has no control.
        """
        embedding: Tensor = self.image_encoder(x0)
        if eta is None and not self.control_dim:
            return embedding
        return torch.cat([embedding, end_point_one_hots(self._checked(eta, len(x0)))], dim=1)

    def decode(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t 3 h w"]:
        """Return the T frames that follow x0, values in [-1, 1].

        Args:
            x0: First frames in [-1, 1], at the model's size.
            z: Latents.
        """
        video: Tensor = (self._fast_decoder or self.decoder)(x0, z)
        return video

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map residuals to latents; return z, and log abs det d z / d nu in nats."""
        return self.flow.to_latent(nu, c)

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map latents to residuals; return nu, and log abs det d nu / d z in nats."""
        return self.flow.to_residual(z, c)

    def _checked(self, eta: Tensor | None, num_rows: int) -> Tensor:
        if not self.control_dim:
            raise UserError(f"the model {self.name} takes no control: leave eta out")
        if eta is None:
            raise UserError(
                f"the model {self.name} needs a control: give x, y and z of the end effector at "
                "the last frame, in metres"
            )
        if eta.shape != (num_rows, self.control_dim) or not bool(eta.isfinite().all()):
            raise UserError(
                f"eta: the model {self.name} takes {self.control_dim} finite numbers for each of "
                f"{num_rows} first frames, x, y and z in metres, got shape {tuple(eta.shape)}: "
                "give the end effector's position at the last frame"
            )
        return eta
