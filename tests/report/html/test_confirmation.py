"""The section of a search's page on its confirmation."""

from __future__ import annotations

import pytest

from harness.errors import StudyError
from harness.report.html.confirmation import confirmation_section
from harness.report.html.figured import Figured
from harness.report.html.page import write_page
from harness.report.html.sections import Facts, Rows
from harness.store import StudyFolder


def fresh(*scores):
    return {1000 + i: [score] for i, score in enumerate(scores)}


@pytest.fixture
def hunt(hunt_of):
    return hunt_of().search([0.60], [0.58]).confirm({0: fresh(0.4, 0.41, 0.42), 1: fresh(0.50, 0.51, 0.52)})


def test_a_search_that_was_not_confirmed_has_no_section(hunt_of):
    assert confirmation_section(hunt_of().search([0.5]).folder) is None


def test_the_section_has_the_answer_the_optimism_the_table_and_the_figure(hunt):
    section = confirmation_section(hunt.folder)
    assert section.blocks[0].text == "Trial 1 (rank 2 of the search) takes the place of trial 0."
    assert section.blocks[1].text.startswith("Winner's curse: trial 0 came first of 2")
    (facts,) = (block for block in section.blocks if isinstance(block, Facts))
    assert [fact.value for fact in facts.facts] == ["0.5100", "+0.1900", "+0.1300"]
    (table,) = (block for block in section.blocks if isinstance(block, Rows))
    assert [row[1:3] for row in table.rows] == [("2 ↑1", "1"), ("1 ↓1", "0")] and table.marked == (0,)
    (figure,) = (block for block in section.blocks if isinstance(block, Figured))
    specks, means, searched = figure.figure.data
    assert sorted(specks.x) == pytest.approx([0.4, 0.41, 0.42, 0.50, 0.51, 0.52])
    assert dict(zip(means.y, means.x, strict=True)) == pytest.approx({"trial 1": 0.51, "trial 0": 0.41})
    assert dict(zip(searched.y, searched.x, strict=True)) == {"trial 1": 0.58, "trial 0": 0.60}


def test_a_confirmation_in_which_everything_failed_is_shown_without_a_figure(hunt_of):
    hunt = hunt_of().search([0.6]).confirm({0: {1000: "<b>nan</b>"}}, seeds=1)
    section = confirmation_section(hunt.folder)
    assert not any(isinstance(block, Figured | Facts) for block in section.blocks)
    assert "&lt;b&gt;nan&lt;/b&gt;" in write_page(hunt.folder).read_text()


def test_the_page_points_to_the_confirmed_best(hunt):
    text = write_page(hunt.folder).read_text()
    assert 'id="confirmation"' in text and "Confirmation with fresh seeds" in text
    answer = text[text.index('id="answer"') :]
    answer = answer[: answer.index("</section>")]
    assert "takes the place of trial 0" in answer and "--to model" in answer and "harness train" not in answer


def answer_of(folder):
    text = write_page(folder).read_text()
    return text[text.index('id="answer"') :].partition("</section>")[0]


def test_the_answer_of_a_confirmed_search_is_the_fresh_mean_with_its_interval_and_the_confirmed_values(hunt):
    answer = answer_of(hunt.folder)
    # of 0.50, 0.51, 0.52 the standard error is 0.01 / sqrt(3), and t of two degrees of freedom 4.3027
    low, high = (0.51 + sign * 4.302653 * 0.01 / 3**0.5 for sign in (-1, 1))
    assert "Trial 1 is the best by fresh seeds" in answer
    assert f'<dd class="value">0.5100</dd><dd>mean of 3 fresh seeds; 95 % interval {low:.4f} to {high:.4f}</dd>' in (
        answer.replace("\n", "")
    )
    assert "0.5800 in the search, a score that had a say in the choice" in answer
    assert "one seed, so no interval" not in answer and "trained again it will score lower" not in answer
    # the values of trial 1, the default's is trial 0
    values = answer[answer.index("Its values") :]
    assert ">trial 1</th>" in values and ">0.1</td>" in values
    # 0.50 - 0.40, 0.51 - 0.41, 0.52 - 0.42: no spread at all
    assert '<dd class="value">+0.1000</dd>' in answer and "over the same fresh seeds; 95 % interval 0.1000 to" in answer


def test_a_default_that_was_not_trained_again_is_compared_by_its_one_score_and_said_so(hunt_of):
    hunt = hunt_of().search([0.30], [0.58]).confirm({1: fresh(0.50, 0.51, 0.52)})
    answer = answer_of(hunt.folder)
    assert '<dd class="value">+0.2100</dd>' in answer
    assert "trial 0 scored 0.3000 in the search, with one seed; it was not trained again" in answer


def test_a_default_that_stays_first_is_the_answer(hunt_of):
    hunt = hunt_of().search([0.60], [0.58]).confirm({0: fresh(0.5, 0.6, 0.7), 1: fresh(0.1, 0.1, 0.1)})
    answer = answer_of(hunt.folder)
    assert "The default Experiment itself, trial 0, is the best by fresh seeds: no trial did better." in answer
    assert "It is the winner." in answer


def test_the_folder_of_a_confirmation_has_no_page_of_its_own(hunt):
    with pytest.raises(StudyError, match="confirmation of a search; `harness report .*hunt` shows it"):
        write_page(StudyFolder(hunt.folder.path / "confirm"))
