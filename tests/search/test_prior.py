"""What experts expect: draws against SciPy's distributions, right priors that help, wrong ones that are overcome."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
from scipy.stats import kstest, truncnorm, uniform

from harness.config import Space
from harness.config.space import Strategy
from harness.search.parzen import encode, log_prior, parzen_draw
from harness.search.prior import BETA, WIDTH, density, weight
from harness.search.strategies import prior_notes, value_source
from harness.search.values import at_position, centre_of, position, random_pick, random_position

LR = {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}
BATCH = {"kind": "choice", "field": "training.batch_size", "choices": [1, 2, 4, 8]}


def with_prior(parameter: dict[str, Any], centre: Any, confidence: float = 0.5) -> dict[str, Any]:
    return parameter | {"prior": {"centre": centre, "confidence": confidence}}


def scipy_normal(centre: float):
    return truncnorm(-centre / WIDTH, (1 - centre) / WIDTH, loc=centre, scale=WIDTH)


@pytest.mark.parametrize("centre", [1e-4, 1e-3, 5e-2, 1e-1])
def test_the_draws_of_a_number_are_the_mixture_of_a_cut_normal_on_its_own_scale_and_a_uniform(centre, make_space):
    space = make_space({"lr": with_prior(LR, centre, 0.7)})
    at = position(space.parameters["lr"], centre)
    rng = np.random.default_rng(0)
    drawn = [position(space.parameters["lr"], random_pick(space, rng)["lr"]) for _ in range(3000)]
    found = kstest(drawn, lambda x: 0.7 * scipy_normal(at).cdf(x) + 0.3 * uniform.cdf(x))
    assert found.pvalue > 0.01
    assert kstest(drawn, uniform.cdf).pvalue < 1e-6


@pytest.mark.parametrize("centre", [0.0, 0.2, 1.0])
def test_the_density_is_that_of_the_cut_normal(centre):
    at = np.linspace(0, 1, 21)
    np.testing.assert_allclose(density(centre, at), scipy_normal(centre).pdf(at))


def test_a_label_is_drawn_by_its_confidence_and_its_share_of_the_rest(make_space):
    space = make_space({"batch": with_prior(BATCH, 4, 0.6)})
    counts = {label: 0 for label in (1, 2, 4, 8)}
    for uniform_number in (np.arange(1000) + 0.5) / 1000:
        counts[at_position(space.parameters["batch"], random_position(space.parameters["batch"], uniform_number))] += 1
    assert counts == {1: 100, 2: 100, 4: 700, 8: 100}


@pytest.mark.parametrize("centre", [32, 64, 96])
def test_the_step_at_the_centre_is_the_likeliest_of_a_grid(centre, make_space):
    steps = {"kind": "int", "field": "model.head.channels", "low": 32, "high": 96, "step": 32}
    parameter = make_space({"channels": with_prior(steps, centre, 0.9)}).parameters["channels"]
    drawn = [at_position(parameter, random_position(parameter, u)) for u in (np.arange(500) + 0.5) / 500]
    assert drawn.count(centre) == max(drawn.count(value) for value in (32, 64, 96)) > 300
    assert at_position(parameter, centre_of(parameter)) == centre


def test_parameters_are_drawn_independently_and_one_without_a_prior_as_before(make_space):
    plain, expert = make_space({"lr": LR, "batch": BATCH}), make_space({"lr": with_prior(LR, 1e-2), "batch": BATCH})
    picks = [[random_pick(s, np.random.default_rng(n)) for n in range(400)] for s in (plain, expert)]
    assert [p["batch"] for p in picks[0]] == [p["batch"] for p in picks[1]]
    both = make_space({"lr": with_prior(LR, 1e-2, 0.5), "batch": with_prior(BATCH, 8, 0.5)})
    rng = np.random.default_rng(0)
    drawn = [random_pick(both, rng) for _ in range(2000)]
    near = np.array([abs(math.log10(p["lr"]) + 2) < 0.5 for p in drawn])
    centre = np.array([p["batch"] == 8 for p in drawn])
    assert abs(np.corrcoef(near, centre)[0, 1]) < 0.07


def test_what_is_expected_of_a_point_is_the_sum_over_the_parameters_that_it_has(make_space):
    parameters = {"lr": with_prior(LR, 1e-2, 0.5), "batch": with_prior(BATCH, 8, 0.5), "lr2": LR}
    parameters["lr2"] = LR | {"field": "optimiser.encoder_lr"}
    space = make_space(parameters)
    at = position(space.parameters["lr"], 3e-3)
    expected = math.log(0.5 + 0.5 * scipy_normal(2 / 3).pdf(at)) + math.log(0.5 + 0.5 * 4)
    points = np.array([[at, 1.0, 0.3], [math.nan, 0.0, 0.3]])
    np.testing.assert_allclose(log_prior(space, points), [expected, math.log(0.5)])


def test_its_weight_is_ten_over_the_results():
    assert [weight(n) for n in (1, 10, 1000)] == [BETA, 1.0, 0.01]


def study(space: Space, strategy: str, best: float, trials: int, seed: int) -> list[float]:
    """Distances from the best rate in decades, drawn by a source that is told scores that fall with them."""
    source = value_source(space, seed)
    away = []
    for number in range(trials):
        distance = abs(math.log10(source.draw(number)["lr"]) - best)
        away.append(distance)
        for epoch in (1, 3, 9):
            source.reported(number, epoch, 1 - distance)
        source.ended(number, "complete", 1 - distance)
    return away


@pytest.mark.parametrize("strategy", ["promote", "random_promote", "tpe", "gp_asha"])
def test_a_right_prior_helps_from_the_first_draws_on(strategy, make_space):
    plain, right = (
        make_space({"lr": parameter}, strategy=strategy) for parameter in (LR, with_prior(LR, 10**-1.6, 0.8))
    )
    first = [np.mean([study(s, strategy, -1.6, 8, seed) for seed in range(6)]) for s in (plain, right)]
    assert first[1] < 0.6 * first[0]


@pytest.mark.parametrize(("strategy", "trials"), [("promote", 120), ("tpe", 60)])
def test_a_wrong_prior_is_overcome(strategy, trials, make_space):
    plain, wrong = (make_space({"lr": parameter}, strategy=strategy) for parameter in (LR, with_prior(LR, 2e-4, 0.8)))
    without, with_it = (np.array([study(s, strategy, -1.6, trials, seed) for seed in range(4)]) for s in (plain, wrong))
    # at first it misleads
    assert with_it[:, :10].mean() > 1.2 * without[:, :10].mean()
    # the best found is as good in the end, and most draws are there, where the prior hardly looks
    assert with_it.min(1).max() < 0.05
    assert np.median(with_it[:, -trials // 3 :]) < 0.3


def test_a_model_with_few_results_follows_the_prior_and_one_with_many_its_results(make_space):
    space = make_space({"lr": with_prior(LR, 10**-1.5, 0.9)})
    # two places that are equally good
    results = [(1.0, [0.17]), (1.0, [0.83]), *((0.0, [x]) for x in np.linspace(0, 1, 11))]

    def share_near(known: int) -> float:
        drawn = [parzen_draw(space, results, [], np.random.default_rng(s), known) for s in range(80)]
        return np.mean([encode(space, picked)[0] > 0.5 for picked in drawn])

    assert share_near(12) > 0.85 > share_near(10_000)


@pytest.mark.parametrize("strategy", ["promote", "random_asha"])
def test_draws_with_priors_are_those_of_seed_and_number(strategy, make_space):
    space = make_space({"lr": with_prior(LR, 1e-2), "batch": with_prior(BATCH, 4)}, strategy=strategy)
    first, resumed = value_source(space, 0), value_source(space, 0, started=5)
    drawn = [first.draw(number) for number in range(10)]
    assert [resumed.draw(number) for number in range(5, 10)] == drawn[5:]


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_a_strategy_that_hardly_uses_a_prior_says_so(make_space, strategy):
    said = " ".join(prior_notes(make_space({"lr": with_prior(LR, 1e-3)}, strategy=strategy)))
    assert ("before trial 10 alone" in said) == (strategy in ("tpe", "asha", "gp_asha"))
    assert prior_notes(make_space({"lr": LR}, strategy=strategy)) == []
