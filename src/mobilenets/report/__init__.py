"""What a person reads of one retraining: a single HTML file that holds everything it shows."""

from mobilenets.report.page import write_report

__all__ = ["write_report"]
