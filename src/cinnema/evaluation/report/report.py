"""The files of a report."""

from pathlib import Path

from cinnema.core.files import atomic_path
from cinnema.evaluation.report.page import as_json, page
from cinnema.evaluation.results import Evaluation


def write_report(evaluation: Evaluation, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write `index.html`, a page that needs nothing else, and `evaluation.json` beside it.

    Both are there in full or not at all.

    Args:
        evaluation: What was found.
        folder: For both files; made if it is missing.
        overwrite: Whether files of these names that are there already may be replaced.

    Returns:
        The page.

    Raises:
        UserError: There is such a file and `overwrite` is off; the folder cannot be written to.

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
