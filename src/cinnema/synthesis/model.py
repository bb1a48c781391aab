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
from cinnema.stage2.conditioning import Conditioner, ConditionerConfig
from cinnema.stage2.flow import ConditionalFlow, FlowConfig
from cinnema.synthesis.synthesizer import Synthesizer
from cinnema.synthesis.threads import one_thread

_BUNDLED = Path(__file__).parents[1] / "weights"
_SUFFIX = ".safetensors"
_HUB_FILE = "model.safetensors"
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
        pairs = {
            "flow.z_dim and stage1.z_dim": (self.flow.z_dim, self.stage1.z_dim),
            "flow.condition_dim and conditioner.condition_dim": (
                self.flow.condition_dim,
                self.conditioner.condition_dim,
            ),
            "conditioner.feature_dim and stage1.feature_dim": (
                self.conditioner.feature_dim,
                self.stage1.feature_dim,
            ),
        }
        for names, (mine, other) in pairs.items():
            if mine != other:
                raise UserError(f"{names} must be equal, got {mine} and {other}: change one")


class VideoModel(Synthesizer):
    """Stage 1, the conditioner and the flow: nu to z to video, and video to z to nu.

    Its networks compute; `Pipeline` is what animates photographs with it.

    Example:
        >>> model = load_model("landscape").model
        >>> c = model.condition(x0)
        >>> z, log_det = model.to_latent(nu, c)

    Args:
        config: What it is made of.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.stage1 = Stage1(config.stage1)
        self.conditioner = Conditioner(config.conditioner)
        self.flow = ConditionalFlow(config.flow)

    @property
    def name(self) -> str:
        """What the weights are called."""
        return self.config.name

    @property
    def size(self) -> int:
        """Width and height of the pictures that the networks see, in pixels."""
        return self.config.stage1.size

    @property
    def num_frames(self) -> int:
        """T, the frames after x0 that `decode` returns."""
        return self.config.stage1.num_frames

    @property
    def z_dim(self) -> int:
        """Length of z and nu."""
        return self.config.stage1.z_dim

    @property
    def control_dim(self) -> int:
        """0: the model takes no control."""
        return 0

    def encode(self, video: Float[Tensor, "b t1 3 h w"]) -> Float[Tensor, "b z"]:
        """Return z of clips, by their optical flow back to x0.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.

        Raises:
            UserError: Another number of frames or another size.
        """
        expected = (self.num_frames + 1, 3, self.size, self.size)
        if video.shape[1:] != expected:
            raise UserError(
                f"the model {self.name} encodes clips of shape {expected}, got "
                f"{tuple(video.shape[1:])}: resample or resize them"
            )
        size = (self.size, self.size)
        volumes = [
            to_volume(backward_flow(to_pixels(clip), size=size), grid=GRID) for clip in video
        ]
        flow = torch.from_numpy(np.stack(volumes)).to(video.device, video.dtype)
        return self.stage1.encode(flow)

    def condition(
        self, x0: Float[Tensor, "b 3 h w"], eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Return what the flow is told of a first frame.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            eta: None.

        Raises:
            UserError: There is an eta.
        """
        if eta is not None:
            raise UserError(f"the model {self.name} takes no control: leave it out")
        return self.condition_on(self.stage1.scene(x0))

    def condition_on(self, features: SceneFeatures) -> Float[Tensor, "b c"]:
        """Return what the flow is told of a first frame that has been read already.

        Args:
            features: `stage1.scene(x0)`.
        """
        c: Tensor = self.conditioner(features.joint)
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

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Put x0 into a residual: z, and log abs det d z / d nu in nats."""
        return self.flow.to_latent(nu, c)

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Take x0 out of a latent: nu, and log abs det d nu / d z in nats."""
        return self.flow.to_residual(z, c)


@plain_dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model and where it is from.

    Attributes:
        model: In evaluation mode, float32, on the CPU.
        sha256: Of its file, 64 hexadecimal digits; empty for a model from memory.
        path: Its file; None for a model from memory.
    """

    model: VideoModel
    sha256: str = ""
    path: Path | None = None


def save_model(path: str | Path, model: VideoModel, *, overwrite: bool = False) -> str:
    """Write a model to one file: its weights in bfloat16, its configuration in the metadata.

    Args:
        path: Where to; ".safetensors" by custom.
        model: On any device.
        overwrite: Whether a file that is there already may be replaced.

    Returns:
        The file's SHA-256, 64 hexadecimal digits.

    Raises:
        UserError: `path` exists, or cannot be written.
    """
    return save_weights(path, model.state_dict(), config_to_dict(model.config), overwrite=overwrite)


@one_thread()
def load_model(name_or_path: str | Path) -> LoadedModel:
    """Load a model by a bundled name, from a file, or from the Hugging Face hub.

    Args:
        name_or_path: "landscape" or another name of `bundled_names`; a file that `save_model`
            wrote; or a hub id "owner/name" (needs the extra `hub`), of which model.safetensors is
            taken. What exists as a file is taken for a file.

    Returns:
        The model, its hash and its file.

    Raises:
        UserError: There is no such name or file, or the file holds something else.

    Example:
        >>> load_model("landscape").model.config.stage1.size
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


def _build(file: WeightsFile, path: Path) -> VideoModel:
    config = config_from_dict(ModelConfig, file.config, source=str(path))
    try:
        model = VideoModel(config)
        model.load_state_dict(file.state, assign=True)
    except (RuntimeError, ValidationError) as error:
        first = str(error).split("\n\t")[1:2]
        raise UserError(
            f"{path} does not hold the weights that its configuration asks for "
            f"({first[0].strip()[:200] if first else error}): name another file or save it again"
        ) from error
    return model.eval().requires_grad_(requires_grad=False)
