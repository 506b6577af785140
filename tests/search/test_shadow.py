"""What Optuna's samplers see of a long study."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

from harness.search import shadow
from harness.search.shadow import Shadow


def make_shadow(space) -> Shadow:
    return Shadow(space, lambda: optuna.samplers.RandomSampler(seed=0))


def states(study: optuna.Study) -> dict[TrialState, int]:
    found = [trial.state for trial in study.get_trials(deepcopy=False)]
    return {state: found.count(state) for state in set(found)}


def test_trials_under_way_are_running_and_results_are_complete_or_pruned(make_space):
    seen = make_shadow(make_space())
    picked = [seen.draw(number) for number in range(4)]
    seen.finish(0, picked[0], 0.5)
    seen.finish(1, picked[1], 0.2, TrialState.PRUNED, epoch=3)
    seen.drop(2)
    complete, pruned, running = (
        seen.study.get_trials(states=[state]) for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    )
    assert [(t.value, t.params) for t in complete] == [(0.5, picked[0])]
    assert [(t.intermediate_values, t.params) for t in pruned] == [({3: 0.2}, picked[1])]
    assert [t.params for t in running] == [picked[3]] and seen.under_way == {3: picked[3]}


def test_a_sampler_never_sees_more_than_the_best_and_the_newest(make_space, monkeypatch):
    monkeypatch.setattr(shadow, "SEEN", 10)
    seen = make_shadow(make_space())
    for number in range(100):
        picked = seen.draw(number)
        # the first three are the best there will be
        seen.finish(number, picked, 9.0 if number < 3 else number / 1000)
        assert len(seen.study.get_trials(deepcopy=False)) <= 2 * 10 + 3
    seen._build()
    values = sorted(trial.value for trial in seen.study.get_trials(deepcopy=False))
    assert values[-3:] == [9.0] * 3
    assert values[:5] == [n / 1000 for n in range(95, 100)]


def test_trials_under_way_survive_a_rebuilt_study(make_space, monkeypatch):
    monkeypatch.setattr(shadow, "SEEN", 4)
    seen = make_shadow(make_space())
    kept = seen.draw(1000)
    for number in range(30):
        seen.finish(number, seen.draw(number), 0.1)
    (running,) = seen.study.get_trials(states=[TrialState.RUNNING])
    assert running.params == kept
    seen.finish(1000, kept, 0.7)
    assert states(seen.study).get(TrialState.RUNNING) is None
