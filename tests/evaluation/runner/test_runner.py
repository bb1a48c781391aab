"""A whole evaluation: every row and column, whatever the batch and the number of processes."""

import json
import math
import multiprocessing
import os
import socket
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from cinnema.backbones.registry import BackboneName, Found
from cinnema.core.distributed import joined_ranks
from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.evaluation import MetricName
from cinnema.evaluation.metrics.quality import psnr
from cinnema.evaluation.metrics.registry import METRICS
from cinnema.evaluation.results import MODEL, REAL, Evaluation, Missing, as_text
from cinnema.evaluation.runner import EvaluationSettings, evaluate_model
from cinnema.evaluation.statistics.bootstrap import Estimate
from cinnema.media.pictures import to_tensor
from cinnema.models.base import VideoModel

from .conftest import Drifter, packed

Backbones = Mapping[BackboneName, Found]


@pytest.fixture(scope="module")
def found(drifter: Drifter, dataset: PackedDataset, cheap: Backbones) -> Evaluation:
    return measured(drifter, dataset, cheap, clips=8)


@pytest.fixture(scope="module")
def few(drifter: Drifter, dataset: PackedDataset, cheap: Backbones) -> Evaluation:
    return measured(drifter, dataset, cheap, **FEW)


@pytest.fixture(scope="module")
def several(drifter: Drifter, forked: PackedDataset, cheap: Backbones) -> Evaluation:
    # In batches, so that starts with other numbers of futures come together.
    return measured(drifter, forked, cheap, samples=2, batch_size=4)


FEW = {"clips": 4, "samples": 1, "batch_size": 1}


def measured(
    model: VideoModel, dataset: PackedDataset, backbones: Backbones, **settings: Any
) -> Evaluation:
    evaluation = evaluate_model(
        model, dataset, backbones=backbones, settings=EvaluationSettings(**settings)
    )
    assert evaluation is not None
    return evaluation


def numbers(evaluation: Evaluation) -> dict[str, Any]:
    return {
        f"{row}/{column}/{name}": value
        for row, values in evaluation.to_dict()["rows"].items()
        for column, cell in values["values"].items()
        for name, value in cell.items()
    }


def assert_same(a: Evaluation, b: Evaluation, *, rel: float) -> None:
    first, second = numbers(a), numbers(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        if name.split("/")[1] == "inversion error":  # is rounding itself
            continue
        if value is None or isinstance(value, str):
            assert value == second[name], name
        else:
            assert value == pytest.approx(second[name], rel=rel, abs=1e-6), name


def test_every_baseline_has_its_row_and_n_beside_every_number(found: Evaluation) -> None:
    assert [(row.name, row.kind) for row in found.rows] == [
        (REAL, "real"),
        ("cINN", "model"),
        ("frozen first frame", "baseline"),
        ("time-shuffled", "baseline"),
        ("reconstruction", "baseline"),
        ("z ~ N(0, I)", "baseline"),
        ("Gaussian prior", "baseline"),
        ("linear-Gaussian prior", "baseline"),
        ("nearest training clip", "baseline"),
    ]
    names = {column.name for column in found.columns}
    assert len(names) == len(found.columns)
    for row in found.rows:
        assert row.cells.keys() <= names
        for name, cell in row.cells.items():
            if isinstance(cell, Estimate):
                assert 0 < cell.num_clips <= 8, (row.name, name)
                assert 0 < cell.num_sources <= 8, (row.name, name)


def test_what_is_known_of_baselines_comes_out(found: Evaluation) -> None:
    cells = {row.name: row.cells for row in found.rows}

    def value(row: str, column: str) -> float:
        cell = cells[row][column]
        assert isinstance(cell, Estimate), (row, column, cell)
        return cell.value

    assert value("frozen first frame", "speed") == 0
    assert math.isnan(value("frozen first frame", "direction apart"))
    assert value("nearest training clip", "nearest training clip") < 1e-6
    assert value(REAL, "nearest training clip") > 0
    assert value("cINN", "LPIPS, best of 2") <= value("cINN", "LPIPS (VGG16)")
    assert value("cINN", "inversion error") < 1e-3
    assert value("cINN", "bits a dimension") != value("Gaussian prior", "bits a dimension")
    assert value(REAL, "direction error") < 22.5
    assert value("frozen first frame", "direction error") == 90
    assert value("cINN", "DIV-I3D") > 0
    assert value("time-shuffled", "LPIPS (VGG16)") > 0
    assert 0 <= value("cINN", "precision") <= 1
    assert "DIV-I3D" not in cells["frozen first frame"]


def test_what_is_missing_is_said_and_nothing_stands_in_for_it(found: Evaluation) -> None:
    cells = {row.name: row.cells for row in found.rows}
    for column in ("FID", "DTFVD-16", "DTFVD-32", "DIV-DTI3D-16"):
        cell = cells[MODEL][column]
        assert isinstance(cell, Missing)
        assert "is missing" in cell.reason
        assert column not in cells[REAL]
    text = as_text(found)
    assert "missing  FID: Inception of FID is missing: put pt_inception" in text
    assert "n 8/" in text


def test_it_becomes_json_and_has_plots_and_examples(found: Evaluation) -> None:
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["settings"]["samples"] == 2
    assert len(values["data"]["sha256"]) == 64
    assert values["backbones"].keys() == {
        "I3D of Kinetics-400",
        "LPIPS with VGG16",
        "LPIPS with AlexNet",
    }
    titles = {curve.title for curve in found.curves}
    assert titles == {
        "LPIPS over frames",
        "FVD against 1/n",
        "Speed of motion",
        "Direction of motion",
        "Sharpness over frames",
        "Colour shift over frames",
        "Quantiles of nu",
        "Diversity against quality",
    }
    assert [e.title.split()[0] for e in found.examples] == ["best", "median", "worst"]
    scores = [e.score for e in found.examples]
    assert scores == sorted(scores)
    for example in found.examples:
        assert next(iter(example.videos)) == "real"
        assert {len(video) for video in example.videos.values()} == {5}


def test_no_number_depends_on_the_batch(
    drifter: Drifter, dataset: PackedDataset, cheap: Backbones, few: Evaluation
) -> None:
    assert_same(measured(drifter, dataset, cheap, **FEW | {"batch_size": 3}), few, rel=1e-4)


def test_another_real_future_stands_beside_the_model_as_its_samples_do(
    several: Evaluation, forked: PackedDataset
) -> None:
    row = several.rows[1]
    assert (row.name, row.kind, row.sees_real) == ("another real future", "real", False)

    def counts(column: str) -> tuple[int, int]:
        cell = row.cells[column]
        assert isinstance(cell, Estimate), (column, cell)
        return cell.num_clips, cell.num_sources

    of_samples = several.rows[2].cells
    for column in ("LPIPS (VGG16)", "LPIPS, best of 2", "LPIPS (AlexNet)", "PSNR", "SSIM", "speed"):
        assert isinstance(of_samples[column], Estimate)
        assert counts(column) == (5, 2), column  # the sixth clip is alone
    for column in ("DIV-VGG", "DIV-I3D"):
        assert counts(column) == (3, 1), column  # of three futures two are left
    psnrs = {
        (a, b): float(psnr(frames_of(forked, a), frames_of(forked, b)).mean())
        for a, b in ((0, 1), (0, 2), (1, 2), (3, 4))
    }
    of_three = (psnrs[0, 1] + psnrs[0, 2] + psnrs[1, 2]) / 3
    cell = row.cells["PSNR"]
    assert isinstance(cell, Estimate)
    assert cell.value == pytest.approx((3 * of_three + 2 * psnrs[3, 4]) / 5, rel=1e-5)


def frames_of(dataset: PackedDataset, number: int) -> torch.Tensor:
    position = int(dataset.indices("test")[number])
    return to_tensor(dataset.read(position, [1, 2, 3, 4]).frames)


def test_sets_of_real_futures_have_no_distance_as_they_share_clips(several: Evaluation) -> None:
    cells = several.rows[1].cells
    assert not cells.keys() & {"g", "KVD", "FVD", "speed apart", "direction apart"}
    assert {"g", "KVD", "FVD", "speed apart"} <= several.rows[2].cells.keys()


def test_the_best_of_fewer_futures_says_so_and_a_row_that_cannot_be_had_says_why(
    several: Evaluation, found: Evaluation
) -> None:
    assert [note for note in several.notes if "real future" in note] == [
        "The best of another real future is of 1 to 2, not of 2: there are no more other clips of "
        "a start."
    ]
    (note,) = (note for note in found.notes if "real future" in note)
    assert "no evaluated clip shares its first frame with another: simulate" in note
    assert f"note     {note}" in as_text(found)


def test_real_futures_come_from_clips_that_are_not_evaluated_too(
    drifter: Drifter, cheap: Backbones, tmp_path: Path
) -> None:
    data = packed(tmp_path / "clips", num_train=0, num_test=2, futures=(2,))
    found = measured(drifter, data, cheap, clips=2, samples=1)
    cell = found.rows[1].cells["PSNR"]
    assert isinstance(cell, Estimate)
    assert cell.num_clips == 2
    assert not any("real future" in note for note in found.notes)


def test_two_processes_find_what_one_finds(
    drifter: Drifter, dataset: PackedDataset, cheap: Backbones, few: Evaluation
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    workers = [
        context.Process(target=_work, args=(rank, port, theirs, drifter, dataset, cheap))
        for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    assert mine.poll(60), "the processes did not end"
    together = mine.recv()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert_same(together, few, rel=1e-6)


def _work(  # noqa: PLR0917 - a process takes them by position
    rank: int,
    port: str,
    result: Connection,
    drifter: Drifter,
    dataset: PackedDataset,
    backbones: Backbones,
) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    with joined_ranks(torch.device("cpu")) as ranks:
        evaluation = evaluate_model(
            drifter,
            dataset,
            backbones=backbones,
            settings=EvaluationSettings(**FEW),
            ranks=ranks,
        )
        assert (evaluation is None) == (rank == 1)
        if evaluation is not None:
            result.send(evaluation)


def test_one_future_has_no_diversity_and_the_table_says_so(few: Evaluation) -> None:
    cell = few.rows[1].cells["DIV-I3D"]
    assert isinstance(cell, Missing)
    assert "--samples 2" in cell.reason


def test_without_training_clips_their_rows_are_left_out_with_a_note(
    drifter: Drifter, cheap: Backbones, tmp_path: Path
) -> None:
    data = packed(tmp_path / "clips", num_train=0, num_test=2)
    found = measured(drifter, data, cheap, samples=1)
    assert "Gaussian prior" not in {row.name for row in found.rows}
    assert any("has no training clips" in note for note in found.notes)
    assert any("2 source videos only" in note for note in found.notes)


def test_frames_of_another_size_are_stretched_to_the_models(
    drifter: Drifter, cheap: Backbones, tmp_path: Path
) -> None:
    data = packed(tmp_path / "clips", size=48, num_train=0, num_test=2)
    found = measured(drifter, data, cheap, only=("pixels",), clips=2, samples=1)
    assert "resized from 48, stretched to a square" in found.data["size"]


def test_metrics_that_are_named_are_computed_alone(
    drifter: Drifter, dataset: PackedDataset, cheap: Backbones
) -> None:
    found = measured(drifter, dataset, cheap, only=("motion-kept", "swap"), clips=8)
    assert {column.group for column in found.columns} == {"latents", "swap"}
    assert "frozen first frame" not in {row.name for row in found.rows}
    assert "motion kept in transfer" in {row.name: row.cells for row in found.rows}[MODEL]


def test_numbers_of_two_models_are_paired(
    drifter: Drifter, dataset: PackedDataset, cheap: Backbones
) -> None:
    settings = EvaluationSettings(only=("pixels", "swap"), clips=8, samples=1)
    other = Drifter().eval()
    other.scale.mul_(3)
    found = evaluate_model(drifter, dataset, backbones=cheap, settings=settings, against=other)
    assert found is not None
    change = found.changes[MODEL]["PSNR"]
    assert isinstance(change, Estimate)
    assert change.value != 0
    assert change.num_clips == 8
    same = evaluate_model(drifter, dataset, backbones=cheap, settings=settings, against=drifter)
    assert same is not None
    assert same.changes[MODEL]["PSNR"] == Estimate(0.0, 0.0, 0.0, 8, change.num_sources)
    assert found.settings["against"] == "drifter"


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    folder = tmp_path_factory.mktemp("packed") / "clips"
    return packed(folder, num_train=2, num_test=6, frames=6)


@pytest.mark.parametrize("name", list(METRICS))
def test_every_metric_has_columns_of_its_own_and_says_if_it_cannot_be_computed(
    name: MetricName, drifter: Drifter, cheap: Backbones, short: PackedDataset
) -> None:
    if name in UNSUITABLE:
        with pytest.raises(UserError):
            measured(drifter, short, cheap, only=(name,), samples=2)
        return
    found = measured(drifter, short, cheap, only=(name,), samples=2)
    assert found.columns
    cells = [cell for row in found.rows for cell in row.cells.values()]
    assert all(cell.num_clips <= 6 for cell in cells if isinstance(cell, Estimate))
    assert set(found.to_dict()["columns"]) >= {n for row in found.rows for n in row.cells}


UNSUITABLE = {  # for a model without kinds or a control that does not warp, without a hand
    "end-point", "direction", "edit", "futures", "flow-error", "reconstruction", "samples",
    "likelihood", "sample-motion", "kind-motion",
}  # fmt: skip
