"""Which source videos train, validate and test, where a data set does not say so itself."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file
from cinnema.data.records import SPLITS, Split


def split_by_name(names: Iterable[str], *, validation: float, test: float) -> dict[str, Split]:
    """Split videos by a hash u of their names, uniform in [0, 1): test < validation < train.

    So adding a video leaves the others where they are. Only where the hash leaves a side empty is
    it given the video next to it: of two or more videos at least one validates, of three or more
    at least one tests (if their shares are above 0), and at least one always trains.

    Args:
        names: Of the videos, or of whatever must not be torn apart (actors, say).
        validation: Share that validates, in [0, 1).
        test: Share that tests; at most 1 together with `validation`.

    Returns:
        The split of each name.
    """
    ordered = sorted(set(names), key=lambda name: (_uniform(name), name))
    hashes = [_uniform(name) for name in ordered]
    num_test = sum(u < test for u in hashes)
    num_validation = sum(test <= u < test + validation for u in hashes)
    if test > 0 and len(ordered) >= 3:
        num_test = max(1, num_test)
    num_test = min(num_test, max(0, len(ordered) - 2))
    if validation > 0 and len(ordered) >= 2:
        num_validation = max(1, num_validation)
    num_validation = min(num_validation, max(0, len(ordered) - num_test - 1))
    return {
        name: "test" if k < num_test else "validation" if k < num_test + num_validation else "train"
        for k, name in enumerate(ordered)
    }


def read_splits(path: Path, names: Sequence[str]) -> dict[str, Split]:
    """Read which videos train, validate and test from a file.

    It holds a JSON object with up to three lists, "train", "validation" and "test". A video is
    called by its path below the folder, or by as many of its last parts as no other shares; the
    suffix may be left out.

    Args:
        path: The file.
        names: Paths of all videos below their folder.

    Returns:
        The split of each video that is listed, in the order of `names`; the others are left out.

    Raises:
        UserError: The file is no such object, lists a video twice, or one that is not there or
            cannot be told from another.
    """
    check_input_file(path, kind="a list of splits")
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); repair it") from error
    if not isinstance(listed, dict) or not listed.keys() <= set(SPLITS) or not listed:
        raise UserError(
            f'{path}: must be an object of lists named {", ".join(SPLITS)}, as {{"test": ["sea"]}}'
        )
    found: dict[str, Split] = {}
    for split in SPLITS:
        for called in listed.get(split, []):
            name = _find(called, names, path)
            if name in found:
                raise UserError(f"{path}: {called} is listed twice; keep one of them")
            found[name] = split
    return {name: found[name] for name in names if name in found}


def _find(called: object, names: Sequence[str], path: Path) -> str:
    fitting = [n for n in names if isinstance(called, str) and _is_called(n, called)]
    if len(fitting) != 1:
        what = f"is called so {len(fitting)} times" if fitting else "is not among the videos"
        raise UserError(f"{path}: {called!r} {what}; write its path below the folder")
    return fitting[0]


def _is_called(name: str, called: str) -> bool:
    ends = (name, str(Path(name).with_suffix("")))
    return any(end == called or end.endswith(f"/{called}") for end in ends)


def check_shares(*, validation: float, test: float = 0.0) -> None:
    """Raise a UserError unless something is left to train on."""
    if min(validation, test) < 0 or not validation + test < 1:
        raise UserError(
            "the shares that validate and test must be at least 0 and together below 1, got "
            f"{validation:g} and {test:g}"
        )


def _uniform(name: str) -> float:
    # Not hash(): that differs from one run of Python to the next.
    digest = hashlib.sha256(name.encode("utf-8")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
