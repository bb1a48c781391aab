"""Documents that several processes may write at once, and what killed ones have left."""

from pathlib import Path

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path
from cinnema.data.manifest import (
    MANIFEST,
    PLAN,
    Document,
    Plan,
)


def write_document(path: Path, document: Document, *, overwrite: bool = True) -> None:
    """Write a document, or accept the one that another process has written meanwhile.

    That process may have the same work, and remove our unfinished file as a leftover.
    """
    content = document.to_json()
    try:
        with atomic_path(path, overwrite=overwrite) as partial:
            partial.write_bytes(content)
    except UserError:
        if overwrite or not path.is_file():
            raise
    except FileNotFoundError:
        if not path.is_file():
            raise


def remove_leftovers(folder: Path, plan: Plan) -> None:
    """Remove the unfinished files that processes have left when they were killed."""
    names = [PLAN, MANIFEST, *(n for s in plan.shards for n in (s.file, s.receipt))]
    stems = {Path(name).stem for name in names}
    for path in folder.glob(".*.partial-*"):
        if path.name[1:].partition(".partial-")[0] in stems:
            path.unlink(missing_ok=True)
