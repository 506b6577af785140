"""The figures of a search's page: right numbers, honest words, small, and the same each time."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from harness.report.html import figures_trust
from harness.report.html.figured import Figured
from harness.report.html.figures_cost import against_memory, against_parameters, epochs_run, hours_spent
from harness.report.html.figures_curves import best_over_cost, best_over_trials, learning_curves
from harness.report.html.figures_edges import edge_warning
from harness.report.html.figures_parameters import parallel_coordinates, slices
from harness.report.html.figures_shared import KEPT
from harness.report.html.figures_trust import importance_figure, rung_trust, stopping_figure
from harness.report.html.importance import AtBudget, Importance
from harness.report.html.search_data import SearchData
from harness.report.html.search_figures import search_figures

FIELDS = [
    "loss.dice.weight", "loss.focal.weight", "optimiser.weight_decay", "loss.boundary.weight", "loss.lovasz.weight",
    "optimiser.lr", "training.batch_size", "model.stride", "augmentation.policy", "model.backbone",
    "data.input_size", "loss.cross_entropy.class_weights",
]  # fmt: skip


def wide() -> dict[str, Any]:
    """Twelve parameters of all kinds; the figures do not care whether the fields exist."""
    numbers = {f"p{i}": {"kind": "float", "field": f, "low": 0.0, "high": 1.0} for i, f in enumerate(FIELDS[:5])}
    logs = {f"p{i}": {"kind": "int", "field": FIELDS[i], "low": 1, "high": 64, "log": True} for i in (5, 6)}
    choices = {
        f"p{i}": {"kind": "choice", "field": FIELDS[i], "choices": ["first", "second", "a third and long one"]}
        for i in range(7, 12)
    }
    return numbers | logs | choices


def plotted(figured: Figured) -> dict[str, Any]:
    assert figured.figure is not None, figured.words
    return json.loads(figured.figure.to_json(engine="json"))


def trace(figured: Figured, name: str) -> dict[str, Any]:
    return next(t for t in plotted(figured)["data"] if t.get("name", "").startswith(name))


def rising(data_of, trials: int = 30, **fields: Any) -> SearchData:
    """Scores that rise with dice, and a little with each epoch."""
    search = data_of()
    return search.halving(trials, lambda picked, epoch: 0.2 * picked["dice"] + 0.01 * epoch, **fields).read()


def test_an_empty_study_has_every_figure_missing_and_a_reason_for_each(search_of) -> None:
    found = search_figures(search_of().read())
    assert all(one.figure is None for one in found)
    assert all("So far 0 trials ran to the end" in one.words for one in found)


@pytest.mark.parametrize(("scores", "outcome"), [([0.2, 0.3], "complete"), ([0.2], "stopped"), ([], "failed")])
def test_a_study_of_one_trial_is_drawn_as_far_as_it_goes(search_of, scores: list[float], outcome: str) -> None:
    search = search_of()
    search.trial({"lr": 0.01, "dice": 1.0}, scores, outcome)
    found = {one.key: one for one in search_figures(search.read())}
    assert (found["learning-curves"].figure is not None) == bool(scores)
    assert (found["pareto-parameters"].figure is not None) == (outcome == "complete")
    assert found["parallel-coordinates"].figure is None
    assert found["importance"].figure is None
    assert all(one.words for one in found.values())


def test_where_all_trials_failed_their_curves_are_shown_and_nothing_is_ranked(search_of) -> None:
    search = search_of()
    for i in range(3):
        search.trial({"lr": 0.01, "dice": 0.1 * i}, [0.1, 0.2], "failed")
    found = {one.key: one for one in search_figures(search.read())}
    assert trace(found["learning-curves"], "failed (3)")["x"] == [1, 2, None] * 3
    assert found["best-over-trials"].figure is None and found["classes"].figure is None
    assert "3 failed" in found["classes"].words


def test_keys_are_slugs_and_no_two_are_alike(search_of) -> None:
    dice = {"kind": "float", "low": 0.0, "high": 1.0}
    names = {"a b": {**dice, "field": "loss.dice.weight"}, "a-b": {**dice, "field": "loss.focal.weight"}}
    keys = [one.key for one in search_figures(search_of(names).read())]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[a-z0-9-]+", key) for key in keys)


def test_no_figure_needs_webgl_or_fixes_a_colour_of_the_page(search_of) -> None:
    for one in search_figures(rising(search_of, 40)):
        if one.figure is None:
            continue
        values = plotted(one)
        assert {t["type"] for t in values["data"]} <= {"scatter", "bar", "heatmap"}
        layout = values["layout"]
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
        assert "color" not in layout["font"] and "title" not in layout
        assert not [k for name in layout if re.match("[xy]axis", name) for k in layout[name] if "color" in k]


def test_the_same_study_has_the_same_figures(search_of) -> None:
    data = rising(search_of, 60)
    first, second = ([f and json.dumps(plotted(f)) for f in search_figures(data) if f.figure] for _ in range(2))
    assert first == second and len(first) > 8


def test_a_thousand_trials_of_twelve_parameters_stay_below_a_megabyte(search_of) -> None:
    search = search_of(wide(), epochs=27, strategy="random_asha")
    rng = np.random.default_rng(0)
    search.halving(1000, lambda picked, epoch: float(picked["p0"] * (1 - 0.5 / epoch) + rng.normal(0, 0.05)))
    found = search_figures(search.read())
    assert [one.key for one in found if one.figure is None] == []
    assert sum(len(one.figure.to_json(engine="json")) for one in found) < 1_000_000
    assert "300 of 1000 trials" in found[0].words


def test_of_many_curves_the_best_are_all_shown_and_the_words_say_what_is_not(search_of) -> None:
    data = rising(search_of, 400)
    figured = learning_curves(data)
    faint = {n for t in plotted(figured)["data"] for n in t.get("customdata", [])}
    coloured = {int(t["name"].split()[1]) for t in plotted(figured)["data"] if "customdata" not in t}
    assert coloured == {t.number for t in data.ranked[:10]}
    assert {t.number for t in data.ranked[:KEPT]} <= faint | coloured
    assert len(faint | coloured) == 300
    assert "300 of 400 trials" in figured.words
    assert [shape["x0"] for shape in plotted(figured)["layout"]["shapes"]] == [1, 3]


def test_the_best_so_far_over_trials_goes_by_the_order_of_ends_and_leaves_failures_out(search_of) -> None:
    search = search_of()
    for score, outcome in [(0.3, "complete"), (0.2, "stopped"), (0.9, "failed"), (0.5, "complete"), (0.4, "complete")]:
        search.trial({"lr": 0.01, "dice": 1.0}, [score], outcome)
    steps = trace(best_over_trials(search.read()), "best so far")
    assert (steps["x"], steps["y"]) == ([1, 4, 5], [0.3, 0.5, 0.5])


def test_the_best_so_far_over_cost_adds_up_every_epoch_in_the_order_of_the_journal(search_of) -> None:
    search = search_of()
    search.trial({"lr": 0.01, "dice": 1.0}, [0.3, 0.2], train_seconds=50.0, val_seconds=10.0)
    search.trial({"lr": 0.01, "dice": 1.1}, [0.1, 0.5], train_seconds=100.0, val_seconds=20.0)
    figured = best_over_cost(search.read())
    steps = plotted(figured)["data"][0]
    # minutes: 1, 2, then 4 and 6
    assert (steps["x"], steps["y"]) == ([1.0, 6.0, 6.0], [0.3, 0.5, 0.5])
    assert "GPU minutes" in plotted(figured)["layout"]["xaxis"]["title"]["text"]


def test_parallel_coordinates_put_each_value_at_its_place_and_the_best_on_top(search_of) -> None:
    search = search_of()
    for i in range(10):
        search.trial({"lr": 0.01, "dice": 0.2 * i}, [0.05 * i] * 9)
    figured = parallel_coordinates(search.read())
    best = trace(figured, "best 10 %")
    # score, epochs run, lr (two of three decades), dice 1.8 of 2
    assert best["x"] == [1.0, 1.0, pytest.approx(2 / 3, abs=1e-3), 0.9, None]
    lines = [t["name"] for t in plotted(figured)["data"] if t["mode"] == "lines"]
    assert lines == ["lower half", "25–50 %", "10–25 %", "best 10 %"]


def test_groups_of_parallel_coordinates_are_shares_of_all_trials_and_not_of_those_shown(search_of) -> None:
    search = search_of()
    for i in range(600):
        search.trial({"lr": 0.01, "dice": 0.003 * i}, [0.001 * i] * 9)
    best = trace(parallel_coordinates(search.read()), "best 10 %")
    drawn = [int(text.split()[1].rstrip(",")) for text in best["hovertext"] if ", ran to" in text]
    # of the best sixty all of the first fifty are shown
    assert min(drawn) >= 540 and set(range(550, 600)) <= set(drawn)


def test_a_stopped_trial_stands_at_its_score_at_the_rung(search_of) -> None:
    search = search_of()
    search.trial({"lr": 0.01, "dice": 1.0}, [0.3] * 9)
    for _ in range(4):
        search.trial({"lr": 0.01, "dice": 1.0}, [0.3] * 9)
    search.trial({"lr": 0.01, "dice": 1.1}, [0.4, 0.2, 0.1], "stopped")
    ring = trace(slices(search.read())[1], "stopped")
    assert (ring["x"], ring["y"]) == ([1.1], [0.1])
    assert ring["customdata"] == [[5, 3, "1.1"]]


def test_a_slice_has_the_scale_of_its_parameter_and_shows_its_whole_range(search_of) -> None:
    lr, dice = (plotted(one)["layout"]["xaxis"] for one in slices(rising(search_of)))
    assert lr["type"] == "log" and lr["range"] == pytest.approx([-4.09, -0.91])
    assert "type" not in dice and dice["range"] == pytest.approx([-0.06, 2.06])


def test_choices_stand_in_columns_that_do_not_touch(search_of) -> None:
    data = search_of(wide(), strategy="random", epochs=1).halving(80, lambda picked, _: picked["p0"]).read()
    figured = next(one for one in slices(data) if one.title.endswith(" p7"))
    labels = list(data.parameters["p7"].values())
    for dots in plotted(figured)["data"]:
        for x, (number, _, label, *_) in zip(dots["x"], dots["customdata"], strict=True):
            assert data.trials[number].picked["p7"] == label
            assert abs(x - labels.index(label)) < 0.3


def test_a_conditional_parameter_is_drawn_for_the_trials_that_have_it(search_of) -> None:
    heads = {"stack": {"kind": "conv_stack", "channels": 64}, "linear": {"kind": "linear"}}
    space = {
        "head": {"kind": "choice", "field": "model.head", "choices": heads},
        "channels": {"kind": "int", "field": "model.head.channels", "low": 32, "high": 96, "when": {"head": ["stack"]}},
    }
    data = search_of(space, strategy="random", epochs=1).halving(40, lambda *_: 0.5).read()
    having = [t.number for t in data.trials if "channels" in t.picked]
    figured = slices(data)[1]
    drawn = [custom[0] for t in plotted(figured)["data"] for custom in t["customdata"]]
    assert sorted(drawn) == having and 0 < len(having) < 40
    assert "exists only where head is stack" in figured.words
    lines = [t for t in plotted(parallel_coordinates(data))["data"] if t["mode"] == "lines"]
    assert sum(x == -0.06 for t in lines for x in t["x"]) == 40 - len(having)


def ends(search_of, values: list[float], parameter: dict[str, Any]) -> str | None:
    """The warning where the best five trials have these values, and ten worse ones are spread."""
    search = search_of({"p": parameter})
    for value in values:
        search.trial({"p": value}, [0.9])
    for _ in range(10):
        search.trial({"p": parameter["low"] + (parameter["high"] - parameter["low"]) / 2}, [0.1])
    return edge_warning(search.read(), "p")


def test_the_best_trials_at_the_end_of_a_range_are_a_warning_that_says_what_to_change(search_of) -> None:
    lr = {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-2, "log": True}
    at_high = ends(search_of, [0.0099, 0.01, 0.0085, 0.009, 0.0095], lr)
    assert at_high == (
        "The best 5 trials all have p at the high end of its range (high: 0.01): raise `high` of p to 0.032 and "
        "search on."
    )
    assert "lower `low` of p to 3.2e-05" in ends(search_of, [1e-4, 1.1e-4, 1.2e-4, 1e-4, 1e-4], lr)


def test_nearness_to_an_end_is_measured_on_the_parameters_own_scale(search_of) -> None:
    # 5 % of two decades from the high end is 0.0079; on a plain scale 0.0095 would be needed
    lr = {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-2, "log": True}
    assert ends(search_of, [0.008] * 5, lr) is not None
    assert ends(search_of, [0.0078] * 5, lr) is None
    assert ends(search_of, [0.008] * 5, lr | {"log": False}) is None


def test_four_of_five_at_an_end_are_no_warning(search_of) -> None:
    dice = {"kind": "float", "field": "loss.dice.weight", "low": 0.0, "high": 2.0}
    assert ends(search_of, [2.0, 2.0, 2.0, 2.0, 1.0], dice) is None
    assert "raise `high` of p to 2.5" in ends(search_of, [2.0] * 5, dice)


def test_where_the_field_takes_no_more_the_advice_is_to_fix_it(search_of) -> None:
    dice = {"kind": "float", "field": "loss.dice.weight", "low": 0.0, "high": 2.0}
    warning = ends(search_of, [0.0] * 5, dice)
    assert "loss.dice.weight does not take -0.5, so fix it at 0" in warning


def test_a_parameter_of_a_section_that_the_default_lacks_is_tried_where_a_best_trial_has_it(search_of) -> None:
    head = {
        "kind": "choice",
        "field": "model.head",
        "choices": {"linear": {"kind": "linear"}, "uper": {"kind": "upernet_style"}},
    }
    drop = {"kind": "float", "field": "model.head.dropout", "low": 0.0, "high": 0.4, "when": {"head": ["uper"]}}
    search = search_of({"head": head, "drop": drop})
    for _ in range(5):
        search.trial({"head": "uper", "drop": 0.4}, [0.9])
    for _ in range(10):
        search.trial({"head": "linear"}, [0.1])
    data = search.read()
    assert not hasattr(data.space.experiment.model.head, "dropout")
    assert "raise `high` of drop to 0.5 and search on" in edge_warning(data, "drop")


def test_a_whole_number_is_moved_by_whole_steps(search_of) -> None:
    batch = {"kind": "int", "field": "training.batch_size", "low": 2, "high": 10, "step": 4}
    assert "raise `high` of p to 14" in ends(search_of, [10] * 5, batch)


def test_an_edge_warning_stands_beside_its_slice(search_of) -> None:
    search = search_of()
    for i in range(12):
        search.trial({"lr": 0.01, "dice": 2.0 if i < 5 else 1.0}, [0.9 - 0.01 * i])
    lr, dice = slices(search.read())
    assert lr.warnings == () and len(dice.warnings) == 1


def test_only_trials_that_ran_to_their_end_are_on_a_front(search_of) -> None:
    search = search_of()
    search.trial({"lr": 0.01, "dice": 1.0}, [0.5] * 9, parameters=2_000_000)
    search.trial({"lr": 0.01, "dice": 1.1}, [0.4] * 9, parameters=1_000_000)
    search.trial({"lr": 0.01, "dice": 1.2}, [0.3] * 9, parameters=3_000_000)
    search.trial({"lr": 0.01, "dice": 1.3}, [0.6], "stopped", parameters=500_000)
    figured = against_parameters(search.read())
    front = trace(figured, "not beaten")
    assert (front["x"], front["y"]) == ([1.0, 2.0], [0.4, 0.5])
    assert trace(figured, "complete, beaten")["customdata"] == [2]
    assert trace(figured, "stopped")["customdata"] == [3]


def test_without_a_gpu_there_is_no_figure_of_memory_and_the_words_say_so(search_of) -> None:
    figured = against_memory(rising(search_of, peak_memory_mb=None))
    assert figured.figure is None and "peak GPU memory was not recorded" in figured.words


def test_rank_correlations_are_those_of_the_survivors(search_of) -> None:
    rng = np.random.default_rng(0)
    search, kept = search_of(epochs=4), []
    for i in range(15):
        first, third, last = rng.random(3).round(3).tolist()
        search.trial({"lr": 0.01, "dice": 0.1 * i}, [first, 0.0, third, last])
        kept.append((first, third, max(first, third, last)))
    for _ in range(10):
        search.trial({"lr": 0.01, "dice": 1.0}, [float(rng.random())], "stopped")
    found = rung_trust(search.read())
    final = [k[2] for k in kept]
    for one, rung, at in zip(found, (1, 3), (0, 1), strict=True):
        early = [k[at] for k in kept]
        assert (one.rung, one.trials) == (rung, 15)
        assert one.spearman == pytest.approx(spearmanr(early, final).statistic)
        assert one.kendall == pytest.approx(kendalltau(early, final).statistic)
        assert one.best_was == 1 + sum(e > early[int(np.argmax(final))] for e in early)


def test_rank_correlations_by_hand(search_of) -> None:
    search = search_of(epochs=2)
    # ranks at epoch 1: 1 2 3 4; in the end 2 1 3 4: one pair of six turned round
    for first, last in [(0.1, 0.32), (0.2, 0.31), (0.3, 0.4), (0.35, 0.5)]:
        search.trial({"lr": 0.01, "dice": 1.0}, [first, last])
    (one,) = rung_trust(search.read())
    assert (one.spearman, one.kendall, one.best_was) == (pytest.approx(0.8), pytest.approx(4 / 6), 1)
    figured = stopping_figure(search.read())
    assert "Only 4 trials ran to their end" in figured.warnings[0]
    assert plotted(figured)["data"][0]["name"] == "epoch 1: ρ 0.80, τ 0.67, n 4"


def test_scores_without_an_order_have_no_rank_correlation(search_of) -> None:
    search = search_of(epochs=2)
    for last in (0.5, 0.6, 0.7):
        search.trial({"lr": 0.01, "dice": 1.0}, [0.2, last])
    (one,) = rung_trust(search.read())
    assert np.isnan(one.spearman) and np.isnan(one.kendall)


def test_where_nothing_is_stopped_there_is_nothing_to_trust(search_of) -> None:
    search = search_of(strategy="random")
    search.trial({"lr": 0.01, "dice": 1.0}, [0.2] * 9)
    assert stopping_figure(search.read()).words == "Every trial of this search ran to its end, so nothing was stopped."


def test_epochs_run_and_planned_are_counted_trial_by_trial(search_of) -> None:
    search = search_of(epochs=4)
    for ran in (4, 1, 1, 3):
        search.trial({"lr": 0.01, "dice": 1.0}, [0.1] * ran, "complete" if ran == 4 else "stopped")
    figured = epochs_run(search.read())
    run = trace(figured, "run")
    # all four in epoch 1, two in 2 and 3, one in 4
    assert (run["x"], run["y"]) == ([0, 1, 3, 4], [4, 2, 1, 0])
    assert "9 epochs were run of the 16" in figured.words


def test_time_saved_is_estimated_from_each_trials_own_epochs(search_of) -> None:
    search = search_of(epochs=9)
    search.trial({"lr": 0.01, "dice": 1.0}, [0.1] * 9, train_seconds=50.0, val_seconds=10.0)
    search.trial({"lr": 0.01, "dice": 1.0}, [0.1] * 3, "stopped", train_seconds=110.0, val_seconds=10.0)
    search.trial({"lr": 0.01, "dice": 1.0}, [0.1] * 2, "failed", train_seconds=50.0, val_seconds=10.0)
    figured = hours_spent(search.read())
    # minutes: 9 + 6 + 2 spent; 6 epochs of 2 minutes saved by the stopped one, none by the failed one
    assert trace(figured, "spent")["x"] == [9.0, 6.0, 2.0]
    assert trace(figured, "saved")["x"] == [0.0, 12.0, 0.0]
    assert "17 GPU minutes" in figured.words


def test_classes_that_the_truth_lacks_are_marked_absent(search_of) -> None:
    search = search_of()
    for i in range(6):
        search.trial({"lr": 0.01, "dice": 0.1 * i}, [0.1 * i] * 2, iou={"Sky": 0.91234, "Logs": None})
    figured = next(one for one in search_figures(search.read()) if one.key == "classes")
    cells, numbers = plotted(figured)["data"]
    assert cells["z"] == [[0.9123] * 5, [None] * 5]
    assert numbers["text"] == ["0.912"] * 5 + ["absent"] * 5
    assert "Absent: no pixel of the class" in figured.words
    assert figured.table[1] == {"class": "Logs"} | {f"trial {i}": "absent" for i in (5, 4, 3, 2, 1)}


def test_trials_of_other_taxonomies_have_no_number_for_a_class_that_they_lack(search_of) -> None:
    search = search_of()
    search.trial({"lr": 0.01, "dice": 0.1}, [0.5], iou={"Sky": 0.9})
    search.trial({"lr": 0.01, "dice": 0.2}, [0.4], iou={"Sky": 0.8, "Rocks": 0.3})
    figured = next(one for one in search_figures(search.read()) if one.key == "classes")
    assert plotted(figured)["data"][1]["text"] == ["0.900", "0.800", "–", "0.300"]


def test_methods_that_disagree_are_named_in_a_warning(search_of, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {"a": (0.5, 0.3), "b": (0.2, 0.2), "c": (0.15, 0.1), "d": (0.1, 0.35), "e": (0.05, 0.05)}
    found = [Importance(k, "", (AtBudget("the end", 20, v, (0.2, 0.2)),)) for k, v in shares.items()]
    monkeypatch.setattr(figures_trust, "importances", lambda _: found)
    (warning,) = importance_figure(search_of().read()).warnings
    assert "d (fANOVA: 4, PED-ANOVA: 1); their rank correlation over all parameters is 0.40" in warning


def test_importances_no_larger_than_chance_are_called_that(search_of, monkeypatch: pytest.MonkeyPatch) -> None:
    low = Importance("a", "", (AtBudget("the end", 20, (0.5, 0.5), (0.6, 0.6)),))
    monkeypatch.setattr(figures_trust, "importances", lambda _: [low, low])
    assert importance_figure(search_of().read()).warnings == (
        "By neither method does any parameter matter more than it would with shuffled scores.",
    )
