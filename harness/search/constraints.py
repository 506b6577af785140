"""What a trial must keep to: the size of its model, known before it trains, and its pace and memory, known after."""

from __future__ import annotations

from harness.config.space import Constraints
from harness.store import EpochRow


def too_large(constraints: Constraints, parameters: int) -> str | None:
    """Why a model of so many parameters is infeasible; none: it is not."""
    limit = constraints.parameters
    if limit is None or parameters <= limit.max:
        return None
    return f"infeasible: {_count(parameters)} parameters > {_count(limit.max)}"


def violation(constraints: Constraints, row: EpochRow) -> str | None:
    """Why the trial of an epoch is infeasible; none: as far as this epoch says, it is not.

    The pace is that of the first epoch alone: a later one that the machine slowed down says nothing of the trial.
    """
    limit, pace = constraints.ms_per_image, ms_per_image(row)
    if limit is not None and row.epoch == 1 and pace is not None and pace > limit.max:
        return f"infeasible: {pace:.4g} ms of training per image > {limit.max:g}"
    limit = constraints.peak_memory_mb
    if limit is not None and row.peak_memory_mb is not None and row.peak_memory_mb > limit.max:
        return f"infeasible: {row.peak_memory_mb:.6g} MB of peak GPU memory > {limit.max:g}"
    return too_large(constraints, row.parameters)


def ms_per_image(row: EpochRow) -> float | None:
    """Milliseconds of training per image seen, waiting for data included; none: no image was trained on."""
    return 1000 * row.train_seconds / row.images if row.images else None


def _count(number: float) -> str:
    return f"{number / 1e6:.4g}e6" if number >= 1e6 else f"{number:g}"
