"""Chaos: a search that is disturbed at random, compared with the same search left alone."""

from harness.chaos.compare import Verdict, compare
from harness.chaos.run import Plan, Report, chaos
from harness.chaos.table import report_table

__all__ = ["Plan", "Report", "Verdict", "chaos", "compare", "report_table"]
