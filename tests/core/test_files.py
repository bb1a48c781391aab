"""Files that are there in full or not at all."""

import errno
import json
from pathlib import Path

import pytest

from cinnema.core.errors import UserError
from cinnema.core.files import (
    atomic_folder,
    atomic_path,
    check_input_file,
    check_output_folder,
    write_json,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "notes.txt"
    with atomic_path(target) as partial:
        partial.write_text("whole")
        assert partial.parent == target.parent
        assert partial.suffix == ".txt"
        assert not target.exists()
    assert target.read_text() == "whole"
    assert names_in(target.parent) == ["notes.txt"]


@pytest.mark.parametrize("error", [RuntimeError("a slip"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_failed_block(tmp_path: Path, error: BaseException) -> None:
    for make in (atomic_path, atomic_folder):
        with pytest.raises(type(error)), make(tmp_path / "result"):
            raise error
    assert names_in(tmp_path) == []


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    target = tmp_path / "notes.txt"
    target.write_text("old")
    with (
        pytest.raises(UserError, match=r"notes\.txt exists already.*overwrit"),
        atomic_path(target),
    ):
        pytest.fail("the block ran")
    with pytest.raises(RuntimeError), atomic_path(target, overwrite=True) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    with atomic_path(target, overwrite=True) as partial:
        partial.write_text("new")
    assert target.read_text() == "new"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "notes.txt"
    with pytest.raises(UserError, match="exists already"), atomic_path(target) as partial:
        partial.write_text("mine")
        target.write_text("theirs")
    assert target.read_text() == "theirs"
    assert names_in(tmp_path) == ["notes.txt"]


def test_a_folder_appears_whole_and_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "frames"
    with atomic_folder(target) as partial:
        (partial / "old.txt").write_text("old")
    with pytest.raises(UserError, match="frames exists already"), atomic_folder(target):
        pytest.fail("the block ran")
    with atomic_folder(target, overwrite=True) as partial:
        (partial / "new.txt").write_text("new")
    assert names_in(target) == ["new.txt"]
    assert names_in(tmp_path) == ["frames"]


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    for make in (atomic_path, atomic_folder):
        with (
            pytest.raises(UserError, match=r"sky\.mp4 cannot be written.*choose another folder"),
            make(tmp_path / "out" / "sky.mp4"),
        ):
            pytest.fail("the block ran")
    assert names_in(tmp_path) == ["out"]


def test_files_and_folders_do_not_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(UserError, match="is a folder"),
        atomic_path(tmp_path / "folder", overwrite=True),
    ):
        pytest.fail("the block ran")
    with (
        pytest.raises(UserError, match="is a file"),
        atomic_folder(tmp_path / "file", overwrite=True),
    ):
        pytest.fail("the block ran")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    for make in (atomic_path, atomic_folder):
        with (
            pytest.raises(UserError, match=r"sky\.mp4 could not be written.*full") as caught,
            make(tmp_path / "sky.mp4"),
        ):
            raise OSError(number, "no space")
        assert "\n" not in str(caught.value)
    assert names_in(tmp_path) == []


def test_other_errors_of_the_block_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "copy.txt") as partial:
        partial.write_text((tmp_path / "another file.txt").read_text())


def test_an_input_that_is_no_file_with_content_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    for path, complaint in (
        (tmp_path / "nowhere.png", "does not exist"),
        (empty / "below.png", "does not exist"),
        (empty, "is empty"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(UserError, match=complaint) as caught:
            check_input_file(path, kind="a picture")
        assert str(path) in str(caught.value)


def test_a_failed_block_leaves_no_folder_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    for make in (atomic_path, atomic_folder):
        with pytest.raises(RuntimeError), make(tmp_path / "kept" / "a" / "b" / "file"):
            raise RuntimeError
    assert names_in(tmp_path / "kept") == []


def test_a_folder_that_can_be_written_to_is_not_made(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "a" / "b")
    check_output_folder(tmp_path)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_folder_that_is_a_file_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.*cannot be written"):
        check_output_folder(tmp_path / "file" / below)


def test_json_is_indented_and_keeps_letters(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"file": "Îles.jpg"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"file": "Îles.jpg"}
    assert "Îles" in path.read_text(encoding="utf-8")
