"""Errors that the user can correct."""


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
