"""Scale: what the searcher's calls cost at 10,000 finished trials, journals and SQLite on disk included."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import optuna

from harness.bench.rows import Goal, Measured, Row, milliseconds
from harness.bench.timing import seconds_of
from harness.bench.workplace import Workplace
from harness.config import Space, apply_overrides
from harness.config.space import Strategy
from harness.search import Search
from harness.simulate.black_box import black_box_space
from harness.simulate.curves import ParametricCurves
from harness.simulate.executor import run_simulated
from harness.store import StudyFolder

TITLE = "Scale: the searcher's calls with thousands of finished trials"
_CALLS = {"next_trial": "next trial", "on_epoch": "an epoch with its rung decision", "on_end": "the end of a trial"}
_WORKERS = 4


@dataclass(frozen=True)
class Effort:
    """Trials that have ended, and further trials whose calls are timed."""

    ended: int
    further: int


FULL, QUICK = Effort(10_000, 150), Effort(40, 12)


def rows(place: Workplace, quick: bool = False) -> Iterator[Row]:
    """Three kinds of calls, of the default strategy and of the usual one, against a draw of Optuna's TPE."""
    for strategy in ("promote", "asha"):
        yield from strategy_rows(place, strategy, QUICK if quick else FULL)


def strategy_rows(place: Workplace, strategy: Strategy, effort: Effort) -> Iterator[Row]:
    """Run a study in virtual time to its end, then resume it with further trials and time those."""
    folder = StudyFolder(place.folder / strategy)
    folder.path.mkdir()
    place.console.print(f"scale: {effort.ended} trials of {strategy}", highlight=False)
    space = _space(strategy, effort.ended)
    run_simulated(Search(folder, space, seed=0), ParametricCurves(space, "hard", 0), _WORKERS)
    started = time.perf_counter()
    search = Search(folder, _space(strategy, effort.ended + effort.further), seed=0)
    opening = time.perf_counter() - started
    trace = run_simulated(search, ParametricCurves(space, "hard", 0), _WORKERS)
    peer = tpe_seconds(search, min(effort.further, 20))
    for call, words in _CALLS.items():
        note = (
            f"{len(space.parameters)} parameters; judged is the 99 % quantile; opening the study took {opening:.1f} s"
        )
        yield call_row(f"{words}, {strategy}, {effort.ended} trials ended", trace.calls[call], peer, note)


def call_row(what: str, seconds: Sequence[float], peer: Sequence[float], note: str) -> Row:
    """The slowest but one in a hundred of the calls, held against 50 ms."""
    middle, most = np.quantile(seconds, [0.5, 0.99])
    return Row(
        what=what,
        ours=f"{milliseconds(middle, 'a call')} (median)",
        theirs=f"{milliseconds(float(np.median(peer)), 'a draw of TPE over all of them, in memory')}",
        value=Measured(float(most)),
        unit="s",
        pairs=len(seconds),
        goal=Goal(0.05, at_least=False),
        note=note,
        why="SQLite and the journals wait for the disk at every commit",
    )


def tpe_seconds(search: Search, draws: int) -> list[float]:
    """Seconds of draws of Optuna's own TPE over the same trials in memory: what Ray's stock searcher does."""
    stored = optuna.load_study(study_name=search.folder.name, storage=f"sqlite:///{search.folder.optuna}")
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0), direction="maximize")
    ended = [trial for trial in stored.get_trials(deepcopy=False) if trial.state.is_finished()]
    study.add_trials(ended)
    distributions = ended[-1].distributions
    return [seconds_of(lambda: study.ask(distributions)) for _ in range(draws)]


def _space(strategy: Strategy, trials: int) -> Space:
    space = black_box_space()
    search = apply_overrides(space.search, {"strategy": strategy, "trials": trials})
    return space.model_copy(update={"search": search})
