"""The nature model: what each pixel is, how each kind moves, and the conditional flow between."""

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from cinnema.core.errors import UserError
from cinnema.models.base import VideoModel, standard_log_prob
from cinnema.models.control import DRIFT, ControlSpec, correct_control
from cinnema.models.nature.flow import KindFlow, KindFlowConfig
from cinnema.models.nature.kinds import KIND_SIZE, KINDS, KindNetwork, SceneFeatures
from cinnema.models.nature.motion import (
    CHURN_DIM,
    CHURN_GRID,
    CHURN_SHAPE,
    GRID,
    NUM_FUNCTIONS,
    KindDynamics,
    KindMotion,
)
from cinnema.models.nature.reading import (
    log_strength,
    measure_churn,
    measure_flow,
    measure_motion,
    strength_of,
    velocity_of,
)
from cinnema.models.nature.rendering import Layer, cut_layers, render_frame, shares

KIND_DIM = 2 * NUM_FUNCTIONS + 1
"""Length of the part of z that describes one kind: its velocity and its strength."""

MOTION_DIM = len(KINDS) * KIND_DIM
"""Length of the part of z that describes all kinds; the rest of z is the churn's numbers."""

Z_DIM = MOTION_DIM + CHURN_DIM
"""Length of z."""

STEERED = ("sky", "water")
"""Kinds whose drift the control eta gives."""

GEOMETRY_DIM = 4
"""Numbers that describe the place of a kind: its share, its centre and its height."""

_DRIFT_DIM = 2
_DEEP_DIM = 112 + 320
# Share of the picture below which a kind counts as absent.
_ABSENT = 0.002
# Deviations of a look from the mean of the training pictures beyond which it counts as no further:
# what the flow would make of stranger pictures is not known.
_STRANGEST = 2.0
# Largest drift, in typical sizes: training has seen few that are faster.
_FASTEST = 3.0
# asinh of the largest coefficient of a velocity, in typical ones.
_MOST_BENT = 3.5


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NatureModelConfig:
    """Sizes and constants of a `NatureModel`.

    Attributes:
        name: Name of the weights.
        dynamics: Constants of each of `KINDS`, fitted in stage 1.
        kind_width: Channels of the kind network's pyramid, a multiple of 16.
        kind_size: Width and height in pixels of the pictures in which kinds are recognised.
        narrow: Numbers that describe the look of a kind to the flow.
        flow: The flow of one kind.
        size: Width and height of the clips in pixels.
        num_frames: T, the frames of a clip after x0; as many steps.
        fps: Frame rate of the clips as the paper shows them.
        noise: Standard deviation of q(z | X), in units of the training latents' deviation.
        typical_drift: Typical displacement over a clip, in picture sizes: speed 1.
        kind: Marks the kind of model in a weights file.
    """

    name: str
    dynamics: tuple[KindDynamics, ...]
    kind_width: int = Field(default=48, ge=16, multiple_of=16)
    kind_size: int = Field(default=KIND_SIZE, ge=64, le=2048, multiple_of=32)
    narrow: int = Field(default=6, ge=1)
    flow: KindFlowConfig = Field(default_factory=KindFlowConfig)
    size: int = Field(default=128, ge=64, le=2048, multiple_of=32)
    num_frames: int = Field(default=16, ge=1)
    fps: float = Field(default=8.0, gt=0)
    noise: float = Field(default=0.08, ge=0)
    typical_drift: float = Field(default=0.1, gt=0)
    kind: Literal["nature"] = "nature"

    def __post_init__(self) -> None:
        if len(self.dynamics) != len(KINDS):
            raise UserError(
                f"dynamics: one for each of {', '.join(KINDS)} is needed, got "
                f"{len(self.dynamics)}: change it"
            )

    @property
    def condition_dim(self) -> int:
        """Columns of the condition of one kind: look, place, kind, control, whether it is given."""
        return self.narrow + GEOMETRY_DIM + len(KINDS) + _DRIFT_DIM + 1


class KindSummary(NamedTuple):
    """What the condition and the control are computed from, for each of `KINDS`.

    Attributes:
        look: Mean of the deep features over the kind's pixels.
        geometry: Share of the picture, centre (x, y) and standard deviation of y.
        cells: Share of the kind in each cell of the velocity's grid.
    """

    look: Float[Tensor, "b k f"]
    geometry: Float[Tensor, "b k 4"]
    cells: Float[Tensor, "b k g g"]


class NatureModel(VideoModel):
    """Animates nature: each kind in a photograph moves along its own velocity, and churns.

    z is, for each of `KINDS`, the coefficients of a velocity field and the logarithm of the
    turbulence's strength, each with mean 0 and deviation 1 over the training clips; and the
    churn's numbers, which are standard normal whatever the photograph. The flow acts on the first
    part, kind by kind, and leaves the churn as it is: nu holds every random number of a video.

    Example:
        >>> model = load_model("landscape").model
        >>> c = model.condition(x0)
        >>> z, log_det = model.to_latent(nu, c)

    Args:
        config: Configuration of the model.
    """

    config: NatureModelConfig
    stored_dtype = torch.float32
    z_scale: Tensor
    z_mean: Tensor
    z_deviation: Tensor
    look_mean: Tensor
    look_projection: Tensor

    def __init__(self, config: NatureModelConfig) -> None:
        super().__init__()
        self.config = config
        self.kinds = KindNetwork(width=config.kind_width)
        self.flow = KindFlow(
            config.flow, z_dim=KIND_DIM, condition_dim=config.condition_dim, num_kinds=len(KINDS)
        )
        self.register_buffer("z_scale", torch.ones(len(KINDS), KIND_DIM - 1))
        self.register_buffer("z_mean", torch.zeros(len(KINDS), KIND_DIM))
        self.register_buffer("z_deviation", torch.ones(len(KINDS), KIND_DIM))
        self.register_buffer("look_mean", torch.zeros(_DEEP_DIM))
        self.register_buffer("look_projection", torch.zeros(_DEEP_DIM, config.narrow))

    @property
    def name(self) -> str:
        """Name of the weights."""
        return self.config.name

    @property
    def size(self) -> int:
        """Width and height of the clips, in pixels."""
        return self.config.size

    @property
    def num_frames(self) -> int:
        """T, the number of frames after x0 that `decode` returns."""
        return self.config.num_frames

    @property
    def z_dim(self) -> int:
        """Length of z and nu."""
        return Z_DIM

    @property
    def flow_dim(self) -> int:
        """Length of the part of z that the flow maps: all but the churn's numbers."""
        return MOTION_DIM

    @property
    def fps(self) -> float:
        """Frames a second of the clips."""
        return self.config.fps

    @property
    def control(self) -> ControlSpec:
        """The mean drift of the sky, or else the water, over one clip; optional."""
        scale = self.config.typical_drift
        return ControlSpec(
            name=DRIFT,
            labels=("right", "down"),
            unit="picture widths and heights a clip",
            low=(-_FASTEST * scale,) * _DRIFT_DIM,
            high=(_FASTEST * scale,) * _DRIFT_DIM,
            typical=scale,
            optional=True,
        )

    def recognise(self, x0: Float[Tensor, "b 3 h w"]) -> SceneFeatures:
        """Classify the pixels of photographs of any size.

        Args:
            x0: In [-1, 1].
        """
        size = (self.config.kind_size,) * 2
        if x0.shape[-2:] != size:
            x0 = functional.interpolate(
                x0, size, mode="bilinear", align_corners=False, antialias=True
            ).clamp(-1, 1)
        features: SceneFeatures = self.kinds(x0)
        return features

    def describe(
        self, features: SceneFeatures, eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b k c"]:
        """Return the condition of each kind.

        Args:
            features: `recognise(x0)`.
            eta: The control; None leaves it open.
        """
        return self.describe_summary(self.summarise(features), eta)

    def summarise(self, features: SceneFeatures) -> KindSummary:
        """Return the look, the place and the cells of each kind."""
        share = shares(features.probabilities)[:, 1:]
        rows, columns = features.deep.shape[-2:]
        pooled = functional.adaptive_avg_pool2d(share, (rows, columns)) + 1e-4
        weight = pooled / pooled.sum((2, 3), keepdim=True)
        look = torch.einsum("bkij,bfij->bkf", weight, features.deep)
        area = share.mean((2, 3))
        places = (torch.arange(share.shape[-1], device=share.device) + 0.5) / share.shape[-1] - 0.5
        mass = share.sum((2, 3)) + 1e-3
        x = torch.einsum("bkij,j->bk", share, places) / mass
        y = torch.einsum("bkij,i->bk", share, places) / mass
        tall = (torch.einsum("bkij,i->bk", share, places.square()) / mass - y.square()).clamp_min(0)
        geometry = torch.stack([area, x, y, tall.sqrt()], dim=-1)
        return KindSummary(look, geometry, functional.adaptive_avg_pool2d(share, GRID))

    def describe_summary(
        self, summary: KindSummary, eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b k c"]:
        """Return the condition of each kind from `summarise(features)`; see `describe`."""
        look, geometry = summary.look - self.look_mean, summary.geometry
        num = len(look)
        kind = torch.eye(len(KINDS), device=look.device).expand(num, -1, -1)
        control = look.new_zeros(num, len(KINDS), _DRIFT_DIM + 1)
        if eta is not None:
            if eta.shape != (num, _DRIFT_DIM):
                raise UserError(
                    f"eta: the control has {_DRIFT_DIM} numbers for each of {num} pictures, got "
                    f"{tuple(eta.shape)}: give as many"
                )
            given = torch.cat([eta.to(look) / self.config.typical_drift, look.new_ones(num, 1)], 1)
            for name in STEERED:
                control[:, KINDS.index(name)] = given
        narrow = (look @ self.look_projection).clamp(-_STRANGEST, _STRANGEST)
        return torch.cat([narrow, geometry, kind, control], dim=-1)

    def condition(
        self, x0: Float[Tensor, "b 3 h w"], eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Return the condition of the flow: one row of numbers for each kind, joined.

        Args:
            x0: First frames in [-1, 1], of any size.
            eta: The drift of sky and water over the clip, (right, down) in picture widths and
                heights; None leaves it open.

        Raises:
            UserError: eta has the wrong length.
        """
        return self.describe(self.recognise(x0), eta).flatten(1)

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map residuals to latents: z, and log abs det d z / d nu in nats."""
        return self._map(nu, c, self.flow.to_latent)

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map latents to residuals: nu, and log abs det d nu / d z in nats."""
        return self._map(z, c, self.flow.to_residual)

    def _map(self, x: Tensor, c: Tensor, mapping: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        if x.shape[1] != Z_DIM:
            raise UserError(
                f"z: the model {self.name} has {Z_DIM} dimensions, got {x.shape[1]}; latents and "
                "model must come from the same training"
            )
        rows = x[:, :MOTION_DIM].reshape(-1, KIND_DIM)
        mapped, log_det = mapping(rows, c.view(-1, self.config.condition_dim))
        moved = mapped.view(len(x), MOTION_DIM)
        return torch.cat([moved, x[:, MOTION_DIM:]], 1), log_det.view(len(x), -1).sum(1)

    def blocks(self, c: Float[Tensor, "b c"]) -> Bool[Tensor, "b k"]:
        """Return which of `KINDS` the photographs show: each is a block of z."""
        area = c.view(len(c), len(KINDS), -1)[..., self.config.narrow]
        return area > _ABSENT

    def log_prob(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> Float64[Tensor, " b"]:
        """Return the log-density of the motion of the kinds that x0 shows, in nats."""
        rows = z[:, :MOTION_DIM].reshape(-1, KIND_DIM)
        nu, log_det = self.flow.to_residual(rows, c.view(-1, self.config.condition_dim))
        each = standard_log_prob(nu) + log_det.double().cpu()
        return (each.view(len(z), -1) * self.blocks(c).cpu()).sum(1)

    def encode(
        self, video: Float[Tensor, "b t1 3 h w"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "b z"]:
        """Return z of clips, from the flow between their frames and the kinds in x0.

        A kind that x0 does not show has z = 0.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.
            generator: On the CPU, for a draw from q(z | X), which the flow is trained on; the mean
                of q if None.

        Raises:
            UserError: The number of frames or the size is wrong.
        """
        self.require_clips(video)
        share = shares(self.recognise(video[:, 0]).probabilities)[:, 1:]
        cells = functional.adaptive_avg_pool2d(share, GRID)
        z = self.encode_flow(measure_flow(video), cells)
        if generator is None:
            return z
        noise = torch.randn(len(z), MOTION_DIM, generator=generator).to(z)
        return torch.cat([z[:, :MOTION_DIM] + self.config.noise * noise, z[:, MOTION_DIM:]], 1)

    def encode_flow(
        self, flow: Float[Tensor, "b t 2 g g"], share: Float[Tensor, "b k g g"]
    ) -> Float[Tensor, "b z"]:
        """Return z of clips whose flow is known.

        Args:
            flow: Flow from each frame to the next, in picture sizes.
            share: Share of each of `KINDS` in each cell of x0.
        """
        raw, numbers = [], flow.new_zeros(len(flow), *CHURN_SHAPE)
        turbulent = flow - flow.mean(1, keepdim=True)
        for kind, dynamics in enumerate(self.config.dynamics):
            motion = measure_motion(flow, share[:, kind])
            raw.append(
                torch.cat(
                    [motion.coefficients.flatten(1), log_strength(motion.strength)[:, None]], 1
                )
            )
            seen = measure_churn(turbulent, motion.strength, dynamics)
            here = functional.adaptive_avg_pool2d(share[:, kind : kind + 1], CHURN_GRID)
            numbers = numbers + here * seen
        rows = self.normalised(torch.stack(raw, 1)) * (share.mean((2, 3)) > _ABSENT)[..., None]
        return torch.cat([rows.flatten(1), numbers.flatten(1)], 1)

    def motions(
        self,
        z: Float[Tensor, "b z"],
        *,
        num_steps: tuple[float, ...],
        loop: bool = False,
        strength: float = 1.0,
    ) -> list[KindMotion]:
        """Return the motion of each of `KINDS`.

        Args:
            z: Latents.
            num_steps: Length of the video for each kind, in steps.
            loop: Whether the video repeats.
            strength: Factor on velocity, churn and flicker.
        """
        numbers = z[:, MOTION_DIM:].view(len(z), *CHURN_SHAPE)
        return [
            KindMotion(
                strength * velocity_of(coefficients),
                strength * turbulence,
                numbers,
                replace(dynamics, flicker=strength * dynamics.flicker),
                num_steps=steps,
                loop=loop,
            )
            for dynamics, steps, (coefficients, turbulence) in zip(
                self.config.dynamics, num_steps, self.read_motion(z), strict=True
            )
        ]

    def read_motion(
        self, z: Float[Tensor, "b z"]
    ) -> list[tuple[Float[Tensor, "b 2 n"], Float[Tensor, " b"]]]:
        """Return the velocity's coefficients and the strength of each of `KINDS`, as measured."""
        rows = z[:, :MOTION_DIM].view(len(z), len(KINDS), KIND_DIM)
        bent = rows * self.z_deviation + self.z_mean
        velocity = self.z_scale * bent[..., :-1].clamp(-_MOST_BENT, _MOST_BENT).sinh()
        return [
            (velocity[:, k].unflatten(1, (2, NUM_FUNCTIONS)), strength_of(bent[:, k, -1]))
            for k in range(len(KINDS))
        ]

    def normalised(self, raw: Float[Tensor, "b k r"]) -> Float[Tensor, "b k r"]:
        """Return the part of z that describes measured motion.

        Speeds have heavy tails, so that velocities are bent by asinh before they are scaled to
        mean 0 and deviation 1.

        Args:
            raw: Of each kind the velocity's coefficients, in picture sizes a step, and the
                logarithm of the strength.
        """
        bent = torch.cat([(raw[..., :-1] / self.z_scale).asinh(), raw[..., -1:]], -1)
        return (bent - self.z_mean) / self.z_deviation

    def decode(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t 3 h w"]:
        """Return the T frames that follow x0, in [-1, 1].

        Args:
            x0: First frames in [-1, 1], at the model's size.
            z: Latents.
        """
        return self.move(x0, self.layers(x0), z)

    def layers(self, x0: Float[Tensor, "b 3 h w"]) -> list[Layer]:
        """Return the layers of first frames, for `move`.

        Args:
            x0: First frames in [-1, 1], at the model's size.
        """
        probabilities = functional.interpolate(
            self.recognise(x0).probabilities, x0.shape[-2:], mode="bilinear", align_corners=False
        )
        return cut_layers(x0, shares(probabilities)[:, 1:])

    def move(
        self, x0: Float[Tensor, "b 3 h w"], layers: list[Layer], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t 3 h w"]:
        """Return the T frames that follow x0, as `decode` does, of layers that are known.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            layers: Their layers.
            z: Latents.
        """
        steps = (float(self.num_frames),) * len(KINDS)
        motions = self.motions(z, num_steps=steps)
        frames = [
            render_frame(x0, layers, motions, [float(t)] * len(KINDS))
            for t in range(1, self.num_frames + 1)
        ]
        return torch.stack(frames, 1).clamp(-1, 1)

    def drifting_kind(self, features: SceneFeatures) -> int:
        """Return the index in `KINDS` whose drift the control gives in one photograph.

        Args:
            features: `recognise(x0)` of one photograph.
        """
        sky, water = (KINDS.index(name) for name in STEERED)
        area = shares(features.probabilities)[0, 1 + sky].mean()
        return sky if float(area) > _ABSENT else water

    def drift(self, z: Float[Tensor, "b z"], features: SceneFeatures) -> Float[Tensor, "b 2"]:
        """Return the mean drift of the sky, or of the water where there is no sky, over one clip.

        Args:
            z: Latents.
            features: `recognise(x0)`.
        """
        share = shares(features.probabilities)[:, 1:]
        return self.drift_in(z, functional.adaptive_avg_pool2d(share, GRID))

    def drift_in(
        self, z: Float[Tensor, "b z"], cells: Float[Tensor, "b k g g"]
    ) -> Float[Tensor, "b 2"]:
        """Return the drift of a picture whose cells are known; see `drift` and `summarise`."""
        motion = self.read_motion(z)
        drifts, areas = [], []
        for name in STEERED:
            kind = KINDS.index(name)
            velocity = velocity_of(motion[kind][0]) * self.config.dynamics[kind].gain
            mass = cells[:, kind].sum((1, 2)).clamp_min(1e-6)[:, None]
            drifts.append((velocity * cells[:, kind : kind + 1]).sum((2, 3)) / mass)
            areas.append(cells[:, kind].mean((1, 2)))
        has_sky = (areas[0] > _ABSENT)[:, None]
        return self.num_frames * torch.where(has_sky, drifts[0], drifts[1])

    def read_control(
        self, video: Float[Tensor, "b t1 3 h w"]
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, " b"]]:
        """Estimate the drift of clips.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.

        Returns:
            eta, and 1 where sky or water is seen, else 0.

        Raises:
            UserError: The number of frames or the size is wrong.
        """
        features = self.recognise(video[:, 0])
        share = shares(features.probabilities)[:, 1:].mean((2, 3))
        seen = share[:, [KINDS.index(name) for name in STEERED]].amax(1) > _ABSENT
        return self.drift(self.encode(video), features), seen.to(video)

    def corrected_control(
        self, x0: Float[Tensor, "b 3 h w"], nu: Float[Tensor, "b z"], eta: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b e"]:
        """Return the control to condition the flow on, so that these residuals drift as eta says.

        Args:
            x0: First frames in [-1, 1].
            nu: Residuals, multiplied by the temperature.
            eta: The requested drift.
        """
        return self.corrected_control_on(self.recognise(x0), nu, eta)

    def corrected_control_on(
        self, features: SceneFeatures, nu: Float[Tensor, "b z"], eta: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b e"]:
        """Return the corrected control of first frames whose features are known.

        Args:
            features: `recognise(x0)`.
            nu: As in `corrected_control`.
            eta: As in `corrected_control`.
        """

        def measure(tried: Tensor) -> Tensor:
            z, _ = self.to_latent(nu, self.describe(features, tried).flatten(1))
            return self.drift(z, features)

        return correct_control(measure, eta, self.control)
