"""What a training will cost."""

import dataclasses

import pytest
import torch

from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.warping.stage1 import Stage1, Stage1Config
from cinnema.recipes import RECIPES, Recipe
from cinnema.recipes.cost import CostEstimate, estimate_stage1, estimate_stage2
from cinnema.training.adversarial import AdversaryPhase, DiscriminatorsConfig

CPU = torch.device("cpu")
SMALL = Stage1Config(
    size=64, num_frames=4, num_basis=2, z_dim=16, encoder_width=8, motion_width=8, feature_dim=8,
    mask_width=16, painter_width=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    full = RECIPES["landscape"]()
    small = {"batch_size": 2, "clips": 100}
    return dataclasses.replace(
        full,
        stage1=SMALL,
        motion=dataclasses.replace(full.motion, **small),
        picture=dataclasses.replace(full.picture, window=32, **small),
        mask=dataclasses.replace(full.mask, batch_size=4, clips=100),
        conditioner=ConditionerConfig(feature_dim=8, width=8, condition_dim=4),
        flow=FlowConfig(z_dim=16, condition_dim=4, num_blocks=2, hidden_dim=16),
    )


@pytest.fixture(scope="module")
def phases(recipe: Recipe) -> list[CostEstimate]:
    return estimate_stage1(recipe, device=CPU)


def test_every_phase_is_rehearsed(phases: list[CostEstimate]) -> None:
    assert [phase.name for phase in phases] == ["motion", "picture", "mask"]
    for phase in phases:
        assert phase.clips_per_second > 0
        assert phase.drawn_per_second is not None
        pace = min(phase.clips_per_second, phase.drawn_per_second)
        assert phase.hours == pytest.approx(100 / pace / 3600)


def test_parameters_are_counted_by_part_and_the_frozen_ones_apart(
    phases: list[CostEstimate],
) -> None:
    model = Stage1(SMALL)
    motion, picture, mask = phases
    assert sum(motion.parameters.values()) == sum(p.numel() for p in model.parameters())
    assert motion.parameters["encoder"] == sum(p.numel() for p in model.encoder.parameters())
    assert mask.trained == mask.parameters["mask"]
    assert picture.trained == picture.parameters["motion"] + sum(
        picture.parameters[name] for name in ("mask", "painter")
    )
    total = sum(mask.parameters.values())
    assert mask.state_bytes in (4 * total + 16 * mask.trained, 2 * total + 20 * mask.trained)


def test_adversaries_are_counted_and_take_part_from_the_first_step(recipe: Recipe) -> None:
    phases = (AdversaryPhase(module="spatial"), AdversaryPhase(module="temporal"))
    adversaries = DiscriminatorsConfig(phases=phases, widths=(8, 8), start=1_000_000)
    picture = dataclasses.replace(recipe.picture, frames=2, adversaries=adversaries)
    few = dataclasses.replace(recipe, picture=picture)
    _, plain, _ = estimate_stage1(recipe, device=CPU)
    _, adversarial, _ = estimate_stage1(few, device=CPU)
    added = adversarial.parameters.keys() - plain.parameters.keys()
    assert added == {"spatial adversary", "temporal adversary"}
    num = sum(adversarial.parameters[name] for name in added)
    assert num > 1000
    assert adversarial.trained - plain.trained == num
    assert adversarial.state_bytes - plain.state_bytes == 4 * 4 * num
    assert adversarial.activation_bytes > 1.5 * plain.activation_bytes


def test_a_larger_batch_keeps_more_for_its_backward_pass(recipe: Recipe) -> None:
    def kept(batch_size: int) -> int:
        config = dataclasses.replace(recipe.stage2, batch_size=batch_size)
        (stage2,) = estimate_stage2(dataclasses.replace(recipe, stage2=config), device=CPU)
        return stage2.activation_bytes

    assert 2.5 * kept(16) < kept(64) < 4 * kept(16)


def test_stage_2_draws_no_clips_and_leaves_the_global_stream_alone(recipe: Recipe) -> None:
    state = torch.random.get_rng_state()
    (stage2,) = estimate_stage2(recipe, device=CPU)
    assert stage2.drawn_per_second is None
    assert stage2.hours > 0
    assert torch.equal(torch.random.get_rng_state(), state)
