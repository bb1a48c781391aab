"""Every test runs under the shape checker, and on one thread, as the workers share the cores."""

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from hypothesis import settings

from shape_checker import install

install("cinnema")  # before the first import of cinnema

pytest_plugins = ["browser", "hub_server", "small_models", "small_nature"]  # imports cinnema

torch.set_num_threads(1)

# How long an example takes depends on what else the machine does.
settings.register_profile("cinnema", deadline=None)
settings.load_profile("cinnema")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a module to one worker, which makes its fixtures once; golden groups share nothing."""
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if "/golden/" in nodeid else nodeid.partition("::")[0]

    return ByModule(config, log)


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
