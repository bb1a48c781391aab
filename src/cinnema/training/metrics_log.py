"""The numbers of a run, one line of JSON after the other."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cinnema.core.errors import UserError


class MetricsLog:
    """`metrics.jsonl`: a record that a resumed run goes on with, without a line twice.

    A checkpoint keeps the length that the file had; a run that is resumed cuts it back to that,
    and writes the lines after it anew.

    Args:
        path: Of the file; it need not exist.

    Example:
        >>> from tempfile import mkdtemp
        >>> log = MetricsLog(Path(mkdtemp()) / "metrics.jsonl")
        >>> log.append({"clips": 32, "loss": 0.5})
        >>> log.length()
        27
        >>> list(log.lines())
        [{'clips': 32, 'loss': 0.5}]
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: Mapping[str, float]) -> None:
        """Append a line of numbers; what is not finite becomes null, as JSON has no word for it.

        Raises:
            UserError: The file cannot be written to, or the disk is full.
        """
        known = {name: value if math.isfinite(value) else None for name, value in line.items()}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known) + "\n")
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}); the last checkpoint is good: "
                "free some space or mend its rights, and run the same command again"
            ) from error

    def length(self) -> int:
        """Return the number of bytes that are on the disk for good."""
        if not self.path.exists():
            return 0
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def cut(self, length: int) -> None:
        """Cut the file back to a length that it had."""
        if self.path.exists() and self.path.stat().st_size > length:
            os.truncate(self.path, length)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that are whole; of a file that is not there, none."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.endswith("\n"))
