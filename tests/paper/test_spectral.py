"""Spectral norm does what torch's old function does, and can be copied and folded."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cinnema.paper import fold_spectral_norm
from cinnema.paper.spectral import SpectralConv2d, SpectralConv3d

KINDS = {
    "2d": (lambda: SpectralConv2d(3, 5, 3, stride=2, padding=1), nn.Conv2d, (2, 3, 8, 6)),
    "3d": (lambda: SpectralConv3d(3, 5, 3, stride=2, padding=1), nn.Conv3d, (2, 3, 4, 6, 5)),
}
both_kinds = pytest.mark.parametrize("kind", KINDS)


def conv_and_oracle(kind: str) -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(0)
    make, plain, shape = KINDS[kind]
    conv = make()
    oracle = torch.nn.utils.spectral_norm(plain(3, 5, 3, stride=2, padding=1))
    oracle.load_state_dict(conv.state_dict())
    return conv, oracle, torch.randn(shape)


@both_kinds
def test_three_steps_of_training_are_those_of_torch(kind: str) -> None:
    conv, oracle, x = conv_and_oracle(kind)
    for _ in range(3):
        for network in (conv, oracle):
            network.zero_grad()
            loss = network(x).square().sum() + network(2 * x).sin().sum()  # two calls, one backward
            loss.backward()
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.sub_(0.01 * parameter.grad)
    for name, value in oracle.state_dict().items():
        torch.testing.assert_close(conv.state_dict()[name], value)
    torch.testing.assert_close(conv.weight_orig.grad, oracle.weight_orig.grad)


@both_kinds
def test_evaluation_is_that_of_torch_and_leaves_the_state(kind: str) -> None:
    conv, oracle, x = conv_and_oracle(kind)
    before = copy.deepcopy(conv.state_dict())
    torch.testing.assert_close(conv.eval()(x), oracle.eval()(x))
    torch.testing.assert_close(conv.state_dict(), before, atol=0, rtol=0)


@both_kinds
def test_fresh_weights_have_norm_one(kind: str) -> None:
    conv, _, _ = conv_and_oracle(kind)
    norm = torch.linalg.matrix_norm(conv.eval().normalised_weight().flatten(1), ord=2)
    assert norm.item() == pytest.approx(1, abs=0.02)


@both_kinds
def test_a_call_in_training_leaves_a_module_that_can_be_copied(kind: str) -> None:
    conv, _, x = conv_and_oracle(kind)
    conv(x).sum().backward()
    twin = copy.deepcopy(conv)
    torch.testing.assert_close(twin.eval()(x), conv.eval()(x))


@both_kinds
def test_the_gradient_of_a_gradient_is_that_of_torch(kind: str) -> None:
    conv, oracle, x = conv_and_oracle(kind)
    for network in (conv, oracle):
        real = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(network(real).sin().sum(), real, create_graph=True)
        slope.square().sum().backward()
    torch.testing.assert_close(conv.weight_orig.grad, oracle.weight_orig.grad)


@both_kinds
def test_autocast_leaves_the_norm_in_full_precision(kind: str) -> None:
    conv, _, x = conv_and_oracle(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
    assert {value.dtype for value in conv.state_dict().values()} == {torch.float32}


@settings(max_examples=20, deadline=None)
@given(
    width=st.integers(1, 6),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    bias=st.booleans(),
    is_3d=st.booleans(),
)
def test_a_folded_convolution_computes_the_same(
    width: int, kernel: int, stride: int, *, bias: bool, is_3d: bool
) -> None:
    kind = SpectralConv3d if is_3d else SpectralConv2d
    conv = kind(2, width, kernel, stride=stride, padding=1, bias=bias)
    network = nn.Sequential(nn.ReLU(), nn.Sequential(conv)).eval()
    x = torch.randn(1, 2, *(5,) * (3 if is_3d else 2))
    before = network(x)
    fold_spectral_norm(network)
    torch.testing.assert_close(network(x), before)
    plain = network.get_submodule("1.0")
    assert type(plain) is (nn.Conv3d if is_3d else nn.Conv2d)
    assert not plain.training
