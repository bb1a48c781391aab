"""Which files are pictures."""

from pathlib import Path

import pytest

from cinnema.core.errors import UserError
from cinnema.media.formats import find_pictures, generated_in


def test_folders_are_replaced_by_their_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inner.jpg").mkdir(parents=True)
    for name in ("b10.JPG", "b2.png", "a.webp", "notes.txt", ".hidden.png"):
        (folder / name).touch()
    found = find_pictures([tmp_path / "z.png", folder, str(tmp_path / "a.png")])
    expected = ["z.png", "folder/a.webp", "folder/b2.png", "folder/b10.JPG", "a.png"]
    assert found == [tmp_path / name for name in expected]


def test_what_commands_wrote_is_known_by_the_files_beside_it() -> None:
    written = {"a_s0_00.webp", "a_s0_00.json", "a_s0_00.nu.safetensors", "a_s0_grid.png"}
    others = {"a.png", "a.json", "a.nu.safetensors", "b_grid.png", "c_s0_00.webp", "c_s0_00.json"}
    assert generated_in(written | others) == written


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds no picture \(\.jpg.*name another") as caught:
        find_pictures([tmp_path])
    assert str(tmp_path) in str(caught.value)
