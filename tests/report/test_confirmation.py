"""What the terminal says of a confirmation: the winner's curse, changes of rank, why there is no interval."""

from __future__ import annotations

import io

from rich.console import Console

from harness.report.confirmation import confirmation_summary
from harness.search.confirmation import read_confirmation


def fresh(*scores):
    return {1000 + i: [score] for i, score in enumerate(scores)}


def said(hunt, width: int = 300) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(confirmation_summary(read_confirmation(hunt.folder)))
    return console.file.getvalue()


def test_the_summary_names_the_winners_curse_the_interval_and_the_change_of_rank(hunt_of):
    hunt = hunt_of().search([0.60], [0.58]).confirm({0: fresh(0.4, 0.41, 0.42), 1: fresh(0.50, 0.51, 0.52)})
    text = said(hunt)
    # the title of a table is no wider than its columns, so it has several lines
    title = "with 3 fresh seeds each (1000 to 1002), ranked by the lower end of the mean's 95 % t interval"
    assert title in " ".join(text.split())
    assert "Winner's curse: trial 0 came first of 2 in the search with 0.6000 and reaches 0.4100 on average" in text
    # 4.302653 = t of 2 degrees of freedom; the scores lie 0.01 apart
    half = 4.302653 * 0.01 / 3**0.5
    assert f"it was 0.1900 too high (95 % interval +{0.19 - half:.4f} to +{0.19 + half:.4f})." in text
    assert "Over all 2 trained again the search's scores were on average 0.1300 too high" in text
    assert "Trial 1 (rank 2 of the search) takes the place of trial 0." in text
    first, second = (line.split() for line in text.splitlines() if "↑1" in line or "↓1" in line)
    assert first[:7] == ["1", "2", "↑1", "1", "0.5800", "1", "0.5100"]
    assert first[7:] == [f"{0.51 - half:.4f}", "to", f"{0.51 + half:.4f}", "3"]
    assert second[:4] == ["2", "1", "↓1", "0"]
    assert f"winner  {hunt.folder.path}/confirm/best.yaml" in text


def test_a_score_that_was_not_too_high_is_called_so_and_one_that_may_be_chance_too(hunt_of):
    low = hunt_of(name="low").search([0.40]).confirm({0: fresh(0.41, 0.42, 0.43)})
    assert "reaches 0.4200 on average with fresh seeds: this time it was not too high" in said(low)
    wide = hunt_of(name="wide").search([0.45]).confirm({0: fresh(0.30, 0.42, 0.50)})
    assert "too high (95 % interval −" in said(wide) and "which chance alone may give." in said(wide)
    assert "Trial 0 stays first." in said(wide)


def test_with_two_seeds_it_is_said_why_there_is_no_interval(hunt_of):
    text = said(hunt_of().search([0.6]).confirm({0: fresh(0.4, 0.5)}, seeds=2))
    assert "2 of the 3 seeds that an interval needs" in text and "ranked by the mean alone" in " ".join(text.split())
    assert "0.1500 too high, with too few seeds to say how sure that is." in text


def test_a_stopped_winner_is_compared_after_as_many_epochs(hunt_of):
    hunt = hunt_of(epochs=2).search([0.5]).confirm({0: {s: [0.4, 0.9] for s in (1000, 1001, 1002)}})
    assert "reaches 0.4000 on average with fresh seeds after as many epochs (1 of 2): it was 0.1000" in said(hunt)


def test_what_failed_and_what_is_not_finished_is_said(hunt_of):
    hunt = (
        hunt_of()
        .search([0.6], [0.5])
        .confirm({0: {1000: "the loss became nan\nat step 3", 1001: [0.4], 1002: None}, 1: fresh(0.4, 0.41, 0.42)})
    )
    text = said(hunt)
    assert "Trial 0 failed with 1 of 2 fresh seeds (1000): the loss became nan\n" in text.replace(" \n", "\n")
    assert f"5 of 6 trainings have ended: `harness confirm {hunt.folder.path} --resume` goes on." in text
    assert "winner " not in text


def test_without_any_score_the_table_has_dashes(hunt_of):
    text = said(hunt_of().search([0.6]).confirm({0: {1000: "nan"}}, seeds=1))
    assert [line.split()[:2] for line in text.splitlines() if "1 failed" in line] == [["–", "1"]]
    assert "Winner's curse" not in text


def test_it_fits_a_narrow_terminal(hunt_of):
    hunt = (
        hunt_of(epochs=2)
        .search([0.5], [0.4, 0.45])
        .confirm(
            {0: {s: [0.4, s / 2000] for s in (1000, 1001, 1002)}, 1: {s: [0.4, s / 3000] for s in (1000, 1001, 1002)}}
        )
    )
    lines = said(hunt, width=80).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert sum("↑" in line or "↓" in line for line in lines) == 2
    assert all(line.rstrip().endswith(" 3") for line in lines if "↑" in line or "↓" in line)
