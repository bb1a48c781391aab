"""The files that commands write: their names, and that a sample has all of them.

For each sample of SKY.jpg that `cinnema animate` draws with seed 0, `SKY_s0_00.mp4` and beside it
`SKY_s0_00.json` and `SKY_s0_00.nu.safetensors`; for all of them, `SKY_s0_grid.mp4`. Other commands
have another tag than `s0`.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path

_GRID_FORMATS = ("mp4", "gif", "webp")  # a grid is to be looked at: no frames, no arrays


@dataclass(frozen=True)
class Outputs:
    """Where the files of one photograph, or of one video, go.

    Attributes:
        source: the photograph or video.
        name: what its files' names begin with; no two inputs of a call share it.
        folder: of the files.
        format: of the videos: mp4, gif, webp, png or npy.
        tag: what the names have next, as s0 for seed 0.
        samples: their numbers.
    """

    source: Path
    name: str
    folder: Path
    format: str
    tag: str
    samples: tuple[int, ...]

    def video(self, sample: int) -> Path:
        """Return what `write_video` is asked to write."""
        return self._beside(sample, f".{self.format}")

    def written_video(self, sample: int) -> Path:
        """Return what `write_video` then has written: of png, a folder."""
        return self._beside(sample, "" if self.format == "png" else f".{self.format}")

    def sidecar(self, sample: int) -> Path:
        """Return the path of the JSON file."""
        return self._beside(sample, ".json")

    def nu(self, sample: int) -> Path:
        """Return the path of nu."""
        return self._beside(sample, ".nu.safetensors")

    @property
    def grid(self) -> Path:
        """The video that shows all samples beside the first frame."""
        suffix = self.format if self.format in _GRID_FORMATS else "mp4"
        return self.folder / f"{self.name}_{self.tag}_grid.{suffix}"

    def all(self) -> Iterator[Path]:
        """Yield every file and folder that will be written."""
        for sample in self.samples:
            yield self.written_video(sample)
            yield self.sidecar(sample)
            yield self.nu(sample)
        yield self.grid

    def _beside(self, sample: int, suffix: str) -> Path:
        return self.folder / f"{self.name}_{self.tag}_{sample:02d}{suffix}"


def distinct_names(photos: Sequence[Path]) -> list[str]:
    """Return a name for each photograph, as short as it can be without two being the same.

    That is the file's name without its suffix; where several share it, the folder's name comes
    before it, then the suffix after it, then a number. Capitals make no difference, as on some
    disks they make none.

    Args:
        photos: files, each once.

    Returns:
        As many names, in the same order.

    Example:
        >>> distinct_names([Path("may/sky.jpg"), Path("june/sky.jpg"), Path("sea.jpg")])
        ['may_sky', 'june_sky', 'sea']
    """
    choices = [
        (
            photo.stem,
            f"{photo.absolute().parent.name}_{photo.stem}",
            f"{photo.absolute().parent.name}_{photo.stem}_{photo.suffix[1:]}",
        )
        for photo in photos
    ]
    names = [choice[0] for choice in choices]
    for level in (1, 2):
        count = Counter(name.lower() for name in names)
        names = [
            choice[level] if count[name.lower()] > 1 else name
            for name, choice in zip(names, choices, strict=True)
        ]
    return _numbered(names)


def _numbered(names: Sequence[str]) -> list[str]:
    taken = {name.lower() for name in names}
    seen: set[str] = set()
    distinct = []
    for name in names:
        new, number = name, 2
        while new.lower() in seen or (new != name and new.lower() in taken):
            new, number = f"{name}-{number}", number + 1
        seen.add(new.lower())
        distinct.append(new)
    return distinct


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raise a UserError for the first of the paths that is there already."""
    for path in paths:
        if path.exists():
            raise UserError(
                f"{path} exists already: choose another folder with --output, or add --overwrite"
            )


def check_folder(folder: Path) -> None:
    """Make a folder, and try whether files can be made in it.

    Raises:
        UserError: it is a file, or cannot be made or written to.
    """
    with suppress(_Tried), atomic_path(folder / "writable"):
        raise _Tried


class _Tried(Exception):  # noqa: N818 - no error: it makes `atomic_path` leave nothing behind
    """The folder took the file."""


@contextmanager
def all_or_none() -> Iterator[list[Path]]:
    """Hand out a list; what it names is removed again if the block does not end well.

    Example:
        >>> with all_or_none() as written:
        ...     written.append(write_video(path, frames, fps=8))
    """
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for path in written:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        raise


def write_json(path: Path, values: dict[str, Any], *, overwrite: bool = False) -> Path:
    """Write values as indented JSON, in full or not at all.

    Args:
        path: where to.
        values: what JSON can hold; tuples become lists.
        overwrite: whether a file that is there already may be replaced.

    Returns:
        `path`.

    Raises:
        UserError: it exists or cannot be written.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    with atomic_path(path, overwrite=overwrite) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
