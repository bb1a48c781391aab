"""Executes notebooks in a fresh kernel: python examples/execute.py examples/*.ipynb."""

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config


def execute(path: Path) -> Any:  # noqa: ANN401 - a notebook of nbformat
    """Return a notebook with the outputs of its cells, executed from top to bottom.

    Args:
        path: The notebook; it is not changed.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    about = deepcopy(notebook.metadata)
    client = NotebookClient(
        notebook,
        timeout=600,
        record_timing=False,
        coalesce_streams=True,
        config=Config({"KernelManager": {"transport": "ipc"}}),  # files, not ports
    )
    client.execute()
    notebook.metadata = about  # not the versions of the machine
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:]:
        nbformat.write(execute(Path(name)), name)
