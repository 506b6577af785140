"""The honest ranking: intervals against SciPy, the optimism of pure noise, seeds that nobody had, trials that fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from harness.config import Experiment, SearchSettings, Trial, fingerprint, read_section
from harness.errors import StudyError
from harness.search.confirmation import (
    asks_for_confirmation,
    best_arms,
    confirmations,
    confirmed_text,
    fresh_seed,
    is_confirmed,
    next_confirmation,
    read_confirmation,
    write_confirmed,
)
from harness.search.search import ranked
from harness.store import StudyFolder, write_text


def fresh(*scores, first=1000):
    """Curves of one epoch by seed."""
    return {first + i: [score] for i, score in enumerate(scores)}


def scipy_interval(values):
    return stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))


def numbers(confirmation):
    return [trial.row.number for trial in confirmation.trials]


# ---- which trials, which seeds -----------------------------------------------------------------------------------


def test_the_best_are_taken_in_the_order_of_the_ranking_and_named_after_it(hunt_of):
    hunt = hunt_of().search([0.3], [0.5], [0.4])
    arms = best_arms(hunt.folder, 2)
    assert list(arms) == ["rank-1", "rank-2"]
    assert [Trial(e, 0).id for e in arms.values()] == [hunt.rows[i][0].trial for i in (1, 2)]


def test_where_there_are_fewer_trials_than_asked_for_all_are_taken(hunt_of):
    assert list(best_arms(hunt_of().search([0.3], [0.5]).folder, 5)) == ["rank-1", "rank-2"]


def test_trials_with_the_same_values_are_one_arm(hunt_of):
    # trial 1 has the values of trial 0 and another seed
    hunt = hunt_of().search([0.5], [0.4], [0.3], seeds={1: 7})
    assert list(best_arms(hunt.folder, 2)) == ["rank-1", "rank-3"]


def test_trials_that_ran_to_their_end_come_before_those_that_were_stopped(hunt_of):
    hunt = hunt_of(epochs=2).search([0.9], [0.1, 0.2])
    first = best_arms(hunt.folder, 1)["rank-1"]
    assert Trial(first, 0).id == hunt.rows[1][0].trial


def test_with_two_objectives_those_of_the_front_are_confirmed_and_export_stays_on_it(hunt_of):
    hunt = hunt_of().search([0.5], [0.4], [0.3], [0.2])
    sizes = (300, 900, 100, 500)
    for (_, epochs), size in zip(hunt.rows, sizes, strict=True):
        epochs[0] = epochs[0].model_copy(update={"parameters": size})
    search = hunt.space.search.model_copy(update={"objectives": ("score", "parameters")})
    space = hunt.space.model_copy(update={"search": search})
    hunt.write(hunt.folder, SearchSettings(space=space, seed=0, dataset="f00d"), hunt.rows)
    arms = best_arms(hunt.folder, 5)
    assert [Trial(e, 0).id for e in arms.values()] == [hunt.rows[i][0].trial for i in (0, 2)]
    assert [ranked(hunt.folder, rank).number for rank in (1, 2)] == [0, 2]

    hunt.confirm({0: fresh(0.4, 0.41, 0.42), 2: fresh(0.3, 0.31, 0.32)})
    confirmation = read_confirmation(hunt.folder)
    assert numbers(confirmation) == [0, 2] and not confirmation.moved_on and confirmation.searched == 4


def test_a_search_without_a_score_has_nothing_to_confirm(hunt_of):
    with pytest.raises(StudyError, match="study 'hunt' has no trial with a score yet"):
        best_arms(hunt_of().folder, 5)


@pytest.mark.parametrize(("seed", "first"), [(0, 1000), (967, 1000), (968, 2000), (1500, 2000)])
def test_fresh_seeds_are_above_all_that_the_search_can_take(hunt_of, seed, first):
    # 32 trials: draws of the same values could take the seeds up to seed + 32
    assert fresh_seed(hunt_of(seed=seed).search([0.5]).folder) == first


def test_a_second_confirmation_has_other_seeds_and_another_folder(hunt_of):
    hunt = hunt_of().search([0.5], [0.4])
    assert next_confirmation(hunt.folder).name == "confirm"
    hunt.confirm({0: fresh(0.4, 0.3, 0.2)})
    assert (fresh_seed(hunt.folder), next_confirmation(hunt.folder).name) == (2000, "confirm-2")
    # begun, and nothing trained yet: its seeds are taken all the same
    hunt.confirm({1: {}}, seeds=1500, first=2000, name="confirm-2")
    assert fresh_seed(hunt.folder) == 4000
    assert [study.name for study in confirmations(hunt.folder)] == ["confirm", "confirm-2"]


# ---- the figures -------------------------------------------------------------------------------------------------


def test_a_search_that_was_not_confirmed_has_none(hunt_of):
    confirmation = read_confirmation(hunt_of().search([0.5]).folder)
    assert confirmation is None and not is_confirmed(confirmation)


def test_means_and_intervals_are_scipys_and_the_lower_end_ranks(hunt_of):
    # trial 0 has the highest mean, and scatters; trial 2 is the surest
    scores = {0: (0.30, 0.50, 0.55), 1: (0.40, 0.41, 0.42), 2: (0.424, 0.425, 0.426)}
    hunt = hunt_of().search([0.60], [0.58], [0.56]).confirm({i: fresh(*own) for i, own in scores.items()})
    confirmation = read_confirmation(hunt.folder)
    for trial in confirmation.trials:
        own = scores[trial.row.number]
        low, high = scipy_interval(own)
        assert trial.mean == pytest.approx((np.mean(own), low, high), abs=1e-12)
        gap = trial.row.score - np.mean(own)
        assert trial.optimism == pytest.approx((gap, trial.row.score - high, trial.row.score - low), abs=1e-12)
    assert numbers(confirmation) == [2, 1, 0]
    assert [trial.search_rank for trial in confirmation.trials] == [3, 2, 1]
    assert confirmation.first.row.number == 0 and is_confirmed(confirmation)
    assert (confirmation.seeds, confirmation.asked, confirmation.searched) == ((1000, 1001, 1002), 9, 3)


def test_the_optimism_of_all_has_its_interval_over_the_seeds(hunt_of):
    scores = {0: (0.30, 0.50, 0.55), 1: (0.40, 0.41, 0.42)}
    hunt = hunt_of().search([0.60], [0.58]).confirm({i: fresh(*own) for i, own in scores.items()})
    by_seed = [np.mean([0.60 - scores[0][k], 0.58 - scores[1][k]]) for k in range(3)]
    found = read_confirmation(hunt.folder).optimism_of_all
    assert found == pytest.approx((np.mean(by_seed), *scipy_interval(by_seed)), abs=1e-12)


def test_a_trial_that_the_search_stopped_is_compared_after_as_many_epochs_and_ranked_by_its_end(hunt_of):
    hunt = (
        hunt_of(epochs=3)
        .search([0.1, 0.2, 0.3], [0.25])
        .confirm(
            {0: {s: [0.1, 0.2, 0.3] for s in (1000, 1001, 1002)}, 1: {s: [0.2, 0.1, 0.5] for s in (1000, 1001, 1002)}}
        )
    )
    best = read_confirmation(hunt.folder).trials[0]
    assert (best.row.number, best.was_stopped, best.search_rank) == (1, True, 2)
    assert best.mean.point == pytest.approx(0.5) and best.optimism.point == pytest.approx(0.05)


def expected_highest(n):
    """Of n standard normal draws, by integrating the density of the highest."""
    return integrate.quad(lambda x: x * n * stats.norm.pdf(x) * stats.norm.cdf(x) ** (n - 1), -9, 9)[0]


def test_of_pure_noise_the_first_is_too_high_by_the_expected_highest_of_all_and_fresh_means_are_not(hunt_of):
    trials, studies, mean, deviation = 20, 60, 0.5, 0.01
    rng, gaps, of_all, fresh_means, covered = np.random.default_rng(7), [], [], [], 0
    for number in range(studies):
        scores = rng.normal(mean, deviation, trials)
        hunt = hunt_of(name=f"hunt-{number}").search(*([score] for score in scores))
        top = np.argsort(-scores)[:5]
        hunt.confirm({int(trial): fresh(*rng.normal(mean, deviation, 3)) for trial in top})
        found = read_confirmation(hunt.folder)
        gap = found.first.optimism
        gaps.append(gap.point / deviation)
        of_all.append(found.optimism_of_all.point / deviation)
        fresh_means.append((found.first.mean.point - mean) / deviation)
        # what is known to be true: every trial's mean is `mean`
        covered += gap.low <= found.first.row.score - mean <= gap.high
    # standard errors: at most 0.11, 0.06 and 0.08
    assert np.mean(gaps) == pytest.approx(expected_highest(trials), abs=0.3)
    assert expected_highest(trials) == pytest.approx(1.8675, abs=1e-4)
    # normal order statistics of 20 (Harter, Biometrika 1961), the five highest
    assert np.mean(of_all) == pytest.approx(np.mean([1.8675, 1.4076, 1.1309, 0.9210, 0.7454]), abs=0.2)
    assert np.mean(fresh_means) == pytest.approx(0, abs=0.25)
    assert covered >= 52


# ---- too few seeds, failures, more trials ------------------------------------------------------------------------


def test_two_seeds_have_no_interval_and_rank_by_the_mean(hunt_of):
    scores = {0: fresh(0.40, 0.50), 1: fresh(0.46, 0.46)}
    confirmation = read_confirmation(hunt_of().search([0.6], [0.5]).confirm(scores, seeds=2).folder)
    assert numbers(confirmation) == [1, 0]
    assert all(math.isnan(t.mean.low) and math.isnan(t.optimism.high) for t in confirmation.trials)
    assert math.isnan(confirmation.optimism_of_all.low) and confirmation.optimism_of_all.point == pytest.approx(0.095)


def test_a_trial_with_a_failed_training_comes_after_those_with_an_interval_and_a_failed_one_last(hunt_of):
    hunt = (
        hunt_of()
        .search([0.9], [0.8], [0.7])
        .confirm(
            {
                0: {1000: "the loss became nan", 1001: "the loss became nan", 1002: "the loss became nan"},
                1: {1000: [0.7], 1001: "the loss became nan", 1002: [0.7]},
                2: fresh(0.3, 0.31, 0.32),
            }
        )
    )
    confirmation = read_confirmation(hunt.folder)
    assert confirmation.finished and numbers(confirmation) == [2, 1, 0]
    assert [len(trial.failed) for trial in confirmation.trials] == [0, 1, 3]
    assert confirmation.trials[2].mean is None and confirmation.first.optimism is None
    # seeds that all trials with a score have: 1000 and 1002
    assert confirmation.optimism_of_all.point == pytest.approx(np.mean([0.7 - 0.31, 0.8 - 0.7]))
    assert "2 fresh seeds: 1000, 1002; 1 failed" in confirmed_text(hunt.folder, confirmation, 2)
    with pytest.raises(StudyError, match="--rank 3: 2 trials of study 'hunt' .*give 1 to 2, or --as-searched"):
        confirmed_text(hunt.folder, confirmation, 3)


def test_where_every_training_failed_the_searchs_ranking_stands(hunt_of):
    hunt = hunt_of().search([0.9]).confirm({0: {1000: "out of memory"}}, seeds=1)
    confirmation = read_confirmation(hunt.folder)
    assert confirmation.finished and not is_confirmed(confirmation) and confirmation.optimism_of_all is None
    write_confirmed(hunt.folder, confirmation.folder)
    assert not confirmation.folder.best.exists()


def test_a_confirmation_that_is_not_finished_does_not_count_and_an_earlier_finished_one_does(hunt_of):
    hunt = hunt_of().search([0.5], [0.4]).confirm({0: {1000: [0.4], 1001: [0.4], 1002: None}})
    confirmation = read_confirmation(hunt.folder)
    assert (confirmation.ended, confirmation.asked, is_confirmed(confirmation)) == (2, 3, False)
    hunt.confirm({0: fresh(0.1, 0.2, 0.3, first=2000)}, first=2000, name="confirm-2")
    hunt.confirm({1: {}}, first=3000, name="confirm-3")
    assert read_confirmation(hunt.folder).folder.name == "confirm-2"


def test_more_trials_in_the_search_are_noticed(hunt_of):
    hunt = hunt_of().search([0.5], [0.4]).confirm({0: fresh(0.1, 0.2, 0.3), 1: fresh(0.1, 0.2, 0.3)})
    assert not read_confirmation(hunt.folder).moved_on
    more = hunt_of(name="more").search([0.5], [0.4], [0.45])
    (hunt.folder.path / "confirm").rename(more.folder.path / "confirm")
    confirmation = read_confirmation(more.folder)
    assert confirmation.moved_on and [t.search_rank for t in confirmation.trials] == [1, 2]
    assert "# the search has gone on since" in confirmed_text(more.folder, confirmation, 1)


def test_a_confirmation_of_another_search_is_refused(hunt_of):
    hunt = hunt_of().search([0.5], [0.4], [0.3]).confirm({2: fresh(0.1, 0.2, 0.3)})
    other = hunt_of(name="other").search([0.5])
    (hunt.folder.path / "confirm").rename(other.folder.path / "confirm")
    with pytest.raises(StudyError, match="arm 'rank-3' is no trial of study 'other'"):
        read_confirmation(other.folder)


def test_the_exported_file_says_what_fresh_seeds_gave_and_trains_the_same_trial(hunt_of, tmp_path):
    scores = (0.40, 0.41, 0.43)
    hunt = hunt_of().search([0.60], [0.58]).confirm({0: fresh(0.1, 0.2, 0.3), 1: fresh(*scores)})
    confirmation = read_confirmation(hunt.folder)
    text, (low, high) = confirmed_text(hunt.folder, confirmation, 1), scipy_interval(scores)
    assert "# rank 1 of study hunt as confirmed from fresh seeds: trial 1" in text and "rank 2 of the search" in text
    assert f"# confirmed validation mIoU {np.mean(scores):.4f}, 95 % interval {low:.4f} to {high:.4f} " in text
    assert "(t, 3 fresh seeds: 1000, 1001, 1002)" in text
    assert "# search score 0.5800 at epoch 1 of 1 run, seed 0" in text
    write_text(tmp_path / "e.yaml", text)
    assert f"{fingerprint(read_section(Experiment, tmp_path / 'e.yaml'))}-s0" == hunt.rows[1][0].trial
    assert confirmation.trials[0].best_run.seed == 1002
    write_confirmed(hunt.folder, confirmation.folder)
    assert StudyFolder(hunt.folder.path / "confirm").best.read_text() == text


def test_a_search_asks_for_its_confirmation_until_it_has_one(hunt_of):
    hunt = hunt_of().search(*([0.1 * n] for n in range(1, 8)))
    assert asks_for_confirmation(hunt.folder, "h") == ("harness confirm h", "re-trains the best 5 with fresh seeds")
    one = hunt_of(name="one").search([0.6])
    assert asks_for_confirmation(one.folder, "h")[1] == "re-trains the best trial with fresh seeds"
    half = hunt_of(name="half").search([0.6], [0.5]).confirm({0: {1000: [0.4], 1001: None}})
    assert asks_for_confirmation(half.folder, "h")[0] == "harness confirm h --resume"
    whole = hunt_of(name="whole").search([0.6], [0.5]).confirm({0: fresh(0.4, 0.5, 0.6)})
    assert asks_for_confirmation(whole.folder, "h") is None


def test_a_search_without_a_score_asks_for_no_confirmation(hunt_of):
    assert asks_for_confirmation(hunt_of().search().folder, "h") is None
