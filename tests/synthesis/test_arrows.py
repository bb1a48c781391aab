"""Arrows: the motion of nature that goes where the user points, and is diverse elsewhere."""

import warnings

import pytest
import torch
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.models.control import Drift, resolve_control
from cinnema.models.nature.flow import KindFlowConfig
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import KIND_DIM, MOTION_DIM, NatureModel, NatureModelConfig
from cinnema.models.nature.motion import KindDynamics, follow, frequencies
from cinnema.models.nature.reading import velocity_of
from cinnema.synthesis.arrows import (
    Wanted,
    follow_arrows,
    velocities,
    wanted_by,
    warn_of_missed,
)
from cinnema.synthesis.hints import Arrow, as_arrows, require_inside

SIZE = (360, 640)
RATES = (8.0, 14.0, 25.0, 14.0, 12.0)
DYNAMICS = (
    KindDynamics(gain=1.0),
    KindDynamics(gain=3.0, period=12.0, churn=0.5),
    KindDynamics(gain=2.0, period=16.0, churn=0.25),
    KindDynamics(gain=0.0, churn=0.5),
    KindDynamics(gain=4.0, period=16.0, churn=1.0),
)
SKY, WATER, PLANTS = (KINDS.index(name) for name in ("sky", "water", "plants"))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def some_model(*, bend: float = 0.05) -> NatureModel:
    """A model of smooth velocities whose flow is not linear; with bend 0 it is the identity."""
    flow = KindFlowConfig(num_blocks=2, hidden_dim=16)
    model = NatureModel(
        NatureModelConfig(
            name="some", dynamics=DYNAMICS, kind_width=16, kind_size=96, narrow=2, flow=flow
        )
    )
    model.z_scale[:] = (0.004 / (1 + frequencies())).repeat(2)
    with torch.no_grad():
        for index, parameter in enumerate(model.flow.parameters()):
            parameter.add_(bend * noise(*parameter.shape, seed=index))
    return model.eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def model() -> NatureModel:
    return some_model()


@pytest.fixture(scope="module")
def share() -> Tensor:
    """Sky, below it water, and in that a rock and a bush."""
    share = torch.zeros(1 + len(KINDS), 128, 128)
    share[1 + SKY, :64] = 1
    share[1 + WATER, 64:] = 1
    for kind, columns in ((-1, slice(0, 30)), (PLANTS, slice(100, 128))):
        share[:, 90:, columns] = 0
        share[1 + kind, 90:, columns] = 1
    return share


@pytest.fixture(scope="module")
def c(model: NatureModel) -> Tensor:
    rows = 0.5 * noise(3, len(KINDS), model.config.condition_dim, seed=3)
    rows[..., -8:-3] = torch.eye(len(KINDS))
    rows[..., -3:] = 0
    return rows.flatten(1)


def asked(model: NatureModel, share: Tensor, *arrows: tuple[float, ...]) -> list[Wanted]:
    return wanted_by(as_arrows(arrows), None, share, model, size=SIZE, rates=RATES)


def found(model: NatureModel, nu: Tensor, c: Tensor, wanted: Wanted) -> Tensor:
    z, _ = model.to_latent(nu, c)
    return velocities(model, z, wanted)


def test_the_motion_at_an_arrow_is_the_arrow(model: NatureModel, share: Tensor, c: Tensor) -> None:
    (wanted,) = asked(model, share, (200, 60, 12, -20))
    nu = noise(3, model.z_dim)
    after = found(model, follow_arrows(model, nu, c, [wanted]), c, wanted)
    assert (found(model, nu, c, wanted) - wanted.velocity).norm(dim=-1).max() > 10
    assert (after - wanted.velocity).norm(dim=-1).max() < 1.0


def test_a_velocity_is_that_of_the_paths_that_are_rendered(
    model: NatureModel, share: Tensor
) -> None:
    z = noise(1, model.z_dim)
    # The middle of the grid's cell in row 20 and column 13.
    x, y = 13.5 / 32 * SIZE[1] - 0.5, 20.5 / 32 * SIZE[0] - 0.5
    (wanted,) = asked(model, share, (x, y, 1, 1))
    coefficients, _ = model.read_motion(z)[WATER]
    backward = follow(velocity_of(coefficients) * DYNAMICS[WATER].gain, 1)[0, 1, :, 20, 13]
    pixels = -backward * torch.tensor([640.0, 360.0]) * RATES[WATER]
    torch.testing.assert_close(velocities(model, z, wanted)[0, 0], pixels, atol=1e-3, rtol=1e-4)


def test_only_the_motion_of_the_kind_under_the_arrow_changes(
    model: NatureModel, share: Tensor, c: Tensor
) -> None:
    nu = noise(3, model.z_dim)
    after = follow_arrows(model, nu, c, asked(model, share, (300, 250, -15, 4)))
    changed = (after != nu)[:, :MOTION_DIM].view(3, len(KINDS), KIND_DIM).any(2)
    assert changed.tolist() == [[kind == WATER for kind in range(len(KINDS))]] * 3
    assert torch.equal(after[:, MOTION_DIM:], nu[:, MOTION_DIM:])


def test_what_arrows_leave_open_stays_diverse(model: NatureModel, share: Tensor, c: Tensor) -> None:
    nu = noise(64, model.z_dim)
    c = c[:1].repeat(64, 1)
    (near,) = asked(model, share, (320, 20, 20, 0))
    (far,) = asked(model, share, (40, 150, 20, 0))
    after = follow_arrows(model, nu, c, [near])
    before_there, there = (found(model, n, c, far).std(0) for n in (nu, after))
    assert (found(model, after, c, near).std(0) < 0.1 * found(model, nu, c, near).std(0)).all()
    assert (there > 0.5 * before_there).all()


def test_of_a_linear_flow_it_is_the_update_of_a_gaussian(share: Tensor) -> None:
    model = some_model(bend=0.0)
    model.z_scale *= 1000  # so that no velocity is bent
    model.z_deviation[:, :-1] /= 1000
    c = torch.zeros(1, len(KINDS) * model.config.condition_dim)
    (wanted,) = asked(model, share, (200, 60, 12, -20), (500, 100, 5, 5))
    nu = noise(1, model.z_dim)
    row = nu[0, :KIND_DIM].double()
    axes = torch.eye(KIND_DIM, model.z_dim)
    slope = found(model, axes, c.repeat(KIND_DIM, 1), wanted).flatten(1).T.double()
    spread = torch.diag(wanted.tolerance.repeat_interleave(2).double().square())
    missed = wanted.velocity.flatten().double() - slope @ row
    update = slope.T @ torch.linalg.solve(slope @ slope.T + spread, missed)
    after = follow_arrows(model, nu, c, [wanted])[0, :KIND_DIM].double()
    torch.testing.assert_close(after, row + update, atol=2e-3, rtol=0)


def test_at_temperature_zero_it_is_the_most_likely_motion(
    model: NatureModel, share: Tensor, c: Tensor
) -> None:
    wanted = asked(model, share, (200, 60, 12, -20))
    mode = follow_arrows(model, torch.zeros(1, model.z_dim), c[:1], wanted)
    others = follow_arrows(model, noise(16, model.z_dim), c[:1].repeat(16, 1), wanted)
    assert mode.norm() < others[:, :MOTION_DIM].norm(dim=1).min()
    assert (mode[:, MOTION_DIM:] == 0).all()


def test_several_arrows_on_one_kind_are_followed_together(
    model: NatureModel, share: Tensor, c: Tensor
) -> None:
    (wanted,) = asked(model, share, (50, 30, 20, 0), (580, 30, -20, 0), (320, 150, 0, 0))
    after = found(model, follow_arrows(model, noise(3, model.z_dim), c, [wanted]), c, wanted)
    assert (after - wanted.velocity).norm(dim=-1).max() < 2.5


def test_arrows_that_contradict_each_other_meet_in_the_middle(
    model: NatureModel, share: Tensor, c: Tensor
) -> None:
    (wanted,) = asked(model, share, (200, 60, 20, 10), (200, 60, 20, -10))
    after = found(model, follow_arrows(model, noise(3, model.z_dim), c, [wanted]), c, wanted)
    assert (after - torch.tensor([20.0, 0.0])).norm(dim=-1).max() < 1.5


def test_arrows_on_sky_and_water_move_each_as_it_says(
    model: NatureModel, share: Tensor, c: Tensor
) -> None:
    sky, water = asked(model, share, (200, 60, 20, 0), (300, 250, -15, 4))
    after = follow_arrows(model, noise(3, model.z_dim), c, [sky, water])
    for wanted in (sky, water):
        assert (found(model, after, c, wanted) - wanted.velocity).norm(dim=-1).max() < 1.5


def test_the_result_is_the_same_in_the_callers_inference_mode_and_alone(
    model: NatureModel, share: Tensor, c: Tensor
) -> None:
    wanted = asked(model, share, (200, 60, 12, -20))
    nu = noise(3, model.z_dim)
    with torch.inference_mode():
        first = follow_arrows(model, nu, c, wanted)
        alone = follow_arrows(model, nu[:1], c[:1], wanted)
    again = follow_arrows(model, nu, c, wanted)
    assert torch.equal(first, again)
    assert not first.requires_grad
    torch.testing.assert_close(first[:1], alone, atol=5e-3, rtol=0)


def test_an_arrow_on_still_ground_moves_nothing_and_says_so(
    model: NatureModel, share: Tensor
) -> None:
    with pytest.warns(UserWarning, match=r"arrow 20,300,30,0 is on still ground.*--move MASK"):
        assert asked(model, share, (20, 300, 30, 0)) == []


def test_an_arrow_on_plants_moves_nothing_and_says_so(model: NatureModel, share: Tensor) -> None:
    with pytest.warns(UserWarning, match=r"arrow 600,300,30,0 is on plants, which sway in place"):
        assert asked(model, share, (600, 300, 30, 0)) == []


def test_an_arrow_outside_the_picture_is_refused() -> None:
    for point in ((640, 10), (10, 360), (-1, 10)):
        with pytest.raises(UserError, match=r"outside the photograph, which has 640x360 pixels"):
            require_inside([Arrow(*point, 1, 0)], SIZE)
    require_inside([Arrow(0, 0, 1, 0), Arrow(639, 359, 1, 0)], SIZE)


def test_an_arrow_that_is_absurdly_fast_is_refused() -> None:
    with pytest.raises(UserError, match="moves 1000 pixels a second, more than 960"):
        require_inside([Arrow(10, 10, 600, -800)], SIZE)


@pytest.mark.parametrize("arrow", [(1, 2, 3), (1, 2, 3, float("nan")), (1, 2, float("inf"), 0)])
def test_an_arrow_of_other_than_four_finite_numbers_is_refused(arrow: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="arrows: each needs four finite numbers"):
        as_arrows([arrow])


def test_a_current_is_the_mean_velocity_of_the_water(
    model: NatureModel, share: Tensor, c: Tensor
) -> None:
    current = Drift(direction=20, speed=1.5)
    (wanted,) = wanted_by([], current, share, model, size=SIZE, rates=RATES)
    z, _ = model.to_latent(follow_arrows(model, noise(3, model.z_dim), c, [wanted]), c)
    field = velocity_of(model.read_motion(z)[WATER][0]) * DYNAMICS[WATER].gain
    cells = torch.nn.functional.adaptive_avg_pool2d(share[1 + WATER][None], 32)
    mean = (field * cells).sum((2, 3)) / cells.sum() * model.num_frames
    drift = resolve_control(current, model.control, model="some", size=SIZE)
    assert (mean - drift).norm(dim=1).max() < 0.01


def test_a_current_and_an_arrow_on_water_are_one_request(model: NatureModel, share: Tensor) -> None:
    arrow, current = Arrow(300, 250, -15, 4), Drift(direction=0)
    (both,) = wanted_by([arrow], current, share, model, size=SIZE, rates=RATES)
    assert len(both.weights) == len(both.velocity) == len(both.tolerance) == 2


def test_a_current_without_water_moves_nothing_and_says_so(model: NatureModel) -> None:
    sky = torch.zeros(1 + len(KINDS), 64, 64)
    sky[1 + SKY] = 1
    current = Drift(direction=0)
    with pytest.warns(UserWarning, match="shows no water"):
        assert wanted_by([], current, sky, model, size=SIZE, rates=RATES) == []


def test_a_current_that_is_too_fast_is_refused(model: NatureModel, share: Tensor) -> None:
    with pytest.raises(UserError, match="current: speed: must be from 0 to"):
        wanted_by([], Drift(direction=0, speed=50), share, model, size=SIZE, rates=RATES)


def test_arrows_that_cannot_all_be_followed_are_told_of(
    model: NatureModel, share: Tensor, c: Tensor
) -> None:
    for dy, is_told in ((0, False), (40, True)):
        wanted = asked(model, share, (200, 60, 20, dy), (200, 60, 20, -dy))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            warn_of_missed(model, c[:1], wanted)
        assert bool(told) == is_told
