"""The pictures on a study's page: drawn when the study ends, read by `harness report`, missed aloud."""

from __future__ import annotations

import re
import shutil

import pytest

from harness.cli.pictures import draw_pictures
from harness.store import Record, StudyFolder

HERE = ("--max-epochs", "1", "--executor", "inprocess")


@pytest.fixture
def hunt(harness, results, space, frames) -> StudyFolder:
    assert harness("search", space, "--data", frames, "--name", "hunt", *HERE).code == 0
    return StudyFolder(results / "hunt")


def section(folder: StudyFolder) -> str:
    text = (folder.path / "report.html").read_text()
    return text[text.index('<section id="pictures"') :].partition("</section>")[0]


def columns(folder: StudyFolder) -> list[str]:
    return re.findall(r'<th scope="col">(.*?)</th>', section(folder))


def test_a_search_and_its_confirmation_and_a_training_show_their_best_beside_the_truth(harness, hunt, results):
    ranked = [f"trial {row.number}" for row in Record(hunt).ranking()]
    assert columns(hunt) == ["image", "truth", *ranked]
    assert section(hunt).count("<img src=") == 3 * 4, "three validation frames"
    drawn = {path: path.read_bytes() for path in hunt.tiles.rglob("trial*/*.png")}

    assert harness("confirm", "hunt", "--seeds", "1", "--top", "1", *HERE[2:]).code == 0
    assert columns(hunt) == ["image", "truth", ranked[0]], "the confirmed best alone"
    assert any(drawn[path] != path.read_bytes() for path in hunt.tiles.rglob("trial*/*.png")), "of the fresh weights"

    assert harness("train", hunt.best, "--seeds", "2", "--name", "final", *HERE[2:]).code == 0
    assert sorted(columns(StudyFolder(results / "final"))) == ["image", "seed 0", "seed 1", "truth"]


def test_what_cannot_be_drawn_is_said_on_the_page_and_the_study_ends_well(harness, hunt, space, frames, capsys):
    _, second = (row.trial for row in Record(hunt).ranking())
    shutil.rmtree(hunt.tiles)
    assert harness("report", "hunt").code == 0
    assert "Not drawn yet: trial" in section(hunt)
    hunt.run(second).best.unlink()
    resumed = ("search", space, "--data", frames, "--name", "hunt", "--resume", *HERE)
    assert harness(*resumed).code == 0
    assert "Not shown, as no weights of their own were kept: trial" in section(hunt) and len(columns(hunt)) == 3
    # nothing else reads them any more
    next((frames / "val" / "Segmentation").iterdir()).write_bytes(b"no picture")
    draw_pictures(hunt)
    assert "! no pictures: " in capsys.readouterr().out and not hunt.tiles.exists()
    assert harness("report", "hunt").code == 0
    assert "Pictures could not be drawn when the study ended: " in section(hunt)
    assert "cut short or damaged" in section(hunt) and not columns(hunt)
