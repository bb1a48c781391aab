"""Words of messages and reports."""


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    Args:
        count: How many there are.
        noun: The singular of a noun whose plural ends in s.

    Example:
        >>> plural(1, "source video"), plural(2, "source video")
        ('1 source video', '2 source videos')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"
