"""Searching a Space: Optuna proposals, ASHA rungs, and the study that an executor drives."""

from harness.search.asha import Asha, rung_epochs
from harness.search.proposals import Proposals, default_pick
from harness.search.search import Search, export_text

__all__ = ["Asha", "Proposals", "Search", "default_pick", "export_text", "rung_epochs"]
