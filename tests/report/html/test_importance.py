"""Importance that counts stopped trials where they were seen: a planted effect must come out."""

from __future__ import annotations

import numpy as np
import pytest

from harness.report.html.importance import AtBudget as At
from harness.report.html.importance import Importance, agreement, budgets, importances
from harness.report.html.importance_fanova import Grid, fanova

NOISE = {f"n{i}": {"kind": "float", "field": f, "low": 0.0, "high": 1.0} for i, f in enumerate(
    ["loss.dice.weight", "loss.focal.weight", "optimiser.weight_decay"])}  # fmt: skip
LR = {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}}


def at(values: np.ndarray, cells: int = 16) -> np.ndarray:
    return (values * cells).astype(int)


def test_shares_of_an_additive_score_are_the_variances_of_its_parts() -> None:
    values = np.random.default_rng(0).random((600, 4))
    found = fanova(at(values), Grid(np.full(4, 16), np.ones(4, bool)), 2 * values[:, 0] + values[:, 1], seed=0)
    # variances 4/12 and 1/12
    assert found == pytest.approx([0.8, 0.2, 0, 0], abs=0.05)


def test_a_joint_effect_is_no_one_parameters_own() -> None:
    values = np.random.default_rng(1).random((600, 3))
    joint = ((values[:, 0] > 0.5) == (values[:, 1] > 0.5)).astype(float)
    found = fanova(at(values), Grid(np.full(3, 16), np.ones(3, bool)), joint, seed=0)
    assert found.max() < 0.15


def test_labels_have_no_order_and_each_has_an_equal_share_of_the_space() -> None:
    labels = np.random.default_rng(2).integers(0, 4, (400, 2))
    scores = np.array([0.0, 1.0, 0.0, 1.0])[labels[:, 0]]
    grid = Grid(np.array([4, 4]), np.zeros(2, bool))
    assert fanova(labels, grid, scores, seed=0) == pytest.approx([1.0, 0.0], abs=1e-9)


def test_scores_that_are_all_the_same_explain_nothing() -> None:
    cells = np.random.default_rng(3).integers(0, 16, (50, 2))
    assert fanova(cells, Grid(np.full(2, 16), np.ones(2, bool)), np.full(50, 0.3), seed=0).tolist() == [0, 0]


def test_fanova_agrees_with_optunas_own() -> None:
    rng = np.random.default_rng(4)
    values = rng.random((150, 4))
    scores = values @ np.array([1.0, 0.6, 0.0, 0.0]) + rng.normal(0, 0.05, 150)
    # FanovaImportanceEvaluator(seed=0, n_trees=32) of Optuna 5.0.0 with scikit-learn 1.9.1 (which the project does not
    # need) on these trials, each parameter a FloatDistribution(0, 1)
    theirs = np.array([0.7443, 0.1955, 0.0007, 0.0007])
    ours = fanova(at(values), Grid(np.full(4, 16), np.ones(4, bool)), scores, seed=0)
    assert ours / ours.sum() == pytest.approx(theirs / theirs.sum(), abs=0.05)


def planted(rng: np.random.Generator):
    """lr decides, on its own scale; all else is noise."""
    return lambda picked, epoch: float(
        (0.3 + 0.1 * (np.log10(picked["lr"]) + 4)) * (1 - 0.5 / epoch) + rng.normal(0, 0.01)
    )


@pytest.mark.parametrize("strategy", ["random", "random_asha"])
def test_a_planted_effect_is_found_at_every_budget_by_both_methods(search_of, strategy: str) -> None:
    search = search_of(LR | NOISE, strategy=strategy, epochs=4, reduction_factor=2)
    data = search.halving(120, planted(np.random.default_rng(0)), seed=1).read()
    found = importances(data)
    assert found[0].parameter == "lr"
    assert found[0].share[0] > 0.8 and found[0].share[1] > 0.5
    assert found[0].above_chance
    # the best of shuffled scores come near it no more than noise does
    assert all(one.share[0] < found[0].chance[0] + 0.1 for one in found[1:])
    for budget in found[0].budgets:
        others = [b.share for one in found[1:] for b in one.budgets if b.budget == budget.budget]
        assert all(budget.share[0] > share[0] for share in others), budget
    assert (len(data.of("stopped")) > 40) == (strategy == "random_asha")


def test_leaving_stopped_trials_out_hides_what_had_them_stopped(search_of) -> None:
    """Low rates are stopped at once; among those that went on, only the noise parameter n0 still tells."""
    rng = np.random.default_rng(5)
    search = search_of(LR | NOISE, epochs=4, strategy="random_asha")
    for _ in range(100):
        good = rng.random() < 0.4
        picked = {"lr": float(10 ** rng.uniform(-1.5, -1) if good else 10 ** rng.uniform(-4, -1.5))}
        picked |= {f"n{i}": float(rng.random()) for i in range(3)}
        score = (0.6 if good else 0.3) + 0.05 * picked["n0"] + float(rng.normal(0, 0.003))
        search.trial(picked, [score] * 4 if good else [score], "complete" if good else "stopped")
    data = search.read()
    kept = importances(data)
    shares = {one.parameter: one.share[0] for one in kept}
    assert shares["lr"] > shares["n0"]
    survivors = {one.parameter: b.share[0] for one in kept for b in one.budgets if b.budget == "the end"}
    first = {one.parameter: b.share[0] for one in kept for b in one.budgets if b.budget == "epoch 1"}
    assert survivors["n0"] > 0.8 > 0.2 > survivors["lr"]
    assert first["lr"] > 0.8 > 0.2 > first["n0"]


def test_most_studies_of_pure_noise_have_no_parameter_above_chance(search_of) -> None:
    above = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        data = search_of(LR | NOISE, strategy="random", epochs=1).halving(40, lambda *_: float(rng.random())).read()  # noqa: B023
        above += any(one.above_chance for one in importances(data))
    assert above <= 3


def test_every_trial_that_came_to_a_rung_counts_there_with_its_score_at_that_epoch(search_of) -> None:
    search = search_of(epochs=9)
    for i in range(12):
        search.trial({"lr": 0.01, "dice": i / 10}, [0.1 * i, 0.9, 0.5 - 0.01 * i], "stopped")
    for i in range(10):
        search.trial({"lr": 0.01, "dice": i / 10}, [0.3], "failed" if i else "stopped")
    found = {b.name: (len(b.scores), b.scores[3]) for b in budgets(search.read())}
    assert found == {"epoch 1": (22, pytest.approx(0.3)), "epoch 3": (12, pytest.approx(0.47))}


def test_too_few_trials_and_equal_scores_have_no_importance(search_of) -> None:
    search = search_of()
    for i in range(9):
        search.trial({"lr": 0.01, "dice": i / 10}, [0.1 * i], "stopped")
    assert importances(search.read()) == []
    search = search_of()
    for i in range(20):
        search.trial({"lr": 0.01, "dice": i / 10}, [0.4], "stopped")
    assert importances(search.read()) == []


CONDITIONAL = {
    "head": {
        "kind": "choice",
        "field": "model.head",
        "choices": {"stack": {"kind": "conv_stack", "channels": 64}, "linear": {"kind": "linear"}},
    },
    "channels": {"kind": "int", "field": "model.head.channels", "low": 32, "high": 96, "when": {"head": ["stack"]}},
} | LR


def test_a_conditional_parameter_is_judged_among_the_trials_that_have_it(search_of) -> None:
    def score(picked: dict, epoch: int) -> float:
        return picked.get("channels", 64) / 100

    data = search_of(CONDITIONAL, strategy="random", epochs=1).halving(100, score).read()
    having = sum("channels" in t.picked for t in data.trials)
    found = {one.parameter: one for one in importances(data)}
    assert 30 < having < 70
    assert found["channels"].subset == "head stack"
    assert [b.trials for b in found["channels"].budgets] == [having]
    assert [b.trials for b in found["lr"].budgets] == [100]
    assert found["channels"].share[0] > 0.9


def test_the_same_study_has_the_same_importances(search_of) -> None:
    data = search_of(LR | NOISE).halving(40, planted(np.random.default_rng(0))).read()
    assert importances(data) == importances(data)


def test_ranks_and_their_correlation_are_those_worked_out_by_hand() -> None:
    # fANOVA: a b c d e; PED-ANOVA: d a b c e. Differences 1 1 1 3 0, so rho = 1 - 6 * 12 / (5 * 24)
    shares = {"a": (0.5, 0.3), "b": (0.2, 0.2), "c": (0.15, 0.1), "d": (0.1, 0.35), "e": (0.05, 0.05)}
    found = [Importance(k, "", (At("the end", 20, v, (0.1, 0.1)),)) for k, v in shares.items()]
    both = agreement(found)
    assert both.correlation == pytest.approx(0.4)
    assert both.ranks == {"a": (1, 2), "b": (2, 3), "c": (3, 4), "d": (4, 1), "e": (5, 5)}
    assert both.apart == {"d": (4, 1)}


def test_budgets_are_averaged_with_their_trials_as_weights() -> None:
    one = Importance("a", "", (At("epoch 1", 90, (0.8, 0.5), (0.1, 0.2)), At("the end", 10, (0.3, 0.0), (0.6, 0.7))))
    assert one.share == pytest.approx((0.75, 0.45))
    assert one.chance == pytest.approx((0.15, 0.25))
    assert one.above_chance
