"""Reads the folders of published checkpoints.

The folder of a data set contains:

    stage1/                      config_stage1.yaml, the decoder and the video encoder
    stage2/ or stage2_control/   config_stage2.yaml, the flow, and the conditioning encoder with
                                 config_stage2_AE.yaml

`config_stage2.yaml` names the checkpoints. It also contains paths of its author's machine, of which
only the last parts are used here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from cinnema.core.documents import parse_yaml
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file, path_inside
from cinnema.core.state_dicts import no_larger_than, read_state_dict, require_entries
from cinnema.paper.control import ONE_HOT_DIM
from cinnema.paper.decoder import Decoder
from cinnema.paper.flow import LogDet, PaperFlow
from cinnema.paper.image_encoder import ImageEncoder
from cinnema.paper.published import build, config_fields
from cinnema.paper.video_encoder import VideoEncoder

_STAGE1_CONFIG = "config_stage1.yaml"
_STAGE2_CONFIG = "config_stage2.yaml"
_CONDITIONING_CONFIG = "config_stage2_AE.yaml"
_STAGE2, _STAGE2_CONTROL = "stage2", "stage2_control"
_SUFFIXES = (".pth", ".pth.tar")
_ROOM = 20  # so that of a config that is a little off, the shapes that do not fit are named

_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True, eq=False)
class OfficialNetworks:
    """The networks of one data set, without the discriminators.

    Attributes:
        decoder: The decoder of stage 1, with spectral norm as published.
        video_encoder: The encoder of stage 1.
        image_encoder: The conditioning encoder.
        flow: The cINN.
        files: The checkpoints of these four networks, in this order.
    """

    decoder: Decoder
    video_encoder: VideoEncoder
    image_encoder: ImageEncoder
    flow: PaperFlow
    files: tuple[Path, ...]


def read_official(
    folder: str | Path, *, control: bool = False, log_det: LogDet = "exact"
) -> OfficialNetworks:
    """Read the networks of one data set and check every entry of their state dicts.

    Args:
        folder: Folder that contains `stage1` and `stage2` or `stage2_control`; or one of the
            latter two.
        control: Whether to read `stage2_control` rather than `stage2`.
        log_det: See `PaperFlowConfig`.

    Returns:
        The networks in evaluation mode, in float32, on the CPU.

    Raises:
        UserError: A file is missing, damaged, or contains Python objects other than tensors; a
            config lacks a field, or does not match another config or the weights.
    """
    stage2 = _stage2_folder(Path(folder), control=control)
    config = _Config.read(stage2 / _STAGE2_CONFIG)
    (decoder, decoder_file), (video_encoder, encoder_file) = _load_stage1(config, stage2=stage2)
    image_encoder, image_file = _load_image_encoder(config, stage2=stage2)
    flow_file = _checkpoint(stage2, "cINN")
    flow_section = _flow_section(
        config,
        z_dim=decoder.config.z_dim,
        embedding_dim=image_encoder.config.z_dim,
        log_det=log_det,
    )
    return OfficialNetworks(
        decoder=decoder,
        video_encoder=video_encoder,
        image_encoder=image_encoder,
        flow=_load(PaperFlow, "flow", flow_section, flow_file),
        files=(decoder_file, encoder_file, image_file, flow_file),
    )


@dataclass(frozen=True)
class _Section:
    """Fields of a YAML file, and where they were found."""

    values: Mapping[str, Any]
    path: Path
    name: str

    def number(self, field: str) -> int:
        value = self.values.get(field)
        if not isinstance(value, int) or isinstance(value, bool):
            raise UserError(
                f"{self.path}: {self.name}.{field} must be a whole number, got {value!r}: take "
                "the config that came with the checkpoint"
            )
        return value


@dataclass(frozen=True)
class _Config:
    """A YAML file whose sections may be nested at any depth."""

    values: Mapping[str, Any]
    path: Path

    @staticmethod
    def read(path: Path) -> "_Config":
        check_input_file(path, kind="a published config")
        try:
            values = parse_yaml(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is not plain YAML ({error}): copy it again") from error
        if not isinstance(values, Mapping):
            raise UserError(f"{path} has no named fields: copy the published config again")
        return _Config(values, path)

    def section(self, name: str, *, mark: str) -> _Section:
        """Return the section with a name, or else the one that contains the field `mark`."""
        everything = list(_mappings(self.values))
        for values in everything:
            for key, inner in values.items():
                if str(key).lower() == name.lower() and isinstance(inner, Mapping):
                    return _Section(inner, self.path, name)
        for values in everything:
            if mark in values:
                return _Section(values, self.path, name)
        raise UserError(
            f"{self.path} has no section {name}: take the config that came with the checkpoint"
        )

    def find(self, field: str) -> Any:  # noqa: ANN401 - any YAML value
        """Return the first field with this name in any section, or None."""
        return next((values[field] for values in _mappings(self.values) if field in values), None)


def _mappings(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield all mappings of a YAML file, outermost first."""
    level = [values]
    while level:
        yield from level
        level = [inner for outer in level for inner in outer.values() if isinstance(inner, Mapping)]


def _load(kind: type[_Network], component: str, section: _Section, file: Path) -> _Network:
    """Build a network from its section and load the weights of a file."""
    known = config_fields(component)
    # The released code ignores other fields.
    values = {field: value for field, value in section.values.items() if field in known}
    state = read_state_dict(file, kind=f"the checkpoint of the {component}")
    try:
        with torch.device("meta"), no_larger_than(state, times=_ROOM):
            network = build(component, values)
    except (UserError, RuntimeError) as error:
        raise UserError(f"{section.path}, section {section.name}: {error}") from error
    assert isinstance(network, kind)
    expected = network.state_dict()
    source = f"the {component} that {section.path} describes"
    require_entries(state, expected, path=file, network=source)
    for name, value in state.items():
        if not bool(value.isfinite().all()):
            raise UserError(
                f"{file}: {name} contains NaN or infinity: copy the checkpoint again, or use one "
                "of an earlier epoch"
            )
    network.load_state_dict({k: v.to(expected[k].dtype) for k, v in state.items()}, assign=True)
    return network.eval()


def _load_stage1(
    config: _Config, *, stage2: Path
) -> tuple[tuple[Decoder, Path], tuple[VideoEncoder, Path]]:
    named = config.section("First_stage_model", mark="checkpoint_decoder")
    folder = _folder_of(_STAGE1_CONFIG, named=named, stage2=stage2, default="stage1")
    stage1 = _Config.read(folder / _STAGE1_CONFIG)
    decoder_file = _checkpoint(folder, named.values.get("checkpoint_decoder", "best_PFVD_GEN"))
    section = stage1.section("Decoder", mark="channel_factor")
    decoder = _load(Decoder, "decoder", section, decoder_file)
    encoder_file = _checkpoint(folder, named.values.get("checkpoint_encoder", "best_PFVD_ENC"))
    section = stage1.section("Encoder", mark="res_type_encoder")
    video_encoder = _load(VideoEncoder, "video_encoder", section, encoder_file)
    return (decoder, decoder_file), (video_encoder, encoder_file)


def _load_image_encoder(config: _Config, *, stage2: Path) -> tuple[ImageEncoder, Path]:
    named = config.section("Conditioning_Model", mark="checkpoint_name")
    folder = _folder_of(_CONDITIONING_CONFIG, named=named, stage2=stage2, default=_STAGE2)
    section = _Config.read(folder / _CONDITIONING_CONFIG).section("AE", mark="encoder_type")
    if "z_dim" in named.values and named.number("z_dim") != section.number("z_dim"):
        raise UserError(
            f"{named.path}: Conditioning_Model.z_dim is {named.number('z_dim')}, but in "
            f"{section.path} AE.z_dim is {section.number('z_dim')}: take both from one training"
        )
    file = _checkpoint(folder, named.values.get("checkpoint_name", "Encoder_stage2"))
    return _load(ImageEncoder, "image_encoder", section, file), file


def _flow_section(config: _Config, *, z_dim: int, embedding_dim: int, log_det: LogDet) -> _Section:
    """Return the flow's config for `build`, of which the published config contains a part."""
    section = config.section("Flow", mark="n_flows")
    control = config.find("control")
    if control is None:  # most published configs leave it out
        control = config.path.parent.name == _STAGE2_CONTROL
    if not isinstance(control, bool):
        raise UserError(
            f"{config.path}: control must be true or false, got {control!r}: correct it"
        )
    values = {
        "in_channels": z_dim,
        "embedding_dim": embedding_dim + (ONE_HOT_DIM if control else 0),
        "hidden_dim": z_dim * section.number("flow_mid_channels_factor"),
        "hidden_depth": section.number("flow_hidden_depth"),
        "n_flows": section.number("n_flows"),
        "control": control,
        "log_det": log_det,
    }
    return _Section(values, section.path, section.name)


def _stage2_folder(folder: Path, *, control: bool) -> Path:
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder: give the folder of one data set, with stage1 and stage2"
        )
    if (folder / _STAGE2_CONFIG).is_file():
        return folder
    names = (_STAGE2_CONTROL,) if control else (_STAGE2, _STAGE2_CONTROL)
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise UserError(
        f"{folder} has no folder {' or '.join(names)}: give the folder of one data set, as "
        "published, with stage1 and stage2 in it"
    )


def _folder_of(config: str, *, named: _Section, stage2: Path, default: str) -> Path:
    """Find a config: in the stage-2 folder, in `default`, or as `config_stage2.yaml` says."""
    root = stage2.parent if stage2.name else stage2.resolve().parent
    path = Path(str(named.values.get("model_path", "")), str(named.values.get("model_name", "")))
    parts = [part for part in path.parts if part not in ("/", "..")]
    tails = [Path(*parts[-count:]) for count in range(1, len(parts) + 1)]
    candidates = [stage2, root / default, *(base / t for t in tails for base in (root, stage2))]
    for candidate in candidates:
        if (candidate / config).is_file():
            return candidate
    raise UserError(
        f"{root / default / config} does not exist, and {config} is in no folder that {named.path} "
        "names: copy it from the published folder"
    )


def _checkpoint(folder: Path, name: object) -> Path:
    names = [str(name), *(f"{name}{suffix}" for suffix in _SUFFIXES)]
    for candidate in names:
        if path_inside(folder, candidate).is_file():
            return folder / candidate
    raise UserError(
        f"{folder / names[1]} does not exist, nor {', '.join(names[2:])} beside it: copy the "
        "checkpoint, or correct its name in config_stage2.yaml"
    )
