"""The network that reads end points: what it learns, and the file that it lies in."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.core.weights import save_weights
from cinnema.data.dataset import PackedDataset
from cinnema.data.prepare import prepare
from cinnema.data.records import Control, Item, RawClip, Split
from cinnema.evaluation.known_truth.reader import (
    EndPointReader,
    ReaderConfig,
    ReaderTraining,
    load_reader,
    save_reader,
    train_reader,
)
from known_models import robot_clips

POSITION = Control(name="end_effector", kind="position", labels=("x", "y", "z"), unit="m")


class Dots:
    """Sixteen videos of a dot, all to train on but two."""

    size = 64

    def __init__(self, *, name: str = "push", control: Control | None = POSITION) -> None:
        self.name, self.control = name, control

    def settings(self) -> dict[str, Any]:
        return {}

    def items(self) -> Sequence[Item]:
        splits: list[Split] = ["train"] * 14 + ["test"] * 2
        return [Item(name=f"{i:02d}", split=split) for i, split in enumerate(splits)]

    def read(self, item: Item) -> Iterator[RawClip]:
        clip = robot_clips(16)[int(item.name)]
        tracks = {} if clip.track is None or self.control is None else {"end_effector": clip.track}
        yield RawClip(name=item.name, source=item.name, frames=clip.frames, fps=10.0, tracks=tracks)


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    folder = tmp_path_factory.mktemp("dots") / "packed"
    prepare(Dots(), folder, encoding="raw")
    return PackedDataset(folder)


def test_it_learns_where_the_hand_is(dots: PackedDataset) -> None:
    told = []
    training = ReaderTraining(steps=80, batch_size=16)
    reader = train_reader(dots, training=training, progress=lambda *a: told.append(a))
    errors, guesses = [], []
    for index in dots.indices("test"):
        clip = dots.read(int(index))
        true = clip.tracks["end_effector"]
        errors.append(np.linalg.norm(reader.read(clip.frames) - true, axis=1))
        guesses.append(np.linalg.norm(np.array(reader.config.centre) - true, axis=1))
    assert np.mean(errors) < 0.5 * np.mean(guesses)
    assert told[-1] == ("training the reader of end points", 80, 80)
    assert reader.config.width == pytest.approx(0.48)


def test_the_same_seed_gives_the_same_reader(dots: PackedDataset) -> None:
    short = ReaderTraining(steps=2, batch_size=4)
    first, second = (train_reader(dots, training=short).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_frames_of_any_size_are_read() -> None:
    config = ReaderConfig(data="push", unit="m", centre=(1.0, 2.0, 3.0), scale=(0.0,) * 3, width=1)
    reader = EndPointReader(config)
    for side in (32, 64, 128):
        assert reader.read(np.zeros((2, side, side, 3), np.uint8)).tolist() == [[1, 2, 3]] * 2
    assert reader.read(np.zeros((0, 64, 64, 3), np.uint8)).shape == (0, 3)


def test_a_file_gives_back_the_same_reader(tmp_path: Path) -> None:
    config = ReaderConfig(data="push", unit="m", centre=(0.0,) * 3, scale=(0.1,) * 3, width=0.48)
    reader, path = EndPointReader(config), tmp_path / "reader.safetensors"
    save_reader(path, reader)
    again = load_reader(path)
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    assert np.array_equal(reader.read(frames), again.read(frames))
    assert again.config == config
    with pytest.raises(UserError, match="exists already"):
        save_reader(path, reader)


def test_other_files_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_weights(other, {"x": torch.zeros(1)}, {"name": "landscape"})
    with pytest.raises(UserError, match="contains no reader of end points"):
        load_reader(other)
    config = {"data": "push", "unit": "m", "centre": [0, 0, 0], "scale": [1, 1, 1], "width": 1}
    broken = tmp_path / "broken.safetensors"
    save_weights(broken, {"x": torch.zeros(1)}, {**config, "kind": "end-point reader"})
    with pytest.raises(UserError, match="does not hold the weights"):
        load_reader(broken)
    with pytest.raises(UserError, match="does not exist"):
        load_reader(tmp_path / "nowhere.safetensors")


def test_data_that_cannot_teach_are_refused(dots: PackedDataset, tmp_path: Path) -> None:
    prepare(Dots(control=None), tmp_path / "unknown")
    with pytest.raises(UserError, match="has no position of an end effector"):
        train_reader(PackedDataset(tmp_path / "unknown"))
    from cinnema.data.sources.splits import OneSplit

    prepare(OneSplit(Dots(), "test"), tmp_path / "test")
    with pytest.raises(UserError, match=r"has no training clips.*--training"):
        train_reader(PackedDataset(tmp_path / "test"))


def test_the_width_of_an_unknown_workspace_is_what_the_hand_covers(tmp_path: Path) -> None:
    prepare(Dots(name="bair"), tmp_path / "bair", encoding="raw")
    dataset = PackedDataset(tmp_path / "bair")
    reader = train_reader(dataset, training=ReaderTraining(steps=1, batch_size=4))
    tracks = [dataset.read(int(i), []).tracks["end_effector"] for i in dataset.indices("train")]
    assert reader.config.width == pytest.approx(float(np.ptp(np.concatenate(tracks), axis=0).max()))
