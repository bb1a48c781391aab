"""One table of all bijections: a new one enters the table or not the code."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformer_coupling import TokenNetwork

from cinnema.core.errors import UserError
from cinnema.models.flow.couplings import AffineCoupling, ConditionedNetwork, Half, half_sizes
from cinnema.models.flow.flow import ConditionalFlow, FlowConfig
from cinnema.models.flow.transforms import (
    ActNorm,
    Compose,
    InvertibleLinear,
    LeakyReLU,
    Permutation,
    Transform,
)
from cinnema.paper.actnorm import ActNorm as PaperActNorm
from cinnema.paper.flow import PaperFlow, PaperFlowConfig


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coupling(
    z_dim: int,
    c_dim: int,
    half: Half,
    network: Callable[..., nn.Module] = ConditionedNetwork,
    bound: float | None = 1.5,
) -> AffineCoupling:
    kept, changed = half_sizes(z_dim, half)
    return AffineCoupling(
        z_dim,
        transforms=half,
        network=network(
            kept, 2 * changed, condition_dim=c_dim, hidden_dim=7, depth=2, generator=seeded()
        ),
        log_scale_bound=bound,
    )


def flow_of(z_dim: int, c_dim: int, mixing: str) -> ConditionalFlow:
    return ConditionalFlow(
        FlowConfig(z_dim=z_dim, condition_dim=c_dim, num_blocks=2, hidden_dim=7, mixing=mixing)
    )


def paper_flow(z_dim: int, c_dim: int, *, control: bool = False) -> PaperFlow:
    """Of twice as many dimensions, as it takes an even number, and one condition more."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PaperFlow(
            PaperFlowConfig(
                in_channels=2 * z_dim, embedding_dim=c_dim + 1, hidden_dim=7, hidden_depth=1,
                n_flows=2, control=control,
            )
        )  # fmt: skip


def paper_actnorm(z_dim: int) -> PaperActNorm:
    norm = PaperActNorm(z_dim)
    with torch.no_grad():
        norm.scale[:, ::2] *= -1  # trained factors may have either sign
    return norm


TABLE: dict[str, Callable[[int, int], Transform]] = {
    "actnorm": lambda z, _: ActNorm(z),
    "leaky relu": lambda *_: LeakyReLU(slope=0.9),
    "steep leaky relu": lambda *_: LeakyReLU(slope=2.0),
    "coupling of the first half": lambda z, c: coupling(z, c, "first"),
    "coupling of the second half": lambda z, c: coupling(z, c, "second"),
    "unbounded coupling": lambda z, c: coupling(z, c, "second", bound=None),
    "transformer coupling": lambda z, c: coupling(z, c, "first", TokenNetwork),
    "permutation": lambda z, _: Permutation(z, generator=seeded()),
    "invertible linear": lambda z, _: InvertibleLinear(z, generator=seeded()),
    "nothing": lambda *_: Compose([]),
    "composition": lambda z, c: Compose(
        [ActNorm(z), Compose([coupling(z, c, "first"), InvertibleLinear(z, generator=seeded())])]
    ),
    "flow that permutes": lambda z, c: flow_of(z, c, "permutation"),
    "flow that mixes": lambda z, c: flow_of(z, c, "linear"),
    "the paper's actnorm": lambda z, _: paper_actnorm(z),
    "the paper's flow": paper_flow,
    "the paper's flow with a control": lambda z, c: paper_flow(z, c, control=True),
}


@dataclass(frozen=True)
class Case:
    transform: Transform
    z: Tensor
    c: Tensor


def randomised(transform: Transform, *, amount: float = 0.3) -> Transform:
    generator = seeded(1)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
    return transform.eval()


def case_of(
    name: str, *, z_dim: int = 4, c_dim: int = 2, rows: int = 3, dtype: torch.dtype = torch.float64
) -> Case:
    generator = seeded(2)
    transform = TABLE[name](z_dim, c_dim)
    # Couplings without a bound stay mild, or their products are lost in rounding.
    randomised(transform, amount=0.1 if isinstance(transform, PaperFlow) else 0.3)
    if isinstance(transform, PaperFlow):
        z_dim, c_dim = transform.z_dim, transform.condition_dim
    return Case(
        transform.to(dtype),
        torch.randn(rows, z_dim, generator=generator, dtype=dtype),
        torch.randn(rows, c_dim, generator=generator, dtype=dtype),
    )


def jacobian_log_det(
    direction: Callable[..., tuple[Tensor, Tensor]], x: Tensor, c: Tensor
) -> Tensor:
    """Of every row; a row of the result depends on no other row, as a test below says."""
    jacobians = torch.autograd.functional.jacobian(lambda x: direction(x, c)[0].sum(dim=0), x)
    return torch.linalg.slogdet(jacobians.transpose(0, 1)).logabsdet


every_transform = pytest.mark.parametrize("name", TABLE)


@every_transform
@given(z_dim=st.integers(1, 9), c_dim=st.integers(0, 3), rows=st.integers(1, 5))
@settings(max_examples=8, deadline=None)
def test_each_direction_inverts_the_other_and_has_the_log_det_of_its_jacobian(
    name: str, z_dim: int, c_dim: int, rows: int
) -> None:
    case = case_of(name, z_dim=z_dim, c_dim=c_dim, rows=rows)
    there, back = case.transform.to_residual, case.transform.to_latent
    for direction, inverse in ((there, back), (back, there)):
        y, log_det = direction(case.z, case.c)
        torch.testing.assert_close(inverse(y, case.c)[0], case.z)
        torch.testing.assert_close(log_det, jacobian_log_det(direction, case.z, case.c))


@every_transform
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [0, 3])
def test_results_keep_the_dtype_and_the_shape(name: str, dtype: torch.dtype, rows: int) -> None:
    case = case_of(name, z_dim=5, rows=rows, dtype=dtype)
    for direction in (case.transform.to_residual, case.transform.to_latent):
        out, log_det = direction(case.z, case.c)
        assert (out.dtype, log_det.dtype) == (dtype, dtype)
        assert (out.shape, log_det.shape) == (case.z.shape, (rows,))


@every_transform
def test_rows_do_not_depend_on_each_other(name: str) -> None:
    case = case_of(name, rows=6)
    case.transform.train()
    together, _ = case.transform.to_residual(case.z, case.c)
    alone, _ = case.transform.to_residual(case.z[2:3], case.c[2:3])
    torch.testing.assert_close(together[2:3], alone)


@every_transform
def test_running_a_transform_changes_none_of_its_state(name: str) -> None:
    case = case_of(name)
    before = {key: value.clone() for key, value in case.transform.state_dict().items()}
    for mode in (True, False):
        case.transform.train(mode)
        case.transform.to_latent(case.transform.to_residual(case.z, case.c)[0], case.c)
    for key, value in case.transform.state_dict().items():
        assert torch.equal(value, before[key]), key


@every_transform
def test_gradients_reach_every_parameter_and_are_finite(name: str) -> None:
    case = case_of(name)
    nu, log_det = case.transform.to_residual(case.z, case.c)
    loss = 0.5 * nu.square().sum() - log_det.sum()
    for key, parameter in case.transform.named_parameters():
        (gradient,) = torch.autograd.grad(loss, parameter, retain_graph=True)
        assert torch.isfinite(gradient).all(), key


@every_transform
def test_it_is_initialised_by_a_batch_and_remembers_it_in_its_weights(name: str) -> None:
    case = case_of(name, rows=8)
    case.transform.initialise(case.z, case.c)
    assert case.transform.is_initialised
    other = case_of(name).transform
    other.load_state_dict(case.transform.state_dict())
    assert other.is_initialised
    for a, b in zip(
        other.to_residual(case.z, case.c), case.transform.to_residual(case.z, case.c), strict=True
    ):
        assert torch.equal(a, b)


networks = pytest.mark.parametrize("network", [ConditionedNetwork, TokenNetwork])


@networks
@pytest.mark.parametrize("half", ["first", "second"])
@pytest.mark.parametrize(("z_dim", "c_dim"), [(1, 0), (1, 2), (6, 0), (7, 2)])
def test_a_coupling_starts_at_the_identity(
    network: Callable[..., nn.Module], half: Half, z_dim: int, c_dim: int
) -> None:
    z, c = torch.randn(3, z_dim), torch.randn(3, c_dim)
    nu, log_det = coupling(z_dim, c_dim, half, network).to_residual(z, c)
    assert torch.equal(nu, z)
    assert torch.equal(log_det, torch.zeros(3))


@pytest.mark.parametrize(("half", "kept"), [("first", slice(3, 5)), ("second", slice(0, 3))])
def test_a_coupling_changes_one_half_and_keeps_the_other(half: Half, kept: slice) -> None:
    transform = randomised(coupling(5, 2, half))
    z, c = torch.randn(4, 5), torch.randn(4, 2)
    nu, _ = transform.to_residual(z, c)
    changed = torch.ones(5, dtype=torch.bool)
    changed[kept] = False
    assert torch.equal(nu[:, kept], z[:, kept])
    assert (nu[:, changed] != z[:, changed]).all()


def test_a_coupling_never_scales_beyond_its_bound() -> None:
    transform = randomised(coupling(4, 0, "first", bound=0.5), amount=50.0)
    _, log_det = transform.to_residual(100 * torch.randn(64, 4), torch.zeros(64, 0))
    assert log_det.abs().max() <= 2 * 0.5 + 1e-6
    assert log_det.abs().max() > 0.9


@networks
def test_a_coupling_depends_on_its_condition(network: Callable[..., nn.Module]) -> None:
    transform = randomised(coupling(4, 2, "second", network))
    z = torch.randn(1, 4)
    first, _ = transform.to_residual(z, torch.zeros(1, 2))
    second, _ = transform.to_residual(z, torch.ones(1, 2))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize(
    "name", ["coupling of the first half", "transformer coupling", "invertible linear"]
)
def test_a_transform_with_products_stays_exact_under_autocast(name: str) -> None:
    transform = randomised(TABLE[name](6, 2))
    z, c = torch.randn(8, 6), torch.randn(8, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nu, log_det = transform.to_residual(z, c)
        back, _ = transform.to_latent(nu, c)
    assert (nu.dtype, log_det.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(back, z, atol=1e-5, rtol=1e-5)


def test_actnorm_gives_its_first_batch_mean_zero_and_deviation_one() -> None:
    norm, z = ActNorm(3), 5 + 2 * torch.randn(100, 3, dtype=torch.float64)
    norm.double().initialise(z, z[:, :0])
    nu, _ = norm.to_residual(z, z[:, :0])
    torch.testing.assert_close(nu.mean(dim=0), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(
        nu.std(dim=0, correction=0), torch.ones(3, dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_actnorm_survives_a_dimension_that_never_changes() -> None:
    norm, z = ActNorm(3), torch.randn(100, 3)
    z[:, 1] = 7.0
    norm.initialise(z, z[:, :0])
    nu, log_det = norm.to_residual(z, z[:, :0])
    assert torch.isfinite(nu).all()
    assert torch.isfinite(log_det).all()
    assert norm.log_scale.exp().max() <= 1 / norm.std_floor * 1.001
    torch.testing.assert_close(norm.to_latent(nu, z[:, :0])[0], z)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_actnorm_is_the_identity_and_stays_so_until_it_is_initialised(mode: str) -> None:
    norm, z = ActNorm(3).train(mode == "train"), 5 + torch.randn(10, 3)
    assert torch.equal(norm.to_residual(z, z[:, :0])[0], z)
    assert not norm.initialised


@pytest.mark.parametrize(
    ("z", "rule"),
    [(torch.zeros(1, 3), "at least 2 rows"), (torch.full((4, 3), torch.nan), "finite")],
)
def test_actnorm_refuses_a_batch_without_a_standard_deviation(z: Tensor, rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        ActNorm(3).initialise(z, z[:, :0])


def test_leaky_relu_counts_each_negative_entry() -> None:
    _, log_det = LeakyReLU(slope=0.9).to_residual(
        torch.tensor([[-1.0, 2.0, -3.0]]), torch.zeros(1, 0)
    )
    torch.testing.assert_close(log_det, 2 * torch.tensor([0.9]).log())


def test_slopes_and_bounds_that_have_no_inverse_are_refused() -> None:
    with pytest.raises(UserError, match="slope"):
        LeakyReLU(slope=0.0)
    with pytest.raises(UserError, match="log_scale_bound"):
        coupling(4, 0, "first", bound=-1.0)


@pytest.mark.parametrize("z_dim", [1, 2, 9])
def test_an_invertible_linear_map_starts_as_a_permutation(z_dim: int) -> None:
    z, c = torch.randn(3, z_dim), torch.zeros(3, 0)
    nu, log_det = InvertibleLinear(z_dim, generator=seeded()).to_residual(z, c)
    assert torch.equal(nu, Permutation(z_dim, generator=seeded()).to_residual(z, c)[0])
    assert torch.equal(log_det, torch.zeros(3))


def test_the_same_seed_draws_the_same_transform() -> None:
    for first, second in zip(
        flow_of(6, 2, "linear").state_dict().values(),
        flow_of(6, 2, "linear").state_dict().values(),
        strict=True,
    ):
        assert torch.equal(first, second)
