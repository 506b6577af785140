"""Which runs of a study are drawn beside the truth, by the name of their column."""

from __future__ import annotations

from harness.config import AblationSettings, SearchSettings, read_settings
from harness.report.records import AblationRecords, read_ablation
from harness.search.confirmation import is_confirmed, read_confirmation
from harness.store import Record, RunFolder, StudyFolder

#: of the best trials of a search, or seeds of a training
_MOST = 3


def pictured_runs(folder: StudyFolder) -> dict[str, RunFolder]:
    """The best few of a search or a training, the best first; the first seed of every arm of an ablation.

    Of a confirmed search its confirmed best, each with the weights of its best fresh seed.

    Raises:
        StudyError, ConfigError: the folder holds no study, or a damaged one.
    """
    settings = read_settings(folder.settings)
    if isinstance(settings, AblationSettings):
        return runs_of_arms(read_ablation(folder))
    if not isinstance(settings, SearchSettings):
        return {f"seed {row.seed}": folder.run(row.trial) for row in Record(folder).ranking()[:_MOST]}
    confirmation = read_confirmation(folder)
    if confirmation is None or not is_confirmed(confirmation):
        return {f"trial {row.number}": folder.run(row.trial) for row in Record(folder).ranking()[:_MOST]}
    best = confirmation.confirmed[:_MOST]
    return {f"trial {trial.row.number}": confirmation.folder.run(trial.best_run.trial) for trial in best}


def runs_of_arms(records: AblationRecords) -> dict[str, RunFolder]:
    """The run of the first seed of every arm that has a complete trial."""
    first = {arm: rows[min(rows)] for arm, rows in records.trials.items()}
    return {arm: records.folder.run(row.trial) for arm, row in first.items()}
