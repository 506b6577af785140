"""Rows on disk: the file names of a run and a study, journals, atomic writes, provenance."""

from harness.store.files import (
    BackgroundWriter,
    full_disk,
    is_full_disk,
    naming_what_fails,
    unwritable,
    write_bytes,
    write_json,
    write_text,
)
from harness.store.folders import (
    RunFolder,
    StudyFolder,
    check_links,
    checked_name,
    experiment_text,
    find_study,
    given_run,
    newest_study,
    results_folder,
)
from harness.store.journal import Journal
from harness.store.provenance import provenance, read_provenance, record_session
from harness.store.record import Record, best_epoch
from harness.store.rows import EpochRow, Failure, TrialRow

__all__ = [
    "BackgroundWriter", "EpochRow", "Failure", "Journal", "Record", "RunFolder", "StudyFolder", "TrialRow",
    "best_epoch", "check_links", "checked_name", "experiment_text", "find_study", "full_disk", "given_run",
    "is_full_disk", "naming_what_fails", "newest_study", "provenance", "read_provenance", "record_session",
    "results_folder", "unwritable", "write_bytes", "write_json", "write_text",
]  # fmt: skip
