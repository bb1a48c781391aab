"""How long each phase of a fine-tuning may take, kept on disk so that the same command goes on."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path
from cinnema.training.metrics_log import MetricsLog


class Plan:
    """Minutes of the clock, or a number of clips, shared among phases that follow each other.

    A phase gets its share of what is left when it begins, so that what one takes too long comes
    off the later ones. How many clips that makes is measured once, then, and kept.

    Args:
        path: The file that keeps it; one that is there already is gone on with.
        about: What decides the outcome, as JSON values; a file of something else is refused.
        shares: Of the phases, in their order, each 0 or more.
        minutes: Of all phases together.
        clips: Of all phases together, instead of what the minutes allow; None goes by the clock.

    Raises:
        UserError: The file is of another fine-tuning, or damaged.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "plan.json"
        >>> plan = Plan(path, about={}, shares={"motion": 1, "picture": 3}, minutes=20, clips=None)
        >>> plan.seconds_for("motion")
        300.0
        >>> plan.clips_of("motion", lambda seconds: 8 * seconds)
        2400
    """

    def __init__(
        self,
        path: Path,
        *,
        about: Mapping[str, Any],
        shares: Mapping[str, float],
        minutes: float,
        clips: int | None,
    ) -> None:
        self.path, self.shares, self.minutes, self.clips = path, dict(shares), minutes, clips
        self._kept = self._open(json.loads(json.dumps(dict(about))))

    def begin(self) -> None:
        """Write the file, so that from now on something else is refused."""
        self._write()

    def seconds_for(self, phase: str) -> float:
        """Return what a phase that has not begun may take, in seconds; at least a second."""
        names = list(self.shares)
        left = 60 * self.minutes - sum(self._kept["seconds"].values())
        later = sum(self.shares[name] for name in names[names.index(phase) :])
        return max(1.0, left * self.shares[phase] / later) if later else 1.0

    def clips_of(self, phase: str, measure: Callable[[float], float]) -> int:
        """Return how many clips a phase sees, at least 1.

        Args:
            phase: Its name.
            measure: Called the first time, if the clock counts, with the phase's seconds; returns
                the clips that they allow.
        """
        return self.kept(f"{phase}.clips", lambda: self._count(phase, measure))

    def kept(self, name: str, find: Callable[[], int]) -> int:
        """Return a number that is found once and kept."""
        if name not in self._kept["numbers"]:
            self._kept["numbers"][name] = find()
            self._write()
        return int(self._kept["numbers"][name])

    def finish(self, phase: str, folder: Path) -> None:
        """Count what a phase took, once, by the record in its folder."""
        if phase in self._kept["seconds"]:
            return
        seconds = [line["seconds"] for line in MetricsLog(folder / "metrics.jsonl").lines()]
        self._kept["seconds"][phase] = max(seconds, default=0.0)
        self._write()

    def spent(self) -> dict[str, float]:
        """Return the seconds that finished phases took."""
        return dict(self._kept["seconds"])

    def numbers(self) -> dict[str, int]:
        """Return the numbers found so far."""
        return dict(self._kept["numbers"])

    def _count(self, phase: str, measure: Callable[[float], float]) -> int:
        if self.clips is None:
            return max(1, round(measure(self.seconds_for(phase))))
        return max(1, round(self.clips * self.shares[phase] / sum(self.shares.values())))

    def _open(self, about: dict[str, Any]) -> dict[str, Any]:
        fresh: dict[str, Any] = {"about": about, "numbers": {}, "seconds": {}}
        if not self.path.exists():
            return fresh
        try:
            kept: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            same = kept["about"] == about and kept.keys() == fresh.keys()
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"{self.path} is damaged ({error}): remove {self.path.parent} to start afresh"
            ) from error
        if not same:
            raise UserError(
                f"{self.path.parent} holds a fine-tuning of other weights, clips or settings; go "
                "on with its own, name another folder with --run, or remove it"
            )
        return kept

    def _write(self) -> None:
        with atomic_path(self.path, overwrite=True) as part:
            part.write_text(json.dumps(self._kept, indent=2) + "\n", encoding="utf-8")
