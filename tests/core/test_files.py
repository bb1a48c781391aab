"""Files that are there in full or not at all."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cinnema.core.errors import UserError
from cinnema.core.files import (
    atomic_folder,
    atomic_path,
    cache_folder,
    check_input_file,
    check_output_folder,
    cut_name,
    never_left_empty,
    path_inside,
    readable_name,
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


def test_what_a_killed_check_of_a_folder_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".file.partial-01234567").touch()
    check_output_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


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


def test_a_name_is_cut_between_letters_and_readable() -> None:
    assert cut_name("写" * 80, 100) == "写" * 33
    assert cut_name("m\udce9", 100) == "m\ufffd"
    assert readable_name(Path("a/m\udce9.png")) == "m\ufffd.png"


def test_the_longest_name_that_a_file_system_takes_can_be_written(tmp_path: Path) -> None:
    for name in ("m" * 245 + ".json", "写" * 83 + ".json", "a." + "b" * 250):
        with atomic_path(tmp_path / name) as path:
            path.write_text("all")
        assert (tmp_path / name).read_text() == "all"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_name_that_is_not_utf8_survives_json(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"file": "写 m\udce9.png"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"file": "写 m\udce9.png"}
    assert "写" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("atomic", [atomic_path, atomic_folder])
def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_kept(
    tmp_path: Path, atomic: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    target = tmp_path / "clip.mp4"
    killed = subprocess.Popen(
        [sys.executable, "-c", _HALF, str(target), atomic.__name__], stdout=subprocess.PIPE
    )
    assert killed.stdout is not None
    half = Path(killed.stdout.readline().decode().strip())
    with atomic(target):
        assert half.exists()
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    killed.kill()
    killed.wait()
    assert half.exists()
    with atomic(target):
        assert not half.exists()
    assert list(tmp_path.iterdir()) == [target]


_HALF = """
import sys, time
from pathlib import Path
from cinnema.core import files
with getattr(files, sys.argv[2])(Path(sys.argv[1])) as partial:
    print(partial, flush=True)
    time.sleep(600)
"""


def test_a_pipe_is_no_file_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", Path("/dev/null")):
        with pytest.raises(UserError, match="pipe or device, not a file: save a picture"):
            check_input_file(path, kind="a picture")


def test_a_loop_of_links_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("a.png")
    with pytest.raises(UserError, match=r"a\.png cannot be read \(Too many levels"):
        check_input_file(tmp_path / "a.png", kind="a picture")


def test_the_cache_needs_a_home_or_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_folder() == Path("/cache")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/home/me/.cache")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(UserError, match="set XDG_CACHE_HOME"):
        cache_folder()


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "..\\a", "C:\\a", ""])
def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="leads out of this folder"):
        path_inside(tmp_path, name)
    assert path_inside(tmp_path, "a/b.npz") == tmp_path / "a" / "b.npz"


def test_a_folder_that_stays_empty_is_removed_if_it_was_made_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    for name in ("before", "made", "filled"):
        with never_left_empty(tmp_path / name):
            (tmp_path / name).mkdir(exist_ok=True)
            if name == "filled":
                (tmp_path / name / "clip.mp4").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "filled"]
