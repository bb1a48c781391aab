"""What all steps of cinnema's own models owe: resumption to the bit, ranks, averaged weights."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import ClipLoader
from cinnema.models.flow.conditioning import Conditioner, ConditionerConfig
from cinnema.models.flow.flow import ConditionalFlow, FlowConfig
from cinnema.models.keypoint.stage1 import KeypointConfig, KeypointStage1
from cinnema.training import keypoint as keypoint_step
from cinnema.training.adversarial import DiscriminatorsConfig, DiscriminatorTraining
from cinnema.training.keypoint import KeypointStep
from cinnema.training.keypoint_losses import KeypointTraining
from cinnema.training.latent_pool import LatentPool
from cinnema.training.loop import Position, Schedule, Step, fit
from cinnema.training.stage2 import FlowNetworks, LatentStep, PoolBatches, Stage2Training
from training.conftest import KEYPOINTS
from two_processes import in_two_processes

CPU = torch.device("cpu")
BOTH = tuple(
    DiscriminatorTraining(module=m, interval=i) for m, i in (("spatial", 1), ("temporal", 2))
)
JUDGES = DiscriminatorsConfig(phases=BOTH, start=4, matching=1.0, widths=(8, 8))


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Stands in for LPIPS."""
    return (a - b).square().mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class Case:
    """A kind of step: makes it, its batches and its schedule."""

    step: Callable[[Ranks, float], Step[Any]]
    batches: Callable[[Ranks], Any]
    schedule: Schedule
    dtype: torch.dtype = torch.float32


def keypoint(
    squares: PackedDataset,
    model: KeypointConfig = KEYPOINTS,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Case:
    config = KeypointTraining(**{"clips": 16, "batch_size": 4, "moments": 2, **options})

    def step(ranks: Ranks, rate: float) -> KeypointStep:
        torch.manual_seed(0)
        slow = dataclasses.replace(config, learning_rate=rate)
        stage1 = KeypointStage1(model)
        return KeypointStep(stage1, slow, device=CPU, perceptual=distance, ranks=ranks)

    def batches(ranks: Ranks) -> ClipLoader:
        return ClipLoader(
            squares,
            batch_size=4 // ranks.size,
            num_frames=5,
            track="corners" if model.points else "where",
            num_workers=0,
            rank=ranks.rank,
            num_ranks=ranks.size,
        )

    return Case(step, batches, config.schedule(), dtype)


def latents(**options: Any) -> Case:
    config = Stage2Training(clips=32, pool=32, batch_size=8, control_dropout=0.5, **options)
    generator = torch.Generator().manual_seed(0)
    pool = LatentPool(
        joint=torch.randn(32, 8, 8, 8, generator=generator).half(),
        z=torch.randn(32, 16, generator=generator),
        eta=torch.randn(32, 2, generator=generator),
        known=torch.ones(32),
    )

    def batches(ranks: Ranks) -> PoolBatches:
        return PoolBatches(pool, config, noise=0.1, ranks=ranks)

    def step(ranks: Ranks, rate: float) -> LatentStep:
        torch.manual_seed(1)
        # Without dropout, which each rank draws on its own.
        conditioner = Conditioner(
            ConditionerConfig(feature_dim=8, width=8, condition_dim=4, control_dim=2, dropout=0.0)
        )
        sizes = {"z_dim": 16, "condition_dim": conditioner.config.out_dim, "hidden_dim": 16}
        flow = ConditionalFlow(FlowConfig(num_blocks=2, depth=1, dropout=0.0, **sizes))
        slow = dataclasses.replace(config, learning_rate=rate)
        networks = FlowNetworks(conditioner, flow)
        return LatentStep(networks, slow, first=batches(ranks).first(), ranks=ranks)

    return Case(step, batches, config.schedule())


POINTS = dataclasses.replace(KEYPOINTS, landmarks=4, points=True)
CASES: dict[str, Callable[[PackedDataset], Case]] = {
    "keypoint, picture": lambda squares: keypoint(squares, phase="picture", perceptual=1.0),
    "keypoint, discriminators": lambda squares: keypoint(squares, discriminators=JUDGES),
    "keypoint, points": lambda squares: keypoint(
        squares, POINTS, teacher_forcing=0.5, symmetric_keypoints=(((0,), (1,)),)
    ),
    "keypoint, bfloat16": lambda squares: keypoint(squares, POINTS, torch.bfloat16),
    "stage 2": lambda _: latents(),
}
EXACT = [name for name in CASES if "bfloat16" not in name]


@pytest.fixture(params=CASES)
def case(
    request: pytest.FixtureRequest, squares: PackedDataset, monkeypatch: pytest.MonkeyPatch
) -> Case:
    made = CASES[request.param](squares)
    monkeypatch.setattr(keypoint_step, "fast_dtype", lambda _device: made.dtype)
    return made


exact = pytest.mark.parametrize("case", EXACT, indirect=True)


def states_of(step: Step[Any]) -> dict[str, Any]:
    return {name: part.state_dict() for name, part in step.parts().items()}


class Ending:
    """Batches that end after some."""

    def __init__(self, batches: Any, *, stop: int) -> None:
        self.batches, self.left = batches, stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)

    def __next__(self) -> Any:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return next(self.batches)


def test_a_run_that_was_stopped_ends_as_an_uninterrupted_one_to_the_bit(
    case: Case, tmp_path: Path
) -> None:
    schedule = dataclasses.replace(case.schedule, record_every=1, save_every=0.0)

    def run(name: str, *, stop: int = 10) -> Step[Any]:
        step = case.step(Ranks(), 1e-3)
        batches = Ending(case.batches(Ranks()), stop=stop)
        torch.manual_seed(stop)  # nothing may depend on the global random state
        fit(step, batches, schedule, folder=tmp_path / name)
        return step

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("broken", stop=2)
    resumed = run("broken")
    torch.testing.assert_close(states_of(resumed), states_of(whole), rtol=0, atol=0)
    lines = [
        [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in text]
        for text in (
            (tmp_path / name / "metrics.jsonl").read_text().splitlines()
            for name in ("whole", "broken")
        )
    ]
    assert len(lines[0]) == 4
    assert lines[0] == lines[1]


def descent(parameters: Any, *, lr: float = 0.0, **_: Any) -> torch.optim.SGD:
    """Plain descent, in place of Adam, whose first steps turn rounding errors into full steps."""
    return torch.optim.SGD(parameters, lr=lr)


@exact
def test_two_ranks_take_the_steps_of_one_on_the_whole_batch(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Adam", "AdamW"):
        monkeypatch.setattr(torch.optim, name, descent)

    def trained(ranks: Ranks) -> dict[str, Any]:
        step, batches = case.step(ranks, 1e-2), case.batches(ranks)
        numbers = [step.take(next(batches), Position(number, progress=0.1)) for number in range(3)]
        weights = {n: p.detach().clone() for n, p in step.networks.named_parameters()}
        return {"numbers": numbers, "weights": weights}

    one = trained(Ranks())
    for two in in_two_processes(functools.partial(trained)):
        torch.testing.assert_close(two["weights"], one["weights"], atol=1e-5, rtol=0)
        torch.testing.assert_close(two["numbers"], one["numbers"], atol=1e-4, rtol=1e-3)


def test_averaged_weights_are_validated_in_float32_and_kept(case: Case) -> None:
    step, batches = case.step(Ranks(), 1e-3), case.batches(Ranks())
    for number in range(3):
        step.take(next(batches), Position(number))
    trained = {n: p.detach().clone() for n, p in step.networks.named_parameters()}
    with step.averaged():
        assert not step.networks.training
        averaged = {n: p.detach().clone() for n, p in step.networks.named_parameters()}
        assert all(p.dtype == torch.float32 for p in averaged.values())
    torch.testing.assert_close(dict(step.networks.named_parameters()), trained, rtol=0, atol=0)
    assert any(not torch.equal(averaged[n], p.float()) for n, p in trained.items())
    step.finish()
    torch.testing.assert_close(dict(step.networks.named_parameters()), averaged, rtol=0, atol=0)


def test_weights_are_restored_after_a_validation_that_fails() -> None:
    case = latents()
    step = case.step(Ranks(), 1e-3)
    step.take(next(case.batches(Ranks())), Position(0))
    before = {n: p.detach().clone() for n, p in step.networks.named_parameters()}
    with pytest.raises(ArithmeticError), step.averaged():
        raise ArithmeticError
    torch.testing.assert_close(dict(step.networks.named_parameters()), before, rtol=0, atol=0)
    assert step.networks.training


@exact
def test_a_loss_that_is_not_finite_changes_no_weight(case: Case) -> None:
    step, batches = case.step(Ranks(), 1e-3), case.batches(Ranks())
    before = {n: p.detach().clone() for n, p in step.networks.named_parameters()}
    batch = next(batches)
    name = {"NoisyLatents": "z", "VideoBatch": "video"}[type(batch).__name__]
    bad = dataclasses.replace(batch, **{name: getattr(batch, name) * float("nan")})
    with pytest.raises(UserError, match=r"nan.* at step 0 is not finite"):
        step.take(bad, Position(0))
    torch.testing.assert_close(dict(step.networks.named_parameters()), before, rtol=0, atol=0)


def test_ranks_that_cannot_share_a_batch_evenly_are_refused(squares: PackedDataset) -> None:
    with pytest.raises(UserError, match="a batch of 4 clips cannot be shared evenly by 3"):
        keypoint(squares).step(Ranks(0, 3), 1e-3)


def test_a_run_resumes_on_a_device_of_another_format(
    squares: PackedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = keypoint(squares)
    schedule = dataclasses.replace(case.schedule, save_every=0.0)
    states = []
    for number, dtype in enumerate([torch.bfloat16, torch.float32, torch.bfloat16]):
        monkeypatch.setattr(keypoint_step, "fast_dtype", lambda _device, dtype=dtype: dtype)
        step = case.step(Ranks(), 1e-3)
        batches = Ending(case.batches(Ranks()), stop=1)
        with pytest.raises(KeyboardInterrupt):
            fit(step, batches, schedule, folder=tmp_path)
        checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert checkpoint["clips"] == 4 * (number + 1)
        states.append(checkpoint["parts"]["model"])
    trained = [n for n, p in step.networks.named_parameters() if p.requires_grad]
    assert all(states[-1][name].dtype == torch.float32 for name in trained)
    for before, after in itertools.pairwise(states):
        # A step of Adam is about as long as its rate.
        steps = [(after[name] - before[name]).abs().max() for name in trained]
        assert 1e-4 < max(steps) < 2e-3
