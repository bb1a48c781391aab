"""Every test runs under the shape checker, and on one thread, as the workers share the cores."""

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("cinnema", "shape_checker.check")  # before the first import of cinnema

pytest_plugins = ["small_models"]  # imports cinnema

torch.set_num_threads(1)

# How long an example takes depends on what else the machine does.
settings.register_profile("cinnema", deadline=None)
settings.load_profile("cinnema")


@pytest.fixture
def small_disk() -> Callable[[int], AbstractContextManager[None]]:
    """No file can grow beyond so many bytes while the block runs, as on a disk that fills up."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit
