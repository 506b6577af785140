"""Rows on disk: the file names of a run and a study, journals, atomic writes, provenance."""

from harness.store.files import BackgroundWriter, write_bytes, write_json, write_text
from harness.store.folders import RunFolder, StudyFolder, experiment_text, find_study, results_folder
from harness.store.journal import Journal
from harness.store.provenance import provenance
from harness.store.record import Record, best_epoch
from harness.store.rows import EpochRow, TrialRow

__all__ = [
    "BackgroundWriter", "EpochRow", "Journal", "Record", "RunFolder", "StudyFolder", "TrialRow", "best_epoch",
    "experiment_text", "find_study", "provenance", "results_folder", "write_bytes", "write_json", "write_text",
]  # fmt: skip
