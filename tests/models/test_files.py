"""Weights files: which are read, and what is said of those that are not."""

import builtins
import re
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from bodies import tiny_body
from cinnema.core.bundled import bundled_names, bundled_sha256, find_weights
from cinnema.core.config import config_to_dict
from cinnema.core.errors import UserError
from cinnema.core.files import sha256_of
from cinnema.core.weights import save_weights
from cinnema.models.files import load_model, save_model
from paper_model import tiny_paper_model
from small_nature import nature_model


@pytest.mark.parametrize("change", ["lacks", "adds", "reshapes"])
def test_weights_that_do_not_fit_their_configuration_are_refused(
    tmp_path: Path, change: str
) -> None:
    model = tiny_body()
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
    save_weights(tmp_path / "a.safetensors", {}, {"depth": 3, "kind": "nature"})
    with pytest.raises(UserError, match=r"a\.safetensors.*NatureModelConfig"):
        load_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", ["sculpting", ["nature"]])
def test_a_model_of_an_unknown_kind_is_refused(tmp_path: Path, kind: object) -> None:
    save_weights(tmp_path / "a.safetensors", {}, {"kind": kind})
    with pytest.raises(
        UserError, match=rf"a\.safetensors.*{re.escape(repr(kind))}.*painting, nature"
    ):
        load_model(tmp_path / "a.safetensors")


@pytest.mark.parametrize("config", [{"kind": "warping", "name": "drift"}, {"name": "first"}])
def test_a_file_of_the_former_model_of_landscapes_names_its_successor(
    tmp_path: Path, config: dict[str, str]
) -> None:
    save_weights(tmp_path / "a.safetensors", {"a": torch.zeros(1)}, config)
    with pytest.raises(UserError, match=r"a\.safetensors holds a warping model.*landscape"):
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
    tmp_path: Path, field: str, value: float
) -> None:
    model = tiny_body()
    config = config_to_dict(model.config)
    config["flow"][field] = value
    save_weights(tmp_path / "a.safetensors", dict(model.state_dict()), config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"a\.safetensors"):
        load_model(tmp_path / "a.safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB


@pytest.mark.parametrize(
    ("field", "value"),
    [("period", 1e-300), ("period", -1.0), ("rate", 0.0), ("memory", 1.0), ("gain", float("nan"))],
)
def test_constants_of_a_motion_that_would_never_end_are_refused(
    tmp_path: Path, field: str, value: float
) -> None:
    model = nature_model()
    config = config_to_dict(model.config)
    config["dynamics"][0][field] = value
    save_weights(tmp_path / "a.safetensors", dict(model.state_dict()), config)
    with pytest.raises(UserError, match=rf"a\.safetensors.*{field}"):
        load_model(tmp_path / "a.safetensors")


def test_many_thin_blocks_are_refused_before_they_are_built(tmp_path: Path) -> None:
    model = tiny_paper_model()
    config = config_to_dict(model.config)
    config["flow"]["n_flows"] = 4096
    save_weights(tmp_path / "a.safetensors", dict(model.state_dict()), config)
    with pytest.raises(UserError, match="more parameters than the file"):
        load_model(tmp_path / "a.safetensors")


def test_a_deep_or_endless_configuration_is_refused(tmp_path: Path) -> None:
    model = tiny_body()
    deep: dict[str, Any] = {}
    for _ in range(50):
        deep = {"name": deep}
    for number, extra in enumerate((deep, {"name": [0] * 20_000})):
        path = tmp_path / f"{number}.safetensors"
        save_weights(path, dict(model.state_dict()), {**config_to_dict(model.config), **extra})
        with pytest.raises(UserError, match=r"\.safetensors.*name another file"):
            load_model(path)


def test_bundled_weights_that_were_changed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = save_model(tmp_path / "a.safetensors", tiny_body())
    monkeypatch.setattr("cinnema.core.bundled._BUNDLED", tmp_path)
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(f"{'0' * 64}  b.safetensors\n{digest}  a.safetensors\n")
    assert load_model("a").sha256 == digest
    for text in (f"{'0' * 64}  a.safetensors\n", f"{digest}  b.safetensors\n"):
        sums.write_text(text)
        with pytest.raises(UserError, match=r"a\.safetensors is not the file .* install .* again"):
            load_model("a")


@pytest.mark.parametrize("name", bundled_names())
def test_the_hashes_of_bundled_weights_are_stated(name: str) -> None:
    path = find_weights(name)
    assert bundled_sha256(path) == sha256_of(path), (
        "write them anew: in src/cinnema/weights, sha256sum *.safetensors > SHA256SUMS"
    )
