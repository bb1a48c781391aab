"""The recordings of the published networks."""

from collections.abc import Callable

import pytest

from parity import Recording, recording_of


@pytest.fixture(scope="session")
def recording() -> Callable[[str], Recording]:
    return recording_of
