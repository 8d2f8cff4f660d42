"""The report: one self-contained HTML page about a search, and its plots as files."""

from kfnas.report.data import DataSummary, Drawing, Finalist, PathTrace, PoolUse, ReportData, Sample
from kfnas.report.page import render_report
from kfnas.report.plots import plot_files

__all__ = ["DataSummary", "Drawing", "Finalist", "PathTrace", "PoolUse", "ReportData", "Sample", "plot_files", "render_report"]
