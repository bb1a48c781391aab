"""A whole model: both stages in one file."""

import re
from dataclasses import dataclass as plain_dataclass
from pathlib import Path

from jaxtyping import Float
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.errors import UserError
from cinnema.core.weights import WeightsFile, load_weights, save_weights
from cinnema.stage1.model import SceneFeatures, Stage1, Stage1Config
from cinnema.stage2.conditioning import Conditioner, ConditionerConfig
from cinnema.stage2.flow import ConditionalFlow, FlowConfig
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


class VideoModel(nn.Module):
    """Stage 1, the conditioner and the flow: nu to z to video, and video to z to nu.

    Its networks compute; `Pipeline` is what animates photographs with it.

    Example:
        >>> model = load_model("landscape").model
        >>> features = model.stage1.scene(x0)
        >>> c = model.condition(features)
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

    def condition(self, features: SceneFeatures) -> Float[Tensor, "b c"]:
        """Return what the flow is told of a first frame.

        Args:
            features: `stage1.scene(x0)`.
        """
        c: Tensor = self.conditioner(features.joint)
        return c

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
