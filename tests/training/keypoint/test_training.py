"""Training of the articulated stage 1: it learns, resumes to the bit, and shares batches."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.models.keypoint.stage1 import KeypointConfig, KeypointStage1
from cinnema.training import keypoint as training
from cinnema.training import loop
from cinnema.training.adversarial import AdversaryPhase, DiscriminatorsConfig
from cinnema.training.keypoint import KeypointTraining, train
from cinnema.training.run import TrainingRun
from two_processes import in_two_processes

Make = Callable[..., KeypointStage1]
POINTS = KeypointConfig(
    size=32, num_frames=4, z_dim=8, encoder_width=8, width=8, code_dim=16, landmarks=4, points=True
)
CPU = torch.device("cpu")
MOTION = KeypointTraining(clips=24, batch_size=4, moments=2)
JUDGED = KeypointTraining(
    clips=24,
    batch_size=4,
    moments=2,
    adversaries=DiscriminatorsConfig(
        phases=(AdversaryPhase(module="spatial"), AdversaryPhase(module="temporal")),
        start=8,
        widths=(8, 8),
    ),
)
GUIDED = KeypointTraining(clips=24, batch_size=4, moments=2, guided=0.5, twins=(((0,), (1,)),))
PICTURE = KeypointTraining(phase="picture", clips=24, batch_size=4, moments=2, perceptual=1.0)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Stands in for LPIPS."""
    return (a - b).square().mean(dim=(1, 2, 3))


def loader_of(
    squares: PackedDataset,
    ranks: Ranks | None = None,
    *,
    kind: type[ClipLoader] = ClipLoader,
    track: str = "where",
) -> ClipLoader:
    ranks = ranks or Ranks()
    return kind(
        squares,
        batch_size=4 // ranks.size,
        num_frames=5,
        track=track,
        num_workers=0,
        rank=ranks.rank,
        num_ranks=ranks.size,
    )


def numbers_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def state_of(model: KeypointStage1) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "fast_dtype", lambda _device: request.param)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every step and record every number."""
    run = functools.partial(TrainingRun, seconds_between=0.0)
    monkeypatch.setattr(loop, "TrainingRun", run)
    monkeypatch.setattr(loop, "_RECORD_EVERY", 1)


@pytest.mark.usefixtures("eager")
def test_training_lowers_its_losses(body: Make, squares: PackedDataset, tmp_path: Path) -> None:
    config = dataclasses.replace(MOTION, clips=480, learning_rate=3e-3)
    train(body(), loader_of(squares), config, folder=tmp_path, device=CPU)
    numbers = numbers_of(tmp_path)
    for name in ("pixels", "landmarks", "places"):
        first, last = (sum(line[name] for line in part) for part in (numbers[:10], numbers[-10:]))
        assert last < 0.8 * first, name


@pytest.mark.usefixtures("eager")
def test_a_body_of_points_learns_where_they_are(
    body: Make, squares: PackedDataset, tmp_path: Path
) -> None:
    config = dataclasses.replace(GUIDED, clips=480, learning_rate=3e-3)
    train(body(POINTS), loader_of(squares, track="corners"), config, folder=tmp_path, device=CPU)
    numbers = numbers_of(tmp_path)
    for name in ("pixels", "landmarks", "places", "seen", "latent"):
        first, last = (sum(line[name] for line in part) for part in (numbers[:10], numbers[-10:]))
        assert last < 0.8 * first, name


@pytest.mark.usefixtures("eager", "dtype")
def test_a_body_of_points_goes_on_to_the_bit(
    body: Make, squares: PackedDataset, tmp_path: Path
) -> None:
    def run(name: str, kind: type[ClipLoader]) -> dict[str, Tensor]:
        loader = loader_of(squares, kind=kind, track="corners")
        model = train(body(POINTS), loader, GUIDED, folder=tmp_path / name, device=CPU)
        return state_of(model)

    whole = run("whole", ClipLoader)
    with pytest.raises(StopIteration):
        run("broken", _Broken)
    assert all(torch.equal(v, whole[name]) for name, v in run("broken", ClipLoader).items())


class _Broken(ClipLoader):
    """Clips that end after three batches."""

    def __next__(self) -> VideoBatch:
        if self.clips >= 12:
            raise StopIteration
        return super().__next__()


@pytest.mark.usefixtures("eager", "dtype")
@pytest.mark.parametrize(
    "config", [MOTION, PICTURE, JUDGED], ids=["motion", "picture", "adversaries"]
)
def test_a_run_that_was_stopped_ends_where_an_unbroken_one_does_to_the_bit(
    body: Make, squares: PackedDataset, tmp_path: Path, config: KeypointTraining
) -> None:
    def run(name: str, loader: ClipLoader) -> dict[str, Tensor]:
        model = train(
            body(), loader, config, folder=tmp_path / name, device=CPU, perceptual=distance
        )
        return state_of(model)

    whole = run("whole", loader_of(squares))
    with pytest.raises(StopIteration):
        run("broken", loader_of(squares, kind=_Broken))
    resumed = run("broken", loader_of(squares))
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_two_ranks_take_the_step_of_one_on_the_whole_batch(
    body: Make, squares: PackedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "fast_dtype", lambda _device: torch.float32)

    def trained(ranks: Ranks, config: KeypointTraining) -> dict[str, Tensor]:
        return state_of(
            train(
                body(), loader_of(squares, ranks), config, device=CPU, ranks=ranks,
                perceptual=distance,
                folder=tmp_path / f"{config.phase}{config.in_a_row}{ranks.size}",
            )
        )  # fmt: skip

    for config in (MOTION, PICTURE, JUDGED):
        # Adam makes steps of rounding errors, where a gradient is next to nothing.
        few = dataclasses.replace(config, clips=12, learning_rate=5e-5)
        one = trained(Ranks(), few)
        for two in in_two_processes(functools.partial(trained, config=few)):
            torch.testing.assert_close(two, one, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("dtype")
def test_the_picture_is_trained_without_moving_what_stage_2_reads(
    body: Make, squares: PackedDataset, tmp_path: Path
) -> None:
    before = state_of(body())
    after = state_of(train(body(), loader_of(squares), PICTURE, folder=tmp_path, device=CPU))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert any(name.startswith("decoder") for name in changed)
    assert not any(name.startswith(("encoder", "scene")) for name in changed)


def test_clips_that_give_no_number_are_named(
    body: Make, squares: PackedDataset, tmp_path: Path
) -> None:
    model = body()
    with torch.no_grad():
        model.path_of_z.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="is no number to train on"):
        train(model, loader_of(squares), MOTION, folder=tmp_path, device=CPU)
    assert json.loads((tmp_path / "nan-0.json").read_text())["batch"]


def test_every_stretch_of_a_clip_is_shown() -> None:
    config = KeypointTraining(batch_size=64, moments=4)
    shown = training.draw_moments(config, num_frames=16, generator=torch.Generator().manual_seed(0))
    assert shown.shape == (64, 4)
    for stretch in range(4):
        found = set(shown[:, stretch].tolist())
        assert found == set(range(4 * stretch + 1, 4 * stretch + 5))


@pytest.mark.usefixtures("eager")
def test_adversaries_begin_when_they_are_told_to(
    body: Make, squares: PackedDataset, tmp_path: Path
) -> None:
    train(body(), loader_of(squares), JUDGED, folder=tmp_path, device=CPU)
    numbers = numbers_of(tmp_path)
    for name in ("adversarial_spatial", "adversarial_temporal", "r1_temporal"):
        assert [name in line for line in numbers if "pixels" in line] == [False] * 2 + [True] * 4


@pytest.mark.usefixtures("eager")
def test_the_divergence_of_a_learned_spread_counts_with_its_weight(
    body: Make, squares: PackedDataset, tmp_path: Path
) -> None:
    model = body()
    learned = body(dataclasses.replace(model.config, spread="learned"))
    for weight in (1.0, 0.0):
        config = dataclasses.replace(MOTION, clips=4, kl=weight)
        train(learned, loader_of(squares), config, folder=tmp_path / str(weight), device=CPU)
        assert (numbers_of(tmp_path / str(weight))[0]["kl"] > 0) == (weight > 0)
    train(model, loader_of(squares), MOTION, folder=tmp_path / "fixed", device=CPU)
    assert "kl" not in numbers_of(tmp_path / "fixed")[0]


@pytest.mark.parametrize("decoder", ["paint", "warp"])
@pytest.mark.usefixtures("eager")
def test_a_decoder_of_one_way_learns(
    body: Make, squares: PackedDataset, tmp_path: Path, decoder: str
) -> None:
    model = body(dataclasses.replace(body().config, decoder=decoder))
    config = dataclasses.replace(MOTION, clips=120, learning_rate=3e-3)
    train(model, loader_of(squares), config, folder=tmp_path, device=CPU)
    pixels = [line["pixels"] for line in numbers_of(tmp_path) if "pixels" in line]
    assert sum(pixels[-10:]) < 0.9 * sum(pixels[:10])
    assert "warped" not in numbers_of(tmp_path)[0]


def test_a_run_from_before_there_were_adversaries_goes_on(
    body: Make, squares: PackedDataset, tmp_path: Path
) -> None:
    train(body(), loader_of(squares), MOTION, folder=tmp_path, device=CPU)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=False)
    about = json.loads(checkpoint["config"])
    assert not {"adversaries", "kl"} & about["training"].keys()
    assert not {"spread", "decoder"} & about["model"].keys()


def test_adversaries_of_motion_see_frames_in_a_row() -> None:
    config = dataclasses.replace(JUDGED, batch_size=64, moments=3)
    shown = training.draw_moments(config, num_frames=5, generator=torch.Generator().manual_seed(0))
    assert (shown.diff(dim=1) == 1).all()
    assert set(shown.flatten().tolist()) == set(range(1, 6))


def test_adversaries_that_see_too_few_frames_are_refused(
    body: Make, squares: PackedDataset, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="moments must be at least 2"):
        dataclasses.replace(JUDGED, moments=1)
    many = dataclasses.replace(JUDGED, moments=5)
    with pytest.raises(UserError, match="moments must be at most the model's num_frames, 4"):
        train(body(), loader_of(squares), many, folder=tmp_path, device=CPU)
