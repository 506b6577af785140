"""Journals cut anywhere: what is whole is read, what follows is written, what is damaged is named."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.config import SearchSettings, Section, Space, dump_yaml, validate_section
from harness.errors import HarnessError, StudyError
from harness.search import Search, read_export
from harness.store import EpochRow, Journal, Record, StudyFolder, TrialRow

bounded = settings(max_examples=60, deadline=None, derandomize=True, database=None)
SPACE: dict[str, Any] = {
    "experiment": {"training": {"epochs": 4}},
    "search": {"trials": 4, "reduction_factor": 2},
    "parameters": {
        "head": {"kind": "choice", "field": "model.head.kind", "choices": ["linear", "conv_stack"]},
        "lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True},
    },
}


def epoch_row(trial: str = "t", epoch: int = 1, score: float = 0.5, done: bool = False) -> EpochRow:
    return EpochRow(
        trial=trial, epoch=epoch, score=score, train_loss=1.25, val_loss=1.5, terms={"dice": 0.75},
        iou={"Sky": 0.875, "Größe\n": None}, train_score=None, lr={"head": 1e-4}, train_seconds=2.0, val_seconds=0.5,
        images=4, peak_memory_mb=None, done=done,
    )  # fmt: skip


def trial_row(number: int = 0) -> TrialRow:
    return TrialRow(
        trial=f"t{number}", number=number, outcome="complete", seed=0, picked={"lr": 0.1, "head": "a\nb"}, score=0.5,
        best_epoch=1, epochs=2, seconds=5.0, error=None,
    )  # fmt: skip


ROWS: dict[str, list[Section]] = {
    "epochs.jsonl": [epoch_row(epoch=n) for n in (1, 2)],
    "trials.jsonl": [trial_row(n) for n in range(2)],
}


@pytest.fixture(params=list(ROWS))
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Journal, list[Section]]:
    """A journal of two rows."""
    rows = ROWS[request.param]
    journal = Journal(tmp_path / request.param, type(rows[0]))
    for row in rows:
        journal.append(row)
    return journal, rows


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def test_a_journal_cut_at_any_byte_is_read_up_to_there_and_goes_on(written: tuple[Journal, list[Section]]) -> None:
    journal, rows = written
    whole = journal.path.read_bytes()
    for end in range(len(whole) + 1):
        journal.path.write_bytes(whole[:end])
        kept = rows[: whole[:end].count(b"\n")]
        assert journal.read() == kept
        journal.append(rows[0])
        assert journal.read() == [*kept, rows[0]]


def test_a_journal_damaged_at_any_byte_is_refused_with_its_line_or_reads_as_other_rows(
    written: tuple[Journal, list[Section]],
) -> None:
    journal, rows = written
    whole = journal.path.read_bytes()
    for at in range(len(whole)):
        journal.path.write_bytes(whole[:at] + b"\x00" + whole[at + 1 :])
        line = whole[:at].count(b"\n") + 1
        if at == len(whole) - 1:
            # without its end the last line is one that was cut short
            assert journal.read() == rows[:-1]
            continue
        with pytest.raises(StudyError, match=rf"{journal.path.name}:{line}: not a .*Row: .*restore it"):
            journal.read()


lines = (
    st.binary(max_size=40).filter(lambda b: b"\n" not in b)
    | st.sampled_from(
        [b"{}", b"[]", b"null", b"NaN", b'{"trial": "\\ud800"}', b"\xef\xbb\xbf{}", b"[" * 5000, b"9" * 9999]
    )
    | st.dictionaries(st.sampled_from(list(TrialRow.model_fields)), st.integers() | st.text(max_size=3)).map(
        lambda d: json.dumps(d).encode()
    )
)


@bounded
@given(lines)
@example(trial_row().model_dump_json().replace("0.5", "NaN").encode())
@example(trial_row().model_dump_json().replace('"seed":0', '"seed":' + "9" * 5000).encode())
@example(trial_row().model_dump_json().replace('"lr":0.1', '"lr":' + "[" * 500 + "]" * 500).encode())
@example(trial_row().model_dump_json().replace('"seed":0', '"seed":0,"more":1').encode())
def test_any_line_between_two_rows_is_refused_with_its_number(
    tmp_path_factory: pytest.TempPathFactory, line: bytes
) -> None:
    journal = Journal(tmp_path_factory.getbasetemp() / "between.jsonl", TrialRow)
    row = trial_row().model_dump_json().encode()
    journal.path.write_bytes(b"\n".join([row, line, row, b""]))
    with pytest.raises(StudyError, match=r"between\.jsonl:2: not a TrialRow: "):
        journal.read()


def test_a_folder_in_the_place_of_a_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").mkdir()
    with pytest.raises(StudyError, match=r"trials\.jsonl: cannot be read \(Is a directory\)"):
        StudyFolder(tmp_path).trials.read()


def run_on(search: Search, scores: Callable[[str, int], float], epochs: int) -> None:
    """Train on paper: each trial goes on until it is stopped, for so many epochs in all."""
    while epochs > 0 and (trial := search.next_trial()) is not None:
        known = search.record.epochs.get(trial.id, [])
        epoch = known[-1].epoch if known else 0
        goes_on = True
        while goes_on and epoch < 4 and epochs > 0:
            epoch, epochs = epoch + 1, epochs - 1
            goes_on = search.on_epoch(epoch_row(trial.id, epoch, scores(trial.id, epoch), done=epoch == 4))
        if not goes_on:
            search.on_end(trial.id)


def score_of(trial: str, epoch: int) -> float:
    return (int(trial[:4], 16) % 97) / 100 + epoch / 1000


class Half:
    """A search of which so many epochs are trained, in a folder and a storage in memory."""

    def __init__(self, path: Path, strategy: str, epochs: int) -> None:
        values = SPACE | {"search": SPACE["search"] | {"strategy": strategy}}
        self.space = validate_section(Space, values, "space")
        path.mkdir()
        self.folder, self.storage = StudyFolder(path), optuna.storages.InMemoryStorage()
        settings_ = SearchSettings(space=self.space, seed=0, dataset="d")
        self.folder.settings.write_text(dump_yaml(settings_.model_dump(mode="json")))
        run_on(Search(self.folder, self.space, 0, storage=self.storage), score_of, epochs)
        self.journals = {
            p.name: p.read_bytes() for p in (self.folder.trials.path, self.folder.epochs.path) if p.exists()
        }

    def reopened_with(self, journals: dict[str, bytes]) -> Search:
        for name, content in journals.items():
            (self.folder.path / name).write_bytes(content)
        self.folder.best.unlink(missing_ok=True)
        return Search(self.folder, self.space, 0, storage=copy.deepcopy(self.storage))


def cuts(content: bytes) -> list[bytes]:
    """A journal cut after every row, after its first byte, in its middle, and before its end."""
    rows = content.split(b"\n")[:-1]
    starts = [sum(len(row) + 1 for row in rows[:n]) for n in range(len(rows))]
    return [content[: s + n] for s, row in zip(starts, rows, strict=True) for n in (0, 1, len(row) // 2, len(row))] + [
        content
    ]


@pytest.mark.parametrize(
    "strategy", ["promote", "random_promote", "model_asha", "asha", "random_asha", "tpe", "random"]
)
def test_a_search_whose_journals_are_cut_goes_on_to_its_end_or_is_refused(tmp_path: Path, strategy: str) -> None:
    half = Half(tmp_path / "hunt", strategy, epochs=7)
    names = list(half.journals)
    whole_rows = [[c for c in cuts(half.journals[n]) if not c or c.endswith(b"\n")] for n in names]
    single = [{**half.journals, name: cut} for name in names for cut in cuts(half.journals[name])]
    both = [dict(zip(names, chosen, strict=True)) for chosen in product(*whole_rows)]
    for journals in single + both:
        try:
            search = half.reopened_with(journals)
            run_on(search, score_of, 99)
        except StudyError:
            continue
        assert len(search.record.ended) == 4
        ended = [row.trial for row in half.folder.trials.read()]
        assert set(ended) == set(search.record.ended)
        for trial, rows in Record(half.folder).epochs.items():
            assert [row.epoch for row in rows] == list(range(1, len(rows) + 1)), trial


def test_a_search_cut_at_many_bytes_opens_or_is_refused(tmp_path: Path) -> None:
    half = Half(tmp_path / "hunt", "promote", epochs=5)
    for name, content in half.journals.items():
        for end in range(0, len(content), 23):
            with_cut = {**half.journals, name: content[:end]}
            try:
                half.reopened_with(with_cut)
                read_export(half.folder, 1)
            except StudyError:
                continue


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("filler", [None, b"\0", b"x"])
def test_a_search_whose_storage_is_damaged_opens_or_is_refused(
    tmp_path: Path, share: float, filler: bytes | None
) -> None:
    half = Half(tmp_path / "hunt", "promote", epochs=0)
    run_on(Search(half.folder, half.space, 0), score_of, 7)
    content = half.folder.optuna.read_bytes()
    cut = int(len(content) * share)
    half.folder.optuna.write_bytes(content[:cut] + (filler or b"") * (len(content) - cut))
    try:
        Search(half.folder, half.space, 0)
    except StudyError as error:
        assert "optuna.db" in str(error)


@bounded
@given(
    st.dictionaries(
        st.sampled_from(["head", "lr", "x"]),
        st.none() | st.text() | st.floats(allow_nan=False) | st.lists(st.integers()),
    )
)
def test_any_values_in_a_trials_row_export_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, picked: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile"
    shutil.rmtree(path, ignore_errors=True)
    half = Half(path, "random", epochs=0)
    half.folder.trials.append(trial_row().model_copy(update={"picked": picked}))
    try:
        text = read_export(half.folder, 1)
    except HarnessError:
        return
    body = [line for line in text.splitlines() if not line.startswith("# ")]
    assert body[0] == "data:"
