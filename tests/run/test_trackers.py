"""What experiment trackers hold in the end, read back by readers of their own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.config import Experiment, Trial
from harness.errors import StudyError
from harness.run import Resources, run_replicates, run_search
from harness.run.tracker_kinds import TRACKERS, Facts, MLflow, TensorBoard, WandB, flat, measured
from harness.run.trackers import Tracked, check_trackers
from harness.store import EpochRow, Record, StudyFolder, TrialRow

pytestmark = [
    # third-party noise
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
HERE = Resources("inprocess")
TRIAL = Trial(Experiment(), 0)
LR = {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}}


def epoch(number: int, score: float = 0.5, trial: str = TRIAL.id) -> EpochRow:
    return EpochRow(
        trial=trial,
        epoch=number,
        score=score,
        train_loss=1.0 / (number + 1),
        val_loss=1.5,
        terms={"cross_entropy": 0.7},
        iou={"Dry Grass": 0.25, "Sky": None},
        train_score=None,
        lr={"head": 0.001},
        train_seconds=2.0,
        val_seconds=1.0,
        images=6,
        peak_memory_mb=None,
        done=False,
    )


def end(outcome: str = "complete", error: str | None = None, trial: str = TRIAL.id, epochs: int = 3) -> TrialRow:
    return TrialRow(
        trial=trial,
        number=4,
        outcome=outcome,
        seed=0,
        picked={"lr": 0.1},
        score=None if error else 0.9,
        best_epoch=None if error else 2,
        epochs=epochs,
        seconds=9.0,
        error=error,
    )


FACTS = Facts(TRIAL.id, 4, 0, {"lr": 0.1, "head": "linear"}, TRIAL.experiment.model_dump(mode="json"))


@pytest.fixture(autouse=True)
def nothing_leaves_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    # neither a login nor settings of the user's own
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def scalars(folder: StudyFolder, trial: str) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of a trial; a step that is there twice is a fault."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder.path / "tensorboard" / trial))
    events.Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert all(len(dict(values)) == len(values) for values in found.values())
    return {tag: dict(values) for tag, values in found.items()}


def texts(folder: StudyFolder, trial: str) -> dict[str, str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder.path / "tensorboard" / trial))
    events.Reload()
    tags = events.Tags()["tensors"]
    return {tag.split("/")[0]: events.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in tags}


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory) -> Path:
    """A database with MLflow's tables, which take seconds to make."""
    folder = StudyFolder(tmp_path_factory.mktemp("mlflow"))
    MLflow(folder).client.search_experiments()
    return folder.path / "mlflow.db"


@pytest.fixture
def mlflow_here(folder, empty_mlflow) -> StudyFolder:
    """A study folder whose MLflow has its tables."""
    shutil.copy(empty_mlflow, folder.path / "mlflow.db")
    return folder


@pytest.fixture
def mlflow_elsewhere(tmp_path, empty_mlflow, monkeypatch) -> None:
    """MLflow at an address of the user's."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shutil.copy(empty_mlflow, tmp_path / 'elsewhere.db')}")


def mlflow_client(folder: StudyFolder):
    import mlflow

    here = f"sqlite:///{folder.path.resolve() / 'mlflow.db'}"
    return mlflow.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or here)


def mlflow_runs(folder: StudyFolder) -> dict:
    client = mlflow_client(folder)
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    runs = {run.data.tags["harness.trial"]: run for run in found}
    assert len(runs) == len(found)
    return runs


def mlflow_history(folder: StudyFolder, run, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in mlflow_client(folder).get_metric_history(run.info.run_id, name)]


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log after seven bytes of header: pieces, each with its own, in blocks of 32 KiB."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        # 1: full, 2: first, 3: middle, 4: last
        if kind in (1, 4):
            yield whole
            whole = b""


def finished_records(path: Path) -> list:
    """A run's records once its exit is there: W&B's own process writes them, after `finish` has returned."""
    from wandb.proto import wandb_internal_pb2

    for _ in range(300):
        records = [wandb_internal_pb2.Record.FromString(data) for data in leveldb_records(path.read_bytes())]
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{path} was never finished")


def wandb_runs(folder: StudyFolder) -> dict[str, list[dict]]:
    """Run id to what each of its offline folders holds, in order: config, summary, and rows by step."""
    found: dict[str, list[dict]] = {}
    for path in sorted(folder.path.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        run = {"config": {}, "summary": {}, "rows": {}, "group": None, "exit": None}
        for record in finished_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run["group"], run_id = record.run.run_group, record.run.run_id
                run["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "history":
                items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                assert record.history.step.num not in run["rows"]
                run["rows"][record.history.step.num] = items
            elif kind == "summary":
                run["summary"] |= {i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.summary.update}
            elif kind == "exit":
                run["exit"] = record.exit.exit_code
        found.setdefault(run_id, []).append(run)
    return found


def test_the_numbers_of_an_epoch_leave_out_what_was_not_measured():
    assert measured(epoch(1, 0.4)) == {
        "score": 0.4,
        "train_loss": 0.5,
        "val_loss": 1.5,
        "train_seconds": 2.0,
        "val_seconds": 1.0,
        "terms/cross_entropy": 0.7,
        "lr/head": 0.001,
        "iou/Dry Grass": 0.25,
    }


def test_an_experiment_is_flattened_by_dotted_names_and_lists_stay_whole():
    values = {"a": {"b": 1, "c": {"d": None}}, "e": [1, 2], "f": {}}
    assert flat(values, "x") == {"x.a.b": 1, "x.a.c.d": None, "x.e": [1, 2], "x.f": {}}


def test_tensorboard_shows_every_epoch_once_after_a_pause_and_after_a_resume(folder):
    rows = [epoch(n, n / 10) for n in range(4)]
    first = TensorBoard(folder)
    first.started(FACTS, [])
    first.epoch(rows[0])
    first.epoch(rows[1])
    first.paused(TRIAL.id)
    first.started(FACTS, rows[:2])
    first.epoch(rows[2])
    # the driver is killed, and its last epoch with it
    first.close()
    second = TensorBoard(folder)
    second.started(FACTS, rows[:2])
    second.epoch(rows[2])
    second.epoch(rows[3])
    second.ended(end())
    second.close()
    shown = scalars(folder, TRIAL.id)
    assert shown["score"] == pytest.approx({n: n / 10 for n in range(4)})
    assert shown["train_loss"] == pytest.approx({n: 1 / (n + 1) for n in range(4)})
    assert set(shown) == set(measured(rows[0]))
    said = texts(folder, TRIAL.id)
    assert json.loads(said["picked"]) == {"lr": 0.1, "head": "linear"}
    assert "batch_size" in said["experiment"] and said["outcome"] == "complete"


def test_mlflow_holds_a_run_for_the_study_with_one_for_each_trial_inside_and_continues_them(mlflow_here):
    folder = mlflow_here
    first = MLflow(folder)
    first.started(FACTS, [])
    first.epoch(epoch(1, 0.1))
    first.epoch(epoch(2, 0.2))
    first.paused(TRIAL.id)
    assert mlflow_runs(folder)[TRIAL.id].info.status == "SCHEDULED"
    # a new process: the run is found by its tags, and of the journal's rows only the third is new
    second = MLflow(folder)
    second.started(FACTS, [epoch(n, n / 10) for n in (1, 2, 3)])
    second.epoch(epoch(4, 0.4))
    second.ended(end(epochs=4))
    second.close()
    runs = mlflow_runs(folder)
    assert set(runs) == {"study", TRIAL.id}
    run = runs[TRIAL.id]
    assert run.data.tags["mlflow.parentRunId"] == runs["study"].info.run_id
    assert mlflow_history(folder, run, "score") == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    assert mlflow_history(folder, run, "iou/Dry Grass") == [(n, 0.25) for n in (1, 2, 3, 4)]
    assert (run.data.params["picked.lr"], run.data.params["seed"]) == ("0.1", "0")
    assert run.data.params["experiment.training.batch_size"] == str(TRIAL.experiment.training.batch_size)
    assert (run.data.metrics["best_score"], run.data.tags["outcome"], run.info.status) == (0.9, "complete", "FINISHED")
    assert runs["study"].info.status == "FINISHED"


def test_mlflow_marks_a_failed_trial_and_says_why_whatever_its_classes_are_called(mlflow_here):
    folder = mlflow_here
    tracker = MLflow(folder)
    tracker.started(FACTS, [])
    tracker.epoch(epoch(1).model_copy(update={"iou": {"Rocks & Büsche [big]": 0.5}}))
    tracker.ended(end("failed", "the loss became nan"))
    run = mlflow_runs(folder)[TRIAL.id]
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "the loss became nan")
    assert run.data.metrics["iou/Rocks _ Büsche _big_"] == 0.5


def test_wandb_offline_holds_every_epoch_at_its_own_step_and_the_last_folder_the_whole(folder):
    first = WandB(folder)
    first.started(FACTS, [])
    first.epoch(epoch(1, 0.1))
    first.epoch(epoch(2, 0.2))
    first.paused(TRIAL.id)
    second = WandB(folder)
    second.started(FACTS, [epoch(1, 0.1), epoch(2, 0.2)])
    second.epoch(epoch(3, 0.3))
    second.ended(end("failed", "broken"))
    second.close()
    ((run_id, folders),) = wandb_runs(folder).items()
    assert run_id == f"study-{TRIAL.id}"
    assert [sorted(run["rows"]) for run in folders] == [[1, 2], [1, 2, 3]]
    last = folders[-1]
    assert [last["rows"][n]["score"] for n in (1, 2, 3)] == [0.1, 0.2, 0.3]
    assert last["rows"][3]["iou/Dry Grass"] == 0.25 and last["rows"][3]["lr/head"] == 0.001
    assert last["group"] == "study"
    assert last["config"]["picked"] == {"lr": 0.1, "head": "linear"}
    assert last["config"]["experiment"] == FACTS.experiment
    assert (last["summary"]["outcome"], last["summary"]["error"], last["exit"]) == ("failed", "broken", 1)


def test_a_search_with_pauses_that_is_resumed_is_whole_in_every_tracker(results, tiny_space, console, mlflow_elsewhere):
    study, names = StudyFolder(results / "hunt"), ("tensorboard", "mlflow", "wandb")
    space = tiny_space(parameters=LR, trials=3)
    space = space.model_copy(update={"search": space.search.model_copy(update={"strategy": "random_promote"})})
    run_search(study, space, HERE, console, seed=0, trackers=names)
    more = space.model_copy(update={"search": space.search.model_copy(update={"trials": 5})})
    # event files are named by the second, and another driver has never started within the same one
    time.sleep(1.0)
    run_search(study, more, HERE, console, seed=0, trackers=names, resume=True)
    record, runs, offline = Record(study), mlflow_runs(study), wandb_runs(study)
    assert len(record.ended) == 5 and {row.outcome for row in record.ended.values()} == {"complete", "stopped"}
    assert set(runs) == {"hunt", *record.ended}
    for trial, rows in record.epochs.items():
        scores = {row.epoch: row.score for row in rows}
        assert scalars(study, trial)["score"] == pytest.approx(scores)
        assert dict(mlflow_history(study, runs[trial], "score")) == scores
        assert len(mlflow_history(study, runs[trial], "score")) == len(scores)
        last = offline[f"hunt-{trial}"][-1]
        assert {step: row["score"] for step, row in last["rows"].items()} == scores
        ended = record.ended[trial]
        assert runs[trial].data.tags["outcome"] == last["summary"]["outcome"] == ended.outcome
        assert texts(study, trial)["outcome"] == ended.outcome
        assert float(runs[trial].data.params["picked.lr"]) == last["config"]["picked"]["lr"] == ended.picked["lr"]


def test_arms_are_tracked_by_their_names(results, tiny, console, mlflow_elsewhere):
    study = StudyFolder(results / "final")
    run_replicates(study, tiny(), range(2), HERE, console, trackers=["mlflow"])
    params = [run.data.params for name, run in mlflow_runs(study).items() if name != "final"]
    assert sorted((p["picked.arm"], p["picked.seed"]) for p in params) == [("final", "0"), ("final", "1")]


class Broken:
    """A tracker whose server is gone after the first epoch."""

    name, errors = "broken", (ConnectionError,)

    def __init__(self, folder: StudyFolder) -> None:
        self.calls: list[str] = []

    def started(self, facts: Facts, rows: list[EpochRow]) -> None:
        self.calls.append("started")

    def epoch(self, row: EpochRow) -> None:
        self.calls.append(f"epoch {row.epoch}")
        if row.epoch == 2:
            raise ConnectionResetError("the server\nis gone")

    def paused(self, trial: str) -> None:
        self.calls.append("paused")

    def ended(self, row: TrialRow) -> None:
        self.calls.append("ended")

    def close(self) -> None:
        self.calls.append("closed")


def tracked(console, monkeypatch, kind=Broken) -> Tracked:
    monkeypatch.setitem(TRACKERS, "broken", (kind, "json"))
    study = SimpleNamespace(folder=StudyFolder(Path("hunt")), record=SimpleNamespace(epochs={}, ended={}))
    return Tracked(["broken"], study, lambda study, trial: (0, {}), console)


def test_a_tracker_whose_server_is_gone_is_switched_off_and_that_is_said_twice(console, monkeypatch):
    with tracked(console, monkeypatch) as shown:
        (broken,) = shown.trackers
        shown.started(TRIAL)
        for number in (1, 2, 3):
            shown.epoch(epoch(number))
        shown.ended(TRIAL.id, end())
    assert broken.calls == ["started", "epoch 1", "epoch 2"]
    assert console.file.getvalue().splitlines() == [
        "tracker broken is switched off, the study goes on: the server",
        "tracker broken missed the end of this study: the server",
    ]


def test_a_fault_of_our_own_is_not_hidden_as_a_lost_server(console, monkeypatch):
    class Ours(Broken):
        def started(self, facts, rows):
            raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"), tracked(console, monkeypatch, Ours) as shown:
        shown.started(TRIAL)


def test_the_epoch_of_a_checkpoint_that_is_yielded_again_is_not_sent_again(console, monkeypatch):
    with tracked(console, monkeypatch) as shown:
        (broken,) = shown.trackers
        shown.study.record.epochs[TRIAL.id] = [epoch(1)]
        shown.started(TRIAL)
        shown.epoch(epoch(1))
        shown.ended(TRIAL.id, None)
    assert broken.calls == ["started", "paused", "closed"]


def test_values_that_make_no_experiment_are_started_and_ended(console, monkeypatch):
    with tracked(console, monkeypatch) as shown:
        (broken,) = shown.trackers
        shown.ended("invalid-3", end("failed", "they exclude each other", trial="invalid-3", epochs=0))
    assert broken.calls == ["started", "ended", "closed"]


def test_an_mlflow_server_that_is_not_there_ends_no_study(results, tiny, console, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    study = run_replicates(StudyFolder(results / "one"), tiny(), range(1), HERE, console, trackers=["mlflow"])
    assert [row.outcome for row in study.record.ended.values()] == ["complete"]
    assert console.file.getvalue().count("tracker mlflow") == 2


@pytest.mark.parametrize(
    ("name", "variables", "missing", "words"),
    [
        ("tensorbord", {}, None, "tensorbord: there is no such tracker; did you mean 'tensorboard'"),
        ("tensorboard", {}, "tensorboard", r"tensorboard: its library is not installed .*'harness\[trackers\]'"),
        ("mlflow", {}, "mlflow", r"mlflow: its library is not installed .* pip install 'harness\[trackers\]'"),
        ("wandb", {}, "wandb", r"wandb: its library is not installed .* pip install 'harness\[trackers\]'"),
        ("wandb", {"WANDB_MODE": "online"}, None, "nobody is logged in; run `wandb login`, or set WANDB_MODE=offline"),
        ("mlflow", {"MLFLOW_TRACKING_URI": "bogus://x"}, None, "MLFLOW_TRACKING_URI=bogus://x cannot be used"),
    ],
)  # fmt: skip
def test_a_tracker_that_cannot_work_is_refused_before_anything_is_written(
    results, tiny, console, monkeypatch, name, variables, missing, words
):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    if missing is not None:
        for module in [m for m in sys.modules if m.split(".")[0] == missing or m.startswith("torch.utils.tensorboard")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(StudyError, match=words) as refused:
        run_replicates(StudyFolder(results / "one"), tiny(), range(1), HERE, console, trackers=[name])
    assert refused.value.exit_code == 2
    assert not results.exists()
    with pytest.raises(StudyError, match=words):
        check_trackers([name])


def test_a_plain_study_loads_no_trackers_library_and_connects_to_nothing(results, tiny_space, console, monkeypatch):
    for name in ("wandb", "mlflow", "tensorboard", "tensorboardX", "torch.utils.tensorboard"):
        # whoever imports it now ends the study
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a plain study opened a connection"))
    study = StudyFolder(results / "plain")
    run_search(study, tiny_space(parameters=LR, trials=2), HERE, console, seed=0)
    assert len(Record(study).ended) == 2
    written = {path.name for path in study.path.iterdir()}
    assert not written & {"wandb", "mlflow.db", "mlruns", "tensorboard"}


def test_a_search_that_is_not_tracked_asks_its_study_nothing(console):
    with Tracked([], SimpleNamespace(), None, console) as shown:
        shown.started(TRIAL)
        shown.epoch(epoch(1))
        shown.ended(TRIAL.id, end())
        shown.ended("invalid-1", end("failed", "no", trial="invalid-1"))
    assert isinstance(shown, Tracked) and console.file.getvalue() == ""
