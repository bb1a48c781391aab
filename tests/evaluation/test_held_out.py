from dataclasses import replace

import numpy as np
import pytest
import torch

from cinnema.data.crops import SceneCrops
from cinnema.evaluation.held_out import latent_validation, stage1_validation
from cinnema.evaluation.warping_scores import flow_scores
from cinnema.models.warping.model import WarpingModel
from cinnema.models.warping.stage1 import Stage1


def test_stage_1_is_scored_by_texture(model: WarpingModel, validation: list[SceneCrops]) -> None:
    numbers = stage1_validation(validation, num=2)(model.stage1)
    assert set(numbers) == {"error_clouds", "error_fire"}
    crops = validation[2]
    scores = flow_scores(model.stage1, np.asarray(crops.frames[:2, 0]), crops.flow[:2])
    error, motion = (sum(s[name] for s in scores) for name in ("flow_error", "flow_motion"))
    assert numbers["error_fire"] == pytest.approx(error / motion)


def test_stage_1_may_be_in_half_precision(
    model: WarpingModel, validation: list[SceneCrops]
) -> None:
    half = Stage1(model.config.stage1)
    half.load_state_dict(model.stage1.state_dict())
    validate = stage1_validation(validation, num=2)
    rough, exact = validate(half.bfloat16().eval()), validate(model.stage1)
    assert rough["error_clouds"] == pytest.approx(exact["error_clouds"], abs=0.05)


def test_latents_are_scored_by_texture_and_over_all(
    model: WarpingModel, validation: list[SceneCrops]
) -> None:
    validate = latent_validation(model.stage1, validation)
    numbers = validate(model.conditioner, model.flow)
    assert set(numbers) == {"nll", "nll_clouds", "nll_fire"}
    # Two scenes of clouds and one of fire, of four clips each.
    mean = (2 * numbers["nll_clouds"] + numbers["nll_fire"]) / 3
    assert numbers["nll"] == pytest.approx(mean, rel=1e-4)


def test_a_second_look_gives_the_same_numbers(
    model: WarpingModel, validation: list[SceneCrops]
) -> None:
    validate = latent_validation(model.stage1, validation)
    first = validate(model.conditioner, model.flow)
    torch.rand(3)
    assert validate(model.conditioner, model.flow) == first


def test_clips_without_a_texture_have_no_nameless_numbers(
    model: WarpingModel, validation: list[SceneCrops]
) -> None:
    plain = [replace(c, scene=replace(c.scene, texture="")) for c in validation]
    assert set(stage1_validation(plain, num=2)(model.stage1)) == {"error"}
    assert set(latent_validation(model.stage1, plain)(model.conditioner, model.flow)) == {"nll"}
