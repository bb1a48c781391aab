"""Training of the kind network on labelled pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.core.weights import save_weights
from cinnema.data.labelled import (
    UNKNOWN,
    LabelledBatches,
    LabelledPictures,
    save_labelled,
    scene_of,
)
from cinnema.models.files import load_model
from cinnema.models.nature.kinds import KINDS, KindNetwork
from cinnema.training.kinds import (
    KINDS_FILE,
    NUM_CLASSES,
    KindStep,
    KindTraining,
    kind_network_of,
    kind_scores,
    load_kinds,
    scores_of_table,
    train_kinds,
)

CPU = torch.device("cpu")
SIZE = 64
CONFIG = KindTraining(
    clips=8, batch_size=4, size=SIZE, validate_every=4, frozen_blocks=14, learning_rate=1e-2
)


def labelled(height: int, *, unknown: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A blue sky over grey ground, with a rim of unknown pixels."""
    picture = np.full((SIZE, SIZE, 3), 90, np.uint8)
    labels = np.zeros((SIZE, SIZE), np.uint8)
    picture[:height] = (90, 150, 250)
    labels[:height] = 1
    labels[height : height + unknown] = UNKNOWN
    return picture, labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        for moment in (0, 5):
            name = f"clips/clouds/sky{number}@{moment}"
            save_labelled(tmp_path / "labels", name, *labelled(16 + 6 * number, unknown=4))
    save_labelled(tmp_path / "labels", "stills/city/tower", *labelled(0))
    return tmp_path / "labels"


def opened(folder: Path) -> LabelledPictures:
    return LabelledPictures.open(folder, size=SIZE, num_classes=NUM_CLASSES)


def network() -> KindNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return KindNetwork(width=16)


def test_pictures_of_a_scene_are_held_out_together(folder: Path) -> None:
    pictures = opened(folder)
    sides: dict[str, set[bool]] = {}
    for name, held_out in zip(pictures.names, pictures.held_out.tolist(), strict=True):
        sides.setdefault(scene_of(name), set()).add(held_out)
    assert all(len(side) == 1 for side in sides.values())
    assert 0 < pictures.held_out.sum() < len(pictures.names)


def test_groups_are_balanced_by_their_weights(folder: Path) -> None:
    groups = {"weights": {"clips/clouds": 3.0}, "validation": ["sky0", "sky1"]}
    (folder / "groups.json").write_text(json.dumps(groups))
    pictures = opened(folder)
    held_out = {n for n, h in zip(pictures.names, pictures.held_out, strict=True) if h}
    assert {scene_of(name) for name in held_out} == {"sky0", "sky1"}
    is_clip = np.array([name.startswith("clips") for name in pictures.names])
    assert pictures.weights[is_clip].sum() == pytest.approx(3.0)
    assert pictures.weights[~is_clip].sum() == pytest.approx(1.0)
    assert not pictures.weights[pictures.held_out].any()


def test_a_batch_depends_on_the_seed_and_its_number_alone(folder: Path) -> None:
    pictures = opened(folder)
    whole = LabelledBatches(pictures, batch_size=4, falling=5, seed=1)
    next(whole)
    second = next(whole)
    resumed = LabelledBatches(pictures, batch_size=4, falling=5, seed=1)
    resumed.load_state_dict({"clips": 4})
    again = next(resumed)
    assert torch.equal(again.x, second.x)
    assert torch.equal(again.labels, second.labels)
    assert again.names == second.names


def test_augmented_labels_follow_their_picture_and_stay_unknown(folder: Path) -> None:
    batches = LabelledBatches(opened(folder), batch_size=64, falling=None, seed=0)
    batch = next(batches)
    blue = batch.x[:, 2] - batch.x[:, 0]
    sky, ground = batch.labels == 1, batch.labels == 0
    assert blue[sky].mean() > blue[ground].mean() + 0.3
    assert bool((batch.labels == UNKNOWN).any())


def test_some_pictures_get_rain_or_snow(folder: Path) -> None:
    falling = 1 + KINDS.index("falling")
    batch = next(LabelledBatches(opened(folder), batch_size=128, falling=falling, seed=0))
    rainy = (batch.labels == falling).flatten(1).any(1)
    assert 0 < rainy.float().mean() < 0.2
    known = batch.labels[rainy]
    assert bool(((known == falling) | (known == UNKNOWN)).all())


def test_flames_are_laid_over_some_pictures_and_their_rim_is_unknown(folder: Path) -> None:
    fire = 1 + KINDS.index("fire")
    flame, labels = labelled(0)
    flame[:] = (250, 160, 40)
    save_labelled(folder, "clips/fire/torch", flame, np.full_like(labels, fire))
    (folder / "groups.json").write_text('{"validation": ["sky0"], "weights": {"clips/fire": 1e-6}}')
    batch = next(LabelledBatches(opened(folder), batch_size=128, fire=fire))
    burning = (batch.labels == fire).flatten(1).any(1)
    assert 0 < burning.float().mean() < 0.2
    red = batch.x[:, 0] - batch.x[:, 2]
    assert red[batch.labels == fire].mean() > red[batch.labels == 1].mean() + 0.3


def test_hazy_hills_rise_before_some_skies_and_stand_still(folder: Path) -> None:
    sky = 1 + KINDS.index("sky")
    plain = next(LabelledBatches(opened(folder), batch_size=64))
    hilly = next(LabelledBatches(opened(folder), batch_size=64, sky=sky))
    covered = ((plain.labels == sky) & (hilly.labels == 0)).flatten(1).any(1)
    assert 0 < covered.float().mean() < 0.5
    assert not bool(((plain.labels == 0) & (hilly.labels == sky)).any())
    assert set(hilly.labels.unique().tolist()) <= {0, sky, UNKNOWN}


def test_snow_lies_on_some_things_that_stand_still_and_they_stay_still(folder: Path) -> None:
    plain = next(LabelledBatches(opened(folder), batch_size=128))
    snowy = next(LabelledBatches(opened(folder), batch_size=128, sky=1))
    same = (plain.labels == snowy.labels).flatten(1).all(1)
    brighter = (snowy.x - plain.x).mean((1, 2, 3)) > 0.2
    assert 0 < (same & brighter).float().mean() < 0.2


def test_the_kind_network_of_weights_can_be_trained_further() -> None:
    width = load_model("landscape").model.config.kind_width
    network = kind_network_of("landscape", width=width)
    assert network.leave.in_channels == width
    with pytest.raises(UserError, match="holds no kind network of width 16"):
        kind_network_of("landscape", width=16)
    with pytest.raises(UserError, match="holds no kind network"):
        kind_network_of("robot", width=width)


def test_unknown_pixels_do_not_count() -> None:
    step = KindStep(network(), CONFIG, device=CPU)
    logits = torch.randn(1, NUM_CLASSES, 8, 8)
    labels = torch.full((1, 8, 8), UNKNOWN)
    assert float(step.loss(logits, labels)) == 0
    labels[0, 0] = 1
    changed = logits.clone()
    changed[:, :, 4:] += torch.randn(1, NUM_CLASSES, 4, 8)
    assert torch.equal(step.loss(logits, labels), step.loss(changed, labels))


def test_the_first_blocks_keep_their_weights_and_the_rest_learns(
    folder: Path, tmp_path: Path
) -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result = train_kinds(net, opened(folder), CONFIG, run=tmp_path / "run", device=CPU)
    assert result.clips == 8
    assert not net.training
    changed = {name for name, value in net.state_dict().items() if not value.equal(before[name])}
    assert not any(name.startswith(("backbone.stem", "backbone.blocks.13.")) for name in changed)
    assert any(name.startswith("backbone.blocks.14.") for name in changed)
    assert any(name.startswith("leave.") for name in changed)
    other = network()
    load_kinds(tmp_path / "run", other)
    x = torch.zeros(1, 3, SIZE, SIZE)
    assert torch.allclose(other.eval()(x).logits, net(x).logits, atol=1e-4)
    lines = (tmp_path / "run/kinds/metrics.jsonl").read_text().splitlines()
    assert "iou_sky" in json.loads(lines[-1])


def test_scores_of_a_table_count_still_pixels_called_moving() -> None:
    table = np.zeros((NUM_CLASSES, NUM_CLASSES))
    table[0, 0], table[0, 1], table[1, 1], table[1, 0] = 90, 10, 30, 20
    scores = scores_of_table(table)
    assert scores["still_moves"] == pytest.approx(0.1)
    assert scores["moves_still"] == pytest.approx(0.4)
    assert scores["iou_sky"] == pytest.approx(30 / 60)
    assert "iou_fire" not in scores


def test_scores_are_those_of_held_out_pictures_alone(folder: Path) -> None:
    pictures = opened(folder)
    shown = kind_scores(network().eval(), pictures)
    pictures.labels[~pictures.held_out] = 3
    assert kind_scores(network().eval(), pictures) == shown


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"weights": {"clips/sea": 1}}', "no group 'clips/sea'.*clips/clouds, stills/city"),
        ('{"weights": {"clips/clouds": -1}}', "weights must be at least 0"),
        ('{"validation": []}', "no picture is left for validation"),
        ('{"weights": {"clips/clouds": 0, "stills/city": 0}}', "all groups.*weight 0"),
        ("[1]", "must be an object"),
    ],
)
def test_a_mistake_in_groups_is_named(folder: Path, content: str, message: str) -> None:
    (folder / "groups.json").write_text(content)
    with pytest.raises(UserError, match=message):
        opened(folder)


def test_labels_that_are_no_class_are_refused(folder: Path, tmp_path: Path) -> None:
    picture, labels = labelled(9)
    save_labelled(folder, "clips/clouds/wrong", picture, labels + 77)
    with pytest.raises(UserError, match="labels must be 0 to 5, or 255 for unknown, got 77"):
        opened(folder)
    with pytest.raises(UserError, match="no labelled pictures"):
        opened(tmp_path / "nothing")


def test_without_a_trained_network_the_command_to_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `cinnema train kinds` first"):
        load_kinds(tmp_path, network())


def test_a_lack_of_memory_is_not_taken_for_another_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = KindNetwork(width=16)
    save_weights(tmp_path / KINDS_FILE, network.state_dict(), {"width": 16}, dtype=torch.float32)

    def fail(_state: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(network, "load_state_dict", fail)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load_kinds(tmp_path, network)
