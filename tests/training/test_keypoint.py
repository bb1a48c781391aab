"""The phases of the keypoint stage 1: what they train, which frames they render, their losses."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import ClipLoader
from cinnema.models.keypoint.stage1 import KeypointStage1
from cinnema.training.adversarial import DiscriminatorsConfig, DiscriminatorTraining
from cinnema.training.keypoint import KeypointStep
from cinnema.training.keypoint_losses import KeypointTraining, draw_moments
from cinnema.training.loop import Position
from training.conftest import KEYPOINTS

Make = Callable[..., KeypointStage1]
CPU = torch.device("cpu")
POINTS = dataclasses.replace(KEYPOINTS, landmarks=4, points=True)
MOTION = KeypointTraining(batch_size=4, moments=2)
JUDGED = dataclasses.replace(
    MOTION,
    discriminators=DiscriminatorsConfig(
        phases=(DiscriminatorTraining(module="spatial"), DiscriminatorTraining(module="temporal")),
        start=8,
        widths=(8, 8),
    ),
)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Stands in for LPIPS."""
    return (a - b).square().mean(dim=(1, 2, 3))


def steps_of(
    model: KeypointStage1, config: KeypointTraining, squares: PackedDataset, *, num: int = 3
) -> list[dict[str, float]]:
    """Take steps at the full rate; return their losses."""
    track = "corners" if model.config.points else "where"
    batches = ClipLoader(squares, batch_size=4, num_frames=5, track=track, num_workers=0)
    step = KeypointStep(model, config, device=CPU, perceptual=distance)
    numbers = [step.take(next(batches), Position(n, progress=0.02)) for n in range(num)]
    step.finish()
    return numbers


@pytest.mark.parametrize(
    ("shape", "options", "names"),
    [
        (KEYPOINTS, {}, "pixels landmarks places"),
        (
            POINTS,
            {"teacher_forcing": 0.5, "symmetric_keypoints": (((0,), (1,)),)},
            "pixels landmarks places seen latent",
        ),
        (dataclasses.replace(KEYPOINTS, decoder="paint"), {}, "pixels"),
        (dataclasses.replace(KEYPOINTS, decoder="warp"), {}, "pixels"),
    ],
    ids=["landmarks", "points", "paint", "warp"],
)
def test_training_lowers_its_losses(
    body: Make, squares: PackedDataset, shape: object, options: dict[str, object], names: str
) -> None:
    config = dataclasses.replace(MOTION, learning_rate=3e-3, **options)
    numbers = steps_of(body(shape), config, squares, num=12)
    for name in names.split():
        first, last = (sum(line[name] for line in part) for part in (numbers[:5], numbers[-5:]))
        assert last < 0.9 * first, name
    assert ("warped" in numbers[0]) == (body(shape).config.decoder == "warp and paint")


def test_phase_picture_does_not_change_what_stage_2_depends_on(
    body: Make, squares: PackedDataset
) -> None:
    model = body()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps_of(model, dataclasses.replace(MOTION, phase="picture", perceptual=1.0), squares)
    changed = {n for n, value in model.state_dict().items() if not value.equal(before[n])}
    assert any(name.startswith("decoder") for name in changed)
    assert not any(name.startswith(("encoder", "scene")) for name in changed)


def test_a_frame_of_every_part_of_a_clip_is_rendered() -> None:
    config = KeypointTraining(batch_size=64, moments=4)
    shown = draw_moments(config, num_frames=16, generator=torch.Generator().manual_seed(0))
    assert shown.shape == (64, 4)
    for part in range(4):
        assert set(shown[:, part].tolist()) == set(range(4 * part + 1, 4 * part + 5))


def test_a_temporal_discriminator_gets_consecutive_frames() -> None:
    config = dataclasses.replace(JUDGED, batch_size=64, moments=3)
    shown = draw_moments(config, num_frames=5, generator=torch.Generator().manual_seed(0))
    assert (shown.diff(dim=1) == 1).all()
    assert set(shown.flatten().tolist()) == set(range(1, 6))


def test_discriminators_start_when_they_are_configured_to(
    body: Make, squares: PackedDataset
) -> None:
    numbers = steps_of(body(), JUDGED, squares, num=4)
    for name in ("adversarial_spatial", "adversarial_temporal", "r1_temporal"):
        assert [name in line for line in numbers] == [False, False, True, True]


def test_the_divergence_of_a_learned_variance_counts_with_its_weight(
    body: Make, squares: PackedDataset
) -> None:
    learned = body(dataclasses.replace(KEYPOINTS, spread="learned"))
    for weight in (1.0, 0.0):
        config = dataclasses.replace(MOTION, kl=weight)
        assert (steps_of(learned, config, squares, num=1)[0]["kl"] > 0) == (weight > 0)
    assert "kl" not in steps_of(body(), MOTION, squares, num=1)[0]


def test_discriminators_that_need_other_frames_are_refused(body: Make) -> None:
    with pytest.raises(ValueError, match="moments must be at least 2"):
        dataclasses.replace(JUDGED, moments=1)
    many = dataclasses.replace(JUDGED, moments=5)
    with pytest.raises(UserError, match="moments must be at most the model's num_frames, 4"):
        KeypointStep(body(), many, device=CPU)
