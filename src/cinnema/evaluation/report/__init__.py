"""What people see of an evaluation: one page of HTML that needs nothing else, and the numbers."""

from cinnema.evaluation.report.report import write_report

__all__ = ["write_report"]
