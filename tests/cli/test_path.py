"""`harness ablate --path`: from a search to tables, on trainings of a second."""

from __future__ import annotations

import json
import re

import pytest

from harness.config import AblationSettings, read_section

MORE = """  dice: {kind: choice, field: loss.dice.weight, choices: [0.25, 0.5]}
"""


@pytest.fixture
def searched(harness, space, desert, results):
    """A search `hunt` of two trials whose best differs from the default in two parameters."""
    space.write_text(space.read_text() + MORE)
    search = harness("search", space, "--data", desert, "--name", "hunt", "--executor", "inprocess")
    assert search.code == 0, search.err
    return results / "hunt"


def test_a_path_leads_from_the_default_to_the_best_and_leaves_the_tables_of_a_ladder(harness, searched, results):
    words = ("ablate", "--path", "hunt", "--seeds", 1, "--executor", "inprocess")
    said = harness(*words)
    assert said.code == 0, said.err
    folder = results / "path-hunt"
    steps = read_section(AblationSettings, folder / "study.yaml").ablation.design.steps
    trials = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    score = {trial["picked"]["arm"]: trial["score"] for trial in trials}
    assert list(score) == ["baseline", "lr", "dice", "all"]
    assert steps == tuple(sorted(["lr", "dice"], key=lambda factor: -score[factor]))
    assert f"step 1: {steps[0]}" in said.out and f"step 2: {steps[1]}" in said.out
    rows = (folder / "report" / "steps.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:2] for row in rows if row.split(",")[0] in score] == [
        ["baseline", ""], [steps[0], "baseline"], ["all", steps[0]],
    ]  # fmt: skip
    effects = (folder / "report" / "effects.csv").read_text()
    assert all(f"\n{arm}," in effects for arm in score)
    again = harness(*words, "--resume")
    assert again.code == 0, again.err
    assert len((folder / "trials.jsonl").read_text().splitlines()) == len(trials)
    assert read_section(AblationSettings, folder / "study.yaml").ablation.design.steps == steps


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "give either an ablation file, .*neither is given"),
        (("a.yaml", "--path", "hunt"), "not both a.yaml and --path hunt"),
        (("a.yaml", "--rank", 2), "--rank 2 goes with --path STUDY; leave it out for a.yaml"),
        (("--path", "nowhere"), "study 'nowhere' does not exist"),
    ],
)
def test_a_file_or_a_search_is_asked_for_and_one_of_them_alone(harness, words, message):
    said = harness("ablate", *words)
    assert said.code != 0
    assert re.search(message, said.err.replace("\n", " ")), said.err


def test_a_path_is_not_raced(harness, searched):
    said = harness("ablate", "--path", "hunt", "--race", 5, "--executor", "inprocess")
    assert said.code != 0
    assert "--race: a path decides its arms itself" in said.err


def test_the_path_of_a_confirmed_search_says_so_and_as_searched_gives_the_other(harness, searched, results):
    assert harness("confirm", "hunt", "--seeds", 1, "--top", 1, "--executor", "inprocess").code == 0
    words = ("ablate", "--path", "hunt", "--seeds", 1, "--compute-hours", 0, "--executor", "inprocess")
    said = harness(*words, "--name", "a")
    assert f"rank 1 by fresh seeds ({searched}/confirm); --as-searched takes the search's own ranking\n" in said.err
    assert "fresh" not in harness(*words, "--name", "b", "--as-searched").err
    assert (results / "a" / "study.yaml").read_text() == (results / "b" / "study.yaml").read_text()
    said = harness("ablate", "a.yaml", "--as-searched")
    assert said.code == 2 and "--as-searched goes with --path STUDY; leave it out for a.yaml" in said.err
