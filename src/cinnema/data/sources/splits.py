"""Which source videos train, validate and test, where a data set does not say so itself."""

import hashlib
from collections.abc import Iterable

from cinnema.core.errors import UserError
from cinnema.data.records import Split


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
