"""The report of an evaluation: one self-contained HTML page, and the numbers as JSON."""

from cinnema.evaluation.report.report import write_report

__all__ = ["write_report"]
