"""Training of stage 1 on a few clips: both phases, stopping, resuming, number formats."""

import dataclasses
import functools
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.crop_batches import ClipBatch, ClipBatches
from cinnema.models.warping.stage1 import Stage1
from cinnema.training import adversarial as adversaries
from cinnema.training import loop
from cinnema.training.adversarial import (
    AdversaryPhase,
    Discriminators,
    DiscriminatorsConfig,
)
from cinnema.training.losses import relative_flow_error
from cinnema.training.run import TrainingRun
from cinnema.training.warping import Stage1Training, train
from two_processes import in_two_processes

Make = Callable[..., Stage1]
Batches = Callable[..., ClipBatches]
CPU = torch.device("cpu")
MOTION = Stage1Training(phase="motion", clips=32, batch_size=4, learning_rate=3e-3)
PICTURE = Stage1Training(
    phase="picture", clips=40, batch_size=4, learning_rate=1e-3, window=32, perceptual=1.0
)
BOTH = (AdversaryPhase(module="spatial"), AdversaryPhase(module="temporal", interval=2))
ADVERSARIAL = dataclasses.replace(
    PICTURE,
    clips=24,
    frames=2,
    adversaries=DiscriminatorsConfig(phases=BOTH, start=4, matching=1.0, widths=(8, 8)),
)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Stands in for LPIPS."""
    return (a - b).square().mean(dim=(1, 2, 3))


def numbers_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def state_of(model: Stage1) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def is_same(a: dict[str, Tensor], b: dict[str, Tensor], *, within: str = "") -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items() if name.startswith(within))


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every step and record every number."""
    run = functools.partial(TrainingRun, seconds_between=0.0)
    monkeypatch.setattr(loop, "TrainingRun", run)
    monkeypatch.setattr(loop, "_RECORD_EVERY", 1)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    monkeypatch.setattr(loop, "fast_dtype", lambda _device: request.param)
    return request.param


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine is fast in."""
    monkeypatch.setattr(loop, "fast_dtype", lambda _device: torch.float32)


@pytest.mark.usefixtures("eager")
def test_both_phases_lower_their_losses(tiny: Make, batches: Batches, tmp_path: Path) -> None:
    model, one = tiny(), next(batches())

    def losses_of(config: Stage1Training) -> list[dict[str, float]]:
        folder, same = tmp_path / config.phase, batches()
        same.batch = lambda _number: one
        trained = train(model, same, config, folder=folder, device=CPU, perceptual=distance)
        assert trained is model
        return numbers_of(folder)

    motion = losses_of(Stage1Training(clips=120, batch_size=4, learning_rate=3e-3))
    assert motion[-1]["flow"] < 0.7 * motion[0]["flow"]
    assert motion[-1]["mask"] < 0.5 * motion[0]["mask"]
    with torch.no_grad():
        features = model.scene(one.x0)
        predicted = model.basis.clip(model.motion(model.encode(one.flow), features.joint))
    moves = torch.zeros(16, 1)
    moves[:8] = 1
    assert relative_flow_error(predicted * moves, one.flow) < 0.9

    picture = losses_of(PICTURE)
    assert "pixels" not in motion[0]
    assert picture[0]["mask"] < 0.5 * motion[0]["mask"]  # it begins where the other ended
    for name in ("pixels", "lpips"):
        assert picture[-1][name] < picture[0][name]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    "config", [MOTION, PICTURE, ADVERSARIAL], ids=["motion", "picture", "adversaries"]
)
def test_a_run_that_was_stopped_ends_where_an_unbroken_one_does_to_the_bit(
    tiny: Make, batches: Batches, tmp_path: Path, dtype: torch.dtype, config: Stage1Training
) -> None:
    def run(name: str, clips: ClipBatches) -> dict[str, Tensor]:
        folder = tmp_path / name
        model = train(tiny(), clips, config, folder=folder, device=CPU, perceptual=distance)
        return state_of(model)

    make = functools.partial(batches, rendered=config.frames)
    whole = run("whole", make())
    with pytest.raises(StopIteration):
        run("broken", make(stop=3))
    assert is_same(run("broken", make()), whole)
    assert is_same(run("broken", batches(stop=0)), whole)  # done: no clip is asked for
    numbers = [
        [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
        for lines in (numbers_of(tmp_path / "whole"), numbers_of(tmp_path / "broken"))
    ]
    assert numbers[0] == numbers[1]


def descent(parameters: list[Tensor], *, lr: float, betas: object) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=lr)


@pytest.mark.usefixtures("in_float32")
def test_two_ranks_take_the_step_of_one_on_the_whole_batch(
    tiny: Make, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Adam's first steps turn rounding into steps of full length.
    monkeypatch.setattr(adversaries.torch.optim, "Adam", descent)

    def trained(ranks: Ranks, config: Stage1Training) -> dict[str, Tensor]:
        clips = batches(share=ranks.share(4), rendered=config.frames)
        model = train(
            tiny(), clips, config, perceptual=distance, device=CPU, ranks=ranks,
            folder=tmp_path / f"{config.phase}{config.frames}{ranks.size}",
        )  # fmt: skip
        return state_of(model)

    mask = Stage1Training(phase="mask", clips=12, batch_size=4)
    for config in (MOTION, PICTURE, ADVERSARIAL, mask):
        few = dataclasses.replace(config, clips=12, learning_rate=5e-4)
        one = trained(Ranks(), few)
        for two in in_two_processes(functools.partial(trained, config=few)):
            torch.testing.assert_close(two, one, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("eager", "in_float32")
def test_a_run_of_one_process_goes_on_with_two(
    tiny: Make, batches: Batches, tmp_path: Path
) -> None:
    few = dataclasses.replace(MOTION, clips=20, learning_rate=5e-4)

    def resumed(ranks: Ranks) -> dict[str, Tensor]:
        clips = batches(share=ranks.share(4))
        return state_of(
            train(tiny(), clips, few, folder=tmp_path / "broken", device=CPU, ranks=ranks)
        )

    one = state_of(train(tiny(), batches(), few, folder=tmp_path / "whole", device=CPU))
    with pytest.raises(StopIteration):
        train(tiny(), batches(stop=3), few, folder=tmp_path / "broken", device=CPU)
    for two in in_two_processes(resumed):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=0)
    assert len(numbers_of(tmp_path / "broken")) == len(numbers_of(tmp_path / "whole"))


def test_ranks_that_cannot_share_a_batch_evenly_are_refused(
    tiny: Make, batches: Batches, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="a batch of 4 clips cannot be shared evenly by 3"):
        train(tiny(), batches(), MOTION, folder=tmp_path, device=CPU, ranks=Ranks(0, 3))


@pytest.mark.usefixtures("eager")
def test_a_run_goes_on_on_a_device_of_another_format(
    tiny: Make, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [state_of(tiny())]
    for step, dtype in enumerate([torch.bfloat16, torch.float32, torch.bfloat16]):
        monkeypatch.setattr(loop, "fast_dtype", lambda _device, dtype=dtype: dtype)
        with pytest.raises(StopIteration):
            train(tiny(), batches(stop=step + 1), MOTION, folder=tmp_path, device=CPU)
        checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert checkpoint["clips"] == 4 * (step + 1)
        states.append(checkpoint["parts"]["model"])
    trained = [name for name, p in tiny().named_parameters() if p.requires_grad]
    assert all(states[-1][name].dtype == torch.float32 for name in trained)
    for before, after in pairwise(states[1:]):
        # A step of Adam is about as long as its rate.
        steps = [(after[name] - before[name]).abs().max() for name in trained]
        assert 1e-3 < max(steps) < 2 * MOTION.learning_rate


def test_the_picture_is_trained_without_moving_what_stage_2_reads(
    tiny: Make, batches: Batches, tmp_path: Path
) -> None:
    before = state_of(tiny())
    model = train(tiny(), batches(), PICTURE, folder=tmp_path, device=CPU, perceptual=distance)
    after = state_of(model)
    assert is_same(after, before, within="encoder.")
    assert is_same(after, before, within="scene.")
    assert not is_same(after, before, within="painter.")
    assert not is_same(after, before, within="motion.")
    assert not is_same(after, before, within="mask.")


def test_the_last_phase_trains_the_mask_alone(tiny: Make, batches: Batches, tmp_path: Path) -> None:
    before = state_of(tiny())
    config = Stage1Training(phase="mask", clips=8, batch_size=4)
    after = state_of(train(tiny(), batches(), config, folder=tmp_path, device=CPU))
    for part in ("encoder.", "scene.", "motion.", "painter."):
        assert is_same(after, before, within=part)
    assert not is_same(after, before, within="mask.")


def test_a_phase_after_the_picture_can_move_the_encoder_again(
    tiny: Make, batches: Batches, tmp_path: Path
) -> None:
    model = train(tiny(), batches(), PICTURE, folder=tmp_path / "1", device=CPU)
    before = state_of(model)
    again = Stage1Training(phase="picture", clips=8, batch_size=4, train_encoder=True)
    after = state_of(train(model, batches(), again, folder=tmp_path / "2", device=CPU))
    assert not is_same(after, before, within="encoder.")
    assert not is_same(after, before, within="scene.join.")
    assert is_same(after, before, within="scene.backbone.")


def test_a_trained_model_has_averaged_weights(tiny: Make, batches: Batches, tmp_path: Path) -> None:
    model = train(tiny(), batches(), MOTION, folder=tmp_path, device=CPU)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["parts"]
    name, parameter = next((n, p) for n, p in model.named_parameters() if p.requires_grad)
    assert torch.equal(parameter, checkpoint["average"]["values"][0])
    assert not torch.equal(parameter, checkpoint["model"][name])


def test_the_model_is_validated_in_float32_with_averaged_weights(
    tiny: Make,
    batches: Batches,
    tmp_path: Path,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "_VALIDATE_EVERY", 3)
    seen = []

    def validate(model: Stage1) -> dict[str, float]:
        assert not model.training
        model.decode(torch.zeros(1, 3, 64, 64), torch.ones(1, 16))  # takes float32
        seen.append(state_of(model))
        return {"score": 0.5}

    model = train(tiny(), batches(), MOTION, folder=tmp_path, device=CPU, validate=validate)
    scores = [line["clips"] for line in numbers_of(tmp_path) if "score" in line]
    assert scores == [12, 24, 32]
    assert is_same(seen[-1], state_of(model))
    assert not is_same(seen[0], seen[1])


def test_a_loss_that_is_no_number_stops_the_run_before_it_moves(
    tiny: Make, batches: Batches, tmp_path: Path
) -> None:
    spoilt, model = batches(), tiny()
    make = spoilt.batch

    def batch(number: int) -> ClipBatch:
        made = make(number)
        if number == 2:
            made.flow[0] = float("nan")
        return made

    spoilt.batch = batch
    with pytest.raises(UserError, match=r"flow nan.*at step 2.*drift:0-0"):
        train(model, spoilt, MOTION, folder=tmp_path, device=CPU)
    assert not (tmp_path / "checkpoint.pt").exists()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    kept = json.loads((tmp_path / "nan-2.json").read_text())
    assert kept["batch"] == [f"drift:0-{clip}" for clip in range(4)]
    assert kept["clips"] == 8


@pytest.mark.usefixtures("eager")
def test_adversaries_are_heard_from_their_first_clip_on(
    tiny: Make, batches: Batches, tmp_path: Path
) -> None:
    plain = dataclasses.replace(ADVERSARIAL, adversaries=None)
    models = [
        train(tiny(), batches(rendered=2), config, folder=tmp_path / name, device=CPU)
        for name, config in (("with", ADVERSARIAL), ("without", plain))
    ]
    assert not is_same(*map(state_of, models), within="painter.")
    told, plainly = numbers_of(tmp_path / "with"), numbers_of(tmp_path / "without")
    assert told[0].keys() == plainly[0].keys()  # 4 clips are before that
    for name in told[0].keys() - {"seconds"}:
        assert told[0][name] == plainly[0][name]
    heard = {"adversarial_spatial", "adversarial_temporal", "matching_spatial", "matching_temporal"}
    of_spatial = {f"{name}_spatial" for name in ("relativistic", "r1", "r2", "gradient")}
    of_temporal = {name.replace("spatial", "temporal") for name in of_spatial}
    assert told[1].keys() - plainly[1].keys() == heard | of_spatial
    assert told[2].keys() - plainly[2].keys() == heard | of_spatial | of_temporal
    parts = torch.load(tmp_path / "with/checkpoint.pt", weights_only=True)["parts"]
    assert {"spatial_adversary", "temporal_adversary_optimiser"} < parts.keys()


@pytest.mark.usefixtures("in_float32")
def test_a_discriminator_that_gives_no_number_stops_the_run_before_it_moves(
    tiny: Make, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Discriminators, "update", lambda *_, **__: {"r1_spatial": float("nan")})
    model, before = tiny(), state_of(tiny())
    with pytest.raises(UserError, match=r"r1_spatial nan at step 0"):
        train(model, batches(rendered=2), ADVERSARIAL, folder=tmp_path, device=CPU)
    assert is_same(state_of(model), before)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_decoder_that_gives_no_number_teaches_no_discriminator(
    tiny: Make, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught, update = [], Discriminators.update
    monkeypatch.setattr(
        Discriminators,
        "update",
        lambda self, *clips, number: taught.append(number) or update(self, *clips, number=number),
    )
    spoilt = batches(rendered=2)
    make = spoilt.batch

    def batch(number: int) -> ClipBatch:
        made = make(number)
        if number == 2:
            made.frames[0, 1] = float("nan")
        return made

    spoilt.batch = batch
    with pytest.raises(UserError, match=r"pixels nan.*at step 2"):
        train(tiny(), spoilt, ADVERSARIAL, folder=tmp_path, device=CPU)
    assert taught == [0, 1]


@pytest.mark.usefixtures("eager", "in_float32")
def test_every_frame_that_is_rendered_counts_alike(
    tiny: Make, batches: Batches, tmp_path: Path
) -> None:
    config = dataclasses.replace(PICTURE, clips=4)

    def first(name: str, frames: slice, num: int) -> dict[str, float]:
        clips = batches(rendered=2)
        make = clips.batch

        def batch(number: int) -> ClipBatch:
            made = make(number)
            return dataclasses.replace(
                made, frames=made.frames[:, frames], times=made.times[:, frames]
            )

        clips.batch = batch
        several = dataclasses.replace(config, frames=num)
        train(tiny(), clips, several, folder=tmp_path / name, device=CPU, perceptual=distance)
        return numbers_of(tmp_path / name)[0]

    both = first("both", slice(0, 2), 2)
    one, other = first("one", slice(0, 1), 1), first("other", slice(1, 2), 1)
    assert one["pixels"] != pytest.approx(other["pixels"], rel=1e-3)
    for name in ("pixels", "lpips"):
        assert both[name] == pytest.approx((one[name] + other[name]) / 2, rel=1e-4)


def test_a_run_is_known_by_the_frames_and_adversaries_that_it_has_only(
    tiny: Make, batches: Batches, tmp_path: Path
) -> None:
    def known(config: Stage1Training) -> set[str]:
        folder = tmp_path / f"{config.frames}{config.adversaries is None}"
        few = dataclasses.replace(config, clips=4)
        train(tiny(), batches(rendered=2), few, folder=folder, device=CPU)
        checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
        return {"frames", "adversaries"} & json.loads(checkpoint["config"])["training"].keys()

    assert known(PICTURE) == set()  # as before there were any, so that such a run goes on
    assert known(dataclasses.replace(PICTURE, frames=2)) == {"frames"}
    assert known(ADVERSARIAL) == {"frames", "adversaries"}


def test_frames_and_adversaries_that_do_not_fit_are_refused(
    tiny: Make, batches: Batches, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r'adversaries need phase "picture".*got "motion"'):
        dataclasses.replace(ADVERSARIAL, phase="motion")
    with pytest.raises(ValueError, match=r"frames must be at least 2 for a temporal.*got 1"):
        dataclasses.replace(ADVERSARIAL, frames=1)
    many = dataclasses.replace(PICTURE, frames=5)
    with pytest.raises(UserError, match=r"frames must be at most the model's num_frames, 4, got 5"):
        train(tiny(), batches(), many, folder=tmp_path, device=CPU)


def test_the_averaged_model_is_shown_with_each_validation(
    tiny: Make, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_VALIDATE_EVERY", 3)
    shown = []
    train(
        tiny(), batches(), MOTION, folder=tmp_path, device=CPU,
        show=lambda model, path: shown.append((model.training, path)),
    )  # fmt: skip
    folder = tmp_path / "strips"
    assert shown == [(False, folder / f"{clips:09d}.png") for clips in (12, 24, 32)]


def test_another_configuration_does_not_resume_a_run(
    tiny: Make, batches: Batches, tmp_path: Path
) -> None:
    train(tiny(), batches(), MOTION, folder=tmp_path, device=CPU)
    with pytest.raises(UserError, match="another configuration"):
        train(tiny(), batches(), PICTURE, folder=tmp_path, device=CPU)
    with pytest.raises(UserError, match="another configuration"):
        train(tiny(z_dim=32), batches(), MOTION, folder=tmp_path, device=CPU)


def test_a_seed_decides_what_is_trained(tiny: Make, batches: Batches, tmp_path: Path) -> None:
    def run(name: str, seed: int) -> dict[str, Tensor]:
        config = Stage1Training(clips=8, batch_size=4, seed=seed)
        return state_of(train(tiny(), batches(), config, folder=tmp_path / name, device=CPU))

    first = run("first", 1)
    assert is_same(first, run("same", 1))
    assert not is_same(first, run("other", 2))
