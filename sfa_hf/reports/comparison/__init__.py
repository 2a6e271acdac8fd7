"""A comparison of methods as a table, plots and a page, from comparison.json alone."""

from sfa_hf.reports.comparison.page import write_comparison_report
from sfa_hf.reports.comparison.table import comparison_tables, markdown
from sfa_hf.reports.comparison.view import Comparison, read_comparison

__all__ = ["Comparison", "comparison_tables", "markdown", "read_comparison", "write_comparison_report"]
