"""Where weights files are: those of the package by their names, files, and the Hugging Face hub."""

import re
from pathlib import Path

from cinnema.core.errors import UserError, suggestion
from cinnema.core.hub import download_weights

_BUNDLED = Path(__file__).parents[1] / "weights"
_SUFFIX = ".safetensors"
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w.-]+))?")


def bundled_names() -> list[str]:
    """Return the names of the weights that are part of the package."""
    return sorted(path.stem for path in _BUNDLED.glob(f"*{_SUFFIX}"))


def bundled_name(path: Path) -> str | None:
    """Return the name of bundled weights by their file; None for another file."""
    return path.stem if path.parent == _BUNDLED else None


def bundled_sha256(path: Path) -> str | None:
    """Return the SHA-256 that bundled weights have to have; None for another file.

    They are in the file SHA256SUMS beside them, as `sha256sum *.safetensors` writes it.
    """
    if bundled_name(path) is None:
        return None
    lines = (_BUNDLED / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return dict(line.split()[::-1] for line in lines).get(path.name, "")


def find_weights(name_or_path: str | Path) -> Path:
    """Return the path of a weights file, without opening it.

    Args:
        name_or_path: One of `bundled_names`, a file, or a hub id "owner/name@revision" (needs
            the extra `hub`), see `download_weights`; without a revision, which is a commit, tag or
            branch, its newest. A file of that name takes precedence.

    Returns:
        The path; of a path that was given, it may not exist.

    Raises:
        UserError: There is no model of that name, here or on the hub; see `download_weights`.

    Example:
        >>> find_weights("robot").name
        'robot.safetensors'
    """
    path, name = Path(name_or_path), str(name_or_path)
    if path.is_file():
        return path
    if name in bundled_names():
        return _BUNDLED / f"{name}{_SUFFIX}"
    if isinstance(name_or_path, str) and path.suffix != _SUFFIX and not path.exists():
        if hub := _HUB_ID.fullmatch(name):
            return download_weights(hub[1], hub[2])
        if "/" not in name and "\\" not in name:
            known = bundled_names()
            hint = suggestion(name, known) or "name one of these or a file"
            raise UserError(
                f"{name!r} is neither the name of bundled weights ({', '.join(known) or 'none'}) "
                f"nor a file: {hint}"
            )
    return path
