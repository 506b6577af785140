"""The tables of made-up ablations, against numbers worked out by hand or by SciPy."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console
from scipy import stats as reference

from harness.errors import StudyError
from harness.report.ablation import ablation_summary, ablation_tables, write_ablation_tables
from harness.report.ablation_shared import ONE_SEED, VERDICT
from harness.report.plot_classes import class_journey
from harness.report.plot_comparisons import Comparisons
from harness.report.plot_effects import returns, waterfall
from harness.report.table import Table

TWO = ("Trees", "Sky")
THREE = ("Trees", "Sky", "Logs")
TEN = (
    "Trees", "Lush Bushes", "Dry Grass", "Dry Bushes", "Ground Clutter", "Flowers", "Logs", "Rocks", "Landscape", "Sky",
)  # fmt: skip
SCORES = {"base": (400, 420, 440), "good": (500, 520, 550), "null": (410, 410, 440)}
ARMS = {
    "base": {},
    "good": {"set": {"optimiser.lr": 0.002}, "guess": "+10 %, at least"},
    "null": {"set": {"optimiser.lr": 0.003}},
}
FACTORS = {
    "dice": {"set": {"loss.dice.weight": 1.0}, "guess": "40 % of the gain"},
    "lr": {"set": {"optimiser.lr": 0.003}},
    "big": {"set": {"training.batch_size": 8}},
}


def ladder(*rungs: str, **more: dict) -> dict:
    return {"arms": {**ARMS, **more}, "design": {"kind": "ladder", "rungs": rungs or tuple(ARMS)}}


def arms(**more: dict) -> dict:
    named = {**ARMS, **more}
    return {"arms": named, "design": {"kind": "arms", "baseline": "base", "arms": [a for a in named if a != "base"]}}


def suppressed(start: str = "base") -> dict:
    """An arm that only scores another's weights without Logs."""
    values = {"training.epochs": 0, "schedule": {"kind": "constant"}, "evaluation.suppress": ["Logs"]}
    return {"base": start, "start": start, "guess": "+0.13 mIoU, the largest gain", "set": values}


def text(renderable, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def rows(table: Table) -> dict[str, dict[str, str]]:
    """The rows by their first cell."""
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


@pytest.fixture
def three_arms(made_up, matrices):
    """A ladder of base, good and null with the scores above, three seeds, all complete."""
    study = made_up(ladder())
    for arm, hits in SCORES.items():
        for seed, h in enumerate(hits):
            study.trial(arm, seed, TWO, matrices({"Trees": h - 10, "Sky": h + 10}, TWO))
    return study


@pytest.fixture
def factorial_study(made_up, matrices):
    """Starts a study of the three factors: dice +0.06, lr +0.03, both +0.02 more, big 0."""

    def start(design: dict, seeds: int = 3, leave_out: str = ""):
        study = made_up({"factors": FACTORS, "design": design}, seeds)
        for name, arm in study.read().arms.items():
            on = arm.factors
            hits = 400 + 60 * ("dice" in on) + 30 * ("lr" in on) + 20 * ({"dice", "lr"} <= on)
            for seed in range(seeds if name != leave_out else 0):
                h = hits + 10 * seed
                study.trial(name, seed, TWO, matrices({"Trees": h, "Sky": h}, TWO))
        return study.read()

    return start


def test_an_effect_has_the_numbers_of_scipys_paired_t_test(three_arms):
    table = ablation_tables(three_arms.read())["effects"]
    good, null = (rows(table)[name] for name in ("good", "null"))
    base = [s / 1000 for s in SCORES["base"]]
    tests = [reference.ttest_rel([s / 1000 for s in SCORES[name]], base) for name in ("good", "null")]
    low, high = tests[0].confidence_interval()
    # differences 0.10, 0.10 and 0.11
    assert (good["n"], good["score"], good["difference"]) == ("3", "0.5233", "+0.1033")
    assert good["difference interval"] == f"+{low:.4f} to +{high:.4f}" == "+0.0890 to +0.1177"
    assert good["interval from"] == "t over seeds"
    assert good["p"] == f"{tests[0].pvalue:.4f}" and good["Holm p"] == f"{2 * tests[0].pvalue:.4f}"
    # variances of 4, 6.3333 and 3, times 1e-4, pooled
    assert good["noise floor"] == null["noise floor"] == f"{np.sqrt((4 + 19 / 3 + 3) / 3 * 1e-4):.4f}"
    assert (good["verdict"], good["authors' guess"]) == ("better", "+10 %, at least")


def test_a_null_effect_is_not_resolved(three_arms):
    null = rows(ablation_tables(three_arms.read())["effects"])["null"]
    assert (null["difference"], null["p"], null["Holm p"]) == ("0.0000", "1.0000", "1.0000")
    assert (null["verdict"], null["authors' guess"]) == ("not resolved", "")
    assert float(null["smallest resolvable"]) > 0.02


def test_the_baseline_has_its_score_and_no_difference(three_arms):
    base = rows(ablation_tables(three_arms.read())["effects"])["base"]
    # 0.42 +- 4.3027 * 0.02 / sqrt(3)
    assert (base["score"], base["score interval"]) == ("0.4200", "0.3703 to 0.4697")
    assert (base["difference"], base["p"], base["verdict"]) == ("", "", "baseline")


def test_a_ladder_also_sets_every_rung_against_the_one_before(three_arms):
    steps = rows(ablation_tables(three_arms.read())["steps"])
    assert [row["against"] for row in steps.values()] == ["", "base", "good"]
    assert (steps["null"]["difference"], steps["null"]["verdict"]) == ("-0.1033", "worse")
    assert steps["base"]["verdict"] == "first rung"


def test_arms_are_no_ladder_and_have_no_steps(made_up, matrices):
    study = made_up(arms())
    study.trial("base", 0, TWO, matrices({"Trees": 400, "Sky": 400}, TWO))
    assert "steps" not in ablation_tables(study.read())


def test_a_path_has_the_steps_of_a_ladder_and_every_tried_arm_among_the_effects(factorial_study):
    records = factorial_study({"kind": "path", "steps": ["lr", "dice"]})
    tables = ablation_tables(records)
    assert list(rows(tables["effects"])) == ["baseline", "dice", "lr", "big", "dice+lr", "lr+big", "all"]
    steps = rows(tables["steps"])
    assert [(arm, row["against"], row["difference"]) for arm, row in steps.items()] == [
        ("baseline", "", ""), ("lr", "baseline", "+0.0300"), ("dice+lr", "lr", "+0.0800"),
    ]  # fmt: skip
    assert "factors in the order taken: lr, dice" in tables["steps"].notes
    assert any("too high by that choice" in note for note in tables["steps"].notes)
    assert not any("not compared by the design" in note for note in tables["steps"].notes)
    assert "against the rung before" in text(ablation_summary(records))


def test_the_charts_of_a_path_follow_its_steps_and_call_no_tried_arm_left_out(factorial_study):
    study = Comparisons(factorial_study({"kind": "path", "steps": ["lr", "dice"]}))
    drawn, cost = waterfall(study), returns(study)
    assert drawn.rows[:3] == ("baseline", "lr", "dice+lr")
    assert [point.label for point in cost.panels[0].series[0].points] == ["baseline", "lr", "dice+lr"]
    assert not any("Left out" in note for note in (*drawn.notes, *cost.notes))
    assert class_journey(study.records).panels[0].ticks == ("baseline", "lr", "dice+lr")


def test_a_path_that_has_taken_no_step_has_its_baseline_as_its_only_rung(factorial_study):
    steps = rows(ablation_tables(factorial_study({"kind": "path"}))["steps"])
    assert [(arm, row["verdict"]) for arm, row in steps.items()] == [("baseline", "first rung")]


def test_an_arm_without_a_complete_trial_keeps_its_row_in_dashes(made_up, matrices):
    study = made_up(ladder("base", "good", "null"))
    for arm in ("base", "null"):
        for seed, h in enumerate(SCORES[arm]):
            study.trial(arm, seed, TWO, matrices({"Trees": h, "Sky": h}, TWO))
    study.failed("good", 0, "out of memory")
    tables = ablation_tables(study.read())
    good = rows(tables["effects"])["good"]
    assert (good["n"], good["score"], good["difference"], good["verdict"]) == ("0", "–", "–", "no complete trial")
    assert good["authors' guess"] == "+10 %, at least"
    assert rows(tables["steps"])["null"]["against"] == "base"
    assert rows(tables["conventions"])["good"]["frames"] == "no complete trial"
    assert rows(tables["per_class"])["Sky"]["good"] == "–"
    assert rows(tables["cost"])["good"]["trials"] == "0 of 3"
    assert "failed: good-s0 (good, seed 0): out of memory" in tables["runs"].notes
    assert "good-s0" not in rows(tables["runs"])
    assert "no complete trial" in text(ablation_summary(study.read()))


def test_without_the_baseline_nothing_is_compared(made_up, matrices):
    study = made_up(ladder())
    study.trial("good", 0, TWO, matrices({"Trees": 500, "Sky": 500}, TWO))
    good = rows(ablation_tables(study.read())["effects"])["good"]
    assert (good["score"], good["difference"], good["verdict"]) == ("0.5000", "–", "no complete trial of base")


def test_a_study_without_any_trial_has_all_its_tables(made_up, tmp_path):
    study = made_up(ladder())
    paths = write_ablation_tables(study.read(), tmp_path / "tables")
    assert rows(ablation_tables(study.read())["effects"])["base"]["verdict"] == "no complete trial"
    assert len(paths) == 9 * 3 + 1
    assert "no complete trial" in text(ablation_summary(study.read()))


def test_one_seed_has_an_interval_over_images_and_no_verdict(made_up, matrices):
    study = made_up(ladder(), seeds=1)
    for arm, h in (("base", 400), ("good", 500), ("null", 410)):
        study.trial(arm, 0, TWO, matrices({"Trees": h, "Sky": h}, TWO))
    records = study.read()
    table = ablation_tables(records)["effects"]
    good = rows(table)["good"]
    # image by image the arms differ by 0.1
    assert good["difference interval"] == "+0.1000 to +0.1000"
    # images score 0.52 or 0.48, so that no mean of them is outside
    assert good["score interval"] == "0.4800 to 0.5200"
    assert (good["interval from"], good["p"], good["verdict"]) == ("bootstrap over images", "–", "not resolved")
    assert f"every arm: {ONE_SEED}" in table.notes
    assert ONE_SEED in text(ablation_summary(records), 200)


def test_scores_that_are_not_those_of_the_matrices_are_refused(three_arms, matrices):
    path = three_arms.folder.run("good-s1").confusion
    np.savez(path, names=np.array(["a"]), matrices=matrices({"Trees": 1, "Sky": 1}, TWO, images=4) + 20)
    with pytest.raises(StudyError, match="arm 'good', seed 1: the score 0.520000 is not the mIoU"):
        ablation_tables(three_arms.read())


def test_suppression_that_changes_no_prediction_of_a_true_class_gains_by_its_denominator_alone(made_up, matrices):
    study = made_up(arms(base_suppressed=suppressed()))
    for seed in range(3):
        for arm, wrong in (("base", {"Logs": 100}), ("base_suppressed", {})):
            m = matrices({"Trees": 300, "Sky": 600}, THREE, wrong)
            study.trial(arm, seed, THREE, m)
    row = rows(ablation_tables(study.read())["denominator"])["base_suppressed"]
    assert (row["against"], row["no longer predicted"], row["frames"]) == ("base", "Logs", "val")
    # 0.45 over two classes; before, 0.9 / 3 = 0.30
    assert row["gain under miou"] == row["gain over the same classes"] == "0.0000"
    assert row["gain under union_present"] == row["change of denominator"] == "+0.1500"
    assert row["its share"] == "100.0 %"
    assert row["classes averaged by union_present"] == "3 → 2"
    assert row["classes averaged by miou"] == "2 → 2"
    said = text(ablation_summary(study.read()), 200)
    assert "+0.1500 under union_present, 0.0000 over the same classes; 100.0 % is only the change" in said


def test_a_gain_in_true_classes_is_no_change_of_denominator(made_up, matrices):
    study = made_up(arms(base_suppressed=suppressed()))
    study.trial("base", 0, THREE, matrices({"Trees": 300, "Sky": 600}, THREE, {"Logs": 100}))
    study.trial("good", 0, THREE, matrices({"Trees": 600, "Sky": 600}, THREE, {"Logs": 100}))
    # Logs' pixels go back to Trees: 0.40 and 0.60
    study.trial("base_suppressed", 0, THREE, matrices({"Trees": 400, "Sky": 600}, THREE))
    found = rows(ablation_tables(study.read())["denominator"])
    good, quiet = found["good"], found["base_suppressed"]
    assert (good["gain under miou"], good["gain under union_present"]) == ("+0.1500", "+0.1000")
    assert (good["change of denominator"], good["its share"]) == ("0.0000", "0.0 %")
    # 0.50 - 0.30, of which 0.45 - 0.30 without any better prediction
    assert (quiet["gain under union_present"], quiet["gain under miou"]) == ("+0.2000", "+0.0500")
    assert (quiet["change of denominator"], quiet["its share"]) == ("+0.1500", "75.0 %")


def test_a_class_that_only_the_arm_predicts_costs_by_the_denominator_alone(made_up, matrices):
    study = made_up(arms())
    study.trial("base", 0, THREE, matrices({"Trees": 300, "Sky": 600}, THREE))
    study.trial("good", 0, THREE, matrices({"Trees": 300, "Sky": 600}, THREE, {"Logs": 100}))
    row = rows(ablation_tables(study.read())["denominator"])["good"]
    assert (row["gain under miou"], row["gain under union_present"]) == ("0.0000", "-0.1500")
    assert (row["change of denominator"], row["its share"]) == ("-0.1500", "100.0 %")


def test_a_class_that_the_baselines_taxonomy_lacks_is_no_class_that_scored_0_there(made_up, matrices):
    study = made_up(arms())
    study.trial("base", 0, TWO, matrices({"Trees": 300, "Sky": 600}, TWO))
    study.trial("good", 0, THREE, matrices({"Trees": 300, "Sky": 600, "Logs": 900}, THREE))
    row = rows(ablation_tables(study.read())["denominator"])["good"]
    assert (row["gain under union_present"], row["gain over the same classes"]) == ("+0.1500", "0.0000")
    assert (row["change of denominator"], row["its share"]) == ("0.0000", "0.0 %")


def test_a_class_that_the_truth_of_one_arm_lacks_is_not_among_the_same_classes(made_up, matrices):
    study = made_up(arms())
    study.trial("base", 0, THREE, matrices({"Trees": 300, "Sky": 600, "Logs": 900}, THREE))
    study.trial("good", 0, THREE, matrices({"Trees": 400, "Sky": 600}, THREE, {"Logs": 100}))
    row = rows(ablation_tables(study.read())["denominator"])["good"]
    # 0.50 - 0.60, and 0.10 / 2
    assert (row["gain under miou"], row["gain over the same classes"]) == ("-0.1000", "+0.0500")
    assert (row["classes averaged by miou"], row["classes averaged by union_present"]) == ("3 → 2", "3 → 3")


def test_test_frames_come_before_validation_and_an_arm_is_set_against_its_start(made_up, matrices):
    study = made_up(arms(good_suppressed=suppressed("good")))
    val = matrices({"Trees": 500, "Sky": 500, "Logs": 500}, THREE)
    for arm, wrong in (("base", {"Logs": 10}), ("good", {"Logs": 10}), ("good_suppressed", {})):
        study.trial(arm, 0, THREE, val, test=matrices({"Trees": 400, "Sky": 400}, THREE, wrong))
    table = ablation_tables(study.read())["denominator"]
    found = {row[:2]: row[2:4] for row in table.rows}
    assert found["good_suppressed", "good"] == found["good_suppressed", "base"] == ("Logs", "test")
    assert found["good", "base"] == ("", "test")
    assert found["null", "base"] == ("", "no complete trial of null")


def test_a_taxonomy_that_drops_classes_is_compared_over_those_that_are_left(made_up, matrices):
    study = made_up(arms())
    study.trial("base", 0, THREE, matrices({"Trees": 400, "Sky": 500, "Logs": 0}, THREE))
    study.trial("good", 0, TWO, matrices({"Trees": 400, "Sky": 500}, TWO))
    tables = ablation_tables(study.read())
    row = rows(tables["denominator"])["good"]
    assert row["no longer predicted"] == "Logs"
    # 0.45 against 0.30: the truth itself lost a class, so that miou gains as well
    assert row["gain under miou"] == row["gain under union_present"] == "+0.1500"
    assert (row["gain over the same classes"], row["its share"]) == ("0.0000", "100.0 %")
    assert any("good: its taxonomy has other classes" in n and "without Logs" in n for n in tables["effects"].notes)


def test_the_conventions_table_scores_the_same_predictions_under_every_rule(made_up, matrices):
    study = made_up(arms())
    present = [n for n in TEN if n not in ("Ground Clutter", "Flowers", "Logs")]
    m = matrices(dict.fromkeys(present, 700), TEN, {"Logs": 100, "Flowers": 100})
    study.trial("base", 0, TEN, m)
    study.trial("base", 1, TEN, matrices(dict.fromkeys(present, 500), TEN))
    study.trial("good", 0, TWO, matrices({"Trees": 500, "Sky": 500}, TWO), test=matrices({"Trees": 100}, TWO))
    found = rows(ablation_tables(study.read())["conventions"])
    base, good = found["base"], found["good"]
    assert (base["frames"], base["seeds"], good["frames"], good["seeds"]) == ("val", "2", "test", "1")
    assert base["miou"] == base["codecrunch7"] == "0.6000"
    # 4.9 / 9 with Flowers and Logs predicted, 3.5 / 7 without; over all ten classes 0.49 and 0.35
    assert base["union_present"] == f"{(4.9 / 9 + 0.5) / 2:.4f}"
    assert base["all_classes"] == "0.4200" and base["absent_one"] == f"{(5.9 + 6.5) / 20:.4f}"
    # codecrunch7 needs three classes that this taxonomy lacks
    assert (good["miou"], good["codecrunch7"]) == ("0.1000", "–")


def test_classes_of_other_taxonomies_are_matched_by_name_and_the_rest_is_blank(made_up, matrices):
    study = made_up(arms())
    # 200 pixels of Logs, which the other taxonomy does not have, are called Trees
    study.trial("base", 0, THREE, matrices({"Logs": 700, "Trees": 400, "Sky": 500}, THREE, {"Trees": 200}))
    study.trial("good", 0, ("Sky", "Trees", "Rocks"), matrices({"Sky": 450, "Trees": 600}, ("Sky", "Trees", "Rocks")))
    tables = ablation_tables(study.read())
    ious, deltas = rows(tables["per_class"]), rows(tables["per_class_delta"])
    assert list(ious) == [*THREE, "Rocks", "mIoU"] and list(deltas) == [*THREE, "Rocks"]
    # Trees: 400 of 1000 true and 200 more predicted
    assert [ious[n]["base"] for n in ious] == ["0.3333", "0.5000", "0.7000", "", f"{(1 / 3 + 1.2) / 3:.4f}"]
    # Rocks is in the taxonomy, not in the truth
    assert [ious[n]["good"] for n in ious] == ["0.6000", "0.4500", "", "–", "0.5250"]
    assert [deltas[n]["good"].split(" ")[0] for n in deltas] == ["+0.2667", "-0.0500", "", ""]
    assert [row["null"] for row in deltas.values()] == ["–", "–", "–", ""]


def test_a_class_delta_has_an_interval_over_images(made_up, matrices):
    study = made_up(arms())
    first = matrices({"Trees": 400, "Sky": 500}, TWO)
    second = matrices({"Trees": 500, "Sky": 500}, TWO)
    # images alternate: Trees differ by 0.14 or 0.06
    second[::2, 0, 0] += 40
    second[::2, 0, -1] -= 40
    second[1::2, 0, 0] -= 40
    second[1::2, 0, -1] += 40
    study.trial("base", 0, TWO, first)
    study.trial("good", 0, TWO, second)
    found = rows(ablation_tables(study.read())["per_class_delta"])
    assert found["Trees"]["good"] == "+0.1000 (+0.0600 to +0.1400)"
    assert found["Sky"]["good"] == "0.0000 (0.0000 to 0.0000)"


def test_validation_and_test_stand_side_by_side_where_both_were_scored(made_up, matrices):
    study = made_up(arms())
    test = matrices({"Trees": 100}, THREE, images=6)
    study.trial("base", 0, THREE, matrices({"Trees": 400, "Sky": 500}, THREE), test=test)
    study.trial("good", 0, THREE, matrices({"Trees": 400, "Sky": 500}, THREE))
    table = ablation_tables(study.read())["validation_vs_test"]
    assert [row[1:] for row in table.rows] == [
        ("Trees", "1", "0.4000", "0.1000", "-0.3000"),
        ("Sky", "1", "0.5000", "–", "–"),
        ("Logs", "1", "–", "–", "–"),
        ("mIoU", "1", "0.4500", "0.1000", "-0.3500"),
    ]
    assert any(note.endswith("for: good, null") for note in table.notes)


def test_the_cost_is_told_on_a_gpu_and_on_a_cpu(made_up, matrices):
    study = made_up(arms(), seeds=2)
    m = matrices({"Trees": 400, "Sky": 500}, TWO)
    for seed in (0, 1):
        study.trial("base", seed, TWO, m, peak_memory_mb=1000.0 + seed)
    study.trial("good", 0, TWO, m, train_seconds=898.0)
    found = rows(ablation_tables(study.read())["cost"])
    # two epochs a trial of 88 s + 2 s, four images
    assert list(found["base"].values())[1:] == [
        "2 of 2", "4", "0.1000", "GPU", "90.00", "1,234,567", "500.0", "1001",
    ]  # fmt: skip
    assert list(found["good"].values())[1:] == ["1 of 2", "2", "0.5000", "CPU", "900.00", "1,234,567", "500.0", "–"]
    assert list(found["all"].values())[1:5] == ["3 of 6", "6", "0.6000", "GPU and CPU"]


def test_an_arm_that_only_scores_has_no_seconds_per_epoch(made_up, matrices):
    study = made_up(arms(base_suppressed=suppressed()), seeds=1)
    m = matrices({"Trees": 400, "Sky": 500, "Logs": 100}, THREE)
    study.trial("base", 0, THREE, m, epochs=(0, 1, 2))
    study.trial("base_suppressed", 0, THREE, m, epochs=(0,), train_seconds=0.0)
    found = rows(ablation_tables(study.read())["cost"])
    # the score of the starting weights took time and is no epoch
    assert (found["base"]["epochs"], found["base"]["hours"]) == ("2", f"{270 / 3600:.4f}")
    row = found["base_suppressed"]
    assert (row["epochs"], row["seconds per epoch"], row["ms per image"]) == ("0", "–", "500.0")


def test_time_that_also_scored_the_training_set_gives_no_time_per_image(made_up, matrices):
    study = made_up(arms(both={"set": {"training.score_training_set": True}}), seeds=1)
    study.trial("both", 0, TWO, matrices({"Trees": 400, "Sky": 500}, TWO))
    table = ablation_tables(study.read())["cost"]
    assert rows(table)["both"]["ms per image"] == "–"
    assert "both: the training set was scored in that time too: ms per image is unknown" in table.notes


def test_an_arm_that_chose_on_the_test_frames_is_not_compared_with_one_that_did_not(made_up, matrices):
    chosen = {"set": {"protocol.select_on_test": True}}
    study = made_up(arms(peeking=chosen))
    m = matrices({"Trees": 400, "Sky": 500}, TWO)
    study.trial("base", 0, TWO, m)
    study.trial("peeking", 0, TWO, matrices({"Trees": 500, "Sky": 500}, TWO, images=6))
    tables = ablation_tables(study.read())
    row = rows(tables["effects"])["peeking"]
    assert (row["score"], row["difference"], row["verdict"]) == ("0.5000", "–", "scored on other frames than base")
    assert any("peeking: its best epoch was chosen on the test frames" in note for note in tables["effects"].notes)
    assert rows(tables["conventions"])["peeking"]["frames"] == "test, chosen on it"
    assert rows(tables["denominator"])["peeking"]["frames"] == "none in common"
    assert rows(tables["per_class_delta"])["Sky"]["peeking"] == "–"


def test_an_arm_scored_by_a_teams_rule_is_compared_by_miou(made_up, matrices):
    study = made_up(arms(theirs={"set": {"protocol.score": "union_present"}}))
    study.trial("base", 0, THREE, matrices({"Trees": 400, "Sky": 500}, THREE))
    found = matrices({"Trees": 500, "Sky": 500}, THREE, {"Logs": 10})
    study.trial("theirs", 0, THREE, found)
    trials = study.folder.path / "trials.jsonl"
    trials.write_text(trials.read_text().replace('"score":0.5,', f'"score":{1 / 3},'))
    table = ablation_tables(study.read())["effects"]
    assert (rows(table)["theirs"]["score"], rows(table)["theirs"]["difference"]) == ("0.5000", "+0.0500")
    assert any("theirs: its best epoch was chosen by union_present" in note for note in table.notes)


def test_an_arm_scored_at_another_raster_is_said(made_up, matrices):
    study = made_up(arms(coarse={"set": {"evaluation.raster": "input"}}))
    for arm in ("base", "coarse"):
        study.trial(arm, 0, TWO, matrices({"Trees": 400, "Sky": 500}, TWO))
    notes = ablation_tables(study.read())["effects"].notes
    assert "coarse: scored at the input raster, base at the native one" in notes


def test_an_arm_that_is_there_only_to_start_another_is_said_and_not_compared(made_up, matrices):
    study = made_up(ladder("base", "tail", mid={"set": {"training.batch_size": 2}}, tail={"start": "mid"}))
    for arm in ("base", "mid", "tail"):
        study.trial(arm, 0, TWO, matrices({"Trees": 400, "Sky": 500}, TWO))
    tables = ablation_tables(study.read())
    assert list(rows(tables["effects"])) == ["base", "tail"]
    assert any(note.startswith("mid: trained for the weights") for note in tables["effects"].notes)
    assert "mid" in rows(tables["cost"])


def test_shapley_values_sum_to_the_total_gain(factorial_study):
    tables = ablation_tables(factorial_study({"kind": "shapley"}))
    found = rows(tables["shapley"])
    # 0.02 of the 0.11 is shared by dice and lr
    assert [row["value"] for row in found.values()] == ["+0.0700", "+0.0400", "0.0000", "+0.1100"]
    assert [row["share"] for row in found.values()] == ["63.6 %", "36.4 %", "0.0 %", "100.0 %"]
    assert (found["dice"]["authors' guess"], found["dice"]["order error"]) == ("40 % of the gain", "0.0000")
    assert found["dice"]["interval"] == "+0.0700 to +0.0700"
    assert any("the values sum to the total gain from no factor to all, +0.1100" in n for n in tables["shapley"].notes)
    pairs = rows(tables["interactions"])
    assert [row["interaction"] for row in pairs.values()] == ["+0.0200", "0.0000", "0.0000"]
    assert list(pairs) == ["dice × lr", "dice × big", "lr × big"]


def test_a_missing_subset_leaves_the_factors_in_dashes_and_is_named(factorial_study):
    tables = ablation_tables(factorial_study({"kind": "shapley"}, leave_out="dice+big"))
    assert [row[1] for row in tables["shapley"].rows] == ["–", "–", "–"]
    assert any("no complete trial of dice+big" in note for note in tables["shapley"].notes)
    assert tables["interactions"].rows == ()


def test_a_factorial_has_main_effects_and_interactions(factorial_study):
    found = rows(ablation_tables(factorial_study({"kind": "factorial"}))["factorial"])
    # half of dice's runs have lr on: 0.06 + 0.02 / 2; the interaction is half of 0.02
    assert [row["estimate"] for row in found.values()] == [
        "+0.0700", "+0.0400", "0.0000", "+0.0100", "0.0000", "0.0000",
    ]  # fmt: skip
    assert list(found)[3:] == ["dice × lr", "dice × big", "lr × big"]
    assert {row["aliases"] for row in found.values()} == {""}
    assert (found["dice"]["verdict"], found["big"]["verdict"]) == ("better", "not resolved")


def test_a_factorial_of_one_seed_without_freedom_left_resolves_nothing(factorial_study):
    found = rows(ablation_tables(factorial_study({"kind": "factorial", "halvings": 1}, seeds=1))["factorial"])
    assert {(row["interval"], row["p"], row["verdict"]) for row in found.values()} == {("–", "–", "not resolved")}


def test_a_fraction_names_what_it_cannot_tell_apart(factorial_study):
    found = rows(ablation_tables(factorial_study({"kind": "factorial", "halvings": 1}))["factorial"])
    assert {name: row["aliases"] for name, row in found.items()} == {
        "dice": "-lr × big", "lr": "-dice × big", "big": "-dice × lr",
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind, arm, difference", [("one_factor", "dice", "+0.0600"), ("leave_one_out", "without_dice", "-0.0800")]
)
def test_designs_of_single_factors_name_the_factor_and_its_guess(factorial_study, kind, arm, difference):
    row = rows(ablation_tables(factorial_study({"kind": kind}))["effects"])[arm]
    assert (row["factor"], row["difference"]) == ("dice", difference)
    assert row["authors' guess"] == "40 % of the gain"


def test_the_runs_are_listed_by_arm_and_seed(three_arms):
    found = ablation_tables(three_arms.read())["runs"]
    assert found.rows[3] == ("good-s0", "good", "0", "0.5000", "2", "2", "180.0")
    assert len(found.rows) == 9


def test_every_table_ends_with_where_it_comes_from(three_arms):
    for table in ablation_tables(three_arms.read()).values():
        assert table.notes[-1] == "study study, ladder at scale full, seeds 3, data set 0123456789ab"


def test_written_tables_are_the_same_bytes_when_built_again(three_arms, tmp_path):
    first = write_ablation_tables(three_arms.read(), tmp_path / "a" / "b")
    second = write_ablation_tables(three_arms.read(), tmp_path / "c")
    assert [p.name for p in first] == [p.name for p in second]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert {p.name for p in first} == {p.name for p in (tmp_path / "c").iterdir()}
    assert {"effects.md", "effects.csv", "effects.tex", "index.md"} <= {p.name for p in first}


def test_the_index_has_design_scale_seeds_commit_and_what_a_verdict_rests_on(three_arms, tmp_path):
    index = write_ablation_tables(three_arms.read(), tmp_path / "out")[-1].read_text()
    for line in ("- design: ladder, baseline base", "- scale: full", "- seeds: 3 of", "- commit: abcdef123456"):
        assert line in index
    assert "complete trials: 9 of 9" in index
    assert VERDICT in index and "[effects](effects.md)" in index
    three_arms.folder.provenance.unlink()
    again = write_ablation_tables(three_arms.read(), tmp_path / "out")[-1].read_text()
    assert "- commit: unknown, provenance.json is missing" in again


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_summary_fits_its_terminal(three_arms, width):
    printed = text(ablation_summary(three_arms.read()), width)
    assert max(map(len, printed.splitlines())) <= width
    line = next(line for line in printed.splitlines() if line.startswith("good"))
    assert "0.5233" in line and "+0.1033" in line and "better" in line
    assert ("+0.0890 to +0.1177" in line) == (width >= 90)
    assert "better: good; not resolved: 1 of 2" in printed
    assert "noise floor" in printed and "paired t test over seeds" in printed


@pytest.mark.parametrize("kind", ["shapley", "factorial", "one_factor", "leave_one_out"])
@pytest.mark.parametrize("width", [60, 100])
def test_the_summary_of_every_design_fits(factorial_study, kind, width):
    printed = text(ablation_summary(factorial_study({"kind": kind})), width)
    assert max(map(len, printed.splitlines())) <= width
    assert "dice" in printed


def test_names_with_brackets_are_no_markup(made_up, matrices):
    study = made_up(arms(**{"[red]odd": {"set": {"optimiser.lr": 0.005}, "guess": "[bold]"}}))
    study.trial("base", 0, TWO, matrices({"Trees": 400, "Sky": 500}, TWO))
    study.trial("[red]odd", 0, TWO, matrices({"Trees": 400, "Sky": 500}, TWO))
    assert "[red]odd" in text(ablation_summary(study.read()), 160)


def test_the_tables_need_neither_torch_nor_ray(three_arms, tmp_path):
    folder, out = str(three_arms.folder.path), str(tmp_path / "out")
    code = f"""
import sys
sys.modules["torch"] = sys.modules["ray"] = None
from pathlib import Path
from harness.report.ablation import write_ablation_tables
from harness.report.records import read_ablation
from harness.store import StudyFolder
write_ablation_tables(read_ablation(StudyFolder(Path({folder!r}))), Path({out!r}))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "index.md").exists()
