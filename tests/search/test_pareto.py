"""Two objectives: fronts against their definition, rungs, the model, resuming, and the front as the result."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness.config import SearchSettings, dump_yaml
from harness.errors import ConfigError, StudyError
from harness.report import search_summary
from harness.search import Search, read_export
from harness.search.model_per_rung import ModelPerRung
from harness.search.pareto import ParetoRungs, crowding, pareto_order
from harness.simulate.executor import MemoryFolder
from harness.store import StudyFolder
from harness.store.front import Costs, cost_of, front_of, fronts_of

LR = {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}}
BATCH = LR | {"batch": {"kind": "int", "field": "training.batch_size", "low": 1, "high": 64, "log": True}}
TWO = ["score", "parameters"]

points = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.5]), st.sampled_from([1.0, 2.0, 4.0, 8.0])), max_size=12)


def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] >= b[0] and a[1] <= b[1] and a != b


def peeled(all_points: list[tuple[float, float]]) -> list[int]:
    """By the definition: take those that no other beats away, again and again."""
    fronts, left, front = [-1] * len(all_points), set(range(len(all_points))), 0
    while left:
        best = {i for i in left if not any(beats(all_points[j], all_points[i]) for j in left)}
        for i in best:
            fronts[i] = front
        left, front = left - best, front + 1
    return fronts


@given(points)
def test_fronts_are_what_is_left_unbeaten_after_those_before_are_taken_away(all_points):
    assert fronts_of(all_points) == peeled(all_points)


def test_crowding_of_a_front_by_hand():
    front = [(0.5, 8.0), (0.4, 4.0), (0.3, 2.0), (0.1, 1.0)]
    # of (0.4, 4): (0.5 - 0.3) / 0.4 + (8 - 2) / 7; of (0.3, 2): (0.4 - 0.1) / 0.4 + (4 - 1) / 7
    np.testing.assert_allclose(crowding(front, [0] * 4), [np.inf, 0.5 + 6 / 7, 0.75 + 3 / 7, np.inf])
    mixed = [(0.5, 8.0), (0.05, 9.0), (0.4, 4.0), (0.3, 2.0), (0.1, 1.0)]
    np.testing.assert_allclose(
        crowding(mixed, [0, 1, 0, 0, 0])[[0, 1, 2, 3]], [np.inf, np.inf, 0.5 + 6 / 7, 0.75 + 3 / 7]
    )


@given(points)
def test_the_order_is_by_front_and_holds_every_point_once(all_points):
    order, fronts = pareto_order(all_points), fronts_of(all_points)
    assert sorted(order) == list(range(len(all_points)))
    assert [fronts[i] for i in order] == sorted(fronts)


def test_pareto_order_of_ten_thousand_points_is_that_of_their_fronts():
    rng = np.random.default_rng(0)
    many = list(zip(rng.random(10_000).tolist(), rng.random(10_000).tolist(), strict=True))
    front = [i for i, f in enumerate(fronts_of(many)) if f == 0]
    assert set(pareto_order(many)[: len(front)]) == set(front)
    assert not any(beats(many[j], many[i]) for i in front for j in front)


# ---- costs ---------------------------------------------------------------------------------------------------


def test_the_cost_is_the_mean_training_time_per_image_of_the_epochs_so_far(row):
    rows = [row("t", e, 0.5).model_copy(update={"train_seconds": s, "images": 100}) for e, s in ((1, 3.0), (2, 1.0))]
    costs = Costs("ms_per_image")
    # a resumed training yields its last row again
    assert [costs.add(r) for r in (rows[0], rows[1], rows[1])] == [30.0, 20.0, 20.0]
    assert cost_of("ms_per_image", rows) == 20.0
    assert Costs("parameters").add(rows[0].model_copy(update={"parameters": 7})) == 7.0


# ---- rungs ---------------------------------------------------------------------------------------------------


def test_a_cheap_trial_goes_on_although_its_score_is_lower_and_a_beaten_one_does_not():
    rungs = ParetoRungs(1, 2, 9, pauses=False)
    verdicts = [rungs.report(*r) for r in [("a", 1, 0.8, 10.0), ("b", 1, 0.5, 20.0), ("c", 1, 0.7, 12.0)]]
    assert verdicts == ["run", "stop", "stop"]
    assert rungs.report("cheap", 1, 0.2, 1.0) == "run"
    assert rungs.report("b", 1, 0.99, 0.1) == "stop"


def test_paused_trials_of_the_front_are_promoted_first():
    rungs = ParetoRungs(1, 3, 9, pauses=True)
    for report in [("a", 1, 0.8, 10.0), ("b", 1, 0.5, 20.0), ("c", 1, 0.2, 1.0), ("d", 1, 0.1, 2.0)]:
        assert rungs.report(*report) == "pause"
    assert rungs.promotable({"a": 1, "b": 1, "c": 1, "d": 1}) == "a"
    assert rungs.promotable({"b": 1, "c": 1, "d": 1}) is None
    rungs.report("e", 1, 0.05, 30.0), rungs.report("f", 1, 0.04, 30.0)
    assert rungs.promotable({"b": 1, "c": 1, "d": 1}) == "c"
    assert rungs.promotable({"b": 1, "d": 1}) is None


# ---- the model -----------------------------------------------------------------------------------------------


def test_the_model_draws_at_both_ends_of_the_front(make_space):
    # score rises and cost falls with the rate up to 0.5 of its range: above, they trade
    def last_draws(two: bool) -> np.ndarray:
        space = make_space(LR, strategy="promote", objectives=TWO if two else ["score"])
        source, drawn = ModelPerRung(space, [1, 3], seed=0), []
        for number in range(150):
            at = (np.log10(source.draw(number)["lr"]) + 4) / 3
            drawn.append(at)
            if two:
                source.costs(number, float(abs(at - 0.5) + (at > 0.5) * at))
            source.reported(number, 1, float(at))
        return np.array(drawn[-80:])

    one, both = last_draws(False), last_draws(True)
    assert np.mean((both > 0.4) & (both < 0.8)) > np.mean((one > 0.4) & (one < 0.8)) + 0.2
    assert np.mean(both < 0.4) < 0.3


# ---- the search ----------------------------------------------------------------------------------------------


def drive(search: Search, row, upto: int = 10_000) -> None:
    """Trials whose score and size both grow with the batch."""
    for _ in range(upto):
        trial = search.next_trial()
        if trial is None:
            return
        batch, lr = trial.experiment.training.batch_size, trial.experiment.optimiser.lr
        epoch = max(1, len(search.record.epochs.get(trial.id, [])))
        goes_on = True
        while goes_on:
            score = batch / 100 - abs(np.log10(lr) + 2) / 10 + epoch / 100
            goes_on = search.on_epoch(
                row(trial.id, epoch, float(score), epoch == 9).model_copy(update={"parameters": 1000 * batch})
            )
            epoch += 1
        search.on_end(trial.id)


@pytest.fixture
def open_search(tmp_path):
    """Open a search by name, in memory: the second time as a new process would."""
    folders, storages = {}, {}

    def opened(name: str, space) -> Search:
        (tmp_path / name).mkdir(exist_ok=True)
        folder = folders.setdefault(name, MemoryFolder(tmp_path / name))
        storage = storages.setdefault(name, optuna.storages.InMemoryStorage())
        return _opened(folder, space, storage)

    return opened


def _opened(folder: StudyFolder, space, storage) -> Search:
    settings = SearchSettings(space=space, seed=0, dataset="f00d")
    folder.settings.write_text(dump_yaml(settings.model_dump(mode="json")))
    return Search(folder, space, seed=0, storage=storage)


@pytest.mark.parametrize("strategy", ["promote", "model_asha", "random"])
def test_the_result_is_a_front_and_export_counts_along_it_from_the_best_score(strategy, make_space, open_search, row):
    space = make_space(BATCH, trials=30, strategy=strategy, objectives=TWO)
    search = open_search("hunt", space)
    drive(search, row)
    front = front_of(search.record, "parameters")
    scores, costs = [r.score for r, _ in front], [cost for _, cost in front]
    assert len(front) > 1
    assert scores == sorted(scores, reverse=True) and costs == sorted(costs, reverse=True)
    for rank, (best, _) in enumerate(front, 1):
        assert f"rank {rank} of study hunt: trial {best.number} " in read_export(search.folder, rank)
    with pytest.raises(StudyError, match=f"has {len(front)} trials on its front; give 1 to {len(front)}"):
        read_export(search.folder, len(front) + 1)


@pytest.mark.parametrize("strategy", ["promote", "model_asha"])
def test_a_resumed_search_draws_and_decides_as_an_undisturbed_one(strategy, make_space, open_search, row):
    space = make_space(BATCH, trials=30, strategy=strategy, objectives=TWO)
    drive(open_search("whole", space), row)
    for _ in range(25):
        drive(open_search("cut", space), row, 4)

    def ends(name: str) -> list[tuple]:
        rows = sorted(open_search(name, space).folder.trials.read(), key=lambda r: r.number)
        return [(r.number, r.trial, r.outcome, r.picked, r.score, r.epochs) for r in rows]

    assert ends("cut") == ends("whole") and len(ends("whole")) == 30


def test_with_one_objective_nothing_is_stored_of_costs(make_space, open_search, row):
    search = open_search("one", make_space(BATCH, trials=3, strategy="promote"))
    drive(search, row)
    assert not any("cost" in t.user_attrs for t in open_search("one", search.space).proposals.finished)
    assert search.costs is None and not search.proposals.source.cost_of


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"objectives": ["parameters"]}, r"objectives parameters: the first is score, the second ms_per_image or par"),
        ({"objectives": ["score", "score"]}, r"objectives score, score: the first is score, the second"),
        ({"objectives": []}, r"search\.objectives"),
        ({"objectives": ["score", "speed"]}, r"search\.objectives.*speed"),
        (
            {"objectives": TWO, "strategy": "asha"},
            r"strategy 'asha' knows one objective, not score, parameters; use one",
        ),
    ],
)
def test_objectives_that_no_strategy_has_are_refused(search, message, make_space):
    with pytest.raises(ConfigError, match=message):
        make_space(BATCH, **search)


def test_the_summary_prints_the_front_with_the_ranks_of_export(make_space, open_search, row):
    search = open_search("hunt", make_space(BATCH, trials=20, strategy="random", objectives=TWO))
    drive(search, row)
    console = Console(width=140)
    with console.capture() as capture:
        console.print(search_summary(search.folder))
    shown = capture.get().splitlines()
    start = next(i for i, line in enumerate(shown) if line.startswith("front: no trial is as good in both"))
    lines = [line.split() for line in shown[start + 2 : start + 2 + len(front_of(search.record, "parameters"))]]
    assert lines == [
        [str(rank), str(best.number), f"{best.score:.4f}", f"{cost:,.0f}"]
        for rank, (best, cost) in enumerate(front_of(search.record, "parameters"), 1)
    ]
