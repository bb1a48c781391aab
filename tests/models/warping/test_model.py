"""Models and residuals on disk."""

import builtins
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from cinnema.core.bundled import bundled_names, find_weights
from cinnema.core.config import config_to_dict
from cinnema.core.errors import UserError
from cinnema.core.weights import save_weights
from cinnema.models.files import load_model, save_model
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.warping.model import WarpingModel, WarpingModelConfig
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.residual import load_motion, save_motion


def test_a_model_comes_back_rounded_to_bfloat16(model: WarpingModel, weights: Path) -> None:
    loaded = load_model(weights)
    assert loaded.model.config == model.config
    assert loaded.path == weights
    assert len(loaded.sha256) == 64
    saved, back = model.state_dict(), loaded.model.state_dict()
    assert saved.keys() == back.keys()
    for name, value in saved.items():
        expected = value.bfloat16().float() if value.is_floating_point() else value
        assert torch.equal(back[name], expected)


def test_saving_what_was_loaded_gives_the_same_file(weights: Path, tmp_path: Path) -> None:
    loaded = load_model(weights)
    assert save_model(tmp_path / "again.safetensors", loaded.model) == loaded.sha256


def test_a_loaded_model_computes_and_does_not_train(weights: Path) -> None:
    model = load_model(weights).model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.flow.is_initialised


def test_parts_that_do_not_fit_are_refused(model: WarpingModel) -> None:
    config = model.config
    with pytest.raises(ValueError, match=r"z_dim.*8 and 16"):
        WarpingModelConfig(
            name="wrong",
            stage1=config.stage1,
            conditioner=config.conditioner,
            flow=FlowConfig(z_dim=8, condition_dim=4),
        )


@pytest.mark.parametrize("change", ["lacks", "adds", "reshapes"])
def test_weights_that_do_not_fit_their_configuration_are_refused(
    model: WarpingModel, tmp_path: Path, change: str
) -> None:
    state = dict(model.state_dict())
    if change == "adds":
        state["extra"] = torch.zeros(1)
    elif change == "lacks":
        del state["conditioner.leave.bias"]
    else:
        state["conditioner.leave.bias"] = torch.zeros(5)
    save_weights(tmp_path / "a.safetensors", state, config_to_dict(model.config))
    with pytest.raises(UserError, match=r"a\.safetensors does not hold") as caught:
        load_model(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_a_configuration_of_something_else_is_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", {}, {"depth": 3})
    with pytest.raises(UserError, match=r"a\.safetensors.*WarpingModelConfig"):
        load_model(tmp_path / "a.safetensors")


def test_a_model_of_an_unknown_kind_is_refused(model: WarpingModel, tmp_path: Path) -> None:
    config = {**config_to_dict(model.config), "kind": "sculpting"}
    save_weights(tmp_path / "a.safetensors", dict(model.state_dict()), config)
    with pytest.raises(UserError, match=r"a\.safetensors.*'sculpting'.*warping, painting"):
        load_model(tmp_path / "a.safetensors")


def test_an_unknown_name_lists_those_that_are_bundled() -> None:
    with pytest.raises(UserError, match="'seascape' is neither") as caught:
        load_model("seascape")
    assert all(name in str(caught.value) for name in bundled_names())


@pytest.mark.parametrize("name", ["nowhere/model.safetensors", Path("nowhere"), "a.safetensors"])
def test_a_missing_file_is_named(name: str | Path) -> None:
    with pytest.raises(UserError, match=str(name)):
        load_model(name)


def test_the_hub_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_hub(name: str, *args: Any, **options: Any) -> Any:
        if name == "huggingface_hub":
            raise ImportError(name)
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_hub)
    with pytest.raises(UserError, match=r"cinnema\[hub\]"):
        load_model("somebody/landscape")


def test_nu_comes_back_with_where_it_is_from(
    pipe: Pipeline, photograph: Callable[[int, int], np.ndarray], tmp_path: Path
) -> None:
    animation = pipe.animate(photograph(32, 48), num_samples=2, seed=5, fps=12)[1]
    save_motion(tmp_path / "a.safetensors", animation)
    saved = load_motion(tmp_path / "a.safetensors")
    assert torch.equal(saved.nu, animation.nu)
    assert torch.equal(saved.z, animation.z)
    assert (saved.seed, saved.sample, saved.weights) == (5, 1, pipe.sha256)
    assert saved.about == animation.settings
    assert saved.about["fps"] == 12


def test_files_of_something_else_hold_no_nu(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("nu")
    for path in (weights, tmp_path / "text.safetensors"):
        with pytest.raises(UserError, match=f"{path.name} is not a motion file"):
            load_motion(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_blocks", 10**6),
        ("num_blocks", 4000),
        ("hidden_dim", 10**12),
        ("hidden_dim", 4096),
        ("depth", 10**9),
        ("log_scale_bound", float("inf")),
        ("log_scale_bound", float("nan")),
    ],
)
def test_a_configuration_larger_than_its_tensors_is_refused_before_it_is_built(
    model: WarpingModel, tmp_path: Path, field: str, value: float
) -> None:
    config = config_to_dict(model.config)
    config["flow"][field] = value
    save_weights(tmp_path / "a.safetensors", dict(model.state_dict()), config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"a\.safetensors"):
        load_model(tmp_path / "a.safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB


def test_a_deep_or_endless_configuration_is_refused(model: WarpingModel, tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(50):
        deep = {"name": deep}
    for number, extra in enumerate((deep, {"name": [0] * 20_000})):
        path = tmp_path / f"{number}.safetensors"
        save_weights(path, dict(model.state_dict()), {**config_to_dict(model.config), **extra})
        with pytest.raises(UserError, match=r"\.safetensors.*name another file"):
            load_model(path)


def test_a_hub_id_can_name_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(*arguments: str, revision: str | None) -> str:
        asked.append((*arguments, revision))
        return "model.safetensors"

    hub = ModuleType("huggingface_hub")
    hub.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    for name in ("somebody/sky", "somebody/sky@v1.2"):
        assert find_weights(name) == Path("model.safetensors")
    assert [revision for *_, revision in asked] == [None, "v1.2"]
