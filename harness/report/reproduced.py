"""Our scores of the published phases, each under its system's own rule, for the published tables."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from harness.metrics import score_by_convention
from harness.report.records import AblationRecords, Matrices

System = Literal["ignitia", "codecrunch", "desertmind"]


class _Rule(NamedTuple):
    """How a system names itself, scores, and calls the phases that are arms of its ablation file."""

    name: str
    convention: str
    phases: dict[str, str]


_RULES: dict[System, _Rule] = {
    "ignitia": _Rule(
        "Ignitia",
        "batch2_union",
        {f"phase{n}": str(n) for n in range(1, 7)}
        | {"phase4_flip": "4 TTA", "phase5_flip": "5 TTA", "phase6_8views": "6 TTA"},
    ),
    "codecrunch": _Rule(
        "CodeCrunch",
        "union_present",
        {f"phase{n}": str(n) for n in range(2, 6)} | {"phase3_suppressed": "3+supp", "phase5_tta": "5+TTA"},
    ),
    "desertmind": _Rule(
        "DesertMind", "per_image_union", {"phase1": "1", "phase2_1": "2.1", "phase2_2": "2.2", "phase3": "3"}
    ),
}


def reproduced_scores(
    records: AblationRecords, system: System, published: set[tuple[str, str]]
) -> dict[tuple[str, str], float]:
    """(system, phase) to the mean over seeds of an arm's score under the system's rule.

    Args:
        published: the (system, phase) pairs that have a published score; others are left out.
    """
    rule = _RULES[system]
    # CodeCrunch published val and test scores, and names the split
    named = {"": records.matrices, " val": records.matrices, " test": records.test_matrices}
    scores = {
        (rule.name, phase + suffix): _score(records, matrices, arm, rule.convention)
        for arm, phase in rule.phases.items()
        for suffix, matrices in named.items()
        if (rule.name, phase + suffix) in published and arm in matrices
    }
    return scores


def _score(records: AblationRecords, matrices: Matrices, arm: str, convention: str) -> float:
    classes = records.classes(arm)
    return float(np.mean([score_by_convention(m, classes)[convention] for m in matrices[arm].values()]))
