"""Training of the nature model: closed-form parts, flow and cross-validation, on tiny pools."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.models.nature.flow import KindFlowConfig
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import KIND_DIM, NatureModel, NatureModelConfig
from cinnema.models.nature.motion import GRID, KindDynamics
from cinnema.models.nature.reading import measure_motion, velocity_of
from cinnema.training.motion_pool import MotionPool, raw_motion
from cinnema.training.nature import (
    KindFlowTraining,
    fit_closed_form,
    held_out_scores,
    mirrored_motion,
    negative_log_likelihood,
)
from cinnema.training.nature_flow import RowBatches, fit_flow, row_weights
from cinnema.training.nature_validation import cross_validate, fold_of_scenes

CONFIG = NatureModelConfig(
    name="tiny",
    dynamics=(KindDynamics(),) * len(KINDS),
    kind_width=16,
    kind_size=96,
    narrow=2,
    flow=KindFlowConfig(num_blocks=1, hidden_dim=16),
)
TRAINING = KindFlowTraining(
    clips=2560, batch_size=64, validate_every=640, learning_rate=3e-3, keep="last"
)
SKY, WATER = KINDS.index("sky"), KINDS.index("water")


def pool(*, num_scenes: int = 12, clips: int = 4, held_out: int = 3) -> MotionPool:
    """Skies over seas; the speed of each scene has two modes, which no Gaussian has."""
    generator = torch.Generator().manual_seed(0)
    num = num_scenes * clips
    scene = torch.arange(num_scenes).repeat_interleave(clips)
    side = torch.randint(2, (num_scenes, 1, 1), generator=generator) * 2.0 - 1
    raw = 0.001 * torch.randn(num, len(KINDS), KIND_DIM, generator=generator)
    raw[:, :2] += 0.01 * side[scene]
    look = torch.randn(num_scenes, len(KINDS), 432, generator=generator)[scene]
    cells = torch.zeros(num, len(KINDS), GRID, GRID)
    cells[:, SKY, : GRID // 2], cells[:, WATER, GRID // 2 :] = 1, 1
    geometry = 0.1 * torch.randn(num, len(KINDS), 4, generator=generator)
    geometry[..., 0] = cells.mean((2, 3))
    return MotionPool(
        raw=raw, look=look, geometry=geometry, cells=cells, scene=scene,
        closer=torch.zeros(num, dtype=torch.bool),
        scenes=tuple(f"scene{k}" for k in range(num_scenes)),
        held_out=torch.arange(num_scenes) < held_out,
    )  # fmt: skip


def test_only_some_kinds_are_learned_from_closer_views() -> None:
    config = KindFlowTraining(closer=("water",))
    views = replace(pool(), closer=torch.arange(48) % 4 == 3)
    used = config.uses(views)
    assert used[:, WATER].all()
    assert torch.equal(used[:, SKY], ~views.closer)
    rows = fit_closed_form(new_model(), views, ~views.held_out, config)
    assert rows.original[rows.kind == SKY].sum() == 36
    assert rows.original[rows.kind == WATER].sum() == 36
    assert (rows.kind == WATER).sum() == 2 * 48  # and its mirror images
    with pytest.raises(ValueError, match="there is no kind 'sea'"):
        KindFlowTraining(closer=("sea",))


def new_model() -> NatureModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NatureModel(CONFIG).eval()


def test_mirrored_motion_is_the_motion_of_the_mirrored_flow() -> None:
    flow = torch.randn(2, 3, 2, GRID, GRID, generator=torch.Generator().manual_seed(0))
    cells = torch.rand(2, len(KINDS), GRID, GRID, generator=torch.Generator().manual_seed(1))
    flipped = flow.flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None]
    expected = raw_motion(flipped, cells.flip(-1))
    assert torch.allclose(mirrored_motion(raw_motion(flow, cells)), expected, atol=1e-4)


def test_raw_motion_is_the_velocity_of_each_kind() -> None:
    flow = torch.zeros(1, 4, 2, GRID, GRID)
    flow[:, :, 0, : GRID // 2], flow[:, :, 1, GRID // 2 :] = 0.02, -0.01
    cells = torch.zeros(1, len(KINDS), GRID, GRID)
    cells[:, SKY, : GRID // 2], cells[:, WATER, GRID // 2 :] = 1, 1
    measured = measure_motion(flow, cells[:, SKY])
    raw = raw_motion(flow, cells)
    assert torch.equal(raw[:, SKY, :-1], measured.coefficients.flatten(1))
    velocity = velocity_of(raw[:, WATER, :-1].unflatten(1, (2, -1)))
    assert velocity[0, 1, -1].mean() == pytest.approx(-0.01, rel=0.2)


def test_training_latents_have_mean_0_and_deviation_1_and_those_of_other_scenes_do_not_count() -> (
    None
):
    data, model = pool(), new_model()
    rows = fit_closed_form(model, data, ~data.held_out, TRAINING)
    used = rows.where((~data.held_out)[rows.scene] & (rows.kind == SKY))
    assert used.z.mean(0).abs().max() < 1e-4
    assert (used.z.std(0) - 1).abs().max() < 1e-2
    other = replace(data, raw=torch.where(data.held_out[data.scene][:, None, None], 7.0, data.raw))
    again = new_model()
    fit_closed_form(again, other, ~data.held_out, TRAINING)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_rows_are_of_kinds_that_are_seen_and_mirror_images_change_signs() -> None:
    data, model = pool(), new_model()
    rows = fit_closed_form(model, data, ~data.held_out, TRAINING)
    assert set(rows.kind.tolist()) == {SKY, WATER}
    assert len(rows) == (4 + 2) * len(data)  # the sky backwards as well
    num = 2 * len(data)
    assert rows.original.nonzero()[:, 0].tolist() == list(range(num))
    own, mirror = rows.where(rows.original), rows.where(torch.arange(len(rows)) // num == 1)
    assert torch.equal(own.c[:, 3], -mirror.c[:, 3])
    assert torch.equal(own.c_given[:, -3], -mirror.c_given[:, -3])
    assert torch.equal(own.c_given[:, -2:], mirror.c_given[:, -2:])
    assert bool((rows.c[:, -3:] == 0).all())


def test_the_sky_moves_up_as_often_as_down_whatever_the_training_scenes_did() -> None:
    data, model = pool(), new_model()
    rows = fit_closed_form(model, data, ~data.held_out, TRAINING)
    sky = rows.where(rows.kind == SKY)
    velocity, strength = sky.z[:, :-1], sky.z[:, -1]
    assert velocity.mean(0).abs().max() < 1e-4
    backwards = sky.where(torch.arange(len(sky)) >= len(sky) // 2)
    forwards = sky.where(torch.arange(len(sky)) < len(sky) // 2)
    torch.testing.assert_close(backwards.z[:, :-1], -forwards.z[:, :-1], atol=1e-4, rtol=1e-4)
    assert torch.equal(backwards.z[:, -1], forwards.z[:, -1])
    assert torch.equal(backwards.c_given[:, -3:-1], -forwards.c_given[:, -3:-1])
    assert strength.isfinite().all()


def test_the_linear_layer_is_shrunk_towards_the_standard_normal_by_the_number_of_scenes() -> None:
    data = pool()
    layers = []
    for prior_scenes in (0.0, 1e9):
        model = new_model()
        fit_closed_form(model, data, ~data.held_out, replace(TRAINING, prior_scenes=prior_scenes))
        layers.append(model.flow.linear)
    eye = torch.eye(KIND_DIM)
    assert torch.allclose(layers[1].cholesky[2 * SKY], eye, atol=1e-4)
    assert not torch.allclose(layers[0].cholesky[2 * SKY], eye, atol=1e-2)
    assert torch.equal(layers[0].cholesky[2 * SKY + 1], layers[1].cholesky[2 * SKY + 1])
    fire = KINDS.index("fire")
    assert torch.equal(layers[0].cholesky[2 * fire], eye)


def test_before_training_the_flow_is_its_linear_layer() -> None:
    data, model = pool(), new_model()
    rows = fit_closed_form(model, data, ~data.held_out, TRAINING)
    scores = held_out_scores(model, rows.where(data.held_out[rows.scene]))
    assert scores["nll"] == pytest.approx(scores["nll_linear"], abs=1e-6)
    assert scores["nll_sky"] == pytest.approx(scores["nll"], abs=0.5)


def test_scenes_of_a_kind_count_alike() -> None:
    data = pool()
    few = data.scene != 5
    few[(data.scene == 5).nonzero()[0]] = True
    names = ("raw", "look", "geometry", "cells", "scene", "closer")
    chosen = {name: getattr(data, name)[few] for name in names}
    data = replace(data, **chosen)
    rows = fit_closed_form(new_model(), data, ~data.held_out, TRAINING)
    weights = row_weights(rows)
    totals = [float(weights[(rows.scene == s) & (rows.kind == SKY)].sum()) for s in range(12)]
    assert totals == pytest.approx([totals[0]] * 12)


def test_a_batch_depends_on_the_seed_and_its_number_alone() -> None:
    data = pool()
    rows = fit_closed_form(new_model(), data, ~data.held_out, TRAINING)
    first, second = (RowBatches(rows, TRAINING, narrow=2) for _ in range(2))
    next(first)
    second.load_state_dict({"clips": 64})
    a, b = next(first), next(second)
    assert torch.equal(a.z, b.z)
    assert torch.equal(a.c, b.c)
    without = RowBatches(rows, replace(TRAINING, look_dropout=1.0), narrow=2)
    assert not next(without).c[:, :2].any()


def test_the_flow_learns_what_is_not_gaussian_and_leaves_the_linear_layer(tmp_path: Path) -> None:
    data, model = pool(), new_model()
    rows = fit_closed_form(model, data, ~data.held_out, TRAINING)
    linear = {name: value.clone() for name, value in model.flow.linear.state_dict().items()}
    train = rows.where((~data.held_out)[rows.scene])
    before = negative_log_likelihood(model.flow, train.z, train.c).mean()
    fit_flow(
        model, rows, ~data.held_out, replace(TRAINING, clips=6400), folder=tmp_path,
        validated=data.held_out,
    )  # fmt: skip
    assert negative_log_likelihood(model.flow, train.z, train.c).mean() < before - 0.05
    assert all(v.equal(linear[n]) for n, v in model.flow.linear.state_dict().items())
    assert not model.flow.network.training
    nu, _ = model.flow.to_residual(train.z, train.c)
    assert torch.allclose(model.flow.to_latent(nu, train.c)[0], train.z, atol=1e-3)


def test_best_weights_need_held_out_scenes(tmp_path: Path) -> None:
    data, model = pool(), new_model()
    rows = fit_closed_form(model, data, ~data.held_out, TRAINING)
    with pytest.raises(UserError, match="need held-out scenes"):
        fit_flow(model, rows, ~data.held_out, replace(TRAINING, keep="best"), folder=tmp_path)


def test_without_a_kind_in_two_scenes_nothing_can_be_fitted() -> None:
    data = pool()
    with pytest.raises(UserError, match="no kind is seen in 2 or more scenes"):
        fit_closed_form(new_model(), data, torch.arange(12) == 4, TRAINING)


def test_cross_validation_scores_every_scene_that_is_not_kept_aside(tmp_path: Path) -> None:
    data = pool()
    scores = cross_validate(
        CONFIG, data, replace(TRAINING, clips=1280), num_folds=3, folder=tmp_path
    )
    assert set(scores.scenes) == {f"scene{k}" for k in range(3, 12)}
    assert len(scores.flow) == 2 * 9
    assert len(scores.clips) == 3
    other = replace(data, raw=torch.where(data.held_out[data.scene][:, None, None], 7.0, data.raw))
    again = cross_validate(
        CONFIG, other, replace(TRAINING, clips=1280), num_folds=3, folder=tmp_path / "again"
    )
    assert scores.flow.tolist() == again.flow.tolist()


def test_folds_are_by_scene_and_as_many_as_there_are_scenes_at_most() -> None:
    data = pool()
    fold = fold_of_scenes(data, num_folds=3, seed=0)
    assert bool((fold[data.held_out] == -1).all())
    assert sorted(fold[~data.held_out].tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    with pytest.raises(UserError, match=r"from 3 to 9 folds.*got 10"):
        fold_of_scenes(data, num_folds=10, seed=0)
