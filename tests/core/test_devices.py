"""Devices by their names."""

import doctest

import pytest
import torch

from cinnema.core import devices
from cinnema.core.devices import choose_device, one_thread, use_threads
from cinnema.core.errors import UserError


def test_auto_is_a_device_that_torch_can_use() -> None:
    assert torch.zeros(1, device=choose_device("auto")).sum() == 0


@pytest.mark.parametrize(
    ("name", "device"),
    [("auto", "cuda:3"), ("cuda", "cuda:3"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_each_process_of_a_machine_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, name: str, device: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device(name) == torch.device(device)


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:99", "mps:x", ""])
def test_a_device_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="--device"):
        choose_device(name)


def test_less_than_one_thread_is_refused() -> None:
    with pytest.raises(UserError, match="--threads must be at least 1"):
        use_threads(0)


def test_the_number_of_threads_comes_back_after_an_error() -> None:
    before = torch.get_num_threads()
    use_threads(2)
    with pytest.raises(ZeroDivisionError), one_thread():
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2
    use_threads(before)


def test_the_examples_run() -> None:
    assert doctest.testmod(devices).failed == 0
