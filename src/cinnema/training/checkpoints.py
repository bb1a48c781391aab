"""Checkpoints that are written atomically, verified by a hash, and kept in two generations.

A new checkpoint is written to a temporary file, flushed, read back and then renamed; the one before
is kept as `checkpoint.previous.pt`. The files are torch's own (zip archives); each carries the
SHA-256 of its content as the archive's comment, which torch ignores and `unzip -z` shows.
"""

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path, remove_abandoned

_LATEST, _PREVIOUS, _DAMAGED = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.damaged.pt"

# An archive ends in the length of its comment, two bytes, and the comment.
_MARK = b"cinnema sha256 "
_COMMENT_LENGTH = len(_MARK) + 64
_NO_COMMENT = (0).to_bytes(2, "little")
_CHUNK = 1 << 20


class Checkpoints:
    """The checkpoints of one folder.

    Args:
        folder: Folder of the checkpoints; it must exist.

    Example:
        >>> from tempfile import mkdtemp
        >>> checkpoints = Checkpoints(Path(mkdtemp()))
        >>> checkpoints.write({"clips": 32})
        >>> checkpoints.read()
        {'clips': 32}
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def latest(self) -> Path:
        """The file that the next resumption reads."""
        return self.folder / _LATEST

    def write(self, state: dict[str, Any]) -> None:
        """Write a checkpoint; the latest one so far becomes the previous one.

        Args:
            state: Tensors and plain values.

        Raises:
            UserError: The folder cannot be written to, the disk is full, or reads back
                other content. Existing checkpoints are kept.
        """
        # Through memory: when writing to a file directly, torch hides that the disk is full.
        content = io.BytesIO()
        torch.save(state, content)
        with atomic_path(self.latest, overwrite=True) as path:
            _write_signed(path, content.getbuffer())
            try:
                _verify(path)
            except ValueError as error:
                raise UserError(
                    f"{self.latest}: the file reads back with other content than written; "
                    "existing checkpoints are kept: check the disk, or choose another folder"
                ) from error
            if self.latest.exists():
                self.latest.replace(self.folder / _PREVIOUS)

    def read(self) -> dict[str, Any] | None:
        """Return the latest undamaged checkpoint; None if there are no checkpoints.

        If the latest is damaged, a warning is issued and the previous one is read.

        Raises:
            UserError: There are checkpoints, and all are damaged.
        """
        problems = []
        for path in (self.latest, self.folder / _PREVIOUS):
            if not path.exists():
                continue
            try:
                state = _read(path)
            except UserError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                warnings.warn(f"{problem}; going on from {path}", stacklevel=2)
            return state
        if problems:
            raise UserError(
                f"{'; '.join(problems)}: move {self.folder} away to start afresh, or put a copy "
                "of a checkpoint in its place"
            )
        return None

    def tidy(self) -> None:
        """Rename a damaged latest checkpoint, and remove temporary files of killed writes.

        The damaged one is kept as `checkpoint.damaged.pt`, and does not become the previous one.
        """
        remove_abandoned(self.folder)
        if not self.latest.exists():
            return
        try:
            _read(self.latest)
        except UserError:
            self.latest.replace(self.folder / _DAMAGED)


def _read(path: Path) -> dict[str, Any]:
    try:
        _verify(path)
        # weights_only: tensors and plain values only, so that no code in the file is run.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises almost anything
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(f"{path} cannot be read as a checkpoint ({reason})") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} cannot be read as a checkpoint (it is not one of cinnema's)")
    return state


def _write_signed(path: Path, archive: memoryview) -> None:
    if archive[-2:] != _NO_COMMENT:
        raise AssertionError("torch writes archives without a comment")
    comment = _MARK + hashlib.sha256(archive).hexdigest().encode()
    with path.open("wb") as file:
        file.write(archive[:-2])
        file.write(len(comment).to_bytes(2, "little") + comment)
        file.flush()
        os.fsync(file.fileno())


def _verify(path: Path) -> None:
    """Raise a ValueError if the content of a file does not match its hash.

    A file without a comment is of an earlier version or of plain torch; it is accepted.
    """
    size = path.stat().st_size - _COMMENT_LENGTH - 2
    with path.open("rb") as file:
        file.seek(max(size, 0))
        end = file.read()
        length, comment = end[:2], end[2:]
        if not comment.startswith(_MARK):
            _require_unsigned(file)
            return
        if int.from_bytes(length, "little") != _COMMENT_LENGTH:
            raise ValueError("its content is not what was written")
        file.seek(0)
        digest = hashlib.sha256()
        while size > 0:
            chunk = file.read(min(size, _CHUNK))
            digest.update(chunk)
            size -= len(chunk)
        digest.update(_NO_COMMENT)
    if digest.hexdigest().encode() != comment.removeprefix(_MARK):
        raise ValueError("its content is not what was written")


def _require_unsigned(file: BinaryIO) -> None:
    """Raise a ValueError unless an archive ends as those that have no comment."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(length - 22, 0))
    end = file.read()
    if not (end.startswith(b"PK\x05\x06") and end.endswith(_NO_COMMENT)):
        raise ValueError("it is not whole, or no archive of torch")
