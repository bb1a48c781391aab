"""A whole model: both stages in one file."""

import re
from dataclasses import dataclass as plain_dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from cinnema.backbones.optical_flow import backward_flow, to_volume
from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.errors import UserError
from cinnema.core.weights import WeightsFile, load_weights, save_weights
from cinnema.media.pictures import to_pixels
from cinnema.stage1.model import SceneFeatures, Stage1, Stage1Config
from cinnema.stage1.motion import GRID
from cinnema.stage2.conditioning import ConditionerConfig
from cinnema.stage2.control import DRIFT_DIM, apparent_drift, drift_of
from cinnema.stage2.flow import FlowConfig
from cinnema.synthesis.articulated import ArticulatedModel, ArticulatedModelConfig
from cinnema.synthesis.control import DRIFT, ControlSpec, aimed
from cinnema.synthesis.painting import PaintingConfig, PaintingModel
from cinnema.synthesis.synthesizer import Synthesizer
from cinnema.synthesis.threads import one_thread
from cinnema.synthesis.two_stage import TwoStageModel, require_fit

_BUNDLED = Path(__file__).parents[1] / "weights"
_SUFFIX = ".safetensors"
_HUB_FILE = "model.safetensors"
# Of the control, in its typical size: training has seen little beyond.
_FASTEST = 2.0
# A drift may be told longer or shorter, and more to a side, by this share of it.
_CORRECTION = 0.7
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ModelConfig:
    """Everything that makes a `VideoModel`, weights apart.

    Attributes:
        name: What the weights are called.
        stage1: Video encoder and warping decoder.
        conditioner: What the flow sees of x0.
        flow: Its `z_dim` is stage 1's, its `condition_dim` the conditioner's.

    Raises:
        ValueError: The parts do not fit each other.
    """

    name: str
    stage1: Stage1Config
    conditioner: ConditionerConfig
    flow: FlowConfig

    def __post_init__(self) -> None:
        require_fit(self)
        if self.conditioner.control_dim not in (0, DRIFT_DIM):
            raise UserError(
                f"conditioner.control_dim must be 0 or {DRIFT_DIM}, the drift to the right and "
                f"down, got {self.conditioner.control_dim}: change it"
            )


class VideoModel(TwoStageModel):
    """Stage 1, the conditioner and the flow: nu to z to video, and video to z to nu.

    Its networks compute; `Pipeline` is what animates photographs with it.

    Example:
        >>> model = load_model("landscape").model
        >>> c = model.condition(x0)
        >>> z, log_det = model.to_latent(nu, c)

    Args:
        config: What it is made of.
    """

    config: ModelConfig
    stage1: Stage1

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, Stage1(config.stage1))

    @property
    def control(self) -> ControlSpec | None:
        """The drift of what moves over one clip, which may be left out; None without a control."""
        conditioner = self.config.conditioner
        if not conditioner.control_dim:
            return None
        scale = conditioner.control_scale
        return ControlSpec(
            name=DRIFT,
            labels=("right", "down"),
            unit="picture widths and heights a clip",
            low=(-_FASTEST * scale,) * DRIFT_DIM,
            high=(_FASTEST * scale,) * DRIFT_DIM,
            typical=scale,
            optional=True,
        )

    def encode(
        self, video: Float[Tensor, "b t1 3 h w"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "b z"]:
        """Return z of clips, by their optical flow back to x0.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.
            generator: For a draw from q(z | X); the mean of q if None.

        Raises:
            UserError: Another number of frames or another size.
        """
        return self.drawn(self.stage1.encode(self._flow_of(video)), generator)

    def read_control(
        self, video: Float[Tensor, "b t1 3 h w"]
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, " b"]]:
        """Estimate where what moves drifts to in clips, by their optical flow and the mask of x0.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.

        Returns:
            eta, and how far it tells the motion, in [0, 1]: see `cinnema.stage2.control.drift_of`.

        Raises:
            UserError: The model takes no control; another number of frames or another size.
        """
        if self.control is None:
            return super().read_control(video)
        features = self.stage1.scene(video[:, 0])
        moving = torch.sigmoid(self.stage1.mask(features.joint, features.fine))
        return drift_of(self._flow_of(video), moving[:, 0])

    def aim(
        self, x0: Float[Tensor, "b 3 h w"], nu: Float[Tensor, "b z"], eta: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b e"]:
        """Return what to tell the flow so that these residuals drift as eta says.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            nu: Residuals, temperature included.
            eta: The drift that was asked for.

        Raises:
            UserError: The model takes no control.
        """
        features = self.stage1.scene(x0)
        moving = torch.sigmoid(self.stage1.mask(features.joint, features.fine))
        return self.aim_on(features, moving, nu, eta)

    def aim_on(
        self,
        features: SceneFeatures,
        moving: Float[Tensor, "b 1 i j"],
        nu: Float[Tensor, "b z"],
        eta: Float[Tensor, "b e"],
    ) -> Float[Tensor, "b e"]:
        """Aim at a drift of first frames that have been read already.

        Args:
            features: `stage1.scene(x0)`.
            moving: 1 where something may move, 0 where nothing may.
            nu: As in `aim`.
            eta: As in `aim`.
        """
        if self.control is None:
            raise UserError(f"the model {self.name} takes no control: leave it out")

        def drift(told: Tensor) -> Tensor:
            z, _ = self.to_latent(nu, self.condition_on(features, told))
            flow = self.stage1.basis.clip(self.stage1.motion(z, features.joint))
            return apparent_drift(flow.float(), moving[:, 0].float())

        # Where the flow of a residual can hardly be turned or sped up, telling it ever more does
        # harm elsewhere.
        reach = _CORRECTION * eta.norm(dim=1, keepdim=True)
        return aimed(drift, eta, self.control, reach=reach)

    def _flow_of(self, video: Tensor) -> Tensor:
        """Return the flow of clips back to x0, block means, as stage 1 reads it."""
        self.require_clips(video)
        size = (self.size, self.size)
        volumes = [
            to_volume(backward_flow(to_pixels(clip), size=size), grid=GRID) for clip in video
        ]
        return torch.from_numpy(np.stack(volumes)).to(video.device, video.dtype)

    def condition(
        self, x0: Float[Tensor, "b 3 h w"], eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Return what the flow is told of a first frame.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            eta: Where what moves drifts to over the clip, (right, down) in picture widths and
                heights, for a model with a control; None leaves it to nu.

        Raises:
            UserError: The model takes no control, or one of another length.
        """
        return self.condition_on(self.stage1.scene(x0), eta)

    def condition_on(
        self, features: SceneFeatures, eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Return what the flow is told of a first frame that has been read already.

        Args:
            features: `stage1.scene(x0)`.
            eta: As in `condition`.
        """
        if eta is not None and not self.control_dim:
            raise UserError(f"the model {self.name} takes no control: leave it out")
        c: Tensor = self.conditioner(features.joint, eta)
        return c

    def decode(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t 3 h w"]:
        """Return the T frames that follow x0, values in [-1, 1].

        Args:
            x0: First frames in [-1, 1], at the model's size.
            z: How they move.
        """
        return self.stage1.decode(x0, z).clamp(-1, 1)


@plain_dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model and where it is from.

    Attributes:
        model: In evaluation mode, float32, on the CPU.
        sha256: Of its file, 64 hexadecimal digits; empty for a model from memory.
        path: Its file; None for a model from memory.
    """

    model: Synthesizer
    sha256: str = ""
    path: Path | None = None


def save_model(path: str | Path, model: Synthesizer, *, overwrite: bool = False) -> str:
    """Write a model to one file: its weights, and its configuration in the metadata.

    The warping model's weights are rounded to bfloat16, those of the painting one are kept.

    Args:
        path: Where to; ".safetensors" by custom.
        model: On any device.
        overwrite: Whether a file that is there already may be replaced.

    Returns:
        The file's SHA-256, 64 hexadecimal digits.

    Raises:
        UserError: `path` exists, or cannot be written.
    """
    return save_weights(
        path,
        model.state_dict(),
        config_to_dict(model.config),
        dtype=model.stored_dtype,
        overwrite=overwrite,
    )


@one_thread()
def load_model(name_or_path: str | Path) -> LoadedModel:
    """Load a model by a bundled name, from a file, or from the Hugging Face hub.

    Args:
        name_or_path: "landscape" or another name of `bundled_names`; a file that `save_model`
            wrote; or a hub id "owner/name" (needs the extra `hub`), of which model.safetensors is
            taken. What exists as a file is taken for a file.

    Returns:
        The model, its hash and its file. The configuration in the file tells which kind of model
        it is.

    Raises:
        UserError: There is no such name or file, or the file holds something else.

    Example:
        >>> load_model("landscape").model.size
        128
    """
    path = _find(name_or_path)
    file = load_weights(path)
    return LoadedModel(model=_build(file, path), sha256=file.sha256, path=path)


def bundled_names() -> list[str]:
    """Return the names of the weights that come with the package."""
    return sorted(path.stem for path in _BUNDLED.glob(f"*{_SUFFIX}"))


def _find(name_or_path: str | Path) -> Path:
    path, name = Path(name_or_path), str(name_or_path)
    if path.is_file():
        return path
    if name in bundled_names():
        return _BUNDLED / f"{name}{_SUFFIX}"
    if isinstance(name_or_path, str) and path.suffix != _SUFFIX and not path.exists():
        if _HUB_ID.fullmatch(name):
            return _from_hub(name)
        if "/" not in name and "\\" not in name:
            known = ", ".join(bundled_names()) or "none"
            raise UserError(
                f"{name!r} is neither a bundled model (there is: {known}) nor a file: "
                "give one of these names or the path of a weights file"
            )
    return path  # reading it says what is wrong


def _from_hub(hub_id: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise UserError(
            f"{hub_id} is no file here, and the hub needs an extra: "
            "pip install 'cinnema[hub]', or name a file"
        ) from None
    try:
        return Path(hf_hub_download(hub_id, _HUB_FILE))
    except Exception as error:  # of a dozen kinds: network, rights, a name that is not there
        reason = str(error).strip().splitlines()
        raise UserError(
            f"{hub_id} could not be had from the hub ({reason[0] if reason else 'no reason'}): "
            "check the name and the network, or name a file"
        ) from error


def load_warping_model(name_or_path: str | Path, *, purpose: str) -> VideoModel:
    """Load a model as `load_model` does, for what only one that warps the photograph can do.

    Args:
        name_or_path: As for `load_model`.
        purpose: What it is wanted for, as in "measuring the flow", for the message.

    Raises:
        UserError: There is no such model, or it is of another kind.
    """
    model = load_model(name_or_path).model
    if not isinstance(model, VideoModel):
        raise UserError(
            f"{name_or_path} holds a model that paints its frames, and {purpose} needs one that "
            "warps the photograph: name other weights, as landscape"
        )
    return model


# What the configuration's field `kind` says; files of the first kind were written without one.
_KINDS: dict[str, tuple[type[object], type[Synthesizer]]] = {
    "warping": (ModelConfig, VideoModel),
    "painting": (PaintingConfig, PaintingModel),
    "articulated": (ArticulatedModelConfig, ArticulatedModel),
}


def _build(file: WeightsFile, path: Path) -> Synthesizer:
    kind = file.config.get("kind", "warping")
    if kind not in _KINDS:
        raise UserError(
            f"{path} holds a model of kind {kind!r}, and this version knows {', '.join(_KINDS)}: "
            "update cinnema, or name another file"
        )
    config_type, model_type = _KINDS[kind]
    config: object = config_from_dict(config_type, file.config, source=str(path))
    try:
        return model_type.with_weights(config, file.state)
    except (RuntimeError, ValidationError) as error:
        first = str(error).split("\n\t")[1:2]
        raise UserError(
            f"{path} does not hold the weights that its configuration asks for "
            f"({first[0].strip()[:200] if first else error}): name another file or save it again"
        ) from error
