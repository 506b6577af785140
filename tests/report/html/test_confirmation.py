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


def test_the_folder_of_a_confirmation_has_no_page_of_its_own(hunt):
    with pytest.raises(StudyError, match="confirmation of a search; `harness report .*hunt` shows it"):
        write_page(StudyFolder(hunt.folder.path / "confirm"))
