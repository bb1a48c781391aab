"""KVD, the kernel distance to real video, and g, the share of it that a row closes."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from cinnema.evaluation.features import Features
from cinnema.evaluation.metrics.base import Futures, Metric, RealBatch
from cinnema.evaluation.metrics.distances import GROUP, guarded
from cinnema.evaluation.protocol import ClipSet, Start
from cinnema.evaluation.results import FROZEN, REAL, Cell, Cells, Column, Missing
from cinnema.evaluation.statistics.bootstrap import Estimate
from cinnema.evaluation.statistics.feature_sets import FeatureSample
from cinnema.evaluation.statistics.kernel import (
    PairSums,
    closed,
    joint_estimate,
    paired_sums,
    require_motion,
    share_of,
    unpaired_sums,
)

SHARE, DISTANCE = "g", "KVD"
"""Names of the main columns."""

_KEPT = 2048  # starts at most, chosen by a hash; the kernel's matrices grow with their square
_SKY = ("clouds", "sky")  # labels


class KernelDistance(Metric):
    """KVD, and g = 1 - KVD / KVD of the frozen first frame, over all clips and by kind of clip.

    All futures of each start are compared with the real clips, without pairs of the same first
    frame. The row of real clips compares half of the source videos with the other half. Other real
    futures have no distance, because the set of real clips may contain them.

    Args:
        features: Features of clips.
        clips: The clips that are evaluated.
    """

    uses_futures = True

    def __init__(self, features: Features, clips: ClipSet) -> None:
        super().__init__()
        self._features = features
        self._keys = frozenset(start.key for start in clips.starts)
        self._scene_of = {start.key: start.source for start in clips.starts}
        self._first_of = {s.key: clips.shared_start(s) or s.window for s in clips.starts}
        self._kinds = kinds_of(clips.starts)
        self.columns = kernel_columns(clips.starts)

    def see_real(self, real: RealBatch) -> None:
        """Add the real clips, and each half of them."""
        rows = self._features.of(real.videos)
        self._add(REAL, "set", real.keys, rows)
        for half in (0, 1):
            chosen = [i for i, of in enumerate(real.halves) if of == half]
            self._add(REAL, f"half {half}", [real.keys[i] for i in chosen], rows[chosen])

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Add all futures of each start, except real ones."""
        if futures.kind != "real":
            rows = [self._features.of(videos) for videos in futures.videos]
            self._add(futures.row, "set", real.keys, torch.stack(rows, dim=1).flatten(1))

    def _add(self, row: str, what: str, keys: Sequence[str], features: Tensor) -> None:
        self.sums.setdefault((row, what), FeatureSample(_KEPT)).add(keys, features)

    def cells(self, row: str) -> Cells:
        """Return g, KVD, and g of each kind of clip."""
        if (row, "set") not in self.sums:
            return {}
        found = self._cells(row, self._keys)
        for kind, keys in self._kinds.items():
            found[_share_of(kind)] = guarded(partial(self._share, row, keys))
        return found

    def cells_of(self, row: str, keys: Sequence[str]) -> Cells:
        """Return g and KVD of some of the clips, where they are enough."""
        if (row, "set") not in self.sums:
            return {}
        cells = self._cells(row, frozenset(keys))
        return {name: cell for name, cell in cells.items() if not isinstance(cell, Missing)}

    def changes(self, row: str, before: Metric) -> Mapping[str, Estimate]:
        """Return the paired differences of g and KVD to the same row of another model."""
        assert isinstance(before, KernelDistance)
        if (row, "set") not in self.sums or (row, "set") not in before.sums:
            return {}
        found = {
            SHARE: guarded(partial(self._change_of_share, row, before, self._keys)),
            DISTANCE: guarded(partial(self._change, row, before)),
        }
        for kind, keys in self._kinds.items():
            found[_share_of(kind)] = guarded(partial(self._change_of_share, row, before, keys))
        return {name: cell for name, cell in found.items() if isinstance(cell, Estimate)}

    def _cells(self, row: str, keys: frozenset[str]) -> dict[str, Cell]:
        return {
            SHARE: guarded(partial(self._share, row, keys)),
            DISTANCE: guarded(partial(self._distance, row, keys)),
        }

    def _share(self, row: str, keys: frozenset[str]) -> Estimate:
        return share_of(self._sums_of(row, keys), self._sums_of(FROZEN, keys))

    def _distance(self, row: str, keys: frozenset[str]) -> Estimate:
        return joint_estimate([self._sums_of(row, keys)], lambda d: d[0])

    def _change_of_share(
        self, row: str, before: "KernelDistance", keys: frozenset[str]
    ) -> Estimate:
        frozen = self._sums_of(FROZEN, keys)
        require_motion(frozen)
        parts = [before._sums_of(row, keys), self._sums_of(row, keys), frozen]
        return joint_estimate(parts, lambda d: closed(d[1], d[2]) - closed(d[0], d[2]))

    def _change(self, row: str, before: "KernelDistance") -> Estimate:
        pair = [metric._sums_of(row, self._keys) for metric in (before, self)]
        return joint_estimate(pair, lambda d: d[1] - d[0])

    def _sums_of(self, row: str, keys: frozenset[str]) -> PairSums:
        if row == REAL:
            return self._halves(keys)
        real, samples = self.sums[REAL, "set"], self.sums[row, "set"]
        order = [key for key in samples.keys if key in keys]
        x, y = real.rows(order), samples.rows(order)
        return paired_sums(
            x,
            y.unflatten(1, (-1, x.shape[1])) if order else y,
            scenes=[self._scene_of[key] for key in order],
            starts=[self._first_of[key] for key in order],
        )

    def _halves(self, keys: frozenset[str]) -> PairSums:
        halves = [self.sums[REAL, f"half {half}"] for half in (0, 1)]
        orders = [[key for key in half.keys if key in keys] for half in halves]
        features = [half.rows(order) for half, order in zip(halves, orders, strict=True)]
        scenes = [[self._scene_of[key] for key in order] for order in orders]
        return unpaired_sums(*features, first_scenes=scenes[0], second_scenes=scenes[1])


def kinds_of(starts: Sequence[Start]) -> dict[str, frozenset[str]]:
    """Return the kinds of clips by name, with their keys: sky or not, and each label.

    Clips without a label are of no kind. There is none if all clips have the same label.

    Args:
        starts: The starts.

    Example:
        >>> starts = [
        ...     Start(key=f"{label} {i}", source="", position=0, first=0, label=label)
        ...     for label in ("clouds", "fire", "water") for i in range(2)
        ... ]
        >>> list(kinds_of(starts))
        ['sky', 'not sky', 'fire', 'water']
    """
    labels: dict[str, set[str]] = {}
    for start in starts:
        labels.setdefault(start.label, set()).add(start.key)
    if len(labels) < 2:
        return {}
    labels.pop("", None)
    sky = {key for label in _SKY for key in labels.pop(label, ())}
    rest = {key for keys in labels.values() for key in keys}
    kinds = {"sky": sky, "not sky": rest if sky else set()}
    kinds |= {label: labels[label] for label in sorted(labels)}
    return {name: frozenset(keys) for name, keys in kinds.items() if len(keys) > 1}


def kernel_columns(starts: Sequence[Start]) -> tuple[Column, ...]:
    """Return the columns: g, KVD, and g of each kind of clip.

    Args:
        starts: The starts that are evaluated.
    """
    about = "share of the KVD from the frozen first frame to real video that is closed"
    return (
        Column(
            name=SHARE,
            better="higher",
            digits=2,
            group=GROUP,
            about=f"1 - KVD / KVD of the frozen first frame, the {about}: 1 as real, 0 as frozen, "
            "below 0 worse than frozen",
        ),
        Column(
            name=DISTANCE,
            better="lower",
            digits=3,
            group=GROUP,
            about="kernel distance to real video: unbiased squared maximum mean discrepancy of "
            "I3D's logits (Kinetics-400), cubic kernel, without pairs of the same first frame; not "
            "larger for fewer clips, and maybe a little below 0",
        ),
        *(
            Column(
                name=_share_of(kind),
                better="higher",
                digits=2,
                group="g by kind of clip",
                about=f"{about}, of {kind} alone",
            )
            for kind in kinds_of(starts)
        ),
    )


def _share_of(kind: str) -> str:
    return f"{SHARE}: {kind}"
