"""Fine-tuning of a nature model: what is adapted, by how much, and on which scenes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cinnema.core.errors import UserError
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import NatureModel
from cinnema.training.finetune import FinetuneResult, Finetuning, adapt_linear, finetune
from cinnema.training.motion_pool import MotionPool
from cinnema.training.nature import (
    KindFlowTraining,
    fit_closed_form,
    held_out_scores,
    kind_rows,
    negative_log_likelihood,
)
from training.test_nature import new_model, pool

TRAINING = KindFlowTraining(
    clips=1280, batch_size=64, validate_every=320, learning_rate=3e-3, patience=3, keep="best"
)
OPTIONS = Finetuning(flow=TRAINING)


@pytest.fixture(scope="module")
def base() -> NatureModel:
    """A model that knows slow scenes, and no scene of the user's."""
    model, slow = new_model(), pool(num_scenes=8)
    fit_closed_form(model, replace(slow, raw=0.3 * slow.raw), ~slow.held_out, TRAINING)
    return model.requires_grad_(requires_grad=False)


def tuned(base: NatureModel, data: MotionPool, run: Path, config: Finetuning) -> FinetuneResult:
    return finetune(
        base, data, config, run=run, name="mine", about={"videos": "mine"}, report=lambda _: None
    )


def nll(model: NatureModel, data: MotionPool) -> float:
    rows = kind_rows(model, data, data.area > TRAINING.least_area)
    return held_out_scores(model, rows.where(data.held_out[rows.scene]))["nll"]


def test_held_out_scenes_of_other_motion_become_more_likely(
    base: NatureModel, tmp_path: Path
) -> None:
    data, before = pool(), {k: v.clone() for k, v in base.state_dict().items()}
    result = tuned(base, data, tmp_path, OPTIONS)
    assert nll(result.model, data) < nll(base, data) - 0.1
    assert result.model.name == "mine"
    assert result.scenes == {"sky": 9, "water": 9}
    assert all(torch.equal(before[k], v) for k, v in base.state_dict().items())


def test_the_same_call_resumes_to_the_bit_and_another_is_refused(
    base: NatureModel, tmp_path: Path
) -> None:
    data = pool()
    first, again = (tuned(base, data, tmp_path, OPTIONS) for _ in range(2))
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    other = replace(OPTIONS, flow=replace(TRAINING, prior_scenes=1.0))
    with pytest.raises(UserError, match="other weights, clips or settings"):
        tuned(base, data, tmp_path, other)


@pytest.mark.parametrize("num_scenes", [1, 3])
def test_of_few_scenes_only_the_linear_layer_is_adapted_and_the_less_the_fewer_they_are(
    base: NatureModel, tmp_path: Path, num_scenes: int
) -> None:
    data = pool(num_scenes=num_scenes + 1, held_out=1)
    result = tuned(base, data, tmp_path, OPTIONS)
    assert result.clips == 0
    for name, value in base.flow.network.state_dict().items():
        assert torch.equal(value, result.model.flow.network.state_dict()[name]), name
    moved = (result.model.flow.linear.cholesky - base.flow.linear.cholesky).norm()
    freely = new_model()
    freely.load_state_dict(base.state_dict())
    rows = kind_rows(base, data, data.area > TRAINING.least_area)
    adapt_linear(freely, rows.where((~data.held_out)[rows.scene]), prior_scenes=0.0)
    wholly = (freely.flow.linear.cholesky - base.flow.linear.cholesky).norm()
    assert 0 < moved < 0.5 * wholly


def test_kinds_that_are_not_seen_and_the_meaning_of_z_stay(
    base: NatureModel, tmp_path: Path
) -> None:
    result = tuned(base, pool(), tmp_path, OPTIONS)
    old, new = base.state_dict(), result.model.state_dict()
    for name in ("z_scale", "z_mean", "z_deviation", "look_mean", "look_projection"):
        assert torch.equal(old[name], new[name])
    for kind, name in enumerate(KINDS):
        same = torch.equal(
            base.flow.linear.cholesky[2 * kind], result.model.flow.linear.cholesky[2 * kind]
        )
        assert same == (name not in ("sky", "water"))


def test_the_adapted_layer_is_a_better_gaussian_of_the_rows_and_a_bijection(
    base: NatureModel,
) -> None:
    data, model = pool(), new_model()
    model.load_state_dict(base.state_dict())
    rows = kind_rows(base, data, data.area > TRAINING.least_area)
    adapt_linear(model, rows, prior_scenes=8.0)
    for given in (rows.c, rows.c_given):
        old, new = (
            negative_log_likelihood(m.flow.linear, rows.z, given).mean() for m in (base, model)
        )
        assert new < old
    nu, log_det = model.flow.to_residual(rows.z, rows.c)
    z, back = model.flow.to_latent(nu, rows.c)
    torch.testing.assert_close(z, rows.z, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(log_det, -back, atol=1e-3, rtol=1e-3)


def test_training_scenes_without_anything_that_moves_are_refused(
    base: NatureModel, tmp_path: Path
) -> None:
    data = pool()
    still = replace(data, geometry=torch.zeros_like(data.geometry))
    with pytest.raises(UserError, match=r"show no sky, water.*give other videos"):
        tuned(base, still, tmp_path, OPTIONS)


def test_weights_that_are_not_chosen_by_scenes_left_out_are_refused() -> None:
    for change in ({"keep": "last"}, {"patience": None}):
        with pytest.raises(ValueError, match=r"flow\.keep must be \"best\""):
            Finetuning(flow=replace(TRAINING, **change))


def test_little_time_trains_fewer_rows(base: NatureModel, tmp_path: Path) -> None:
    long = replace(OPTIONS, minutes=1e-4, flow=replace(TRAINING, clips=10**9))
    tuned(base, pool(), tmp_path, long)
    planned = json.loads((tmp_path / "plan.json").read_text())["numbers"]["choice.clips"]
    assert 0 < planned < 10**6  # a second is the least that a phase gets
