"""KVD and the share of it that a row closes, over all clips and by kind of clip."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from cinnema.evaluation.features import FeatureNetwork, Features, Video
from cinnema.evaluation.metrics.base import Futures, RealBatch
from cinnema.evaluation.metrics.kernel import KernelDistance, kinds_of
from cinnema.evaluation.protocol import ClipSet, RealClip, Start
from cinnema.evaluation.results import FROZEN, MODEL, REAL, Cell, Missing, RowKind
from cinnema.evaluation.statistics.bootstrap import Estimate
from cinnema.evaluation.statistics.kernel import closed_share, joint_estimate, paired_sums
from cinnema.media.pictures import to_tensor

LABELS = ("clouds", "clouds", "clouds", "water", "water", "")


class Colours(ClipSet):
    """Two clips of each of six scenes: one colour each, which is all that features are of."""

    name, num_frames = "colours", 2

    def __init__(self, *, first_frame: str | None = None) -> None:
        self._first_frame = first_frame
        self.starts = tuple(
            Start(key=f"{i}@{j}", source=f"scene {i}", position=i, first=j, label=label)
            for i, label in enumerate(LABELS)
            for j in (0, 1)
        )

    def read(self, start: Start) -> RealClip:
        level = 20 * start.position + 5 * start.first
        return RealClip(start=start, frames=picture(level, num=3), shared_start=self._first_frame)


def picture(level: int, *, num: int = 2) -> Video:
    return np.full((num, 4, 4, 3), level, np.uint8)


def features_of(video: Video) -> torch.Tensor:
    level = float(video.mean())
    return torch.tensor([level / 30, (level / 60) ** 2, 1.0])


def seen(clips: ClipSet, rows: dict[str, Sequence[int]], *, batch: int = 4) -> KernelDistance:
    """The metric after rows of futures that are lighter than the real clips by some steps each."""
    network = FeatureNetwork(name="colours", identity="", compute=features_of)
    metric = KernelDistance(Features(network), clips)
    for starts in clips.batches(clips.starts, size=batch):
        real = real_batch([clips.read(start) for start in starts])
        metric.see_real(real)
        for row, steps in rows.items():
            videos = [[video + np.uint8(step) for video in real.videos] for step in steps]
            metric.see(real, futures(row, videos))
    return metric


def real_batch(clips: list[RealClip]) -> RealBatch:
    videos = [clip.frames[1:] for clip in clips]
    return RealBatch(
        clips=clips,
        videos=videos,
        x=to_tensor(np.stack(videos)),
        halves=[clip.start.position % 2 for clip in clips],
    )


def futures(row: str, videos: list[list[Video]], *, kind: RowKind = "model") -> Futures:
    x = to_tensor(np.stack([np.stack(of_one) for of_one in videos]))
    return Futures(row=row, kind=kind, frames=videos, videos=videos, x=x)


def estimate(cell: Cell) -> Estimate:
    assert isinstance(cell, Estimate), cell
    return cell


ROWS = {MODEL: [20, 60], FROZEN: [90]}


def test_the_numbers_are_those_of_the_functions_whatever_the_batches() -> None:
    clips = Colours()
    rows = {
        name: torch.stack(
            [
                torch.stack([features_of(clips.read(s).frames + np.uint8(step)) for step in steps])
                for s in clips.starts
            ]
        )
        for name, steps in {REAL: [0], **ROWS}.items()
    }
    scenes = [start.source for start in clips.starts]
    real, frozen = rows[REAL][:, 0], rows[FROZEN][:, 0]
    g = closed_share(real, rows[MODEL], frozen, scenes=scenes)
    distance = joint_estimate([paired_sums(real, rows[MODEL], scenes=scenes)], lambda d: d[0])
    for batch in (1, 5):
        cells = seen(clips, ROWS, batch=batch).cells(MODEL)
        for name, expected in (("g", g), ("KVD", distance)):
            found = estimate(cells[name])
            assert [found.value, found.low, found.high] == pytest.approx(
                [expected.value, expected.low, expected.high]
            )
            assert (found.num_clips, found.num_sources) == (12, 6)


def test_each_kind_of_clip_has_its_share_and_the_frozen_first_frame_is_at_0() -> None:
    metric = seen(Colours(), ROWS)
    names = [column.name for column in metric.columns]
    assert names == ["g", "KVD", "g: sky", "g: not sky", "g: water"]
    cells = metric.cells(MODEL)
    assert list(cells) == names
    assert estimate(cells["g: sky"]).num_clips == 6
    assert cells["g: not sky"] == cells["g: water"]
    sky = [start.key for start in Colours().starts if start.label == "clouds"]
    assert metric.cells_of(MODEL, sky)["g"] == cells["g: sky"]
    assert not metric.cells_of(MODEL, sky[:1])
    assert estimate(metric.cells(FROZEN)["g"]).value == 0


def test_kinds_are_named_where_there_are_several() -> None:
    starts = Colours().starts
    assert list(kinds_of(starts)) == ["sky", "not sky", "water"]
    assert kinds_of([start for start in starts if start.label == "water"]) == {}
    assert list(kinds_of([start for start in starts if start.label != "clouds"])) == ["water"]


def test_real_clips_are_compared_by_halves_and_their_share_is_near_1() -> None:
    cells = seen(Colours(), ROWS).cells(REAL)
    assert estimate(cells["g"]).value > 0.9
    assert estimate(cells["KVD"]).num_clips == 6
    assert isinstance(cells["g: water"], Missing)


def test_clips_that_share_their_first_frame_are_one_start() -> None:
    cell = seen(Colours(first_frame="one for all"), ROWS).cells(MODEL)["g"]
    assert isinstance(cell, Missing)
    assert "at least 2 starts, got 1" in cell.reason


def test_the_change_from_another_model_is_the_difference_of_the_shares() -> None:
    before, after = seen(Colours(), ROWS), seen(Colours(), ROWS | {MODEL: [10, 15]})
    found = after.changes(MODEL, before)
    for name in ("g", "KVD", "g: sky"):
        pair = [estimate(metric.cells(MODEL)[name]).value for metric in (before, after)]
        assert found[name].value == pytest.approx(pair[1] - pair[0])
    low = found["g"].low
    assert low is not None
    assert low > 0


def test_sums_of_several_processes_merge() -> None:
    clips, half = Colours(), Colours()
    whole = seen(clips, ROWS)
    half.starts = clips.starts[:5]
    other = Colours()
    other.starts = clips.starts[5:]
    merged = seen(clips, {}, batch=12)
    merged.sums.clear()
    for part in (half, other):
        merged.merge(seen(part, ROWS).sums)
    assert merged.cells(MODEL) == whole.cells(MODEL)
