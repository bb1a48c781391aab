"""The nature model as a whole: its z, its control, its still ground."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.media.pictures import to_tensor
from cinnema.models.files import load_model, save_model
from cinnema.models.nature.flow import KindFlow, KindFlowConfig, LinearGaussian
from cinnema.models.nature.kinds import KINDS, KindNetwork, SceneFeatures
from cinnema.models.nature.model import (
    KIND_DIM,
    MOTION_DIM,
    Z_DIM,
    NatureModel,
    NatureModelConfig,
)
from cinnema.models.nature.motion import KindDynamics
from small_nature import DYNAMICS, nature_model, textured


@pytest.fixture(scope="module")
def model() -> NatureModel:
    return nature_model()


def photograph(*classes: str) -> Tensor:
    """A photograph of 128 x 128 pixels with the classes one below the other."""
    height = 128 // len(classes)
    parts = [to_tensor(textured(name, (height, 128))) for name in classes]
    return torch.cat(parts, 1)[None]


def nu_of(seed: int, rows: int = 1) -> Tensor:
    return torch.randn(rows, Z_DIM, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_the_churn_passes_the_flow_unchanged(model: NatureModel) -> None:
    c = model.condition(photograph("sky", "water"))
    z, _ = model.to_latent(nu_of(0), c)
    assert torch.equal(z[:, MOTION_DIM:], nu_of(0)[:, MOTION_DIM:])


@torch.no_grad()
def test_nothing_moves_where_everything_is_still(model: NatureModel) -> None:
    x0 = photograph("still")
    z, _ = model.to_latent(nu_of(1), model.condition(x0))
    video = model.decode(x0, z)
    assert torch.equal(video, x0[:, None].expand_as(video))


@torch.no_grad()
def test_only_the_sky_moves_above_still_ground(model: NatureModel) -> None:
    x0 = photograph("sky", "still")
    z, _ = model.to_latent(nu_of(1), model.condition(x0))
    change = (model.decode(x0, z) - x0[:, None]).abs().mean((0, 1, 2, 4))
    assert change[:56].min() > 0
    assert change[72:].max() == 0


@torch.no_grad()
def test_a_kind_that_is_not_seen_has_z_0(model: NatureModel) -> None:
    x0 = photograph("sky", "still")
    z, _ = model.to_latent(nu_of(1), model.condition(x0))
    video = torch.cat([x0[:, None], model.decode(x0, z)], 1)
    rows = model.encode(video)[:, :MOTION_DIM].view(len(KINDS), KIND_DIM)
    assert rows[0].abs().max() > 0
    assert torch.equal(rows[1:], torch.zeros_like(rows[1:]))


@torch.no_grad()
def test_encoding_finds_the_drift_that_was_decoded(model: NatureModel) -> None:
    x0 = photograph("sky")
    z, _ = model.to_latent(nu_of(2), model.condition(x0))
    wanted = model.drift(z, model.recognise(x0))
    measured, seen = model.read_control(torch.cat([x0[:, None], model.decode(x0, z)], 1))
    assert seen.item() == 1
    torch.testing.assert_close(measured, wanted, atol=0.04, rtol=0.2)


@torch.no_grad()
def test_no_sky_and_no_water_means_no_control_is_seen(model: NatureModel) -> None:
    x0 = photograph("still")
    _, seen = model.read_control(x0[:, None].expand(-1, 17, -1, -1, -1))
    assert seen.item() == 0


@torch.no_grad()
def test_the_water_drifts_as_asked_where_there_is_no_sky(model: NatureModel) -> None:
    features = model.recognise(photograph("water"))
    eta = torch.tensor([[0.05, 0.0]])
    corrected = model.corrected_control_on(features, nu_of(3), eta)
    z, _ = model.to_latent(nu_of(3), model.describe(features, corrected).flatten(1))
    before, _ = model.to_latent(nu_of(3), model.describe(features, eta).flatten(1))
    error = (model.drift(z, features) - eta).norm()
    assert error <= (model.drift(before, features) - eta).norm()


def test_eta_of_the_wrong_length_and_z_of_the_wrong_length_are_refused(
    model: NatureModel,
) -> None:
    x0 = photograph("sky")
    with pytest.raises(UserError, match="eta: the control has 2 numbers"):
        model.condition(x0, torch.zeros(1, 3))
    with pytest.raises(UserError, match=f"has {Z_DIM} dimensions, got 64"):
        model.to_latent(torch.zeros(1, 64), model.condition(x0))


def test_dynamics_of_every_kind_are_needed() -> None:
    with pytest.raises(ValidationError, match="one for each of sky, water"):
        NatureModelConfig(name="a", dynamics=DYNAMICS[:2])


def test_a_model_survives_its_file(tmp_path: Path) -> None:
    config = NatureModelConfig(name="a", dynamics=(KindDynamics(gain=1.5),) * 5, kind_width=16)
    model = NatureModel(config)
    model.z_scale.fill_(0.5)
    model.flow.linear.cholesky[3, 2, 1] = 0.25
    sha = save_model(tmp_path / "a.safetensors", model)
    again = load_model(tmp_path / "a.safetensors").model
    assert isinstance(again, NatureModel)
    assert again.config == config
    assert torch.equal(again.flow.linear.cholesky, model.flow.linear.cholesky)
    assert save_model(tmp_path / "b.safetensors", again) == sha


@torch.no_grad()
def test_pictures_of_any_size_are_recognised_in_that_of_the_configuration() -> None:
    model = nature_model(by_colour=False)
    assert model.config.kind_size == 96
    assert NatureModelConfig(name="a", dynamics=DYNAMICS).kind_size == 384
    for shape in ((96, 96), (40, 70)):
        assert model.recognise(torch.zeros(1, 3, *shape)).logits.shape == (1, 6, 48, 48)


def test_kinds_of_any_size_are_recognised_and_probabilities_sum_to_1() -> None:
    network = KindNetwork(width=16).eval()
    features = network(torch.rand(2, 3, 64, 96) * 2 - 1)
    assert features.logits.shape == (2, 6, 32, 48)
    torch.testing.assert_close(features.probabilities.sum(1), torch.ones(2, 32, 48))


def test_what_surely_moves_moves_as_the_kind_that_is_most_probable() -> None:
    logits = torch.tensor([0.1, 0.4, 0.5, 1e-6, 1e-6, 1e-6]).log().view(1, 6, 1, 1)
    p = SceneFeatures(logits, torch.zeros(1, 1, 1, 1)).probabilities.flatten()
    assert p[0].item() == pytest.approx(0.1, abs=1e-4)
    assert p[2] > 0.55 > p[1]


def trained_flow(z_dim: int) -> KindFlow:
    """A flow with random parameters everywhere."""
    generator = torch.Generator().manual_seed(1)
    config = KindFlowConfig(num_blocks=2, hidden_dim=8)
    flow = KindFlow(config, z_dim=z_dim, condition_dim=9, num_kinds=3).eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        flow.linear.mean.copy_(torch.randn(6, z_dim, generator=generator))
        flow.linear.weight.copy_(torch.randn(6, 9, z_dim, generator=generator))
        noise = torch.randn(6, z_dim, z_dim, generator=generator).tril(-1)
        flow.linear.cholesky.copy_(0.3 * noise + 0.7 * torch.eye(z_dim))
    return flow


def conditions(kinds: list[int], *, given: float) -> Tensor:
    c = torch.randn(len(kinds), 9, generator=torch.Generator().manual_seed(2))
    c[:, 3:6] = torch.eye(3)[kinds]
    c[:, -1] = given
    return c


@given(z_dim=st.integers(2, 7), given_control=st.booleans())
@settings(max_examples=15)
@torch.no_grad()
def test_the_flow_of_a_kind_is_a_bijection(z_dim: int, *, given_control: bool) -> None:
    flow, c = trained_flow(z_dim), conditions([0, 1, 2, 1], given=float(given_control))
    z = torch.randn(4, z_dim, generator=torch.Generator().manual_seed(3))
    nu, log_det = flow.to_residual(z, c)
    again, back = flow.to_latent(nu, c)
    torch.testing.assert_close(again, z, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(log_det, -back, atol=1e-4, rtol=1e-4)


def test_the_log_determinant_is_that_of_the_jacobian() -> None:
    flow, c = trained_flow(3).double(), conditions([2], given=0.0).double()
    z = torch.randn(1, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.to_residual(x, c)[0][0], z)
    expected = torch.linalg.slogdet(jacobian[:, 0]).logabsdet
    torch.testing.assert_close(flow.to_residual(z, c)[1][0], expected)


@torch.no_grad()
def test_each_kind_and_each_kind_of_control_has_its_own_parameters() -> None:
    linear = LinearGaussian(z_dim=2, condition_dim=9, num_kinds=3, first_kind=3)
    linear.mean.copy_(torch.arange(12.0).view(6, 2))
    for kind in range(3):
        for given_ in (0, 1):
            z, _ = linear.to_latent(torch.zeros(1, 2), conditions([kind], given=float(given_)))
            assert z[0, 0].item() == 2 * (2 * kind + given_)
