"""`cinnema measure`: a table and a JSON file for each task, from the command line."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cinnema.data.prepare import prepare
from cinnema.data.records import Control, Item, RawClip
from cinnema.data.wind import WIND
from cinnema.evaluation.known_truth import reader as reader_module
from cinnema.evaluation.known_truth.reader import (
    EndPointReader,
    ReaderConfig,
    ReaderTraining,
    save_reader,
)
from cinnema.evaluation.protocol import RealClip
from cinnema.models import files as model_module
from cinnema.models.files import LoadedModel
from known_models import POSITION, Character, DotRobot, RollingSky, robot_clips, sky_clips

Run = Callable[..., Any]
NAMES = {"landscape": RollingSky, "robot": DotRobot}


class Known:
    """Clips of which the truth is known, the last ones for testing."""

    size = 64

    def __init__(self, name: str, clips: list[RealClip], control: Control, num: int) -> None:
        self.name, self.control = name, control
        self._clips, self._num = clips, num

    def settings(self) -> dict[str, Any]:
        return {"seed": 0}

    def items(self) -> Sequence[Item]:
        names = list(dict.fromkeys(clip.source for clip in self._clips))
        return [
            Item(name=name, split="train" if i < self._num else "test")
            for i, name in enumerate(names)
        ]

    def read(self, item: Item) -> Iterator[RawClip]:
        for clip in self._clips:
            if clip.source != item.name:
                continue
            track = clip.track
            if track is None:  # a wind is given from frame to frame
                assert clip.eta is not None
                step = clip.eta[None].repeat(5, axis=0) / 4
                step[0] = 0
                track = step
            yield RawClip(
                name=clip.start.key, source=clip.source, frames=clip.frames, fps=8.0,
                tracks={self.control.name: track}, still=clip.still, start=clip.shared_start,
            )  # fmt: skip


@pytest.fixture(scope="module")
def skies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "sky"
    prepare(Known("sky", sky_clips(6), WIND, 0), folder)
    return folder


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "push"
    prepare(Known("push", robot_clips(10, futures=4), POSITION, 4), folder, encoding="raw")
    return folder


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    """One that has learnt nothing: the command is what is tested."""
    path = tmp_path / "reader.safetensors"
    config = ReaderConfig(
        data="push", unit="m", centre=(0.0,) * 3, scale=(0.1,) * 3, width=0.48, channels=8
    )
    save_reader(path, EndPointReader(config))
    return path


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[Character], None]:
    """Weights by the names of landscape and robot are models whose answers are known."""

    def use(character: Character) -> None:
        monkeypatch.setattr(
            model_module, "load_model", lambda name: LoadedModel(NAMES[name](character), "abc")
        )

    use(Character())
    return use


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("direction", ["cINN", "eta of another clip", "real against real"]),
        ("edit", ["cINN", "random nu, edited"]),
        ("transfer", ["another picture, given nu", "reconstruction"]),
        ("swap", ["nu of (x0', z)", "regression on nu"]),
    ],
)
def test_tasks_of_a_sky_print_a_table_and_write_json(
    cinnema: Run, skies: Path, tmp_path: Path, task: str, rows: list[str]
) -> None:
    json_file = tmp_path / "numbers.json"
    result = cinnema("measure", task, "landscape", skies, "--seed", 3, "-o", json_file)
    assert result.code == 0, result.err
    text = "\n".join(result.out)
    assert "required " in text
    values = json.loads(json_file.read_text())
    assert (values["task"], values["weights"]) == (task, {"name": "known", "sha256": "abc"})
    assert values["settings"]["seed"] == 3
    assert values["data"]["name"] == "sky"
    assert {number["of"] for number in values["numbers"]} >= set(rows)
    for row in rows:
        assert row in text
    assert any(number.get("is_met") for number in values["numbers"])
    assert any("6 of 6" in line for line in result.err)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("task", ["end-point", "futures", "transfer"])
def test_tasks_of_a_robot_read_the_file_of_the_reader(
    cinnema: Run, dots: Path, reader: Path, tmp_path: Path, task: str
) -> None:
    before, json_file = reader.read_bytes(), tmp_path / "numbers.json"
    result = cinnema(
        "measure", task, "robot", dots, "--regressor", reader, "--clips", 4, "-o", json_file
    )
    assert result.code == 0, result.err
    assert reader.read_bytes() == before
    assert "training the reader" not in "\n".join(result.err)
    values = json.loads(json_file.read_text())
    assert values["settings"]["reader"] == "reader.safetensors"
    assert all(number["num_clips"] <= 4 for number in values["numbers"])
    if task == "futures":
        assert "Gaussian prior" in {number["of"] for number in values["numbers"]}


@pytest.mark.usefixtures("known")
def test_a_reader_is_trained_once_and_kept(
    cinnema: Run, dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ReaderTraining(steps=2, batch_size=4)
    monkeypatch.setattr(reader_module, "ReaderTraining", lambda: short)
    path = tmp_path / "kept.safetensors"
    options = ["--training", dots, "--regressor", path, "--clips", 8]
    for is_trained in (True, False):
        result = cinnema("measure", "end-point", "robot", dots, *options)
        assert result.code == 0, result.err
        assert any("training the reader" in line for line in result.err) is is_trained
    assert path.is_file()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (("direction", "robot", "skies"), "this metric needs the drift"),
        (("edit", "robot", "skies"), "this metric needs the drift"),
        (("end-point", "landscape", "dots"), "this metric needs the end point"),
        (("end-point", "robot", "skies"), "have no position of an end effector"),
        (("futures", "robot", "skies"), "have no position of an end effector"),
    ],
)
@pytest.mark.usefixtures("known")
def test_what_is_unsuitable_ends_with_1_and_one_line(
    cinnema: Run, request: pytest.FixtureRequest, what: tuple[str, str, str], message: str
) -> None:
    task, weights, data = what
    result = cinnema("measure", task, weights, request.getfixturevalue(data))
    assert result.code == 1
    assert result.out == []
    assert "cinnema: error: " in result.err[-1]
    assert message in result.err[-1]


def test_a_model_without_a_control_ends_with_1(
    cinnema: Run, skies: Path, known: Callable[[Character], None]
) -> None:
    known(Character(is_steered=False))
    result = cinnema("measure", "direction", "landscape", skies)
    assert result.code == 1
    assert "the model known takes no control" in result.err[-1]
    assert cinnema("measure", "transfer", "landscape", skies).code == 0  # which needs none


@pytest.mark.usefixtures("known")
def test_data_without_futures_end_with_1(cinnema: Run, tmp_path: Path, reader: Path) -> None:
    prepare(Known("push", robot_clips(3, futures=2), POSITION, 0), tmp_path / "two")
    result = cinnema("measure", "futures", "robot", tmp_path / "two", "--regressor", reader)
    assert result.code == 1
    assert "no start has 4 futures" in result.err[-1]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clips", 1], "--clips must be at least 2, got 1"),
        (["--batch-size", 0], "--batch-size must be at least 1, got 0"),
        (["--stride", 0], "--stride must be at least 1, got 0"),
        (["--training", "nowhere"], "nowhere is not a folder"),
        (["--device", "abacus"], "--device must be"),
    ],
)
def test_a_wrong_option_ends_with_2(
    cinnema: Run, skies: Path, options: list[Any], message: str
) -> None:
    result = cinnema("measure", "swap", "landscape", skies, *options)
    assert result.code == 2
    assert message in result.err[-1]


def test_weights_and_data_that_are_not_there_end_with_2(cinnema: Run, skies: Path) -> None:
    assert cinnema("measure", "swap", "nowhere", skies).code == 2
    assert cinnema("measure", "swap", "landscape", "nowhere").code == 2


@pytest.mark.parametrize("option", ["-o", "--regressor"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    cinnema: Run, skies: Path, tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").touch()
    result = cinnema("measure", "swap", "landscape", skies, option, tmp_path / "file" / "x.json")
    assert result.code == 2
    assert "cannot be written" in result.err[-1]


def test_it_has_help(cinnema: Run) -> None:
    result = cinnema("measure", "--help")
    assert result.code == 0
    assert "Exit code 1: the weights or the data do not suit" in " ".join(result.out)


def test_the_split_and_the_stride_must_fit(cinnema: Run, skies: Path, known: Any) -> None:
    del known
    result = cinnema("measure", "swap", "landscape", skies, "--split", "train")
    assert result.code == 1
    assert "no clip of the split train has 5 frames" in result.err[-1]
