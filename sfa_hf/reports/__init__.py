"""Tables, plots and report.html, made only from results.json."""

from sfa_hf.reports.page import write_report
from sfa_hf.reports.run import Run, read_run
from sfa_hf.reports.table import side_by_side

__all__ = ["Run", "read_run", "side_by_side", "write_report"]
