"""`cinnema evaluate`: table, JSON file and page."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.data.prepare import prepare
from cinnema.data.records import Item, RawClip, Split
from cinnema.evaluation.features import FeatureNetwork
from cinnema.evaluation.metrics import registry
from cinnema.models.files import save_model
from small_models import tiny_model


class Stripes:
    """Videos of stripes that drift, one for each split."""

    name, size, control = "stripes", 64, None

    def __init__(self, splits: Sequence[Split] = ("train",) * 4 + ("test",) * 2) -> None:
        self.splits = splits

    def settings(self) -> dict[str, Any]:
        return {}

    def items(self) -> Sequence[Item]:
        return [Item(name=str(i), split=split) for i, split in enumerate(self.splits)]

    def read(self, item: Item) -> Any:
        y, x = np.mgrid[:64, :64]
        frames = [
            128 + 100 * np.sin((x + (3 + int(item.name)) * y / 4 - 2 * t) / 9) for t in range(5)
        ]
        yield RawClip(
            name=item.name,
            source=item.name,
            frames=np.repeat(np.stack(frames)[..., None], 3, axis=-1).astype(np.uint8),
            fps=8.0,
        )


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "packed"
    prepare(Stripes(), folder)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(path, tiny_model(size=64))
    return path


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small networks instead of large ones."""
    torch.manual_seed(0)
    lpips = LPIPS("alex").eval()
    network = FeatureNetwork(
        name="ends", identity="ends", compute=lambda v: torch.from_numpy(v[0, ::32, ::32].ravel())
    )
    monkeypatch.setattr(LPIPS, "load", lambda _: lpips)
    monkeypatch.setattr(registry, "feature_network", lambda *_: network)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CINNEMA_BACKBONES", raising=False)


@pytest.mark.usefixtures("cheap")
def test_it_prints_tables_and_writes_json_and_a_page(
    cinnema: Callable[..., Any], clips: Path, weights: Path, tmp_path: Path
) -> None:
    json_file, report = tmp_path / "numbers.json", tmp_path / "report"
    result = cinnema(
        "evaluate", weights, clips, "--samples", 1, "--threads", 1, "--device", "cpu",
        "--json", json_file, "--report", report,
    )  # fmt: skip
    assert result.code == 0, result.err
    text = "\n".join(result.out)
    for row in ("real against real", "cINN", "frozen first frame", "linear-Gaussian prior"):
        assert row in text
    assert "n 2/2" in text
    assert "missing  FID" in text
    values = json.loads(json_file.read_text())
    assert values["weights"]["name"] == "tiny"
    assert values["rows"]["cINN"]["values"]["PSNR"]["num_clips"] == 2
    assert str(report / "index.html") in text
    assert (report / "index.html").is_file()
    assert (tmp_path / "cache" / "cinnema" / "features.sqlite").is_file()
    assert any("measuring: 18 of 18" in line for line in result.err)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--protocol", "paper"], "the paper did not measure stripes"),
        (["--split", "validation"], "no clip of the split validation has 5 frames at stride 1"),
        (["--stride", 2], "no clip has 5 frames at stride 2"),
        (["--num-samples", 0], "--num-samples must be at least 1, got 0"),
        (["--against", "landscpe"], "did you mean landscape?"),
        (["--only", "end-point"], "this metric needs the end point"),
        (["--training", "nowhere"], "nowhere is not a folder"),
        (["--clips", 1], "--clips must be at least 2, got 1"),
        (["--backbones", "nowhere"], "nowhere is not a folder"),
        (["--device", "abacus"], "--device must be"),
    ],
)
@pytest.mark.usefixtures("cheap")
def test_a_mistake_is_reported_in_one_line(
    options: list[object],
    message: str,
    cinnema: Callable[..., Any],
    clips: Path,
    weights: Path,
) -> None:
    result = cinnema("evaluate", weights, clips, *options)
    assert result.code == 2
    assert message in result.err[-1]
    assert result.err[-1].startswith("cinnema: error: ")


@pytest.mark.usefixtures("cheap")
def test_without_a_test_split_it_takes_training_clips_and_says_so(
    cinnema: Callable[..., Any], weights: Path, tmp_path: Path
) -> None:
    prepare(Stripes(splits=("train",) * 2), tmp_path / "train")
    json_file = tmp_path / "numbers.json"
    result = cinnema(
        "evaluate", weights, tmp_path / "train", "--only", "pixels", "--num-samples", 1,
        "--device", "cpu", "--json", json_file,
    )  # fmt: skip
    assert result.code == 0, result.err
    (line,) = [line for line in result.err if "split" in line]
    assert "train" in line
    assert json.loads(json_file.read_text())["data"]["split"] == "train"


@pytest.mark.usefixtures("cheap")
def test_a_report_without_its_libraries_is_an_error_at_the_start(
    cinnema: Callable[..., Any], weights: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = cinnema("evaluate", weights, clips, "--report", "page")
    assert result.code == 2
    assert "--report needs matplotlib: install" in result.err[-1]


@pytest.mark.usefixtures("cheap")
def test_data_that_are_missing_are_refused(
    cinnema: Callable[..., Any], weights: Path, tmp_path: Path
) -> None:
    result = cinnema("evaluate", weights, tmp_path / "none")
    assert result.code == 2
    assert "is not a folder" in result.err[-1]


@pytest.mark.usefixtures("cheap")
def test_validate_prints_the_likelihood_and_the_priors_and_writes_json(
    cinnema: Callable[..., Any], clips: Path, weights: Path, tmp_path: Path
) -> None:
    json_file = tmp_path / "numbers.json"
    result = cinnema("validate", weights, "--data", clips, "--device", "cpu", "--json", json_file)
    assert result.code == 0, result.err
    rows = json.loads(json_file.read_text())["rows"]
    for row in ("cINN", "z ~ N(0, I)", "Gaussian prior", "linear-Gaussian prior"):
        assert row in "\n".join(result.out)
        assert rows[row]["values"]["bits a dimension"]["num_clips"] == 2


def test_validate_refuses_what_it_cannot_measure(
    cinnema: Callable[..., Any], tmp_path: Path
) -> None:
    result = cinnema("validate", "--data", tmp_path / "none")
    assert (result.code, "none is not a folder" in result.err[-1]) == (2, True)
