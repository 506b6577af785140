"""What an ablation cost, and its trials one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.report.ablation_shared import DASH, NO_TRIAL, number, study_table
from harness.report.records import AblationRecords
from harness.report.table import Table
from harness.store import EpochRow, Record, TrialRow


def cost_table(records: AblationRecords) -> Table:
    """Epochs, hours, speed, parameters and memory of every arm."""
    cells = [_cost_cells(records, arm) for arm in records.arms]
    cells.append(_total_cells(records))
    notes = [
        "complete trials only; hours: wall-clock of training and validation, of one GPU or, where the device is a "
        "CPU, of one CPU process: GPU-hours or CPU-hours; the weights that an arm starts from are not counted again",
        "seconds per epoch: training and validation; ms per image: a validation pass, loading and loss included, every "
        "view of test-time augmentation counted; peak memory: the most that one trial had allocated on its GPU",
    ]
    timed = [arm for arm in records.trials if records.arms[arm].experiment.training.score_training_set]
    if timed:
        notes.append(f"{', '.join(timed)}: the training set was scored in that time too: ms per image is unknown")
    columns = (
        "arm", "trials", "epochs", "hours", "device", "seconds per epoch", "parameters", "ms per image", "peak MB",
    )  # fmt: skip
    return study_table(records, "cost", "What every arm cost", columns, cells, notes)


def runs_table(records: AblationRecords) -> Table:
    """Every complete trial, and in the notes what failed or is missing."""
    cells = [
        (t.trial, arm, str(seed), number(t.score), str(t.best_epoch), str(t.epochs), f"{t.seconds:.1f}")
        for arm, by_seed in records.trials.items()
        for seed, t in by_seed.items()
    ]
    failed = [row for row in Record(records.folder).ended.values() if row.outcome == "failed"]
    notes = [
        "score: the best epoch's, as it was recorded; epoch 0: the weights that the training started from",
        *(f"{arm}: {NO_TRIAL}" for arm in records.arms if arm not in records.trials),
        *(f"failed: {row.trial} ({row.picked.get('arm')}, seed {row.seed}): {row.error}" for row in failed),
    ]
    columns = ("trial", "arm", "seed", "score", "best epoch", "epochs", "seconds")
    return study_table(records, "runs", "Every complete trial", columns, cells, notes)


def _cost_cells(records: AblationRecords, arm: str) -> tuple[str, ...]:
    trials = list(records.trials.get(arm, {}).values())
    if not trials:
        return (arm, f"0 of {records.settings.seeds}", *[DASH] * 7)
    rows = [row for of_seed in records.epochs[arm].values() for row in of_seed]
    trained = [row.train_seconds + row.val_seconds for row in rows if row.epoch > 0]
    # 0: rows written before parameters were counted
    parameters = max(row.parameters for row in rows)
    peaks = [row.peak_memory_mb for row in rows if row.peak_memory_mb is not None]
    return (
        arm,
        f"{len(trials)} of {max(records.settings.seeds, len(trials))}",
        *_time_cells(trials, rows),
        f"{np.mean(trained):.2f}" if trained else DASH,
        f"{parameters:,}" if parameters else DASH,
        _milliseconds(records, arm),
        f"{max(peaks):.0f}" if peaks else DASH,
    )


def _total_cells(records: AblationRecords) -> tuple[str, ...]:
    trials = [trial for by_seed in records.trials.values() for trial in by_seed.values()]
    rows = [row for by_seed in records.epochs.values() for of_seed in by_seed.values() for row in of_seed]
    asked = max(records.settings.seeds * len(records.arms), len(trials))
    times = _time_cells(trials, rows) if trials else [DASH] * 3
    return ("all", f"{len(trials)} of {asked}", *times, "", "", "", "")


def _time_cells(trials: Sequence[TrialRow], rows: Sequence[EpochRow]) -> tuple[str, str, str]:
    """Epochs, hours and the device."""
    on_gpu = {row.peak_memory_mb is not None for row in rows}
    device = "GPU and CPU" if len(on_gpu) > 1 else "GPU" if True in on_gpu else "CPU"
    return str(sum(t.epochs for t in trials)), f"{sum(t.seconds for t in trials) / 3600:.4f}", device


def _milliseconds(records: AblationRecords, arm: str) -> str:
    by_seed = records.matrices.get(arm, {})
    if not by_seed or records.arms[arm].experiment.training.score_training_set:
        return DASH
    rows = [(row.val_seconds, len(m)) for seed, m in by_seed.items() for row in records.epochs[arm][seed]]
    return f"{1000 * sum(s for s, _ in rows) / sum(n for _, n in rows):.1f}"
