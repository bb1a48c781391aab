"""Files that are there in full or not at all.

Everything is written beside its target, flushed to the disk and then renamed, so that neither a
crash nor a full disk leaves half a file under a name that somebody reads.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cinnema.core.errors import UserError

# EFBIG: the file system's (or ulimit's) largest file; to the user it is the same want of space.
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Hand out a temporary path that becomes `path` when the block ends well.

    The temporary file lies in the same folder, exists already (empty) and has the same suffix. It
    is flushed and renamed at the end, and removed if the block raises. Missing parent folders are
    made.

    Args:
        path: where the file shall be.
        overwrite: whether a file that is there already may be replaced.

    Yields:
        The path to write to.

    Raises:
        UserError: `path` exists and `overwrite` is off, or is a folder; the folder cannot be
            written to; the disk is full.

    Example:
        >>> with atomic_path("notes.txt") as path:
        ...     path.write_text("all or nothing")
    """
    path = Path(path)
    _refuse_existing(path, overwrite=overwrite)
    if path.is_dir():
        raise UserError(f"{path} is a folder, so no file can have its name: choose another name")
    partial = _partial_name(path)
    with _disk_errors(path):
        with _making(path):
            partial.touch(exist_ok=False)
        try:
            yield partial
            _flush(partial)
            _refuse_existing(path, overwrite=overwrite)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        _flush(path.parent)


@contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Hand out a temporary folder that becomes `path` when the block ends well.

    The folder's counterpart of `atomic_path`. With `overwrite` the old folder goes, with
    **everything** in it, after the new one is complete.

    Args:
        path: where the folder shall be.
        overwrite: whether a folder that is there already may be replaced.

    Yields:
        The folder to write into.

    Raises:
        UserError: `path` exists and `overwrite` is off, or is a file; the folder around it cannot
            be written to; the disk is full.
    """
    path = Path(path)
    _refuse_existing(path, overwrite=overwrite)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, so no folder can have its name: choose another name")
    partial, old = _partial_name(path), _partial_name(path)
    with _disk_errors(path):
        with _making(path):
            partial.mkdir()
        try:
            yield partial
            for file in sorted(partial.rglob("*")):
                _flush(file)
            _refuse_existing(path, overwrite=overwrite)
            if path.exists():
                path.rename(old)
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if old.exists() and not path.exists():
                old.rename(path)  # the new folder did not get its name: keep the old one
        shutil.rmtree(old, ignore_errors=True)
        _flush(path.parent)


def check_input_file(path: str | Path, *, kind: str) -> Path:
    """Return `path` if it is a file with something in it.

    Args:
        path: the file.
        kind: what it should be, with its article ("a picture"), for the message.

    Returns:
        `path` as a `Path`.

    Raises:
        UserError: it is missing, a folder, empty, or may not be read.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, not {kind}: name a file in it")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist: check the name of {kind}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its rights") from error
    if empty:
        raise UserError(f"{path} is empty, not {kind}: copy or download it again")
    return path


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if not overwrite and path.exists():
        raise UserError(f"{path} exists already: choose another name or allow overwriting")


def _partial_name(path: Path) -> Path:
    """A free hidden name beside `path`, with its suffix, as writers choose the format by it."""
    return path.with_name(f".{path.stem[:100]}.partial-{secrets.token_hex(4)}{path.suffix}")


@contextmanager
def _making(path: Path) -> Iterator[None]:
    """Make `path`'s folder, and turn any failure to make something there into a UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise
        raise UserError(
            f"{path} cannot be written, as its folder refuses ({error.strerror}): "
            "choose another folder or mend its rights"
        ) from error


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk into a UserError that names `path`.

    Other errors pass: the block may read other files, and their trouble is not `path`'s.
    PyAV's errors are not always an OSError but carry its number.
    """
    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) not in _NO_SPACE:
            raise
        raise UserError(
            f"{path} could not be written, as the disk is full; nothing was left behind: "
            "free some space or choose another folder"
        ) from error


def _flush(path: Path) -> None:
    """Wait until `path`, a file or a folder, is on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
