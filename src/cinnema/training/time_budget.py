"""The time of each phase of a fine-tuning, kept in a file so that the same command resumes."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path
from cinnema.training.metrics_log import MetricsLog


class TimeBudget:
    """Minutes, or a number of clips, divided among phases that follow each other.

    A phase gets its share of the time that is left when it begins, so that delays shorten the later
    phases. The number of clips that fit is measured once, at that time, and kept.

    Args:
        path: The file; an existing one is continued.
        about: Everything that determines the outcome, as JSON values; a file with other values is
            refused.
        shares: Shares of the phases, in their order, each at least 0.
        minutes: Minutes for all phases together.
        clips: Clips for all phases together, instead of `minutes`; None for a limit in time.

    Raises:
        UserError: The file belongs to another fine-tuning, or is damaged.

    Example:
        >>> from tempfile import mkdtemp
        >>> budget = TimeBudget(
        ...     Path(mkdtemp()) / "plan.json",
        ...     about={},
        ...     shares={"motion": 1, "picture": 3},
        ...     minutes=20,
        ...     clips=None,
        ... )
        >>> budget.seconds_for("motion")
        300.0
        >>> budget.clips_of("motion", lambda seconds: 8 * seconds)
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
        """Write the file; from now on other values of `about` are refused."""
        self._write()

    def seconds_for(self, phase: str) -> float:
        """Return the time of a phase that has not begun, in seconds; at least 1."""
        names = list(self.shares)
        left = 60 * self.minutes - sum(self._kept["seconds"].values())
        later = sum(self.shares[name] for name in names[names.index(phase) :])
        return max(1.0, left * self.shares[phase] / later) if later else 1.0

    def clips_of(self, phase: str, measure: Callable[[float], float]) -> int:
        """Return the number of clips of a phase, at least 1.

        Args:
            phase: Name of the phase.
            measure: Maps the seconds of the phase to the number of clips that fit. Called once,
                unless `clips` is given.
        """
        return self.kept(f"{phase}.clips", lambda: self._count(phase, measure))

    def kept(self, name: str, find: Callable[[], int]) -> int:
        """Return a number, computed at the first call and stored in the file."""
        if name not in self._kept["numbers"]:
            self._kept["numbers"][name] = find()
            self._write()
        return int(self._kept["numbers"][name])

    def finish(self, phase: str, folder: Path) -> None:
        """Count the time of a finished phase once, by the numbers in its folder."""
        if phase in self._kept["seconds"]:
            return
        seconds = [line["seconds"] for line in MetricsLog(folder / "metrics.jsonl").lines()]
        self._kept["seconds"][phase] = max(seconds, default=0.0)
        self._write()

    def spent(self) -> dict[str, float]:
        """Return the seconds that finished phases took."""
        return dict(self._kept["seconds"])

    def numbers(self) -> dict[str, int]:
        """Return the numbers that have been stored so far."""
        return dict(self._kept["numbers"])

    def _count(self, phase: str, measure: Callable[[float], float]) -> int:
        if self.clips is None:
            return max(1, round(measure(self.seconds_for(phase))))
        return max(1, round(self.clips * self.shares[phase] / sum(self.shares.values())))

    def _open(self, about: dict[str, Any]) -> dict[str, Any]:
        new: dict[str, Any] = {"about": about, "numbers": {}, "seconds": {}}
        if not self.path.exists():
            return new
        try:
            kept: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            same = kept["about"] == about and kept.keys() == new.keys()
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"{self.path} is damaged ({error}): remove {self.path.parent} to start afresh"
            ) from error
        if not same:
            raise UserError(
                f"{self.path.parent} holds a fine-tuning of other weights, clips or settings: "
                "repeat its own command, give another folder with --run, or remove it"
            )
        return kept

    def _write(self) -> None:
        with atomic_path(self.path, overwrite=True) as part:
            part.write_text(json.dumps(self._kept, indent=2) + "\n", encoding="utf-8")
