"""The phases of the warping stage 1: what each trains and renders, and its discriminators."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.models.warping.stage1 import Stage1
from cinnema.training import video_step
from cinnema.training.adversarial import DiscriminatorsConfig, DiscriminatorTraining
from cinnema.training.loop import Position
from cinnema.training.losses import relative_flow_error
from cinnema.training.warping import WarpingStep, WarpingTraining

Make = Callable[..., Stage1]
CPU = torch.device("cpu")
PICTURE = WarpingTraining(phase="picture", batch_size=4, learning_rate=1e-3, window=32)
BOTH = (
    DiscriminatorTraining(module="spatial"),
    DiscriminatorTraining(module="temporal", interval=2),
)
JUDGED = dataclasses.replace(
    PICTURE,
    frames=2,
    discriminators=DiscriminatorsConfig(phases=BOTH, start=4, matching=1.0, widths=(8, 8)),
)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Stands in for LPIPS."""
    return (a - b).square().mean(dim=(1, 2, 3))


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_step, "fast_dtype", lambda _device: torch.float32)


def steps_of(
    model: Stage1, config: WarpingTraining, batches: Any, *, num: int = 3
) -> list[dict[str, float]]:
    """Take steps at the full rate; return their losses."""
    step = WarpingStep(model, config, device=CPU, perceptual=distance)
    numbers = [step.take(next(batches), Position(n, progress=0.02)) for n in range(num)]
    step.finish()
    return numbers


def state_of(model: Stage1) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def test_both_phases_lower_their_losses(tiny: Make, batches: Callable[..., Any]) -> None:
    model, same = tiny(), batches()
    one = same.batch(0)
    same.batch = lambda _number: one
    config = WarpingTraining(phase="motion", batch_size=4, learning_rate=3e-3, ema_decay=0.5)
    motion = steps_of(model, config, same, num=30)
    assert motion[-1]["flow"] < 0.7 * motion[0]["flow"]
    assert motion[-1]["mask"] < 0.5 * motion[0]["mask"]
    with torch.no_grad():
        features = model.scene(one.x0)
        predicted = model.basis.clip(model.motion(model.encode(one.flow), features.joint))
    moves = torch.zeros(16, 1)
    moves[:8] = 1
    assert relative_flow_error(predicted * moves, one.flow) < 0.9

    slow = dataclasses.replace(PICTURE, learning_rate=3e-4)
    picture = steps_of(model, slow, same, num=10)
    assert "pixels" not in motion[0]
    assert picture[0]["mask"] < 0.5 * motion[0]["mask"]  # it begins where the other ended
    for name in ("pixels", "lpips"):
        assert picture[-1][name] < picture[0][name]


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({"phase": "motion"}, {"encoder", "scene.join", "motion", "mask"}),
        ({"phase": "picture"}, {"motion", "mask", "painter"}),
        (
            {"phase": "picture", "train_encoder": True},
            {"encoder", "scene.join", "motion", "mask", "painter"},
        ),
        ({"phase": "mask"}, {"mask"}),
    ],
)
def test_a_phase_trains_its_own_parts_only(
    tiny: Make, batches: Callable[..., Any], options: dict[str, Any], trained: set[str]
) -> None:
    model = tiny()
    before = state_of(model)
    config = dataclasses.replace(PICTURE, **options)
    steps_of(model, config, batches())
    changed = {name for name, value in state_of(model).items() if not value.equal(before[name])}
    parts = ("encoder", "scene.backbone", "scene.join", "motion", "mask", "painter")
    assert {part for part in parts if any(n.startswith(f"{part}.") for n in changed)} == trained


def test_discriminators_take_part_from_their_first_clip_on(
    tiny: Make, batches: Callable[..., Any]
) -> None:
    plain = dataclasses.replace(JUDGED, discriminators=None)
    with_them, without = (
        steps_of(tiny(), config, batches(rendered=2)) for config in (JUDGED, plain)
    )
    assert with_them[0] == without[0]  # 4 clips come before
    heard = {"adversarial_spatial", "adversarial_temporal", "matching_spatial", "matching_temporal"}
    of_spatial = {f"{name}_spatial" for name in ("relativistic", "r1", "r2", "gradient")}
    of_temporal = {name.replace("spatial", "temporal") for name in of_spatial}
    assert with_them[1].keys() - without[1].keys() == heard | of_spatial
    assert with_them[2].keys() - without[2].keys() == heard | of_spatial | of_temporal


def test_a_loss_that_is_not_finite_changes_neither_side(
    tiny: Make, batches: Callable[..., Any]
) -> None:
    step = WarpingStep(tiny(), JUDGED, device=CPU, perceptual=distance)
    clips = batches(rendered=2)
    step.take(next(clips), Position(0))
    step.take(next(clips), Position(1))
    assert step.discriminators is not None
    modules = (step.networks, step.discriminators.networks)
    before = [{n: p.detach().clone() for n, p in m.named_parameters()} for m in modules]
    batch = next(clips)
    batch.frames[0, 1] = float("nan")  # the decoder's loss
    with pytest.raises(UserError, match="pixels nan"):
        step.take(batch, Position(2))
    with torch.no_grad():  # a discriminator's
        step.discriminators.networks["temporal"].leave.bias.fill_(float("inf"))
    before[1]["temporal.leave.bias"].fill_(float("inf"))
    with pytest.raises(UserError, match=r"_temporal (nan|inf)"):
        step.take(next(clips), Position(2))
    after = [{n: p.detach() for n, p in m.named_parameters()} for m in modules]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_every_rendered_frame_has_the_same_weight(tiny: Make, batches: Callable[..., Any]) -> None:
    def first(frames: slice, num: int) -> dict[str, float]:
        clips = batches(rendered=2)
        make = clips.batch

        def batch(number: int) -> Any:
            made = make(number)
            return dataclasses.replace(
                made, frames=made.frames[:, frames], times=made.times[:, frames]
            )

        clips.batch = batch
        return steps_of(tiny(), dataclasses.replace(PICTURE, frames=num), clips, num=1)[0]

    both = first(slice(0, 2), 2)
    one, other = first(slice(0, 1), 1), first(slice(1, 2), 1)
    assert one["pixels"] != pytest.approx(other["pixels"], rel=1e-3)
    for name in ("pixels", "lpips"):
        assert both[name] == pytest.approx((one[name] + other[name]) / 2, rel=1e-4)


def test_frames_and_discriminators_that_do_not_fit_are_refused(tiny: Make) -> None:
    with pytest.raises(ValueError, match=r'discriminators need phase "picture".*got "motion"'):
        dataclasses.replace(JUDGED, phase="motion")
    with pytest.raises(ValueError, match=r"frames must be at least 2 for a temporal.*got 1"):
        dataclasses.replace(JUDGED, frames=1)
    many = dataclasses.replace(PICTURE, frames=5)
    with pytest.raises(UserError, match=r"frames must be at most the model's num_frames, 4, got 5"):
        WarpingStep(tiny(), many, device=CPU)


def test_a_seed_decides_the_noise(tiny: Make, batches: Callable[..., Any]) -> None:
    config = WarpingTraining(batch_size=4, seed=1)
    first, same, other = (
        steps_of(tiny(), dataclasses.replace(config, seed=seed), batches(), num=1)
        for seed in (1, 1, 2)
    )
    assert first == same
    assert first != other
