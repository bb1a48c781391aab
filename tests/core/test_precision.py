"""Master weights beside rounded ones, and averages of them."""

import doctest

import pytest
import torch
from torch import Tensor, nn

from cinnema.core import precision
from cinnema.core.precision import MasterWeights, MovingAverage, fast_dtype


def make_network(dtype: torch.dtype) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2).to(dtype)


def step(network: nn.Linear, master: MasterWeights, optimiser: torch.optim.Optimizer) -> None:
    network(torch.ones(1, 3, dtype=network.weight.dtype)).sum().backward()
    master.take_gradients()
    optimiser.step()
    optimiser.zero_grad()
    master.publish()


@pytest.mark.parametrize(
    ("instructions", "speed", "expected"),
    [
        (("amx_tile", "avx512_bf16"), 0.5, torch.bfloat16),
        (("avx512_bf16",), 2.0, torch.bfloat16),
        (("avx512_bf16",), 0.5, torch.float32),
        ((), 2.0, torch.float32),
    ],
)
def test_a_cpu_computes_in_bfloat16_only_where_its_hardware_multiplies_it_faster(
    instructions: tuple[str, ...],
    speed: float,
    expected: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("amx_tile", "avx512_bf16"):
        has = name in instructions
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda has=has: has)
    monkeypatch.setattr(precision, "_bf16_speed", lambda: speed)
    assert fast_dtype(torch.device("cpu")) == expected
    assert fast_dtype(torch.device("mps")) == torch.float32


def test_the_speed_of_bfloat16_is_measured_once_and_leaves_the_threads_as_they_are() -> None:
    threads = torch.get_num_threads()
    speed = precision._bf16_speed()
    assert speed > 0
    assert precision._bf16_speed() == speed
    assert torch.get_num_threads() == threads


def test_masters_of_a_float32_network_are_its_own_parameters() -> None:
    network = make_network(torch.float32)
    master = MasterWeights(network)
    assert master.shared
    assert all(a is b for a, b in zip(master.parameters, network.parameters(), strict=True))
    optimiser = torch.optim.SGD(master.parameters, lr=0.5)
    before = network.bias.detach().clone()
    step(network, master, optimiser)
    torch.testing.assert_close(network.bias.detach(), before - 0.5)


def test_masters_keep_what_bfloat16_would_round_away() -> None:
    network = make_network(torch.bfloat16)
    master = MasterWeights(network)
    assert [p.dtype for p in master.parameters] == [torch.float32] * 2
    optimiser = torch.optim.SGD(master.parameters, lr=1e-5)
    before = [p.detach().clone() for p in master.parameters]
    for _ in range(100):
        step(network, master, optimiser)
    for master_now, own, start in zip(master.parameters, network.parameters(), before, strict=True):
        torch.testing.assert_close(master_now.detach(), start - 1e-3, rtol=1e-5, atol=1e-7)
        assert own.dtype == torch.bfloat16
        assert torch.equal(own, master_now.bfloat16())
        assert own.grad is None


def test_what_is_frozen_has_no_master() -> None:
    network = make_network(torch.bfloat16)
    network.bias.requires_grad_(requires_grad=False)
    master = MasterWeights(network)
    assert [p.shape for p in master.parameters] == [network.weight.shape]


def test_a_parameter_without_a_gradient_leaves_its_master_without_one() -> None:
    network = make_network(torch.bfloat16)
    master = MasterWeights(network)
    network.weight.sum().backward()
    master.take_gradients()
    assert [p.grad is None for p in master.parameters] == [False, True]


@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loaded", [torch.float32, torch.bfloat16])
def test_a_state_goes_from_one_format_to_the_other(saved: torch.dtype, loaded: torch.dtype) -> None:
    source = MasterWeights(make_network(saved))
    with torch.no_grad():
        source.parameters[0].add_(1e-4)
    source.publish()
    state = {name: value.clone() for name, value in source.state_dict().items()}
    assert list(state) == ["weight", "bias"]
    assert state["weight"].dtype == torch.float32

    network = nn.Linear(3, 2).to(loaded)
    target = MasterWeights(network)
    target.load_state_dict(state)
    assert torch.equal(target.parameters[0], source.parameters[0])
    assert torch.equal(network.weight, source.parameters[0].to(loaded))
    assert network.weight.dtype == loaded


def parameters() -> list[Tensor]:
    return [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor(3.0))]


def test_an_average_follows_fast_at_first_and_slowly_later() -> None:
    source = parameters()
    average = MovingAverage(source, decay=0.5)
    with torch.no_grad():
        source[1].zero_()
    average.update()
    assert average.values[1].item() == pytest.approx(3 / 11)  # 1 / (1 + 10) is kept
    for _ in range(30):
        average.update()
    before = average.values[1].item()
    average.update()
    assert average.values[1].item() == pytest.approx(before / 2)


def test_exchanging_twice_changes_nothing() -> None:
    source = parameters()
    average = MovingAverage(source, decay=0.9)
    with torch.no_grad():
        source[0].add_(1)
    average.update()
    values = [v.clone() for v in average.values]
    own = [p.detach().clone() for p in source]
    average.exchange()
    assert all(torch.equal(p, v) for p, v in zip(source, values, strict=True))
    assert all(torch.equal(v, p) for v, p in zip(average.values, own, strict=True))
    average.exchange()
    assert all(torch.equal(p, o) for p, o in zip(source, own, strict=True))
    assert all(torch.equal(v, w) for v, w in zip(average.values, values, strict=True))


def test_an_average_goes_on_from_its_state() -> None:
    source = parameters()
    average = MovingAverage(source, decay=0.9)
    with torch.no_grad():
        source[0].add_(1)
    average.update()
    other = MovingAverage(parameters(), decay=0.9)
    other.load_state_dict(average.state_dict())
    assert other.num_updates == 1
    assert all(torch.equal(a, b) for a, b in zip(other.values, average.values, strict=True))
    assert all(a is not b for a, b in zip(other.values, average.values, strict=True))


def test_the_examples_run() -> None:
    assert doctest.testmod(precision).failed == 0
