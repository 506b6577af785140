"""Arms of every design against hand-worked lists, and the order in which changes are laid over each other."""

from __future__ import annotations

from itertools import permutations

import pytest

from harness.ablate.designs import baseline_of, prefixes, resolve_arms, shapley_orders
from harness.config import validate_section
from harness.config.ablation import Ablation
from harness.errors import ConfigError

LR = {"a": ("optimiser.weight_decay", 0.1), "b": ("training.batch_size", 2), "c": ("optimiser.lr", 0.01)}
MORE = {
    "d": ("loss.dice.weight", 0.5),
    "e": ("loss.focal.weight", 0.5),
    "f": ("training.drop_last", True),
    "g": ("training.epochs", 5),
}


def ablation(**values) -> Ablation:
    return validate_section(Ablation, values, "test")


def factors(table, **more) -> dict:
    return {name: {"set": {path: value}} for name, (path, value) in table.items()} | more


def of(kind: str, table=LR, **design) -> Ablation:
    return ablation(factors=factors(table), design={"kind": kind, **design})


def on(arms) -> dict[str, set[str]]:
    return {name: set(arm.factors) for name, arm in arms.items()}


def test_one_factor_has_the_baseline_and_each_factor_alone():
    arms = resolve_arms(of("one_factor"), "full")
    assert on(arms) == {"baseline": set(), "a": {"a"}, "b": {"b"}, "c": {"c"}}
    assert list(arms)[0] == "baseline"
    assert arms["a"].experiment.optimiser.weight_decay == 0.1
    assert arms["a"].experiment.training == arms["baseline"].experiment.training


def test_leave_one_out_has_all_and_all_but_each():
    arms = resolve_arms(of("leave_one_out"), "full")
    assert on(arms) == {
        "all": {"a", "b", "c"},
        "without_a": {"b", "c"},
        "without_b": {"a", "c"},
        "without_c": {"a", "b"},
    }
    assert arms["without_a"].experiment.optimiser.weight_decay == 0.01
    assert arms["without_a"].experiment.training.batch_size == 2


def test_a_full_factorial_has_every_combination_in_standard_order():
    arms = resolve_arms(of("factorial"), "full")
    assert list(arms) == ["baseline", "a", "b", "a+b", "c", "a+c", "b+c", "all"]


def test_a_half_of_three_factors_has_the_baseline_and_every_pair():
    arms = resolve_arms(of("factorial", halvings=1), "full")
    assert list(arms) == ["baseline", "a+b", "a+c", "b+c"]


def test_shapley_of_three_factors_has_every_subset():
    assert on(resolve_arms(of("shapley"), "full")) == on(resolve_arms(of("factorial"), "full"))


def test_shapley_of_seven_factors_has_the_prefixes_of_its_orders():
    study = of("shapley", LR | MORE, permutations=4)
    arms = resolve_arms(study, "full")
    expected = {s for order in shapley_orders("abcdefg", 4) for s in prefixes(order)}
    assert {arm.factors for arm in arms.values()} == expected
    assert len(arms) == len(expected) < 2**7
    assert arms["baseline"].factors == frozenset() and arms["all"].factors == frozenset("abcdefg")


def test_shapley_orders_are_antithetic_pairs_that_do_not_change_when_more_are_asked_for():
    orders = shapley_orders("abcdefg", 10)
    assert all(sorted(order) == list("abcdefg") for order in orders)
    assert [orders[i][::-1] for i in (0, 2, 4)] == [orders[i] for i in (1, 3, 5)]
    assert shapley_orders("abcdefg", 5) == orders[:5]


def test_shapley_orders_visit_every_order_of_three_about_equally():
    orders = shapley_orders("abc", 6000)
    counts = [orders.count(order) for order in permutations("abc")]
    # the standard deviation of a count of pairs is 2 sqrt(3000 / 3 x 2 / 3) = 52
    assert all(abs(count - 1000) < 4 * 52 for count in counts)


@pytest.mark.parametrize(
    ("kind", "reference"),
    [("one_factor", "baseline"), ("leave_one_out", "all"), ("factorial", "baseline"), ("shapley", "baseline")],
)
def test_the_reference_of_a_design_of_factors_is_one_of_its_arms(kind, reference):
    assert baseline_of(of(kind)) == reference
    assert reference in resolve_arms(of(kind), "full")


def test_the_guess_goes_with_the_one_factor_that_makes_the_difference():
    table = factors(LR)
    table["a"]["guess"] = "+2 %"
    for kind, name in (("one_factor", "a"), ("leave_one_out", "without_a"), ("factorial", "a")):
        arms = resolve_arms(ablation(factors=table, design={"kind": kind}), "full")
        assert {n for n, arm in arms.items() if arm.guess == "+2 %"} == {name}
        assert {arm.guess for n, arm in arms.items() if n != name} == {None}


LADDER = {
    "first": {"set": {"optimiser.lr": 0.01, "training.epochs": 4}},
    "between": {"base": "first", "set": {"training.batch_size": 2}},
    "second": {"base": "between", "start": "between", "set": {"training.epochs": 6}, "guess": "+1 %"},
    "scored": {"base": "second", "start": "second", "set": {"training.epochs": 0}},
    "unused": {"set": {"training.batch_size": 1}},
}


def ladder(arms=LADDER, rungs=("first", "second", "scored"), **scale) -> Ablation:
    return ablation(arms=arms, design={"kind": "ladder", "rungs": list(rungs)}, scale={"full": {}} | scale)


def test_a_ladder_has_its_rungs_and_the_arms_that_they_start_from():
    arms = resolve_arms(ladder(), "full")
    assert list(arms) == ["first", "between", "second", "scored"]
    assert baseline_of(ladder()) == "first"
    assert arms["second"].guess == "+1 %"


def test_the_changes_of_an_arms_bases_come_first_and_its_own_have_the_last_word():
    second = resolve_arms(ladder(), "full")["second"].experiment
    assert (second.optimiser.lr, second.training.batch_size, second.training.epochs) == (0.01, 2, 6)


def test_an_arm_starts_from_what_it_says_and_not_from_what_its_base_does():
    arms = resolve_arms(ladder(), "full")
    assert [arms[name].start for name in arms] == [(), (), ("between",), ("second",)]
    assert arms["second"].experiment.start == ("arm:between",)
    assert arms["first"].experiment.start == ()


def test_arms_come_after_those_that_they_start_from_whatever_the_order_of_the_rungs():
    arms = resolve_arms(ladder(rungs=("scored", "second")), "full")
    assert list(arms) == ["between", "second", "scored"]


def test_an_ensemble_starts_from_several_arms():
    arms = LADDER | {"both": {"start": ["first", "unused"], "set": {"training.epochs": 0}}}
    study = ablation(arms=arms, design={"kind": "arms", "baseline": "first", "arms": ["both"]})
    found = resolve_arms(study, "full")
    assert list(found) == ["first", "unused", "both"]
    assert found["both"].experiment.start == ("arm:first", "arm:unused")
    assert baseline_of(study) == "first"


def test_a_scale_is_put_over_every_arm_last():
    study = ladder(smoke={"set": {"training.epochs": 1, "optimiser.lr": 0.5}})
    arms = resolve_arms(study, "smoke")
    assert {arm.experiment.optimiser.lr for arm in arms.values()} == {0.5}
    assert [arm.experiment.training.epochs for arm in arms.values()] == [1, 1, 1, 0]


@pytest.mark.parametrize("change", [{"training.epochs": 0}, {"training": {"epochs": 0, "batch_size": 8}}])
def test_an_arm_that_only_scores_does_so_at_every_scale(change):
    arms = LADDER | {"scored": {"start": "first", "set": {**change, "schedule": {"kind": "constant"}}}}
    study = ladder(arms, smoke={"set": {"training.epochs": 2, "schedule.warmup_epochs": 1}})
    found = resolve_arms(study, "smoke")
    assert found["first"].experiment.schedule.warmup_epochs == 1
    assert found["scored"].experiment.training.epochs == 0
    assert found["scored"].experiment.schedule.warmup_epochs == 0


def test_a_rule_may_be_broken_on_the_way_if_it_holds_in_the_end():
    # 8 epochs of warm-up do not fit into the base's 4 epochs, but into the arm's own 20
    arms = {
        "short": {"set": {"training.epochs": 4}},
        "long": {"base": "short", "set": {"schedule.warmup_epochs": 8, "training.epochs": 20}},
    }
    study = ladder(arms, ("short", "long"))
    assert resolve_arms(study, "full")["long"].experiment.schedule.warmup_epochs == 8


def test_a_whole_section_replaces_what_was_set_inside_it_before_and_keeps_what_is_set_after():
    arms = {
        "one": {"set": {"schedule.floor": 0.5}},
        "two": {"base": "one", "set": {"schedule": {"kind": "plateau"}, "schedule.patience": 7}},
        "three": {"base": "two", "set": {"schedule": {"kind": "cosine"}}},
    }
    found = resolve_arms(ladder(arms, ("one", "two", "three")), "full")
    assert found["one"].experiment.schedule.floor == 0.5
    assert (found["two"].experiment.schedule.kind, found["two"].experiment.schedule.patience) == ("plateau", 7)
    assert found["three"].experiment.schedule.floor == 0.0


def test_an_unknown_scale_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match="scale 'smok' is not in this ablation; did you mean 'smoke'?"):
        resolve_arms(ladder(smoke={}), "smok")


def test_a_change_that_breaks_a_rule_is_refused_with_the_arm_and_the_scale():
    with pytest.raises(ConfigError, match=r"arm 'x' at scale 'full': override optimiser.rl: there is no field"):
        resolve_arms(ladder({"x": {"set": {"optimiser.rl": 1.0}}, "y": {}}, ("x", "y")), "full")


@pytest.mark.parametrize("kind", ["one_factor", "leave_one_out", "factorial", "shapley"])
def test_a_factor_that_changes_nothing_is_refused_with_both_arms(kind):
    study = of(kind, LR | {"idle": ("training.patience", None)})
    arms = "'without_idle' and arm 'all'" if kind == "leave_one_out" else "'idle' and arm 'baseline'"
    with pytest.raises(ConfigError, match=f"arm {arms} are the same training at scale 'full'"):
        resolve_arms(study, "full")


def test_a_factor_that_the_scale_hides_is_refused_with_the_path_to_take_out():
    study = ablation(
        factors=factors(LR), design={"kind": "one_factor"}, scale={"smoke": {"set": {"training": {"batch_size": 1}}}}
    )
    fix = r"arm 'b' and arm 'baseline' .* the scale's training comes last and hides it: take it out of scale.smoke.set"
    with pytest.raises(ConfigError, match=fix):
        resolve_arms(study, "smoke")


def test_two_rungs_that_are_the_same_training_are_refused_unless_they_start_from_different_arms():
    same = {"one": {"set": {"optimiser.lr": 0.1}}, "two": {"base": "one"}}
    with pytest.raises(ConfigError, match="arm 'two' and arm 'one' are the same training"):
        resolve_arms(ladder(same, ("one", "two")), "full")
    chained = same | {"two": {"base": "one", "start": "one"}}
    assert list(resolve_arms(ladder(chained, ("one", "two")), "full")) == ["one", "two"]


def test_a_rung_that_is_named_twice_is_refused():
    with pytest.raises(ConfigError, match="the design names arm 'first' 2 times; name each arm once"):
        resolve_arms(ladder(rungs=("first", "second", "first")), "full")


@pytest.mark.parametrize(("kind", "name"), [("one_factor", "baseline"), ("factorial", "all"), ("shapley", "a+b")])
def test_a_factor_with_the_name_of_another_arm_is_refused(kind, name):
    with pytest.raises(ConfigError, match=rf"two arms would be called '{name}'".replace("+", r"\+")):
        resolve_arms(of(kind, LR | {name: ("training.drop_last", True)}), "full")
