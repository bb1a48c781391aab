"""The published cINN is a bijection with the exact log-determinant, or with the published one."""

import math
from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.models.flow.transforms import LeakyReLU
from cinnema.paper.flow import PaperFlow, PaperFlowConfig


def config_of(z_dim: int, c_dim: int, **changes: object) -> PaperFlowConfig:
    sizes = {"hidden_dim": 7, "hidden_depth": 1, "n_flows": 3}
    return PaperFlowConfig(in_channels=z_dim, embedding_dim=c_dim, **{**sizes, **changes})


def made(config: PaperFlowConfig) -> PaperFlow:
    torch.manual_seed(1)
    transform = PaperFlow(config)
    with torch.no_grad():
        for name, parameter in transform.named_parameters():
            # Couplings stay mild, or their products could not be told from rounding.
            is_norm = name.endswith(("loc", "scale"))
            parameter.add_((0.3 if is_norm else 0.05) * torch.randn(parameter.shape))
            if name.endswith("scale"):
                parameter[:, ::2] *= -1  # trained factors may have either sign
    return transform.double().eval()


def rows_of(config: PaperFlowConfig, rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = (rows, config.in_channels), (rows, config.embedding_dim)
    z, c = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return z, c


def jacobians(direction: Callable[..., tuple[Tensor, Tensor]], x: Tensor, c: Tensor) -> Tensor:
    one = torch.autograd.functional.jacobian
    return torch.stack(
        [
            one(lambda row, i=i: direction(row[None], c[i : i + 1])[0][0], x[i])
            for i in range(len(x))
        ]
    )


@pytest.mark.parametrize("control", [False, True])
def test_the_published_log_det_lacks_log_slope_for_each_negative_entry(*, control: bool) -> None:
    config = config_of(6, 2, n_flows=5, control=control)
    exact = made(config)
    published = made(config_of(6, 2, n_flows=5, control=control, log_det="published"))
    published.load_state_dict(exact.state_dict())
    z, c = rows_of(config, 4)
    entered: list[Tensor] = []
    real = LeakyReLU.to_residual

    def counted(self: LeakyReLU, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        entered.append((z < 0).sum(dim=1))
        return real(self, z, c)

    with patch.object(LeakyReLU, "to_residual", counted):
        nu, right = exact.to_residual(z, c)
    missing = math.log(0.9) * torch.stack(entered).sum(dim=0)
    assert len(entered) == 5
    assert (missing < 0).all()
    nu_as_published, wrong = published.to_residual(z, c)
    torch.testing.assert_close(nu_as_published, nu, atol=0, rtol=0)
    torch.testing.assert_close(wrong, right - missing)
    torch.testing.assert_close(published.to_latent(nu, c)[1], -wrong)


def test_with_a_control_only_every_fourth_block_mixes_entries_of_the_latent() -> None:
    config = config_of(6, 4, n_flows=9, control=True)
    flow, (z, c) = made(config), rows_of(config, 1)
    for index, block in enumerate(flow.transform.parts):
        links = (jacobians(block.to_residual, z, c)[0] != 0).sum(dim=1)
        mixes = bool((links > 1).any())
        assert mixes == (index % 4 == 0), f"block {index}"


def test_without_a_control_every_block_mixes() -> None:
    config = config_of(6, 4, n_flows=5)
    flow, (z, c) = made(config), rows_of(config, 1)
    for block in flow.transform.parts:
        assert int((jacobians(block.to_residual, z, c)[0] != 0).sum(dim=1).max()) > 1


def test_every_block_depends_on_the_condition() -> None:
    config = config_of(4, 3, n_flows=5, control=True)
    flow, (z, c) = made(config), rows_of(config, 2)
    for block in flow.transform.parts:
        assert not torch.equal(block.to_residual(z, c)[0], block.to_residual(z, c + 1)[0])


def test_initialising_gives_every_actnorm_a_standard_output() -> None:
    config = config_of(4, 2)
    flow, (z, c) = PaperFlow(config).double(), rows_of(config, 64)
    flow.initialise(5 * z + 2, c)
    assert flow.is_initialised
    x = 5 * z + 2
    for block in flow.transform.parts:
        normal, _ = block.parts[0].to_residual(x, c)
        torch.testing.assert_close(normal.mean(dim=0), torch.zeros(4).double())
        torch.testing.assert_close(normal.std(dim=0), torch.ones(4).double(), atol=1e-5, rtol=0)
        x, _ = block.to_residual(x, c)


@pytest.mark.parametrize(
    ("rows", "match"), [(1, "at least 2 values"), (4, "NaN or infinity")], ids=["one row", "a NaN"]
)
def test_what_no_deviation_can_be_measured_on_is_refused(rows: int, match: str) -> None:
    config = config_of(4, 2)
    z, c = rows_of(config, rows)
    if rows > 1:
        z[1, 1] = math.nan
    with pytest.raises(UserError, match=match):
        PaperFlow(config).double().initialise(z, c)


def test_the_density_is_that_of_a_change_of_variables() -> None:
    config = config_of(4, 2)
    flow, (z, c) = made(config), rows_of(config, 3)
    nu, log_det = flow.to_residual(z, c)
    normal = torch.distributions.Normal(torch.zeros(()).double(), 1)
    torch.testing.assert_close(flow.log_prob(z, c), normal.log_prob(nu).sum(dim=1) + log_det)


def test_samples_are_what_their_residuals_give() -> None:
    config = config_of(4, 2)
    flow, (_, c) = made(config), rows_of(config, 3)
    drawn = flow.sample(c, temperature=0.5, generator=torch.Generator().manual_seed(3))
    nu = torch.randn(3, 4, dtype=c.dtype, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn, flow.to_latent(0.5 * nu, c)[0])
    with pytest.raises(UserError, match="temperature"):
        flow.sample(c, temperature=-1)


@pytest.mark.parametrize(("z_dim", "c_dim", "what"), [(6, 2, "z: .* 4"), (4, 3, "c: .* 2")])
def test_shapes_of_another_training_are_refused(z_dim: int, c_dim: int, what: str) -> None:
    flow = PaperFlow(config_of(4, 2))
    for run in (flow.to_residual, flow.to_latent, flow.log_prob, flow.initialise):
        with pytest.raises(UserError, match=what):
            run(torch.zeros(3, z_dim), torch.zeros(3, c_dim))


def test_the_state_dict_has_the_published_entries_in_the_published_order() -> None:
    names = list(PaperFlow(config_of(4, 2, n_flows=2)).state_dict())
    block = [name.removeprefix("sub_layers.1.") for name in names[len(names) // 2 :]]
    assert block[:3] == ["norm_layer.loc", "norm_layer.scale", "norm_layer.initialized"]
    networks = [name.split(".main.")[0] for name in block[3:-2]]
    assert list(dict.fromkeys(networks)) == [f"coupling.{n}" for n in ("s.0", "s.1", "t.0", "t.1")]
    assert block[-2:] == ["shuffle.forward_shuffle_idx", "shuffle.backward_shuffle_idx"]


def test_a_flow_inside_a_model_keeps_the_published_entries() -> None:
    flow, other = made(config_of(4, 2)), torch.nn.ModuleDict({"a": PaperFlow(config_of(4, 2))})
    other.double().load_state_dict({f"a.{k}": v for k, v in flow.state_dict().items()})
    z, c = rows_of(flow.config, 3)
    assert torch.equal(other["a"].to_residual(z, c)[0], flow.to_residual(z, c)[0])
    assert list(other.state_dict()) == [f"a.{name}" for name in flow.state_dict()]
