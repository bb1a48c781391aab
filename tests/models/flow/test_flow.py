"""The conditional flow: density, samples, start, precision and what it refuses."""

import doctest
import importlib
from typing import Any

import pytest
import torch
import zuko
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import AffineTransform

from cinnema.core.errors import UserError
from cinnema.models.flow.couplings import AffineCoupling
from cinnema.models.flow.flow import ConditionalFlow, FlowConfig
from cinnema.models.flow.transforms import ActNorm, Permutation, Transform


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make_flow(
    z_dim: int = 5, c_dim: int = 2, *, noise: float = 0.0, **options: Any
) -> ConditionalFlow:
    sizes = {"num_blocks": 3, "hidden_dim": 16, **options}
    flow = ConditionalFlow(FlowConfig(z_dim=z_dim, condition_dim=c_dim, **sizes))
    with torch.no_grad():
        for seed, parameter in enumerate(flow.parameters()):
            parameter.add_(noise * normal(*parameter.shape, seed=seed))
    return flow.eval()


def zuko_map(part: Transform, c: Tensor) -> torch.distributions.Transform:
    """The same map under one condition, with torch's and zuko's transforms alone."""
    if isinstance(part, ActNorm):
        scale = part.log_scale.exp()
        affine = AffineTransform(-part.shift * scale, scale)
        return zuko.transforms.DependentTransform(affine, 1)
    if isinstance(part, Permutation):
        return zuko.transforms.PermutationTransform(part.order)
    assert isinstance(part, AffineCoupling)
    bound = part.log_scale_bound

    def affine_given(kept: Tensor) -> torch.distributions.Transform:
        raw, shift = part.network(kept, c.expand(len(kept), -1)).chunk(2, dim=1)
        scale = (bound * torch.tanh(raw / bound)).exp()
        return zuko.transforms.DependentTransform(AffineTransform(shift, scale), 1)

    in_first = torch.arange(5) < part.first_dim
    keeps = ~in_first if part.transforms == "first" else in_first
    return zuko.transforms.CouplingTransform(affine_given, keeps)


def test_log_prob_and_samples_are_those_of_zuko() -> None:
    flow = make_flow(noise=0.3, leaky_relu=False).double()
    c, z = normal(1, 2, dtype=torch.float64), normal(20, 5, seed=1, dtype=torch.float64)
    parts = [zuko_map(part, c) for part in flow.transform.parts if isinstance(part, Transform)]
    base = zuko.distributions.DiagNormal(torch.zeros_like(z[0]), torch.ones_like(z[0]))
    oracle = zuko.distributions.NormalizingFlow(zuko.transforms.ComposedTransform(*parts), base)
    torch.testing.assert_close(flow.log_prob(z, c.expand(20, -1)), oracle.log_prob(z))
    torch.testing.assert_close(flow.to_latent(z, c.expand(20, -1))[0], oracle.transform.inv(z))


@pytest.mark.parametrize("mixing", ["permutation", "linear"])
def test_the_density_of_two_dimensions_integrates_to_one(mixing: str) -> None:
    flow = make_flow(2, 1, noise=0.2, mixing=mixing, num_blocks=2)
    axis = torch.linspace(-15, 15, 601)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = flow.log_prob(z, torch.full((len(z), 1), 0.5)).exp()
    mass = density.double().sum() * (axis[1] - axis[0]).double().square()
    assert abs(mass.item() - 1) < 2e-3


@given(
    z_dim=st.integers(1, 9),
    c_dim=st.integers(0, 3),
    rows=st.integers(1, 5),
    mixing=st.sampled_from(["permutation", "linear"]),
)
@settings(max_examples=20, deadline=None)
def test_log_prob_follows_from_either_direction(
    z_dim: int, c_dim: int, rows: int, mixing: str
) -> None:
    flow = make_flow(z_dim, c_dim, noise=0.2, mixing=mixing, hidden_dim=6).double()
    nu, c = normal(rows, z_dim, dtype=torch.float64), normal(rows, c_dim, dtype=torch.float64)
    z, log_det = flow.to_latent(nu, c)
    base = torch.distributions.Normal(0.0, 1.0).log_prob(nu).sum(dim=1)
    torch.testing.assert_close(flow.log_prob(z, c), base - log_det)


@pytest.mark.parametrize(("mixing", "noise"), [("permutation", 0.05), ("linear", 0.02)])
def test_twenty_random_blocks_are_inverted_to_a_hundred_thousandth_in_float32(
    mixing: str, noise: float
) -> None:
    flow = make_flow(64, 16, noise=noise, num_blocks=20, hidden_dim=64, mixing=mixing)
    z, c = normal(64, 64), normal(64, 16, seed=1)
    flow.initialise(z, c)
    with torch.no_grad():
        nu, _ = flow.to_residual(z, c)
        other, _ = flow.to_residual(z, c.flip(0))
        assert (nu - other).abs().max() > 0.05  # a map that does something
        assert (flow.to_latent(nu, c)[0] - z).abs().max() < 1e-5
        assert (flow.to_residual(flow.to_latent(z, c)[0], c)[0] - z).abs().max() < 1e-5


@given(
    z_dim=st.integers(1, 9),
    c_dim=st.integers(0, 3),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    sizes=st.fixed_dictionaries(
        {
            "num_blocks": st.integers(0, 20),
            "depth": st.integers(0, 3),
            "mixing": st.sampled_from(["permutation", "linear"]),
        }
    ),
)
@settings(max_examples=20, deadline=None)
def test_flows_of_any_width_depth_and_dtype_are_inverted(
    z_dim: int, c_dim: int, dtype: torch.dtype, sizes: dict[str, Any]
) -> None:
    flow = make_flow(z_dim, c_dim, noise=0.05, hidden_dim=6, **sizes).to(dtype)
    z, c = normal(4, z_dim).to(dtype), normal(4, c_dim, seed=1).to(dtype)
    nu, log_det = flow.to_residual(z, c)
    back, inverse_log_det = flow.to_latent(nu, c)
    assert (nu.dtype, back.dtype) == (dtype, dtype)
    away = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.5}[dtype]
    assert (back - z).abs().max() < away
    assert (log_det + inverse_log_det).abs().max() < 2 * away


def test_a_new_flow_only_permutes_standard_data() -> None:
    flow, z, c = make_flow(7, leaky_relu=False), normal(4000, 7), normal(4000, 2, seed=1)
    z = (z - z.mean(dim=0)) / z.std(dim=0, correction=0)
    flow.initialise(z, c)
    nu, log_det = flow.to_residual(z, c)
    order = torch.cdist(nu.T, z.T).argmin(dim=1)
    torch.testing.assert_close(nu, z[:, order], atol=1e-4, rtol=0)
    torch.testing.assert_close(log_det, torch.zeros(4000), atol=1e-4, rtol=0)


def test_a_new_flow_with_leaky_relu_stays_close_to_a_permutation() -> None:
    flow, z, c = make_flow(7, num_blocks=20), normal(4000, 7), normal(4000, 2, seed=1)
    flow.initialise(z, c)
    nu, _ = flow.to_residual(z, c)
    order = torch.cdist(nu.T, z.T).argmin(dim=1)
    assert sorted(order.tolist()) == list(range(7))
    assert (nu - z[:, order]).square().mean() < 0.4


def test_initialising_gives_unit_residuals_whatever_the_scale_of_the_latents() -> None:
    flow, c = make_flow(noise=0.05), normal(500, 2)
    z = 30 + 12 * normal(500, 5)
    assert not flow.is_initialised
    flow.initialise(z, c)
    assert flow.is_initialised
    nu, _ = flow.to_residual(z, c)
    assert nu.abs().max() < 10


def test_using_a_flow_does_not_initialise_it() -> None:
    for mode in (True, False):
        flow = make_flow().train(mode)
        flow.log_prob(normal(4, 5), normal(4, 2))
        assert not flow.is_initialised


def test_training_lowers_the_negative_log_likelihood_below_that_of_the_start() -> None:
    flow, c = make_flow(2, 1), normal(512, 1)
    z = torch.cat([c + 0.1 * normal(512, 1, seed=1), (3 * c).sin()], dim=1)
    z = z + 0.1 * normal(512, 2, seed=2)
    flow.initialise(z, c)
    optimiser = torch.optim.Adam(flow.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = -flow.log_prob(z, c).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1


def test_the_same_generator_gives_the_same_sample() -> None:
    flow, c = make_flow(noise=0.2), normal(6, 2)
    first, second, other = (
        flow.sample(c, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_sample_is_the_latent_of_the_scaled_residual() -> None:
    flow, c = make_flow(noise=0.2), normal(6, 2)
    nu = normal(6, 5, seed=3)
    sample = flow.sample(c, temperature=0.7, generator=torch.Generator().manual_seed(3))
    assert torch.equal(sample, flow.to_latent(0.7 * nu, c)[0])


def test_at_temperature_zero_all_samples_are_the_same() -> None:
    flow, c = make_flow(noise=0.2), normal(1, 2).expand(5, -1)
    sample = flow.sample(c, temperature=0.0)
    torch.testing.assert_close(sample, sample[:1].expand(5, -1))


def test_building_a_flow_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    for mixing in ("permutation", "linear"):
        make_flow(mixing=mixing)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_seed_builds_another_flow() -> None:
    flows = [make_flow(9, seed=seed).state_dict() for seed in (0, 1)]
    assert any(not torch.equal(flows[0][key], flows[1][key]) for key in flows[0])


@pytest.mark.parametrize("temperature", [-1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(UserError, match="temperature"):
        make_flow().sample(normal(2, 2), temperature=temperature)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(UserError, match="z: this flow has 5 dimensions, got 4"):
        make_flow().log_prob(normal(3, 4), normal(3, 2))
    with pytest.raises(UserError, match="c: this flow has 2 condition columns, got 1"):
        make_flow().to_latent(normal(3, 5), normal(3, 1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"z_dim": 0},
        {"condition_dim": -1},
        {"num_blocks": -1},
        {"hidden_dim": 0},
        {"depth": -1},
        {"log_scale_bound": 0.0},
        {"dropout": 1.0},
        {"mixing": "shuffle"},
        {"coupling": "attention"},
        {"num_block": 3},
    ],
)
def test_a_config_refuses_what_is_unknown_or_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FlowConfig(**{"z_dim": 4, **wrong})


@pytest.mark.parametrize("room", ["transforms", "couplings", "flow", "conditioning", "priors"])
def test_every_example_in_the_docstrings_runs(room: str) -> None:
    module = importlib.import_module(f"cinnema.models.flow.{room}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
