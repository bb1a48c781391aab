"""What the page remembers of each visitor, and the folder that goes away with it."""

import secrets
import shutil
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cinnema.app.studio import Future
from cinnema.app.uploads import Picture
from cinnema.core.errors import UserError
from cinnema.synthesis.certainty import Certainty

NUM_FUTURES = 4
"""Number of futures that are shown at once."""


class Cancelled(Exception):  # noqa: N818 - not an error: the visitor asked for it
    """The visitor stopped the computation, or left."""


@dataclass(eq=False)
class Session:
    """One open page.

    Attributes:
        folder: Folder of its files.
        picture: The picture, once there is one.
        certainty: What the model knows about it, once that is computed.
        futures: What the tiles show.
        video: The video whose motion is used, by its path and the name that its owner gave it.
        shown: Further videos on the page, by the name of their place.
        uploads: Files that the server stored for this page.
        seed: Seed of the futures that were drawn last.
        stop: Set when the running computation should end.
        is_halted: Whether the visitor stopped also what still waits for its turn.
    """

    folder: Path
    picture: Picture | None = None
    certainty: Certainty | None = None
    futures: list[Future | None] = field(default_factory=lambda: [None] * NUM_FUTURES)
    video: tuple[Path, str] | None = None
    shown: dict[str, Future] = field(default_factory=dict)
    uploads: set[Path] = field(default_factory=set)
    seed: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    is_halted: bool = False

    def begin(self) -> threading.Event:
        """Return the signal that ends the computation that begins now."""
        self.stop = threading.Event()
        if self.is_halted:
            self.stop.set()
        return self.stop

    def interrupt(self, *, halt: bool) -> None:
        """End the running computation.

        Args:
            halt: Whether what waits for its turn is not begun either, until something else is
                asked for.
        """
        self.is_halted = halt
        self.stop.set()

    def require_picture(self) -> Picture:
        """Return the picture.

        Raises:
            UserError: There is none.
        """
        if self.picture is None:
            raise UserError("there is no picture yet: drop one, or choose an example")
        return self.picture


class Sessions:
    """The sessions of all visitors.

    Args:
        folder: Folder in which each session gets its own.
        most: Number of sessions that are kept; beyond it the one that was idle longest is closed.
        grace: Seconds after which a closed session's uploads are removed; its own files go at once.
    """

    def __init__(self, folder: Path, *, most: int, grace: float = 30.0) -> None:
        self.folder, self._most, self._grace = folder, most, grace
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def keys(self) -> list[str]:
        """Return the names of all open pages, the longest idle one first."""
        with self._lock:
            return list(self._sessions)

    def get(self, key: str) -> Session:
        """Return the session of a page; a new one if the page is new.

        Args:
            key: The page's own random name.
        """
        with self._lock:
            if key not in self._sessions:
                # Nobody can guess the folder, so nobody can ask for another visitor's files.
                folder = self.folder / secrets.token_urlsafe(16)
                folder.mkdir(parents=True)
                self._sessions[key] = Session(folder)
            self._sessions.move_to_end(key)
            while len(self._sessions) > self._most:
                self._clear(self._sessions.popitem(last=False)[1])
            return self._sessions[key]

    def close(self, key: str) -> None:
        """Forget a page: stop what it computes and remove its files."""
        with self._lock:
            session = self._sessions.pop(key, None)
            if session is not None:
                self._clear(session)

    def _clear(self, session: Session) -> None:
        session.stop.set()
        shutil.rmtree(session.folder, ignore_errors=True)
        timer = threading.Timer(self._grace, self._remove, [session.uploads])
        timer.daemon = True
        timer.start()

    def _remove(self, uploads: set[Path]) -> None:
        # Equal files of two visitors are stored once; they go with the last of them. One who comes
        # with a file while it is removed would lose it, so this waits for reloaded pages.
        with self._lock:
            held = {path for other in self._sessions.values() for path in other.uploads}
        for path in uploads - held:
            with suppress(FileNotFoundError):
                # One that came anew belongs to a visitor whose turn has not come.
                if time.time() - path.stat().st_mtime >= self._grace:
                    path.unlink()
