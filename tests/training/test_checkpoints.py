"""Checkpoints: what is found of damage, and which one is taken instead."""

import doctest
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.training import checkpoints
from cinnema.training.checkpoints import Checkpoints


def state_of(clips: int) -> dict[str, Any]:
    return {"clips": clips, "weights": torch.full((64,), float(clips))}


def clips_in(folder: Path) -> int | None:
    state = Checkpoints(folder).read()
    return None if state is None else int(state["clips"])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def two(tmp_path: Path) -> Checkpoints:
    """The second checkpoint of a run, and the first as the previous one."""
    made = Checkpoints(tmp_path)
    made.write(state_of(1))
    made.write(state_of(2))
    return made


def test_the_latest_is_read_and_the_one_before_is_kept(two: Checkpoints) -> None:
    assert clips_in(two.folder) == 2
    two.write(state_of(3))
    assert names_in(two.folder) == ["checkpoint.previous.pt", "checkpoint.pt"]
    assert clips_in(two.folder) == 3


def test_torch_reads_a_signed_checkpoint_by_itself(two: Checkpoints) -> None:
    assert torch.load(two.latest, weights_only=True)["clips"] == 2


def test_a_checkpoint_of_torch_alone_is_read(tmp_path: Path) -> None:
    torch.save(state_of(5), tmp_path / "checkpoint.pt")
    assert clips_in(tmp_path) == 5


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).read() is None


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_bit_that_flips_is_found_and_the_previous_one_taken(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    made = Checkpoints(folder)
    made.write(state_of(1))
    made.write(state_of(2))
    content = bytearray(made.latest.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    made.latest.write_bytes(content)
    with pytest.warns(
        UserWarning, match=r"checkpoint\.pt cannot be read.*going on from .*previous"
    ):
        assert clips_in(folder) == 1


@pytest.mark.parametrize("bit", range(16))
def test_a_bit_that_flips_in_the_length_of_the_hash_is_found(two: Checkpoints, bit: int) -> None:
    content = bytearray(two.latest.read_bytes())
    content[content.rindex(b"cinnema sha256 ") - 2 + bit // 8] ^= 1 << bit % 8
    two.latest.write_bytes(content)
    with pytest.warns(UserWarning, match="going on from"):
        assert clips_in(two.folder) == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_checkpoint_that_is_cut_short_falls_back_to_the_previous(
    two: Checkpoints, share: float
) -> None:
    content = two.latest.read_bytes()
    two.latest.write_bytes(content[: int(share * len(content))])
    with pytest.warns(UserWarning, match="going on from"):
        assert clips_in(two.folder) == 1


def test_a_damaged_one_never_takes_the_place_of_the_previous_good_one(two: Checkpoints) -> None:
    two.latest.write_bytes(b"damaged")
    two.tidy()
    assert names_in(two.folder) == ["checkpoint.damaged.pt", "checkpoint.previous.pt"]
    two.write(state_of(3))
    assert clips_in(two.folder) == 3
    two.latest.unlink()
    assert clips_in(two.folder) == 1


def test_where_all_are_damaged_the_way_out_is_told_and_nothing_is_removed(two: Checkpoints) -> None:
    for name in names_in(two.folder):
        (two.folder / name).write_bytes(b"damaged")
    with pytest.raises(
        UserError, match=r"checkpoint\.pt cannot.*previous\.pt cannot.*move .* away"
    ):
        two.read()
    assert len(names_in(two.folder)) == 2


def test_a_disk_that_gives_back_something_else_is_told(
    two: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lying(path: Path) -> None:
        raise ValueError("its content is not what was written")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="with other content"):
        patch.setattr(checkpoints, "_verify", lying)
        two.write(state_of(3))
    assert clips_in(two.folder) == 2
    assert len(names_in(two.folder)) == 2


def test_a_full_disk_leaves_both_as_they_were(
    two: Checkpoints, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with small_disk(700), pytest.raises(UserError, match="disk is full"):
        two.write(state_of(3))
    assert clips_in(two.folder) == 2
    assert names_in(two.folder) == ["checkpoint.previous.pt", "checkpoint.pt"]


@pytest.mark.parametrize("error", [RuntimeError("a slip"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_both_as_they_were(
    two: Checkpoints, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def stop_halfway(path: Path, content: memoryview) -> None:
        path.write_bytes(content[:100])
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(checkpoints, "_write_signed", stop_halfway)
        two.write(state_of(3))
    assert clips_in(two.folder) == 2
    assert names_in(two.folder) == ["checkpoint.previous.pt", "checkpoint.pt"]


def test_what_a_killed_write_left_is_removed(two: Checkpoints) -> None:
    (two.folder / ".checkpoint.partial-0123abcd.pt").write_bytes(b"half")
    (two.folder / ".metrics.partial-0123abcd.png").write_bytes(b"half")
    two.tidy()
    assert names_in(two.folder) == ["checkpoint.previous.pt", "checkpoint.pt"]


def test_the_examples_run() -> None:
    assert doctest.testmod(checkpoints).failed == 0
