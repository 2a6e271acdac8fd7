"""A comparison of methods as tables, plots and a page, made only from comparison.json."""

from sfa_hf.reports.comparison.page import write_comparison_report
from sfa_hf.reports.comparison.table import comparison_tables, markdown
from sfa_hf.reports.comparison.view import Comparison, read_comparison

__all__ = ["Comparison", "comparison_tables", "markdown", "read_comparison", "write_comparison_report"]
