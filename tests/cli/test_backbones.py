"""`cinnema backbones`: what is found, what is another file, and how to get the rest."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from cinnema.backbones import registry


def test_what_packages_ship_is_found_with_its_known_hash(
    cinnema: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CINNEMA_BACKBONES", raising=False)
    result = cinnema("backbones")
    text = "\n".join(result.out)
    assert result.code == 0
    assert text.count("(as known)") == 3
    assert "Inception of FID: missing" in text
    assert "put pt_inception-2015-12-05-6726825d.pth (github.com/mseitzer/pytorch-fid" in text
    for backbone in registry.BACKBONES:
        assert backbone.title in text


def test_a_users_files_are_found_and_another_one_is_told(
    cinnema: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "I3D_16.pth.tar").write_bytes(b"any")
    (tmp_path / "pt_inception-2015-12-05-6726825d.pth").write_bytes(b"other")
    by_option = cinnema("backbones", "--dir", tmp_path)
    monkeypatch.setenv("CINNEMA_BACKBONES", str(tmp_path))
    assert cinnema("backbones").out == by_option.out
    text = "\n".join(by_option.out)
    assert f"{sha256(b'any').hexdigest()} (no hash is published to compare it with)" in text
    assert "Inception of FID: another" in text
    assert "NOT the known file, whose hash begins with 6726825d" in text
    assert "I3D of DTDB, 32 frames: missing" in text


def test_a_folder_that_is_none_is_told(cinnema: Callable[..., Any], tmp_path: Path) -> None:
    result = cinnema("backbones", "--dir", tmp_path / "none")
    assert result.code == 2
    assert "is not a folder: name one with the networks' files" in result.err[-1]
