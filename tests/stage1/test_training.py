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

from cinnema.core.errors import UserError
from cinnema.core.ranks import Ranks
from cinnema.core.running import TrainingRun
from cinnema.data.clips import ClipBatch, ClipBatches
from cinnema.stage1 import training
from cinnema.stage1.losses import relative_flow_error
from cinnema.stage1.model import Stage1
from cinnema.stage1.training import Stage1Training, train
from two_processes import in_two_processes

Make = Callable[..., Stage1]
Batches = Callable[..., ClipBatches]
CPU = torch.device("cpu")
MOTION = Stage1Training(phase="motion", clips=32, batch_size=4, learning_rate=3e-3)
PICTURE = Stage1Training(
    phase="picture", clips=40, batch_size=4, learning_rate=1e-3, window=32, perceptual=1.0
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
    monkeypatch.setattr(training, "TrainingRun", run)
    monkeypatch.setattr(training, "_RECORD_EVERY", 1)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    monkeypatch.setattr(training, "fast_dtype", lambda _device: request.param)
    return request.param


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
@pytest.mark.parametrize("config", [MOTION, PICTURE], ids=["motion", "picture"])
def test_a_run_that_was_stopped_ends_where_an_unbroken_one_does_to_the_bit(
    tiny: Make, batches: Batches, tmp_path: Path, dtype: torch.dtype, config: Stage1Training
) -> None:
    def run(name: str, clips: ClipBatches) -> dict[str, Tensor]:
        folder = tmp_path / name
        model = train(tiny(), clips, config, folder=folder, device=CPU, perceptual=distance)
        return state_of(model)

    whole = run("whole", batches())
    with pytest.raises(StopIteration):
        run("broken", batches(stop=3))
    assert is_same(run("broken", batches()), whole)
    assert is_same(run("broken", batches(stop=0)), whole)  # done: no clip is asked for
    numbers = [
        [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
        for lines in (numbers_of(tmp_path / "whole"), numbers_of(tmp_path / "broken"))
    ]
    assert numbers[0] == numbers[1]


def test_two_ranks_take_the_step_of_one_on_the_whole_batch(
    tiny: Make, batches: Batches, tmp_path: Path
) -> None:
    def trained(ranks: Ranks, config: Stage1Training) -> dict[str, Tensor]:
        model = train(
            tiny(), batches(share=ranks.share(4)), config, perceptual=distance, device=CPU,
            folder=tmp_path / f"{config.phase}{ranks.size}", ranks=ranks,
        )  # fmt: skip
        return state_of(model)

    mask = Stage1Training(phase="mask", clips=12, batch_size=4)
    for config in (MOTION, PICTURE, mask):
        few = dataclasses.replace(config, clips=12, learning_rate=5e-4)
        one = trained(Ranks(), few)
        for two in in_two_processes(functools.partial(trained, config=few)):
            torch.testing.assert_close(two, one, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("eager")
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
        monkeypatch.setattr(training, "fast_dtype", lambda _device, dtype=dtype: dtype)
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
    monkeypatch.setattr(training, "_VALIDATE_EVERY", 3)
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


def test_the_averaged_model_is_shown_with_each_validation(
    tiny: Make, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_VALIDATE_EVERY", 3)
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
