"""Study folders from elsewhere: nothing outside them is read or written, and their words are words."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from harness.cli.app import console
from harness.cli.inputs import study_folder
from harness.config import (
    Ablation,
    AblationSettings,
    Experiment,
    ReplicateSettings,
    SearchSettings,
    Space,
    Trial,
    dump_yaml,
    parse_yaml,
    validate_section,
)
from harness.data import write_desert
from harness.engine.checkpoint import pack_weights
from harness.errors import ConfigError, DataError, StudyError
from harness.models import build_model
from harness.report import replicates_summary, search_summary
from harness.report.failures import failures
from harness.report.records import read_ablation
from harness.search import Search
from harness.store import EpochRow, Record, RunFolder, StudyFolder, TrialRow, check_links, checked_name, experiment_text

LEADS_OUT = [
    "../../elsewhere",
    "/etc",
    "..",
    ".",
    "",
    "a/b",
    "a\0b",
    "a\nb",
    "a\x1b[2Jb",
    "x" * 300,
    "\udcff",
    "runs/..",
]
FIELDS = {
    "data": {"synthetic": {"train": 2, "val": 1, "test": 1, "height": 32, "width": 48}, "input_size": [32, 48]},
    "model": {"kind": "backbone", "backbone": "test_efficientnet", "weights": "none", "trainable_blocks": "all",
              "stride": 8, "head": {"kind": "linear"}},
    "training": {"epochs": 1, "batch_size": 1},
}  # fmt: skip
EXPERIMENT = validate_section(Experiment, FIELDS, "tiny")
SPACE = {
    "experiment": FIELDS,
    "parameters": {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}},
}


def trial_row(trial: str, number: int = 0, **changes: object) -> TrialRow:
    row = TrialRow(
        trial=trial, number=number, outcome="complete", seed=0, picked={"lr": 0.01}, score=0.5, best_epoch=1, epochs=1,
        seconds=1.0, error=None,
    )  # fmt: skip
    return row.model_copy(update=changes)


def epoch_row(trial: str) -> EpochRow:
    return EpochRow(
        trial=trial, epoch=1, score=0.5, train_loss=1.0, val_loss=1.0, terms={}, iou={}, train_score=None, lr={},
        train_seconds=1.0, val_seconds=1.0, images=2, peak_memory_mb=None, done=True,
    )  # fmt: skip


def write_run(folder: RunFolder) -> None:
    folder.create(Trial(EXPERIMENT, 0))
    folder.best.write_bytes(pack_weights(build_model(EXPERIMENT.model, 10), {"epoch": 1, "score": 0.5}))


@pytest.fixture
def hunt(results: Path) -> StudyFolder:
    """A search of one trial, on paper, with its run."""
    folder = StudyFolder(results / "hunt")
    folder.path.mkdir(parents=True)
    space = validate_section(Space, SPACE, "space")
    settings = SearchSettings(space=space, seed=0, dataset="d")
    folder.settings.write_text(dump_yaml(settings.model_dump(mode="json")))
    folder.trials.append(trial_row("one-s0"))
    folder.epochs.append(epoch_row("one-s0"))
    write_run(folder.run("one-s0"))
    return folder


@pytest.fixture
def elsewhere(hunt: StudyFolder, tmp_path: Path) -> Path:
    """A whole run outside the study: what would be read or written if a path led there."""
    shutil.copytree(hunt.run("one-s0").path, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "secret.txt").write_text("a secret\n")
    return tmp_path / "elsewhere"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((32, 48, 3), np.uint8))
    return tmp_path / "image.png"


def commands(hunt: StudyFolder, image: Path, out: Path) -> list[tuple[object, ...]]:
    """Every command that opens a study."""
    out.mkdir(exist_ok=True)
    return [
        ("export", "hunt", "-o", out / "best.yaml"),
        ("evaluate", "hunt"),
        ("evaluate", hunt.path),
        ("predict", "hunt", image, "-o", out),
        ("rerun", "hunt", "0"),
        ("rerun", hunt.path, "0"),
        ("report", "ablation", "hunt"),
    ]


@pytest.mark.parametrize("name", LEADS_OUT)
def test_a_name_that_leads_out_of_a_study_makes_no_path(tmp_path: Path, name: str) -> None:
    for make in (StudyFolder(tmp_path).run, RunFolder(tmp_path / "runs" / "a").frozen, checked_name, study_folder_of):
        with pytest.raises(StudyError, match="cannot be the name of a study or of something in it"):
            make(name)


def study_folder_of(name: str) -> StudyFolder:
    # without a name the folder is called after its file, whose name may be anything
    return study_folder(name or None, "a/b")


@pytest.mark.parametrize("name", ["a", "größe", "0 CE+Dice", "[red]x", "a b", "-x", "..a", "a?b", "100%", "x" * 200])
def test_any_other_name_is_a_folder_in_the_study(tmp_path: Path, name: str) -> None:
    assert StudyFolder(tmp_path).run(name).path == tmp_path / "runs" / name


@pytest.mark.parametrize("command", ["search", "train", "ablate"])
def test_a_study_cannot_be_called_like_a_path(
    harness, hunt, results: Path, tmp_path: Path, untouched: Callable, command: str
) -> None:
    (tmp_path / "e.yaml").write_text(dump_yaml(EXPERIMENT.model_dump(mode="json")))
    (tmp_path / "s.yaml").write_text(dump_yaml(validate_section(Space, SPACE, "s").model_dump(mode="json")))
    arms = {"a": {"set": {"optimiser.lr": 0.1}}, "b": {"set": {"optimiser.lr": 0.2}}}
    (tmp_path / "a.yaml").write_text(
        dump_yaml({"arms": arms, "design": {"kind": "arms", "baseline": "a", "arms": ["b"]}})
    )
    file = {"search": "s.yaml", "train": "e.yaml", "ablate": "a.yaml"}[command]
    with untouched(tmp_path / "nothing"):
        for name in ("../../x", str(tmp_path / "x"), "..", "a/../../x", "a\nb"):
            said = harness(command, tmp_path / file, f"--name={name}", "--executor", "inprocess")
            assert (said.code, said.out) == (2, "")
            assert "cannot be the name of a study" in said.err and said.err.count("\n") == 1


@pytest.mark.parametrize("word", ["../../../elsewhere", "../../elsewhere", "/", "..", "a/b", "", "\0"])
def test_a_run_outside_the_study_is_not_trained_again(
    harness, hunt, elsewhere: Path, untouched: Callable, word: str
) -> None:
    with untouched(hunt.path / "runs"):
        said = harness("rerun", "hunt", word)
    assert said.code == 2 and "study 'hunt' has no trial" in said.err


@pytest.mark.parametrize("name", ["../../../elsewhere", "{}/elsewhere", "..", "a\nb", "a\x1b[2J"])
def test_a_journal_that_names_a_run_elsewhere_leads_nowhere(
    harness, hunt, elsewhere: Path, image: Path, tmp_path: Path, untouched: Callable, name: str
) -> None:
    out = tmp_path / "out"
    name = name.format(tmp_path)
    hunt.trials.path.unlink()
    hunt.trials.append(trial_row(name))
    hunt.epochs.append(epoch_row(name))
    with untouched(out):
        for words in commands(hunt, image, out):
            said = harness(*words)
            assert "\x1b" not in said.out + said.err
            assert said.code == 2
            assert "cannot be the name of a study" in said.err or words[0] in ("rerun", "report")


PLACES = (
    "runs/one-s0", "runs", "study.yaml", "epochs.jsonl", "trials.jsonl", "optuna.db", "report", "tiles", "driver.lock",
    "best.yaml", "runs/one-s0/best.safetensors", "runs/one-s0/evaluation-val.json", "runs/one-s0/experiment.yaml",
    "runs/one-s0-rerun-1",
)  # fmt: skip


def put_link(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("target", ["secret.txt", ".", "not there", "../elsewhere"])
def test_a_link_out_of_a_study_is_found(hunt, elsewhere: Path, place: str, target: str) -> None:
    put_link(hunt.path / place, elsewhere / target)
    with pytest.raises(StudyError, match="a link that leads out of"):
        check_links(hunt.path)


@pytest.mark.parametrize(
    "place", ["runs/one-s0", "study.yaml", "epochs.jsonl", "report", "runs/one-s0/best.safetensors"]
)
def test_a_link_out_of_a_study_is_not_followed(
    harness, hunt, elsewhere: Path, image: Path, tmp_path: Path, untouched: Callable, place: str
) -> None:
    is_folder, out = place in ("runs/one-s0", "report"), tmp_path / "out"
    put_link(hunt.path / place, elsewhere / ("." if is_folder else "secret.txt"))
    with untouched(out):
        for words in commands(hunt, image, out):
            said = harness(*words)
            assert said.code == 2 and "a secret" not in said.err
            assert "a link that leads out of" in said.err


def test_a_run_folder_given_by_itself_is_looked_at_too(harness, hunt, elsewhere: Path, tmp_path: Path) -> None:
    run = hunt.path / "runs" / "two-s0"
    run.symlink_to(elsewhere)
    for words in (("evaluate", run), ("predict", run, tmp_path, "-o", tmp_path / "out"), ("export", run)):
        said = harness(*words)
        assert said.code == 2 and "two-s0': a link that leads out of" in said.err
    assert not (elsewhere / "evaluation-val.json").exists()


def test_a_link_within_a_study_and_a_study_that_is_a_link_are_fine(results: Path, hunt, tmp_path: Path) -> None:
    (hunt.path / "runs" / "again-s0").symlink_to("one-s0")
    (hunt.path / "best.safetensors").symlink_to(hunt.run("one-s0").best)
    (results / "linked").symlink_to(hunt.path)
    check_links(hunt.path)
    check_links(results / "linked")


@pytest.mark.parametrize("place", ["trials.jsonl", "runs/one-s0/confusion.npz"])
def test_a_pipe_in_a_study_is_refused_and_not_waited_for(harness, hunt, place: str) -> None:
    (hunt.path / place).unlink(missing_ok=True)
    os.mkfifo(hunt.path / place)
    said = harness("export", "hunt")
    assert said.code == 2 and "a link that leads out of" in said.err and "or no file" in said.err


@pytest.mark.parametrize("name", [n for n in LEADS_OUT if n not in ("\udcff", "a\0b")])
@pytest.mark.parametrize("kind", ["arms", "factors", "scale", "parameters", "replicates"])
def test_what_becomes_a_folder_a_column_and_a_comment_has_a_plain_name(name: str, kind: str) -> None:
    two = {name: {"set": {"optimiser.lr": 0.1}}, "b": {"set": {"optimiser.lr": 0.2}}}
    values = {
        "arms": {"arms": two, "design": {"kind": "arms", "baseline": name, "arms": ["b"]}},
        "factors": {"factors": two, "design": {"kind": "one_factor"}},
        "scale": {"factors": {"a": two["b"], "b": two["b"]}, "design": {"kind": "one_factor"}, "scale": {name: {}}},
        "parameters": {"parameters": {name: SPACE["parameters"]["lr"]}},
        "replicates": {"arms": {name: {}}, "dataset": "d"},
    }[kind]
    section = {"parameters": Space, "replicates": ReplicateSettings}.get(kind, Ablation)
    with pytest.raises(ConfigError, match=r"f: .*name .*; a name has no '/', no line break and 1 to 200 bytes"):
        validate_section(section, values, "f")


def test_a_study_whose_name_has_a_question_mark_keeps_its_storage_inside(tmp_path: Path) -> None:
    # SQLAlchemy takes what follows for options: three of these wrote a file beside the study
    names = ["100%", "a%20b", "a:b@c", "a?b", "a?mode=memory"]
    for name in names:
        folder = StudyFolder(tmp_path / name)
        folder.path.mkdir()
        Search(folder, validate_section(Space, SPACE, "space"), 0)
        assert folder.optuna.is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_comment_cannot_become_a_line_of_the_experiment() -> None:
    text = experiment_text(
        EXPERIMENT, "a\ntraining: {epochs: 99}", "b\x85data: 1", "c\u2028data: 1", "d\r\x1b[2Jdata: 1"
    )
    assert parse_yaml(text, "f")[0] == EXPERIMENT.model_dump(mode="json")
    assert text.startswith("# a\\ntraining: {epochs: 99}\n# b\\x85data: 1\n")


def on_a_terminal(shown: object) -> str:
    """What a terminal of colours gets, line breaks left out."""
    terminal = Console(file=io.StringIO(), force_terminal=True, width=200, markup=console._markup, emoji=console._emoji)
    terminal.print(shown)
    return terminal.file.getvalue().replace("\n", "")


WORDS = ["[red]x", "[link=file:///etc/passwd]x", "[/]", "[/red]", "[bold", ":bomb:", "[@click=app.quit]x"]


@pytest.mark.parametrize("word", WORDS)
def test_markup_in_a_studys_words_is_not_markup_on_the_screen(hunt, word: str) -> None:
    hunt.trials.append(trial_row("two-s0", 1, picked={"lr": word}))
    hunt.trials.append(trial_row("three-s0", 2, outcome="failed", error=f"it broke at {word}", picked={"lr": word}))
    for shown in (search_summary(hunt), replicates_summary(hunt), failures(hunt)):
        assert word in on_a_terminal(shown)


@pytest.mark.parametrize("word", [*WORDS, "\x1b[2J", "a\rb", "\u202eabc"])
def test_an_error_is_shown_as_it_is_but_for_what_cannot_be_seen(harness, word: str) -> None:
    said = harness("export", word)
    assert said.code == 2
    shown = word if word.isprintable() else repr(word)[1:-1]
    assert f"study '{shown}' does not exist" in said.err
    assert all(c.isprintable() or c == "\n" for c in said.err)


@pytest.mark.parametrize("word", ["[red]x", "[/red]", ":bomb:"])
def test_a_folder_of_frames_may_be_called_anything(harness, tmp_path: Path, word: str) -> None:
    folder = tmp_path / word
    write_desert(folder, train=1, val=1, test=1, height=32, width=48, seed=0)
    for words in (("check",), ("census",)):
        said = harness("data", *words, folder)
        assert said.code == 0
    masks = folder / "val" / "Segmentation"
    assert word in harness("score", masks, masks).out.replace("\n", "")
    next(masks.iterdir()).write_bytes(b"")
    assert word in harness("data", "check", folder).out.replace("\n", "")


@pytest.fixture
def ablation(results: Path) -> StudyFolder:
    """An ablation of two arms, on paper."""
    folder = StudyFolder(results / "arms")
    folder.path.mkdir(parents=True)
    arms = {"a": {"set": {"optimiser.lr": 0.1}}, "b": {"set": {"optimiser.lr": 0.2}}}
    values = {
        "ablation": {"arms": arms, "design": {"kind": "arms", "baseline": "a", "arms": ["b"]}},
        "scale": "full", "seeds": 1, "dataset": "d",
    }  # fmt: skip
    settings = validate_section(AblationSettings, values, "settings")
    folder.settings.write_text(dump_yaml(settings.model_dump(mode="json")))
    record = Record(folder)
    for number, arm in enumerate("ab"):
        record.add_epoch(epoch_row(f"{arm}-s0"))
        record.end(f"{arm}-s0", number, 0, "complete", picked={"arm": arm})
        folder.run(f"{arm}-s0").path.mkdir(parents=True)
    return folder


def test_an_ablation_whose_epochs_are_lost_is_refused_with_the_file(harness, ablation: StudyFolder) -> None:
    ablation.epochs.path.write_bytes(ablation.epochs.path.read_bytes().splitlines(keepends=True)[0])
    said = harness("report", "ablation", "arms")
    assert said.code == 2 and "epochs.jsonl: no epoch of trial 'b-s0', which has ended" in said.err


def npz(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, matrices=array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x05\x06" + b"\0" * 18,
        b"\x93NUMPY\x01\x00",
        npz(np.zeros((2, 3, 4), np.int64))[:-30],
        npz(np.array([{"a": 1}], object)),
        npz(np.zeros((2, 3, 3), np.int64)),
        npz(np.zeros((2, 3, 4), np.float32)),
        npz(np.zeros(4, np.int64)),
        npz(np.zeros((1, 3, 4), np.int64)).replace(b"matrices", b"matrixes"),
        npz(np.zeros(1 << 28, np.int64)[: (1 << 27) + 9]),
    ],
    ids=[
        "empty",
        "no member",
        "cut",
        "torn",
        "objects",
        "square",
        "floats",
        "flat",
        "other name",
        "a gigabyte of zeros",
    ],
)
def test_confusion_matrices_that_are_none_are_refused_with_their_file(ablation: StudyFolder, content: bytes) -> None:
    ablation.run("a-s0").confusion.write_bytes(content)
    with pytest.raises(StudyError, match=r"confusion\.npz: (damaged|.* are no confusion matrices)"):
        read_ablation(ablation)


@pytest.mark.parametrize("words", [("rerun", "hunt", "0"), ("report", "hunt"), ("export", "hunt", "--card", "card.md")])
@pytest.mark.parametrize(
    "about",
    [
        "", "[]", "{", '{"resources": 3}', '{"resources": {"cpus_per_trial": "x"}}', "[" * 9999, '{"sessions": [1]}',
        '{"resources": {"cpus_per_trial": Infinity}}',
    ],
)  # fmt: skip
def test_provenance_that_is_damaged_is_refused_with_its_file(
    harness, hunt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, about: str, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    hunt.provenance.write_text(about)
    said = harness(*words)
    assert said.code == 2 and "provenance.json: damaged" in said.err


def test_a_million_cores_in_a_provenance_are_those_of_this_machine(
    harness, hunt, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr("harness.cli.rerun._train", lambda *_: None)
    hunt.provenance.write_text(json.dumps({"resources": {"cpus_per_trial": 10**9}}))
    harness("rerun", "hunt", "0")
    assert asked == [os.cpu_count()]


def test_a_run_without_a_seed_in_its_name_is_not_trained_again(harness, hunt) -> None:
    write_run(hunt.run("noseed"))
    said = harness("rerun", "hunt", "noseed")
    assert said.code == 2 and "'noseed' is no trial: its name does not end in -s and a seed" in said.err


@pytest.mark.parametrize("field", ["mask", "image"])
def test_frames_of_a_study_are_read_and_never_written(
    harness, hunt, tmp_path: Path, untouched: Callable, field: str
) -> None:
    run = hunt.run("one-s0")
    root = tmp_path / "frames"
    write_desert(root, train=1, val=1, test=1, height=32, width=48, seed=0)
    changed = validate_section(Experiment, FIELDS | {"data": FIELDS["data"] | {"root": str(root)}}, "f")
    run.experiment.write_text(dump_yaml(changed.model_dump(mode="json")))
    with untouched(hunt.path):
        assert harness("evaluate", "hunt").code == 0
    folder = "Segmentation" if field == "mask" else "Color_Images"
    next((root / "val" / folder).iterdir()).write_bytes(b"no picture")
    with untouched(hunt.path):
        said = harness("evaluate", "hunt")
    assert said.code == DataError.exit_code and "cut short or damaged" in said.err
