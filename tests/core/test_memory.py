"""How a lack of memory is recognised."""

import errno

import pytest

from cinnema.core import memory
from cinnema.core.memory import is_lack_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=str,
)
def test_errors_of_all_libraries_that_lack_memory_are_known(error: Exception) -> None:
    assert is_lack_of_memory(error)


def test_other_errors_lack_memory_only_under_a_tight_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [SystemError("error return without exception set"), ValueError("a slip")]
    for limit, known in ((None, False), (8 << 30, False), (1 << 30, True)):
        monkeypatch.setattr(memory, "memory_limit", lambda limit=limit: limit)
        assert [is_lack_of_memory(error) for error in others] == [known] * 2
        assert not is_lack_of_memory(FileNotFoundError(errno.ENOENT, "no such file"))
