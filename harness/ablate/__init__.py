"""Designs to arms, arms to seed replicates, and what their scores say."""

from harness.ablate.designs import ResolvedArm, baseline_of, resolve_arms, rungs_of
from harness.ablate.path import GreedyPath
from harness.ablate.racing import Racing
from harness.ablate.replicates import Replicates

__all__ = ["GreedyPath", "Racing", "Replicates", "ResolvedArm", "baseline_of", "resolve_arms", "rungs_of"]
