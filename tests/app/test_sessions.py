"""The files of a visitor go away with the visitor."""

import os
import time
from pathlib import Path

from cinnema.app.sessions import Sessions


def gone(path: Path) -> bool:
    for _ in range(500):
        if not path.exists():
            return True
        time.sleep(0.01)
    return False


def stored(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("an upload")
    return path


def test_a_closed_session_has_no_files_and_its_computation_stops(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, most=2, grace=0)
    session = sessions.get("a")
    (session.folder / "video.mp4").write_text("a video")
    upload = stored(tmp_path, "upload.jpg")
    session.uploads.add(upload)
    stop = session.begin()
    sessions.close("a")
    assert not session.folder.exists()
    assert stop.is_set()
    assert gone(upload)
    assert len(sessions) == 0


def test_a_file_that_two_visitors_uploaded_stays_for_the_other(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, most=2, grace=0)
    shared, own = stored(tmp_path, "shared.jpg"), stored(tmp_path, "own.jpg")
    sessions.get("a").uploads.update({shared, own})
    sessions.get("b").uploads.add(shared)
    sessions.close("a")
    assert gone(own)
    assert shared.exists()


def test_the_longest_idle_visitor_loses_its_files_to_a_new_one(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, most=2)
    first, second = sessions.get("a"), sessions.get("b")
    assert sessions.get("a") is first
    sessions.get("c")
    assert first.folder.exists()
    assert not second.folder.exists()


def test_closing_what_is_not_open_does_nothing(tmp_path: Path) -> None:
    Sessions(tmp_path, most=2).close("nobody")


def test_folders_of_visitors_cannot_be_guessed(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, most=2)
    names = {sessions.get(key).folder.name for key in ("a", "b")}
    assert len(names) == 2
    assert all(len(name) >= 20 for name in names)


def test_what_waits_when_a_visitor_stops_is_not_begun_and_what_is_asked_later_is(
    tmp_path: Path,
) -> None:
    session = Sessions(tmp_path, most=2).get("a")
    running = session.begin()
    session.interrupt(halt=True)
    assert running.is_set()
    assert session.begin().is_set()
    session.interrupt(halt=False)
    assert not session.begin().is_set()


def test_an_equal_file_that_another_visitor_sends_meanwhile_stays(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, most=2, grace=0.2)
    sent, old = stored(tmp_path, "sent.jpg"), stored(tmp_path, "old.jpg")
    sessions.get("a").uploads.update({sent, old})
    sessions.close("a")
    os.utime(sent, (time.time() + 10,) * 2)  # it was stored again under the same name
    assert gone(old)
    assert sent.exists()
