"""Runs sections of the bench, and reports their rows as text and JSON."""

import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cinnema import __version__
from cinnema.bench.machine import describe, instructions, load, num_cores, processor
from cinnema.bench.rows import Row, Settings
from cinnema.bench.sections import SECTIONS, find_section

_FORMAT = 1
_PACKAGES = ("torch", "numpy", "opencv-python-headless", "av")
_HEADER = f"{'':<58} {'median':>10} {'':<9} {'ratio':>6}  {'CPU s':>7}"


def run_sections(
    names: Sequence[str], settings: Settings, *, show: Callable[[str], None]
) -> dict[str, Any]:
    """Run sections, and return what they measured as JSON values.

    Args:
        names: Some of `SECTIONS`.
        settings: How to measure.
        show: Called with each line of the table.
    """
    report = describe_run(settings)
    show(f"{describe()}, {report['date']}")
    for name in names:
        _, title = SECTIONS[name]
        show(f"\n{title}\n{_HEADER}")
        busy, start = load(), time.perf_counter()
        rows = list(_shown(find_section(name)(settings), show))
        report["sections"][name] = {
            "title": title,
            "load": round(busy, 2),
            "seconds": round(time.perf_counter() - start, 1),
            "rows": [row.as_dict() for row in rows],
        }
    return report


def describe_run(settings: Settings) -> dict[str, Any]:
    """Return the entries of a report without its sections: versions, date, machine, settings."""
    return {
        "format": _FORMAT,
        "cinnema": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor(),
            "instructions": instructions(),
            "cores": num_cores(),
            "system": platform.system(),
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "settings": {"runs": settings.runs, "quick": settings.quick},
        "command": ["cinnema", *sys.argv[1:]],
        "sections": {},
    }


def as_line(row: Row) -> str:
    """Return a row of the table."""
    if row.median is None:
        return f"{row.name:<58} {'-':>10} {row.note}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    cpu = f"{sorted(row.processor)[len(row.processor) // 2]:.3g}" if row.processor else ""
    line = f"{row.name:<58} {row.median:>10.4g} {row.unit:<9} {ratio:>6}  {cpu:>7}"
    return f"{line}  {row.note}".rstrip()


def _shown(rows: Iterator[Row], show: Callable[[str], None]) -> Iterator[Row]:
    for row in rows:
        show(as_line(row))
        yield row


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # another build of OpenCV
            found[name] = "unknown"
    return found
