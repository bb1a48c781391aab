"""The flow for evaluation is the flow of training, in both directions."""

import copy

import pytest
import torch
from torch import Tensor

from cinnema.paper.fast_flow import FastFlow
from cinnema.paper.flow import PaperFlow, PaperFlowConfig

CONFIGS = {
    "exact": PaperFlowConfig(
        in_channels=6, embedding_dim=4, hidden_dim=16, hidden_depth=2, n_flows=3
    ),
    "published log-determinant": PaperFlowConfig(
        in_channels=6,
        embedding_dim=4,
        hidden_dim=16,
        hidden_depth=0,
        n_flows=2,
        log_det="published",
    ),
    "with a control": PaperFlowConfig(
        in_channels=6, embedding_dim=4, hidden_dim=16, hidden_depth=1, n_flows=6, control=True
    ),
}


def flow_of(name: str) -> PaperFlow:
    torch.manual_seed(0)
    flow = PaperFlow(CONFIGS[name])
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return flow.eval()


def rows(seed: int = 1, *, num: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, 6, generator=generator), torch.randn(num, 4, generator=generator)


def both(flow: PaperFlow, z: Tensor, c: Tensor) -> list[Tensor]:
    return [*flow.to_residual(z, c), *flow.to_latent(z, c)]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num", [1, 5])
def test_values_and_log_determinants_are_those_that_are_differentiated(name: str, num: int) -> None:
    flow, (z, c) = flow_of(name), rows(num=num)
    expected = both(flow, z, c)
    assert all(value.requires_grad for value in expected)
    with torch.no_grad():
        found = both(flow, z, c)
    torch.testing.assert_close(found, [value.detach() for value in expected], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_round_trip_is_exact(name: str) -> None:
    flow, (z, c) = flow_of(name), rows()
    nu, log_det = flow.to_residual(z, c)
    again, inverse = flow.to_latent(nu, c)
    torch.testing.assert_close(again, z, rtol=0, atol=1e-5)
    torch.testing.assert_close(inverse, -log_det, rtol=0, atol=1e-4)


@torch.no_grad()
def test_arguments_are_not_modified_and_each_condition_counts() -> None:
    flow, (z, c), (_, other) = flow_of("with a control"), rows(), rows(2)
    before = z.clone()
    first = flow.to_residual(z, c)[0]
    assert torch.equal(z, before)
    assert not torch.allclose(flow.to_residual(z, other)[0], first)
    assert torch.equal(flow.to_residual(z, c)[0], first)
    changed = c.clone()
    flow.to_residual(z, changed)
    changed.copy_(other)  # the same tensor, with other values
    assert torch.equal(flow.to_residual(z, changed)[0], flow.to_residual(z, other)[0])


def test_a_change_of_weights_is_seen() -> None:
    flow, (z, c) = flow_of("exact"), rows()
    with torch.no_grad():
        before = flow.to_residual(z, c)[0]
    optimiser = torch.optim.SGD(flow.parameters(), lr=0.1)
    flow.log_prob(z, c).sum().backward()
    optimiser.step()
    expected = flow.to_residual(z, c)[0].detach()
    with torch.no_grad():
        found = flow.to_residual(z, c)[0]
        assert not torch.allclose(found, before)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        copied = copy.deepcopy(flow)
        copied.load_state_dict(flow_of("exact").state_dict(), assign=True)
        torch.testing.assert_close(copied.to_residual(z, c)[0], before)
        torch.testing.assert_close(flow.to_residual(z, c)[0], found)


def test_weights_without_gradients_are_fast_outside_of_no_grad_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow, (z, c) = flow_of("exact").requires_grad_(requires_grad=False), rows()
    calls: list[Tensor] = []
    original = FastFlow.to_residual

    def counted(self: FastFlow, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(z)
        return original(self, z, c)

    monkeypatch.setattr(FastFlow, "to_residual", counted)
    flow.to_residual(z, c)
    assert len(calls) == 1
    assert flow.to_residual(z.requires_grad_(), c)[0].requires_grad
    flow.train().to_residual(z.detach(), c)
    assert len(calls) == 1


@torch.inference_mode()
def test_it_works_in_double_precision_and_with_weights_made_in_inference_mode() -> None:
    flow, (z, c) = flow_of("exact").double(), rows()
    nu, _ = flow.to_residual(z.double(), c.double())
    assert nu.dtype == torch.float64
    torch.testing.assert_close(flow.to_latent(nu, c.double())[0], z.double(), rtol=0, atol=1e-12)
