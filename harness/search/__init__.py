"""Searching a Space: proposals, rungs, and the study that an executor drives."""

from harness.search.asha import Asha
from harness.search.default import baseline_pick, default_pick
from harness.search.path import path_factors
from harness.search.promote import Promote
from harness.search.proposals import Proposals
from harness.search.rungs import NoRungs, RungRule, rung_epochs
from harness.search.search import Search, read_export

__all__ = [
    "Asha", "NoRungs", "Promote", "Proposals", "RungRule", "Search", "baseline_pick", "default_pick", "path_factors",
    "read_export", "rung_epochs",
]  # fmt: skip
