"""Where the values of a model per rung come from."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from harness.config import is_active
from harness.search import model_per_rung
from harness.search.model_per_rung import MIN_RESULTS, ModelPerRung
from harness.search.parzen import WIDTH, _Kernels, encode, parzen_draw
from harness.search.values import at_position, position, random_pick

LR = {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}}


def valid(space, picked) -> bool:
    return list(picked) == [n for n, p in space.parameters.items() if is_active(p, picked)]


def test_positions_and_values_are_each_others_inverse(make_space):
    space, rng = make_space(), np.random.default_rng(0)
    for _ in range(100):
        for name, value in random_pick(space, rng).items():
            parameter = space.parameters[name]
            again = at_position(parameter, position(parameter, value))
            assert type(again) is type(value)
            assert again == pytest.approx(value)


def test_every_label_and_every_step_has_an_equal_share_of_random_values(make_space):
    space = make_space()
    at = (np.arange(1000) + 0.5) / 1000
    counts = {name: {} for name in ("head", "channels", "dice")}
    for name in counts:
        for value in (at_position(space.parameters[name], x) for x in at):
            counts[name][value] = counts[name].get(value, 0) + 1
    assert counts["head"] == {"stack": 500, "linear": 500}
    assert sorted(counts["channels"]) == [32, 64, 96] and max(counts["channels"].values()) <= 334
    assert counts["dice"] == {0.0: 200, 0.5: 200, 1.0: 200, 1.5: 200, 2.0: 200}


def test_the_density_is_that_of_normals_and_a_uniform(make_space):
    space = make_space(LR)
    kernels = _Kernels(space, [[0.2], [0.6]])
    width = WIDTH * 2 ** (-1 / 5)
    at = np.array([[0.1], [0.5], [0.9]])
    expected = (norm.pdf(at, 0.2, width) + norm.pdf(at, 0.6, width) + 1) / 3
    np.testing.assert_allclose(np.exp(kernels.log_density(at)), expected[:, 0])


def test_a_choice_that_a_point_holds_is_likelier_and_all_labels_sum_to_one(make_space):
    space = make_space({"batch": {"kind": "choice", "field": "training.batch_size", "choices": [1, 2, 4]}})
    kernels = _Kernels(space, [[0.5]])
    density = np.exp(kernels.log_density(np.array([[0.0], [0.5], [1.0]])))
    assert density[1] > density[0] == density[2]
    # relative to the uniform density, so the mean over labels is 1
    assert density.mean() == pytest.approx(1)


def test_drawn_values_keep_the_conditions_of_the_space(make_space):
    space, rng = make_space(), np.random.default_rng(0)
    points = [encode(space, random_pick(space, rng)) for _ in range(30)]
    # other scores for each draw: what is good changes
    drawn = [parzen_draw(space, [(rng.random(), point) for point in points], [], rng) for _ in range(60)]
    assert all(valid(space, picked) for picked in drawn)
    assert {picked["head"] for picked in drawn} == {"stack", "linear"}


def test_values_are_drawn_near_the_good_results(make_space):
    space, rng = make_space(LR), np.random.default_rng(0)
    picks = [random_pick(space, rng) for _ in range(60)]
    # the best rate is 1e-2: two thirds of the way on the logarithmic scale
    results = [(-abs(math.log10(p["lr"]) + 2), encode(space, p)) for p in picks]
    drawn = np.array([math.log10(parzen_draw(space, results, [], rng)["lr"]) for _ in range(50)])
    assert np.mean(np.abs(drawn + 2) < 0.5) > 0.9


def test_values_under_way_are_kept_away_from(make_space):
    space = make_space(LR)
    # two equally good places
    results = [(1.0, [0.2]), (1.0, [0.8])] + [(0.0, [x]) for x in np.linspace(0, 1, 11)]
    free, busy = (
        [
            position(space.parameters["lr"], parzen_draw(space, results, away, np.random.default_rng(s))["lr"])
            for s in range(60)
        ]
        for away in ([], [[0.2]] * 6)
    )
    assert np.mean(np.array(busy) < 0.5) < np.mean(np.array(free) < 0.5) - 0.2


def filled(space, counts: dict[int, int]) -> ModelPerRung:
    """A source with so many results at each rung."""
    source = ModelPerRung(space, [1, 3], seed=0)
    for number in range(max(counts.values())):
        source.draw(number)
        for epoch, count in counts.items():
            if number < count:
                source.reported(number, epoch, number / 100)
    return source


@pytest.mark.parametrize(
    ("counts", "level"),
    [
        ({1: MIN_RESULTS - 1}, None),
        ({1: MIN_RESULTS}, 1),
        ({1: 30, 3: MIN_RESULTS - 1}, 1),
        ({1: 30, 3: MIN_RESULTS}, 3),
    ],
)
def test_the_model_is_of_the_highest_rung_with_enough_results(counts, level, make_space, monkeypatch):
    source, seen = filled(make_space(), counts), []

    def spy(space, results, under_way, rng, known):
        seen.append(len(results))
        return random_pick(space, rng)

    monkeypatch.setattr(model_per_rung, "parzen_draw", spy)
    for number in range(1000, 1100):
        source.draw(number)
    assert set(seen) == (set() if level is None else {counts[level]})
    # a quarter stays random
    assert level is None or 60 <= len(seen) <= 90


def test_a_complete_trial_is_a_result_at_the_last_epoch_and_a_failed_one_is_none(make_space):
    source = ModelPerRung(make_space(epochs=9), [1, 3], seed=0)
    for number, outcome in enumerate(["complete", "stopped", "failed"]):
        source.draw(number)
        source.ended(number, outcome, 0.5)
    assert source.results[9] == {0: 0.5}
    assert not source.under_way


def test_a_trial_is_under_way_until_its_first_result(make_space):
    source = ModelPerRung(make_space(), [1, 3], seed=0)
    source.started(0, source.draw(1))
    source.reported(0, 2, 0.5)
    assert set(source.under_way) == {0, 1}
    source.reported(0, 1, 0.5)
    assert set(source.under_way) == {1}


def test_a_source_that_hears_of_its_trials_again_in_another_order_draws_the_same_next_values(make_space):
    space, rng = make_space(), np.random.default_rng(3)
    picks, scores = [random_pick(space, rng) for _ in range(40)], rng.random(40)

    def told(order) -> ModelPerRung:
        source = ModelPerRung(space, [1, 3], seed=0)
        for number in range(40):
            source.started(number, picks[number])
        for number in order:
            source.reported(int(number), 1, scores[number])
        return source

    first, resumed = told(rng.permutation(40)), told(range(40))
    assert [first.draw(number) for number in range(40, 60)] == [resumed.draw(number) for number in range(40, 60)]
