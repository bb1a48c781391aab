"""The transformer of the ablation ladder; as a coupling it stands in the table of bijections."""

import doctest

import rectified_flow
import torch
import transformer_coupling
from transformer_coupling import TokenNetwork


def test_every_token_of_a_transformer_depends_on_all_others() -> None:
    generator = torch.Generator().manual_seed(0)
    network = TokenNetwork(8, 6, condition_dim=1, hidden_dim=64, depth=1, generator=generator)
    with torch.no_grad():
        for last in network.exits:
            last.weight.copy_(0.1 * torch.randn(last.weight.shape, generator=generator))
    x = torch.randn(1, 8, generator=generator).requires_grad_()
    for number in range(6):
        out = network(x, torch.ones(1, 1))[0, number]
        (gradient,) = torch.autograd.grad(out, x)
        assert (gradient.abs() > 0).all(), number


def test_every_example_in_the_docstrings_runs() -> None:
    for module in (transformer_coupling, rectified_flow):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0
