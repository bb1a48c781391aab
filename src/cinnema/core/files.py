"""Files that are written completely or not at all.

Everything is written beside its target, flushed to the disk and then renamed, so that neither a
crash nor a full disk leaves half a file under a name that somebody reads.
"""

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import file_digest
from pathlib import Path, PurePath
from typing import Any

from cinnema.core.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MARK = ".partial-"

# EFBIG: the limit of the file system or of ulimit; to the user it is the same lack of space.
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` when the block ends without an error.

    The temporary file exists (empty), in the same folder and with the same suffix. If the block
    raises, it is removed; if the process is killed, the next that writes `path` removes it. Missing
    parent folders are made, and removed again after an error.

    Args:
        path: The file to write.
        overwrite: Whether an existing file may be replaced.

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
    with _disk_errors(path), _parents(path):
        with _permission_errors(path):
            _remove_abandoned(path)
            partial.touch(exist_ok=False)
        try:
            with _held(partial):
                yield partial
                _flush(partial)
                _refuse_existing(path, overwrite=overwrite)
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        _flush(path.parent)


@contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `path` when the block ends without an error.

    As `atomic_path`, for folders. With `overwrite` the old folder and **everything** in it is
    removed once the new one is complete.

    Args:
        path: The folder to write.
        overwrite: Whether an existing folder may be replaced.

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
    with _disk_errors(path), _parents(path):
        with _permission_errors(path):
            _remove_abandoned(path)
            partial.mkdir()
        try:
            with _held(partial):
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
                old.rename(path)  # the new folder could not be renamed: keep the old one
        shutil.rmtree(old, ignore_errors=True)
        _flush(path.parent)


@contextmanager
def never_left_empty(folder: Path) -> Iterator[None]:
    """Remove a folder at the end of the block if the block made it and nothing is in it.

    Writers that are interrupted at once each leave the folder to the others.

    Args:
        folder: The folder; it need not exist.
    """
    existed = folder.exists()
    try:
        yield
    finally:
        if not existed:
            with suppress(OSError):
                folder.rmdir()


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files that killed writers have left in a folder.

    Those of living writers are kept. Where the system has no locks, all are.
    """
    for partial in folder.glob(f".*{_MARK}*") if fcntl else ():
        with suppress(OSError):
            _remove_unlocked(partial)


def write_json(path: str | Path, values: dict[str, Any], *, overwrite: bool = False) -> Path:
    """Write values as indented JSON, completely or not at all.

    Args:
        path: The file to write.
        values: JSON values; tuples become lists.
        overwrite: Whether an existing file may be replaced.

    Returns:
        `path` as a `Path`.

    Raises:
        UserError: The file exists or cannot be written.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    with atomic_path(path, overwrite=overwrite) as partial:
        # A name that is not UTF-8 has surrogates, which in JSON are escaped as in Python.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    return Path(path)


def readable_name(path: Path) -> str:
    """Return the name of a file as text, with U+FFFD for bytes that are not UTF-8."""
    return os.fsencode(path.name).decode("utf-8", errors="replace")


def cut_name(name: str, length: int) -> str:
    """Return the beginning of a name, of at most `length` bytes, which file systems take.

    What is not UTF-8 in it is replaced, as some file systems, players and JSON refuse it.
    """
    text = os.fsencode(name).decode("utf-8", errors="replace")
    return os.fsdecode(
        text.encode("utf-8")[:length].decode("utf-8", errors="ignore").encode("utf-8")
    )


def path_inside(folder: Path, name: str) -> Path:
    """Return the path of a file that a document names, which has to lie in a folder.

    Args:
        folder: The folder.
        name: A name relative to it.

    Raises:
        UserError: The name leads out of the folder.
    """
    parts = PurePath(name.replace("\\", "/"))
    if not parts.parts or parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
        raise UserError(f"{folder}: the name {name!r} leads out of this folder: correct it")
    return folder / name


def cache_folder() -> Path:
    """Return the folder of the user's caches: $XDG_CACHE_HOME, or else ~/.cache.

    Raises:
        UserError: Neither that variable nor a home directory exists.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise UserError("there is no home directory: set XDG_CACHE_HOME to a folder") from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time execute the block; the others wait.

    The lock is on a file beside `path`, which is left there. Where the system or the disk has no
    locks, nothing is locked.

    Args:
        path: The file or folder that is worked on; it need not exist.
    """
    lock = path.with_name(f".{cut_name(path.name, 100)}.lock")
    with ExitStack() as stack:
        with suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(lock.open("a"))
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_input_file(path: str | Path, *, kind: str) -> Path:
    """Return `path` if it is a file that can be read and is not empty.

    Args:
        path: The file.
        kind: What it should be, with its article ("a picture"), for the message.

    Returns:
        `path` as a `Path`.

    Raises:
        UserError: It is missing, a folder, a pipe or device, empty, or cannot be read.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{path} is a folder, not {kind}: name a file in it")
        if not stat.S_ISREG(mode):  # opening a pipe would wait, and it can be read only once
            raise UserError(f"{path} is a pipe or device, not a file: save {kind} to a file first")
        with path.open("rb") as file:
            empty = not file.read(1)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist: check the name of {kind}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its rights") from error
    if empty:
        raise UserError(f"{path} is empty, not {kind}: copy or download it again")
    return path


def check_input_folder(path: str | Path, *, kind: str) -> Path:
    """Return `path` if it is a folder.

    Args:
        path: The folder.
        kind: What it should hold, as in "clips", for the message.

    Returns:
        `path` as a `Path`.

    Raises:
        UserError: It is missing, or a file.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: check the name of the folder of {kind}")
    if not path.is_dir():
        raise UserError(f"{path} is a file, not a folder of {kind}: name the folder that it is in")
    return path


def check_output_folder(folder: str | Path) -> None:
    """Raise a UserError unless files can be written to a folder, which need not exist yet.

    Args:
        folder: The folder; nothing is made.

    Raises:
        UserError: It is a file, or it or the folder that it would be made in cannot be written to.
    """
    folder = Path(folder)
    path = folder.absolute() / "file"
    while not path.parent.exists():
        path = path.parent
    partial = _partial_name(path)
    with _permission_errors(folder):
        _remove_abandoned(path)
        partial.touch(exist_ok=False)
    partial.unlink(missing_ok=True)  # another check may have taken it for abandoned


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if not overwrite and path.exists():
        raise UserError(f"{path} exists already: choose another name or allow overwriting")


def _partial_name(path: Path) -> Path:
    """A free hidden name beside `path`, with its suffix, as writers choose the format by it."""
    stem, suffix = _partial_parts(path)
    return path.with_name(f"{stem}{secrets.token_hex(4)}{suffix}")


def _partial_parts(path: Path) -> tuple[str, str]:
    """What the names of all temporary files of `path` begin and end with."""
    suffix = path.suffix if len(path.suffix) < 20 else ""
    return f".{cut_name(path.stem, 100)}{_MARK}", suffix


@contextmanager
def _held(partial: Path) -> Iterator[None]:
    """Lock a temporary file or folder, which tells others that its writer is alive."""
    descriptor = os.open(partial, os.O_RDONLY) if fcntl else None
    try:
        if descriptor is not None:
            with suppress(OSError):  # a disk without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed writers of `path` have left, unless it is not known that they ended."""
    if not fcntl:
        return
    stem, suffix = _partial_parts(path)
    for name in os.listdir(path.parent):  # noqa: PTH208 - the quickest in a large folder
        if name.startswith(stem) and name.endswith(suffix):
            with suppress(OSError):
                _remove_unlocked(path.with_name(name))


def _remove_unlocked(partial: Path) -> None:
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink()
    finally:
        os.close(descriptor)


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Make the folders that `path` lies in, and remove them again if the block raises."""
    missing = [folder for folder in path.parents if not folder.exists()]
    with _permission_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # somebody else has written to one meanwhile
            for folder in missing:
                folder.rmdir()
        raise


@contextmanager
def _permission_errors(path: Path) -> Iterator[None]:
    """Turn any failure to make `path` into a UserError, but for a full disk."""
    try:
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

    Other errors pass, as the block may read other files. PyAV's errors are not always an OSError
    but carry its number.
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
