"""Folders of the published layout become the networks whose outputs were recorded, or are refused
by a line that names the file and what is wrong with it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.paper.official import OfficialNetworks, read_official
from official_folder import (
    FILES,
    copy_of,
    read_yaml,
    save_checkpoint,
    write_official,
    write_yaml,
)
from parity import recording_of

STAGE1, STAGE2 = "stage1/config_stage1.yaml", "stage2/config_stage2.yaml"
CONDITIONING = "stage2/config_stage2_AE.yaml"


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_official(tmp_path_factory.mktemp("published") / "small")


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A folder that a test may change."""
    return copy_of(published, tmp_path / "small")


def change(path: Path, section: str, **fields: object) -> None:
    """Replace fields of a YAML file; None takes one away."""
    values = read_yaml(path)
    values[section] = {k: v for k, v in {**values[section], **fields}.items() if v is not None}
    write_yaml(path, values)


@torch.no_grad()
def check_outputs(networks: OfficialNetworks) -> None:
    """Compare with what was recorded, to 1e-4 of its spread."""
    decoder, encoder = recording_of("decoder"), recording_of("video_encoder")
    image, flow = recording_of("image_encoder"), recording_of("flow")
    pairs = (
        (networks.decoder(**decoder.inputs).flatten()[::11], decoder.outputs["video"]),
        (networks.video_encoder(encoder.inputs["video"])[0], encoder.outputs["mu"]),
        (networks.image_encoder(image.inputs["x0"]), image.outputs["embedding"]),
        (networks.flow.to_latent(flow.inputs["nu"], flow.inputs["cond"])[0], flow.outputs["z"]),
    )
    for ours, theirs in pairs:
        assert float((ours - theirs).abs().max()) < 1e-4 * float(theirs.std())


def check_states(networks: OfficialNetworks, *, control: bool = False) -> None:
    for component in FILES:
        name = "flow_control" if control and component == "flow" else component
        state = getattr(networks, component).state_dict()
        assert state.keys() == recording_of(name).state.keys()
        assert all(torch.equal(state[k], v) for k, v in recording_of(name).state.items())


def test_a_published_folder_computes_what_was_recorded(published: Path) -> None:
    networks = read_official(published)
    check_outputs(networks)
    assert [str(file.relative_to(published)) for file in networks.files] == list(FILES.values())
    parts = networks.decoder, networks.video_encoder, networks.image_encoder, networks.flow
    assert not any(part.training for part in parts)


def test_the_control_has_a_folder_of_its_own(published: Path, tmp_path: Path) -> None:
    both = write_official(copy_of(published, tmp_path / "both"), control=True)
    check_states(read_official(both, control=True), control=True)
    check_states(read_official(both))
    check_states(read_official(both / "stage2_control"), control=True)


def test_a_control_that_the_config_leaves_out_is_told_by_the_folders_name(tmp_path: Path) -> None:
    folder = write_official(tmp_path, control=True)
    change(folder / "stage2_control/config_stage2.yaml", "Training", control=None)
    networks = read_official(folder)  # the only stage 2 there is
    assert networks.flow.config.control
    check_states(networks, control=True)


def test_the_published_log_determinant_is_a_switch(published: Path) -> None:
    flow = recording_of("flow")
    z, cond = flow.inputs["z"], flow.inputs["cond"]
    exact, wrong = (
        read_official(published, log_det=kind).flow.to_residual(z, cond)[1]
        for kind in ("exact", "published")
    )
    torch.testing.assert_close(wrong, flow.outputs["logdet_official"], atol=1e-5, rtol=0)
    assert (exact < wrong - 1).all()


def renamed(folder: Path) -> None:
    for file in (*(folder / "stage1").glob("*.pth"), *(folder / "stage2").glob("*.pth")):
        file.rename(file.with_name(f"{file.stem}.pth.tar"))


def parallel(folder: Path) -> None:
    for component, name in FILES.items():
        state = recording_of(component).state
        save_checkpoint(folder / name, {f"module.{key}": value for key, value in state.items()})


def bare(folder: Path) -> None:
    (folder / FILES["flow"]).unlink()
    torch.save(recording_of("flow").state, folder / FILES["flow"])


def in_another_precision(folder: Path) -> None:
    state = recording_of("flow").state
    doubled = {k: v.double() if v.is_floating_point() else v for k, v in state.items()}
    save_checkpoint(folder / FILES["flow"], doubled)


def nested(folder: Path) -> None:
    for name in (STAGE1, STAGE2, CONDITIONING):
        write_yaml(folder / name, {"config": {"model": read_yaml(folder / name)}})


def flat(folder: Path) -> None:
    write_yaml(folder / CONDITIONING, read_yaml(folder / CONDITIONING)["AE"])


def without_what_has_a_usual_name(folder: Path) -> None:
    change(
        folder / STAGE2, "First_stage_model", checkpoint_decoder=None, model_path=None,
        model_name=None,
    )  # fmt: skip
    change(folder / STAGE2, "Conditioning_Model", checkpoint_name=None, z_dim=None)
    change(folder / STAGE2, "Training", control=None)


def elsewhere(folder: Path) -> None:
    (folder / "stage1").rename(folder / "my_vae")
    (folder / "my_vae/best_PFVD_GEN.pth").rename(folder / "my_vae/epoch_12.pth")
    change(
        folder / STAGE2, "First_stage_model", model_path="/home/somebody/runs/../small",
        model_name="my_vae", checkpoint_decoder="epoch_12.pth",
    )  # fmt: skip
    (folder / "encoders/ae").mkdir(parents=True)
    for name in (CONDITIONING, FILES["image_encoder"]):
        (folder / name).rename(folder / "encoders/ae" / Path(name).name)
    change(folder / STAGE2, "Conditioning_Model", model_path="encoders/", model_name="ae/")


def with_more_fields(folder: Path) -> None:
    change(folder / STAGE1, "Decoder", comment="ours")


@pytest.mark.parametrize(
    "vary",
    [
        renamed, parallel, bare, in_another_precision, nested, flat, without_what_has_a_usual_name,
        elsewhere, with_more_fields,
    ],
)  # fmt: skip
def test_a_folder_may_vary_where_it_does_not_matter(
    folder: Path, vary: Callable[[Path], None]
) -> None:
    vary(folder)
    check_states(read_official(folder))


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


def with_state(component: str, **entries: Any) -> Callable[[Path], None]:
    """Change entries of a checkpoint; None takes one away."""

    def save(folder: Path) -> None:
        state = {**recording_of(component).state, **entries}
        kept = {name: value for name, value in state.items() if value is not None}
        save_checkpoint(folder / FILES[component], kept)

    return save


def with_fields(file: str, section: str, **fields: object) -> Callable[[Path], None]:
    return lambda folder: change(folder / file, section, **fields)


def with_code(folder: Path) -> None:
    save_checkpoint(folder / FILES["flow"], recording_of("flow").state, best=Harmful())


def with_text(file: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).write_text(text)

    return write


def without(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


NAN = torch.full((2048,), torch.nan)
REFUSALS: dict[str, tuple[Callable[[Path], None], str]] = {
    "code in a checkpoint": (with_code, r"cINN\.pth needs more than tensors.*run code.*mkdir"),
    "a missing key": (
        with_state("decoder", **{"g_1.norm_s.bn.bias": None}),
        r"best_PFVD_GEN\.pth does not fit the decoder.*lacks g_1\.norm_s\.bn\.bias",
    ),
    "an extra key": (
        with_state("video_encoder", foreign=torch.zeros(1)),
        r"best_PFVD_ENC\.pth.*has unknown foreign",
    ),
    "a wrong width": (
        with_state("decoder", **{"fc.weight": torch.zeros(2048, 17)}),
        r"best_PFVD_GEN\.pth.*wrong shape in fc\.weight \(2048, 17\), not \(2048, 16\)",
    ),
    "another key in the flow": (
        with_state("flow", **{"sub_layers.3.norm_layer.loc": None}),
        r"cINN\.pth.*lacks sub_layers\.3\.norm_layer\.loc",
    ),
    "NaN": (
        with_state("decoder", **{"fc.bias": NAN}),
        r"best_PFVD_GEN\.pth: fc\.bias contains NaN",
    ),
    "a config of other widths": (
        with_fields(STAGE1, "Decoder", channel_factor=16),
        r"best_PFVD_GEN\.pth.*config_stage1\.yaml.*wrong shape in fc\.weight",
    ),
    "a config of another depth": (
        with_fields(STAGE2, "Flow", n_flows=7),
        r"cINN\.pth.*config_stage2\.yaml.*lacks sub_layers\.6",
    ),
    "a config with a control that the flow lacks": (
        with_fields(STAGE2, "Training", control=True),
        r"cINN\.pth.*wrong shape in sub_layers",
    ),
    "configs that disagree": (
        with_fields(STAGE2, "Conditioning_Model", z_dim=64),
        r"config_stage2\.yaml: Conditioning_Model\.z_dim is 64.*_AE\.yaml AE\.z_dim is 12",
    ),
    "a field out of range": (
        with_fields(STAGE1, "Decoder", channel_factor=9),
        r"config_stage1\.yaml, section Decoder: decoder: channel_factor.*got 9",
    ),
    "a missing field": (
        with_fields(STAGE1, "Encoder", channels=None),
        r"config_stage1\.yaml, section Encoder:.*has no channels",
    ),
    "a missing number": (
        with_fields(STAGE2, "Flow", flow_hidden_depth=None),
        r"config_stage2\.yaml: Flow\.flow_hidden_depth must be a whole number, got None",
    ),
    "a control in words": (
        with_fields(STAGE2, "Training", control="False"),
        r"config_stage2\.yaml: control must be true or false, got 'False'",
    ),
    "a missing section": (
        with_text(CONDITIONING, "Training: {lr: 1}"),
        r"config_stage2_AE\.yaml has no section AE",
    ),
    "code in a config": (
        with_text(STAGE1, "Decoder: !!python/object/apply:os.system [echo]"),
        r"config_stage1\.yaml is not plain YAML",
    ),
    "a config that grows": (
        with_text(STAGE1, "a: &a [*a]"),
        r"config_stage1\.yaml is not plain YAML \(it has more than",
    ),
    "a config of a million blocks": (
        with_fields(STAGE2, "Flow", n_flows=10**6),
        r"config_stage2\.yaml, section Flow: .*more parameters than the file",
    ),
    "a config of endless width": (
        with_fields(STAGE2, "Flow", flow_mid_channels_factor=10**12),
        r"config_stage2\.yaml, section Flow",
    ),
    "a checkpoint elsewhere": (
        with_fields(STAGE2, "First_stage_model", checkpoint_decoder="../../decoder.pth"),
        r"'\.\./\.\./decoder\.pth' leads out of this folder",
    ),
    "a config of no fields": (with_text(STAGE1, "- 1"), r"config_stage1\.yaml has no named fields"),
    "a missing checkpoint": (
        without(FILES["image_encoder"]),
        r"Encoder_stage2\.pth does not exist, nor Encoder_stage2\.pth\.tar",
    ),
    "a missing config": (without(STAGE1), r"stage1/config_stage1\.yaml does not exist"),
    "a missing stage": (
        lambda folder: (folder / "stage2").rename(folder / "stage3"),
        "no folder stage2 or stage2_control",
    ),
    "a damaged checkpoint": (
        with_text(FILES["decoder"], "PK\x03\x04 broken"),
        r"best_PFVD_GEN\.pth",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_folder_that_is_wrong_is_refused_by_file_and_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(folder)
    spoil, match = REFUSALS[name]
    spoil(folder)
    with pytest.raises(UserError, match=match) as caught:
        read_official(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "harm").exists()


def test_a_path_that_is_not_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        read_official(tmp_path / "nowhere")


def test_a_missing_control_folder_is_refused(published: Path) -> None:
    with pytest.raises(UserError, match="no folder stage2_control"):
        read_official(published, control=True)
