"""Words of messages."""

import pytest

from cinnema.core.text import plural


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 clips"), (1, "1 clip"), (2, "2 clips"), (11, "11 clips")]
)
def test_a_count_has_the_noun_in_the_right_number(count: int, expected: str) -> None:
    assert plural(count, "clip") == expected
