"""The files of a report."""

from pathlib import Path

from cinnema.core.files import atomic_path
from cinnema.evaluation.report.page import as_json, page
from cinnema.evaluation.results import Evaluation


def write_report(evaluation: Evaluation, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write `index.html`, a self-contained page, and `evaluation.json` in the same folder.

    Files are written atomically.

    Args:
        evaluation: The results.
        folder: Folder for both files; created if missing.
        overwrite: Whether existing files may be replaced.

    Returns:
        Path of the page.

    Raises:
        UserError: A file exists and `overwrite` is False, or the folder cannot be written to.

    Example:
        >>> write_report(evaluation, "report")
        PosixPath('report/index.html')
    """
    index, numbers = Path(folder) / "index.html", Path(folder) / "evaluation.json"
    with (
        atomic_path(index, overwrite=overwrite) as partial_index,
        atomic_path(numbers, overwrite=overwrite) as partial_numbers,
    ):
        partial_index.write_text(page(evaluation), encoding="utf-8")
        partial_numbers.write_text(as_json(evaluation), encoding="utf-8")
    return index
