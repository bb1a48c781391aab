"""Weights files."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cinnema.core.errors import UserError
from cinnema.core.weights import load_weights, save_weights

CONFIG = {"z_dim": 64, "widths": [1, 2], "inner": {"name": "ν"}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_weights(path, {"w": torch.tensor([1.0, 0.5]), "n": torch.tensor([2**40])}, CONFIG)
    return path


def test_weights_come_back_as_float32_with_their_configuration(saved: Path) -> None:
    weights = load_weights(saved)
    assert torch.equal(weights.state["w"], torch.tensor([1.0, 0.5]))
    assert torch.equal(weights.state["n"], torch.tensor([2**40]))
    assert weights.config == CONFIG
    assert weights.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()


def test_the_file_holds_bfloat16_unless_told_otherwise(tmp_path: Path) -> None:
    x = torch.randn(1000, dtype=torch.float64)
    for dtype in (torch.bfloat16, torch.float32):
        save_weights(tmp_path / "m", {"x": x}, {}, dtype=dtype, overwrite=True)
        assert torch.equal(load_weights(tmp_path / "m").state["x"], x.to(dtype).float())
        assert (tmp_path / "m").stat().st_size < 1000 * dtype.itemsize + 500


def test_tied_and_strided_tensors_are_stored(tmp_path: Path) -> None:
    x = torch.arange(6.0).reshape(2, 3)
    save_weights(tmp_path / "m", {"x": x, "tied": x, "turned": x.T}, {})
    state = load_weights(tmp_path / "m").state
    assert torch.equal(state["tied"], x)
    assert torch.equal(state["turned"], x.T)


def test_a_hash_is_returned_and_nothing_is_overwritten(saved: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        save_weights(saved, {}, {})
    assert save_weights(saved, {}, {}, overwrite=True) == load_weights(saved).sha256


def damaged_files(folder: Path, whole: bytes) -> dict[str, str]:
    (folder / "cut").write_bytes(whole[:-1])
    (folder / "header only").write_bytes(whole[:20])
    (folder / "text").write_text("these are no weights at all, but words")
    (folder / "empty").touch()
    save_file({"x": torch.ones(1)}, folder / "foreign")
    save_file({"x": torch.ones(1)}, folder / "odd", metadata={"cinnema": "[1]"})
    for value in ("nan", "inf"):
        save_weights(folder / value, {"x": torch.ones(1), "y": torch.tensor([1, float(value)])}, {})
    newer = {"cinnema": json.dumps({"format": 2, "config": {}})}
    save_file({"x": torch.ones(1)}, folder / "newer", metadata=newer)
    return {
        "cut": "not a complete safetensors file",
        "header only": "not a complete safetensors file",
        "text": "not a complete safetensors file",
        "empty": "is empty",
        "missing": "does not exist",
        "foreign": "not one of cinnema's",
        "odd": "not one of cinnema's",
        "nan": "y contains NaN or infinity",
        "inf": "y contains NaN or infinity",
        "newer": "format 2.*update cinnema",
    }


def test_a_wrong_file_is_named_in_one_line(saved: Path, tmp_path: Path) -> None:
    for name, complaint in damaged_files(tmp_path, saved.read_bytes()).items():
        with pytest.raises(UserError, match=complaint) as caught:
            load_weights(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_is_not_read_that_is_larger_than_weights_are(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(5 << 30)  # takes no space
    with pytest.raises(UserError, match=r"huge has 5\.0 GB, and weights files at most 4"):
        load_weights(tmp_path / "huge")


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
        {"x": {"dtype": "F32", "shape": [1 << 33, 1 << 33], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}},
        {"__metadata__": {"cinnema": "[" * 5000}},
    ],
)
def test_headers_that_promise_more_than_the_file_holds_are_refused(
    tmp_path: Path, header: dict[str, object]
) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "a").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(UserError, match="safetensors"):
        load_weights(tmp_path / "a")
    (tmp_path / "a").write_bytes((1 << 62).to_bytes(8, "little") + text)
    with pytest.raises(UserError, match="safetensors"):
        load_weights(tmp_path / "a")
