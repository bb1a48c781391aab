"""Errors that the user can correct."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the user, or a limit of the machine, with a message that says what to do.

    The message names the thing (a file, an option), the rule, the value, and a way out. The command
    line prints it as one line without a traceback and ends with exit code 2.

    Example:
        >>> raise UserError("sky.png is 4x4 pixels, less than 16 on a side: use a larger picture")
        Traceback (most recent call last):
        cinnema.core.errors.UserError: sky.png is 4x4 pixels, less than 16 on a side: ...
    """


class NotFiniteError(UserError):
    """A loss or a gradient that is not finite; the training loop then records the batch's clips."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return "did you mean ...?" with the known word most like a mistyped one; empty if none is.

    Args:
        word: What the user wrote.
        known: The words that exist; dashes in front of options are not compared.

    Example:
        >>> suggestion("--fames", ["--frames", "--fps"])
        'did you mean --frames?'
    """
    plain = {name.strip("-"): name for name in known}
    nearest = difflib.get_close_matches(word.strip("-"), plain, n=1, cutoff=0.5)
    return f"did you mean {plain[nearest[0]]}?" if nearest else ""
