"""An evaluation as one HTML page with tables, plots and animations, and its numbers as JSON.

It needs the extra `report`: matplotlib and jinja2.
"""

from pathlib import Path

from cinnema.core.files import atomic_path
from cinnema.evaluation.report.page import as_json, page
from cinnema.evaluation.results import Evaluation


def write_report(evaluation: Evaluation, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write `index.html`, a page that loads nothing, and `evaluation.json` beside it.

    Either both files are written in full or none is.

    Args:
        evaluation: What was measured.
        folder: Folder of both files; made if it is missing.
        overwrite: Whether existing files of these names may be replaced.

    Returns:
        The path of the page.

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
