"""A data set's folder as the paper's checkpoints came, in small widths, filled by a formula."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from parity import recording_of

FILES = {
    "decoder": "stage1/best_PFVD_GEN.pth",
    "video_encoder": "stage1/best_PFVD_ENC.pth",
    "image_encoder": "stage2/Encoder_stage2.pth",
    "flow": "stage2/cINN.pth",
}


def write_official(root: Path, *, control: bool = False) -> Path:
    """Write stage1 and stage2 (with a control: stage2_control) into a folder."""
    stage2 = "stage2_control" if control else "stage2"
    flow = recording_of("flow_control" if control else "flow")
    encoder = recording_of("image_encoder")
    for component, name in FILES.items():
        state = flow.state if component == "flow" else recording_of(component).state
        save_checkpoint(root / name.replace("stage2/", f"{stage2}/"), state)
    write_yaml(root / "stage1/config_stage1.yaml", {
        "Decoder": recording_of("decoder").config,
        "Encoder": recording_of("video_encoder").config,
        "Training": {"lr": "2e-4", "n_epochs": 55},
        "Logging": {"entitiy": "somebody", "mode": "online"},
    })  # fmt: skip
    write_yaml(root / stage2 / "config_stage2.yaml", {
        "Flow": {
            "n_flows": flow.config["n_flows"],
            "flow_hidden_depth": flow.config["hidden_depth"],
            "flow_mid_channels_factor": flow.config["hidden_dim"] // flow.config["in_channels"],
        },
        "Conditioning_Model": {
            "z_dim": encoder.config["z_dim"], "checkpoint_name": "Encoder_stage2",
            "model_name": stage2, "model_path": "./models/small/",
        },
        "First_stage_model": {
            "checkpoint_encoder": "best_PFVD_ENC", "checkpoint_decoder": "best_PFVD_GEN",
            "model_name": "stage1/", "model_path": "./models/small/",
        },
        "Training": {"bs": 50, "control": control},
        "Logging": {"entity": "somebody"},
    })  # fmt: skip
    write_yaml(root / stage2 / "config_stage2_AE.yaml", {"AE": encoder.config})
    return root


def save_checkpoint(path: Path, state: dict[str, Any], **beside: object) -> None:
    """Save a state dict as the released code does, with an optimiser's state beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))])
    content = {"state_dict": state, "epoch": 7, "optim_state_dict": optimiser.state_dict()}
    path.unlink(missing_ok=True)  # it may be a link
    torch.save({**content, **beside}, path)


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(yaml.safe_dump(values))


def read_yaml(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    return values


def copy_of(folder: Path, target: Path) -> Path:
    """A folder of links, whose files may be replaced by the functions above."""
    return Path(shutil.copytree(folder, target, copy_function=os.link))
