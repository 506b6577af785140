"""Sections of the page of any kind of study: failed trials, pictures, provenance."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.config import flat
from harness.report.failures import by_cause, only_theirs
from harness.report.html.sections import Block, Command, Fold, Rows, Section, Words, rows_from, shown
from harness.report.html.trial_table import values_text
from harness.store import StudyFolder, TrialRow, read_provenance, results_folder

#: causes that are shown, and failed trials of each
_CAUSES, _SHOWN = 20, 8
#: characters of an error or a file that are shown
_LONGEST = 20_000


def study_word(folder: StudyFolder) -> str:
    """What stands for a study on a command line: its name, or its path where it lies elsewhere."""
    here = (results_folder() / folder.name).resolve() == folder.path.resolve()
    return shlex.quote(folder.name if here else str(folder.path))


def failures_section(folder: StudyFolder, rows: Sequence[TrialRow]) -> Section | None:
    """Failed trials by cause, the commonest first; none where none failed."""
    causes = by_cause([row for row in rows if row.outcome == "failed"])
    well = [row for row in rows if row.outcome != "failed"]
    if not causes:
        return None
    failed = len(rows) - len(well)
    words = Words(f"{failed} of {len(rows)} trials failed, of {_counted(len(causes), 'cause')}; the commonest first.")
    blocks = [block for trials in causes[:_CAUSES] for block in _cause(trials, well)]
    if rest := causes[_CAUSES:]:
        count = _counted(sum(map(len, rest)), "trial")
        blocks.append(Words(f"and {_counted(len(rest), 'more cause')}, of {count}; `trials.jsonl` holds them all."))
    alone = Command(
        (f"harness rerun {study_word(folder)} {causes[0][0].number}",), "The first of them again, alone, where a "
        "debugger can follow it:",
    )  # fmt: skip
    return Section("failures", "Failed trials", (words, *blocks, alone))


def provenance_section(folder: StudyFolder) -> Section:
    """Where the numbers come from: versions, machine, data, command, settings."""
    files = [Fold(p.name, _text(p)) for p in (folder.settings, folder.best) if p.exists()]
    about = read_provenance(folder)
    if not about:
        missing = Words(f"{folder.provenance.name} is missing: neither versions nor machine are known.", "warning")
        return Section("provenance", "Provenance", (missing, *files))
    rows = tuple((name, _value(name, value)) for name, value in flat(about).items())
    return Section("provenance", "Provenance", (Rows("", ("", ""), rows), *files))


def created(folder: StudyFolder) -> str:
    """The day on which a study began; empty where it is not known."""
    return str(read_provenance(folder).get("created", ""))[:10]


def hours(folder: StudyFolder, rows: Iterable[TrialRow]) -> tuple[str, str]:
    """The device time of all trials, and what it was spent on: GPU hours where trials held GPUs, else core hours."""
    seconds = sum(row.seconds for row in rows)
    resources = read_provenance(folder).get("resources") or {}
    gpus, cpus = (float(resources.get(f"{kind}_per_trial") or 0) for kind in ("gpus", "cpus"))
    if gpus:
        return _hours(seconds * gpus), f"GPU time, {gpus:g} GPU a trial"
    if cpus:
        return _hours(seconds * cpus), f"CPU core time, {cpus:g} core{'' if cpus == 1 else 's'} a trial"
    return _hours(seconds), "of training and validation"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _cause(trials: Sequence[TrialRow], well: Sequence[TrialRow]) -> list[Block]:
    error = (trials[0].error or "no cause was recorded").strip()
    head = error.splitlines()[0].replace(f"trial {trials[0].trial}: ", "")
    rows = [
        {"trial": row.number, "seed": row.seed, "epochs": row.epochs, "values": values_text(row.picked)}
        for row in trials[:_SHOWN]
    ]
    more = f", of which the first {_SHOWN} are shown" if len(trials) > _SHOWN else ""
    blocks: list[Block] = [Words(f"{_counted(len(trials), 'trial')}{more}: {head}", "warning"), rows_from("", rows)]
    if found := only_theirs(trials, well):
        blocks.append(Words(f"All of them, and no trial that went well, have {values_text(found)}."))
    if "\n" in error:
        blocks.append(Fold(f"The whole message of trial {trials[0].number}", error[-_LONGEST:]))
    return blocks


def _value(name: str, value: Any) -> str:
    if name == "command" and isinstance(value, list):
        return shlex.join(map(str, value))
    return ", ".join(map(str, value)) if isinstance(value, list) else shown(value)


def _text(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    more = len(text) - _LONGEST
    return text if more <= 0 else f"{text[:_LONGEST]}\n… {more} more characters in {path.name}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
