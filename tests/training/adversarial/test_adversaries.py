"""Discriminators as a training owns them: what they ask for, how they learn, stop and resume."""

import doctest
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.training import adversarial as module
from cinnema.training.adversarial import (
    Discriminators,
    DiscriminatorsConfig,
    DiscriminatorTraining,
)
from cinnema.training.losses import feature_matching, relativistic_generator
from two_processes import in_two_processes

Make = Callable[..., Discriminators]
Clips = Callable[..., Any]
KINDS = pytest.mark.parametrize("kind", ["hinge", "relativistic"])
MODULES = pytest.mark.parametrize("name", ["spatial", "temporal"])


def state_of(adversaries: Discriminators) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in adversaries.networks.state_dict().items()}


def is_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


def asked(
    adversaries: Discriminators, clips: Any, *, number: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[dict[str, Tensor], Tensor, nn.Conv2d]:
    """What a decoder of one layer is asked for; its reconstruction; the layer."""
    layer = nn.Conv2d(3, 3, 1).to(dtype)
    nn.init.eye_(layer.weight[:, :, 0, 0])
    nn.init.constant_(layer.bias, 0.1)
    fake = layer(clips.fake.flatten(0, 1).to(dtype)).view_as(clips.fake)
    error = (fake.float() - clips.real).abs().mean()
    losses = adversaries.generator_losses(
        clips.real, fake, clips.x0, reconstruction=error, last=layer.weight, number=number
    )
    return losses, error, layer


@KINDS
@MODULES
def test_a_discriminator_learns_to_tell_the_decoders_clips(
    adversaries: Make, clips: Clips, name: str, kind: str
) -> None:
    one = adversaries(name, kind=kind, phase={"learning_rate": 3e-3}, gamma=0.1)
    numbers = [one.update(*clips(seed=number), number=number) for number in range(20)]
    assert numbers[-1][f"{kind}_{name}"] < 0.7 * numbers[0][f"{kind}_{name}"]
    unseen = clips(seed=1000, num=8)
    real, fake = (one.networks[name](v, unseen.x0).logits for v in (unseen.real, unseen.fake))
    apart = real.flatten(1).mean(dim=1) - fake.flatten(1).mean(dim=1)
    assert (apart > 0).all()


def test_a_frozen_picture_is_told_from_motion_because_x0_is_seen(
    adversaries: Make, clips: Clips
) -> None:
    def frozen(seed: int) -> Any:
        return clips(seed=seed, frames=1, decode=lambda real, x0: x0[:, None].expand_as(real))

    one = adversaries("spatial", phase={"learning_rate": 1e-2}, gamma=0.1)
    for number in range(20):
        one.update(*frozen(number), number=number)
    unseen = frozen(1000)
    network = one.networks["spatial"]
    real, fake = (network(video, unseen.x0).logits for video in (unseen.real, unseen.fake))
    assert (real.mean(dim=(1, 2, 3)) > fake.mean(dim=(1, 2, 3))).all()


def test_a_step_in_the_wrong_order_is_told_by_the_temporal_one(
    adversaries: Make, clips: Clips
) -> None:
    def backwards(seed: int) -> Any:
        return clips(seed=seed, frames=3, decode=lambda real, _: real.flip(1))

    one = adversaries("temporal", phase={"learning_rate": 1e-2}, gamma=0.1)
    for number in range(20):
        one.update(*backwards(number), number=number)
    unseen, network = backwards(1000), one.networks["temporal"]
    real, fake = (network(video, unseen.x0).logits for video in (unseen.real, unseen.fake))
    assert (real.flatten(1).mean(dim=1) > fake.flatten(1).mean(dim=1)).all()


@KINDS
def test_the_decoder_follows_what_it_is_asked_for(
    adversaries: Make, clips: Clips, kind: str
) -> None:
    one = adversaries("spatial", kind=kind, adaptive=False, phase={"weight": 1.0})
    for number in range(5):
        one.update(*clips(seed=number), number=number)
    batch, fake = clips(), clips().fake.clone().requires_grad_()

    def loss_of(video: Tensor) -> Tensor:
        options = {"reconstruction": video.mean(), "last": nn.Parameter(torch.ones(1)), "number": 0}
        return one.generator_losses(batch.real, video, batch.x0, **options)["adversarial_spatial"]

    before = loss_of(fake)
    before.backward()
    assert all(p.grad is None and p.requires_grad for p in one.networks.parameters())
    with torch.no_grad():
        after = loss_of(fake - 0.1 * fake.grad / fake.grad.norm())
    assert after < before


def test_losses_are_those_of_the_discriminators_logits_and_maps_times_their_weights(
    adversaries: Make, clips: Clips
) -> None:
    one = adversaries("spatial", "temporal", adaptive=False, matching=3.0, phase={"weight": 0.7})
    for number in range(3):
        one.update(*clips(seed=number), number=number)
    batch = clips()
    losses, _, layer = asked(one, batch)
    fake = layer(batch.fake.flatten(0, 1)).view_as(batch.fake)
    assert sorted(losses) == [
        "adversarial_spatial", "adversarial_temporal", "matching_spatial", "matching_temporal"
    ]  # fmt: skip
    for name, network in one.networks.items():
        real, made = network(batch.real, batch.x0), network(fake, batch.x0)
        expected = 0.7 * relativistic_generator(real.logits, made.logits)
        torch.testing.assert_close(losses[f"adversarial_{name}"], expected)
        expected = 3 * feature_matching(real.features, made.features)
        torch.testing.assert_close(losses[f"matching_{name}"], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adaptive_phase_pulls_by_its_weight_times_the_reconstruction(
    adversaries: Make, clips: Clips, dtype: torch.dtype
) -> None:
    one = adversaries("spatial", "temporal", phase={"weight": 0.25})
    for number in range(3):
        one.update(*clips(seed=number), number=number)
    losses, error, layer = asked(one, clips(), dtype=dtype)
    (wanted,) = torch.autograd.grad(error, layer.weight, retain_graph=True)
    for loss in losses.values():
        (pull,) = torch.autograd.grad(loss, layer.weight, retain_graph=True)
        ratio = pull.float().norm() / wanted.float().norm()
        assert ratio == pytest.approx(0.25, rel=0.02)


@KINDS
def test_penalties_are_of_the_kind(adversaries: Make, clips: Clips, kind: str) -> None:
    names = {"hinge": {"r1_spatial"}, "relativistic": {"r1_spatial", "r2_spatial"}}
    with_penalty = adversaries("spatial", kind=kind).update(*clips(), number=0)
    assert with_penalty.keys() == {f"{kind}_spatial", "gradient_spatial"} | names[kind]
    without = adversaries("spatial", kind=kind, gamma=0.0).update(*clips(), number=0)
    assert without.keys() == {f"{kind}_spatial", "gradient_spatial"}
    twice = adversaries("spatial", kind=kind, gamma=2.0).update(*clips(), number=0)
    for name in names[kind]:
        assert twice[name] == pytest.approx(2 * with_penalty[name])


def test_a_large_gamma_keeps_the_slope_small(adversaries: Make, clips: Clips) -> None:
    def slope(gamma: float) -> float:
        one = adversaries("spatial", gamma=gamma, phase={"learning_rate": 3e-3})
        for number in range(20):
            one.update(*clips(seed=number), number=number)
        batch = clips(seed=1000)
        real = batch.real.requires_grad_()
        logits = one.networks["spatial"](real, batch.x0).logits
        return float(torch.autograd.grad(logits.sum(), real)[0].norm())

    assert slope(30.0) < 0.5 * slope(0.1)


def test_adversaries_begin_after_their_clips_and_keep_their_intervals(
    adversaries: Make, clips: Clips
) -> None:
    one = adversaries("spatial", start=8, batch_size=4, phase={"interval": 3})
    before, heard, learnt = state_of(one), [], []
    for number in range(8):
        if asked(one, clips(), number=number)[0]:
            heard.append(number)
        if one.update(*clips(), number=number):
            learnt.append(number)
        if number < 3:
            assert is_same(state_of(one), before)
    assert heard == [2, 3, 4, 5, 6, 7]
    assert learnt == [3, 6]
    assert not is_same(state_of(one), before)


def test_each_phase_has_its_own_interval_and_rate(adversaries: Make, clips: Clips) -> None:
    config = DiscriminatorsConfig(
        phases=(
            DiscriminatorTraining(
                module="spatial", interval=2, learning_rate=0.5, betas=(0.1, 0.2)
            ),
            DiscriminatorTraining(module="temporal", learning_rate=0.25),
        ),
        widths=(8, 8),
    )
    one = Discriminators(config, batch_size=4, device=torch.device("cpu"))
    groups = [one.parts()[f"{name}_optimiser"].param_groups[0] for name in one.networks]
    assert [(group["lr"], group["betas"]) for group in groups] == [
        (0.5, (0.1, 0.2)), (0.25, (0.0, 0.99))
    ]  # fmt: skip
    turns = [{name.split("_")[1] for name in one.update(*clips(), number=n)} for n in range(3)]
    assert turns == [{"spatial", "temporal"}, {"temporal"}, {"spatial", "temporal"}]


@pytest.mark.parametrize("spoilt", ["real", "fake"])
def test_numbers_that_are_not_finite_change_no_discriminator_and_are_told(
    adversaries: Make, clips: Clips, spoilt: str
) -> None:
    one = adversaries("spatial", "temporal")
    before, batch = state_of(one), clips()
    getattr(batch, spoilt)[0, 0, 0, 0, 0] = float("nan")
    numbers = one.update(*batch, number=0)
    assert any(math.isnan(value) for value in numbers.values())
    assert is_same(state_of(one), before)
    assert all(p.grad is None for p in one.networks.parameters())


def test_where_the_second_of_two_is_spoilt_the_first_stays_too(
    adversaries: Make, clips: Clips
) -> None:
    one = adversaries("spatial", "temporal")
    with torch.no_grad():
        one.networks["temporal"].leave.bias.fill_(float("inf"))
    before = state_of(one)
    numbers = one.update(*clips(), number=0)
    assert math.isfinite(numbers["gradient_spatial"])
    assert not math.isfinite(numbers["relativistic_temporal"])
    assert is_same(state_of(one), before)


def test_the_gradient_of_a_discriminator_is_clipped(
    adversaries: Make, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.torch.optim, "Adam", descent)
    one = adversaries("spatial", gamma=1e6, phase={"learning_rate": 1e-3})
    before = state_of(one)
    numbers = one.update(*clips(), number=0)
    assert numbers["gradient_spatial"] > 100  # as it was
    after = state_of(one)
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before])
    assert moved.norm() == pytest.approx(1e-3 * 10, rel=1e-3)


@KINDS
def test_a_state_that_was_saved_goes_on_to_the_bit(
    adversaries: Make, clips: Clips, kind: str, tmp_path: Any
) -> None:
    options = {"kind": kind, "phase": {"interval": 2, "betas": (0.5, 0.9)}}
    whole = adversaries("spatial", "temporal", **options)
    for number in range(6):
        whole.update(*clips(seed=number), number=number)
        if number == 2:
            parts = {name: part.state_dict() for name, part in whole.parts().items()}
            torch.save(parts, tmp_path / "parts.pt")
    again = adversaries("spatial", "temporal", seed=1, **options)
    saved = torch.load(tmp_path / "parts.pt", weights_only=True)
    for name, part in again.parts().items():
        part.load_state_dict(saved[name])
    for number in range(3, 6):
        again.update(*clips(seed=number), number=number)
    assert is_same(state_of(again), state_of(whole))


def descent(parameters: list[nn.Parameter], *, lr: float, betas: object) -> torch.optim.SGD:
    """Plain steps: Adam's first ones turn rounding into steps of full length."""
    return torch.optim.SGD(parameters, lr=lr)


@KINDS
def test_two_ranks_take_the_steps_of_one_on_the_double_batch(
    adversaries: Make, clips: Clips, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.torch.optim, "Adam", descent)

    def trained(ranks: Ranks) -> dict[str, Any]:
        one = adversaries(
            "spatial", "temporal", kind=kind, ranks=ranks, matching=1.0,
            phase={"learning_rate": 0.1},
        )  # fmt: skip
        for number in range(3):
            batch = clips(seed=number)
            own = type(batch)(*(value[ranks.share(4)] for value in batch))
            losses, error, layer = asked(one, own, number=number)
            (error + torch.stack(list(losses.values())).sum()).backward()
            ranks.average_gradients(layer.parameters())
            numbers = one.update(*own, number=number)
        return {"gradient": layer.weight.grad, "numbers": numbers, "state": state_of(one)}

    one, start = trained(Ranks()), state_of(adversaries("spatial", "temporal"))
    assert any((one["state"][n] - start[n]).abs().max() > 1e-3 for n in start)
    for two in in_two_processes(trained):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)


def test_a_seed_decides_the_first_weights_and_no_other_stream(adversaries: Make) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second, other = (adversaries("spatial", "temporal", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert is_same(state_of(first), state_of(second))
    assert not is_same(state_of(first), state_of(other))
    assert len(list(first.tensors())) == len(state_of(first))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"phases": []}, "phases does not fit"),
        ({"phases": [{"module": "spatial"}] * 2}, "different modules.*got spatial, spatial"),
        ({"phases": [{"module": "spatially"}]}, r"phases\.0\.module does not fit"),
        ({"phases": [{"module": "spatial", "rate": 1}]}, r"phases\.0\.rate does not fit"),
        ({"phases": [{"module": "spatial", "interval": 0}]}, r"phases\.0\.interval does not fit"),
        ({"kind": "wasserstein"}, "kind does not fit"),
        ({"widths": [12]}, r"widths\.0 does not fit"),
        ({"gama": 1}, "gama does not fit"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        config_from_dict(DiscriminatorsConfig, values)


def test_a_configuration_survives_json() -> None:
    config = DiscriminatorsConfig(
        kind="hinge",
        phases=(
            DiscriminatorTraining(module="temporal", interval=2),
            DiscriminatorTraining(module="spatial"),
        ),
    )
    assert config_from_dict(DiscriminatorsConfig, config_to_dict(config)) == config
    assert config.needs_motion
    assert not replace(config, phases=config.phases[1:]).needs_motion


def test_the_examples_run() -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
