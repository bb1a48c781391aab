"""The errors that are the user's to mend."""


class UserError(ValueError):
    """A mistake of the user's, or a limit of the machine: one line that names the way out.

    The message names the thing (a file, an option), the rule, the value, and what to do. The
    command line prints it without a traceback and ends with exit code 2.

    Example:
        >>> raise UserError("sky.png is 4x4 pixels, less than 16 on a side: use a larger picture")
        Traceback (most recent call last):
        cinnema.core.errors.UserError: sky.png is 4x4 pixels, less than 16 on a side: ...
    """


class NotFiniteError(UserError):
    """A loss or a gradient that is no number; whoever knows the batch keeps its clips."""
