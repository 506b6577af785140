"""Searching a Space: Optuna proposals, ASHA rungs, and the study that an executor drives."""

from harness.search.asha import Asha, rung_epochs
from harness.search.path import path_factors
from harness.search.proposals import Proposals, default_pick
from harness.search.search import Search, read_export

__all__ = ["Asha", "Proposals", "Search", "default_pick", "path_factors", "read_export", "rung_epochs"]
