"""optuna-dashboard opens a study's storage as it is, and shows names, curves and states that people can read."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from urllib.error import URLError

import pytest

from harness.search import Search
from harness.store import EpochRow, StudyFolder

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("optuna_dashboard") is None, reason="optuna-dashboard is not installed"
)


@pytest.fixture
def hunt(folder: StudyFolder, make_space, row: Callable[..., EpochRow]) -> StudyFolder:
    """A search with trials that are complete, stopped, failed, and running still."""
    search = Search(folder, make_space(epochs=9), seed=0)
    for score in (0.1, 0.6, 0.2, 0.3):
        trial = search.next_trial().id
        epoch = 1
        while search.on_epoch(row(trial, epoch, score + epoch / 100, done=epoch == 9)):
            epoch += 1
        search.on_end(trial)
    search.on_end(search.next_trial().id, "the loss became nan")
    search.on_epoch(row(search.next_trial().id, 1, 0.4))
    return folder


@pytest.fixture
def ask(hunt: StudyFolder) -> Iterator[Callable[[str], dict]]:
    """Ask a running dashboard by path."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = "from optuna_dashboard._cli import main; main()"
    words = [f"sqlite:///{hunt.optuna}", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-c", run, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def get(path: str) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return json.load(answer)

    def is_up() -> bool:
        try:
            return bool(get("/api/studies"))
        except (URLError, ConnectionError):
            assert server.poll() is None, f"the dashboard ended with {server.returncode}"
            return False

    try:
        deadline = time.monotonic() + 120
        while not is_up():
            assert time.monotonic() < deadline, "the dashboard did not start"
            time.sleep(0.2)
        yield get
    finally:
        server.kill()
        server.wait()


def test_the_dashboard_shows_the_study_its_parameters_its_curves_and_its_states(hunt, make_space, ask):
    (summary,) = ask("/api/studies")["study_summaries"]
    assert summary["study_name"] == "hunt"
    assert summary["directions"] == ["maximize"]
    study = ask(f"/api/studies/{summary['study_id']}")
    rows, ends = hunt.epochs.read(), {end.trial: end for end in hunt.trials.read()}
    assert len(study["trials"]) == 6
    states = {}
    for trial in study["trials"]:
        facts = {fact["key"]: fact["value"] for fact in trial["user_attrs"]}
        states[trial["number"]] = trial["state"]
        curve = {point["step"]: point["value"] for point in trial["intermediate_values"]}
        assert curve == {row.epoch: row.score for row in rows if row.trial == facts["trial"]}
        shown = {param["name"]: param["param_external_value"] for param in trial["params"]}
        assert set(shown) <= set(make_space().parameters)
        if facts["trial"] in ends:
            picked = ends[facts["trial"]].picked
            assert set(shown) == set(picked) and shown["head"] == picked["head"]
            assert float(shown["lr"]) == picked["lr"]
    assert states == {0: "Complete", 1: "Complete", 2: "Pruned", 3: "Pruned", 4: "Fail", 5: "Running"}
    assert {end.number: end.outcome for end in ends.values()} == {
        0: "complete", 1: "complete", 2: "stopped", 3: "stopped", 4: "failed"
    }  # fmt: skip
    names = {param["name"] for param in study["union_search_space"]}
    assert names == {"head", "channels", "lr", "dice", "batch"}
