"""Searches in virtual time: the real searcher and rungs over learning curves in place of trainings."""

from harness.simulate.compare import compare, curves_over, options_of, print_comparison
from harness.simulate.curves import FAMILIES, Curve, Curves, ParametricCurves
from harness.simulate.executor import Trace, simulate
from harness.simulate.recorded import RecordedCurves
from harness.simulate.table_file import write_table

__all__ = [
    "FAMILIES", "Curve", "Curves", "ParametricCurves", "RecordedCurves", "Trace", "compare", "curves_over",
    "options_of", "print_comparison", "simulate", "write_table",
]  # fmt: skip
