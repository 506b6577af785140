"""The page of a study as text: what it says first, what it escapes, how large it is, that it stays the same."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from harness.cli import main
from harness.config import Experiment, ReplicateSettings, dump_yaml
from harness.errors import ConfigError, DataError
from harness.report.html.page import as_script, packed_library, render, study_page, write_page
from harness.report.html.pictures import pictures_section
from harness.report.html.sections import Cell, Rows, SortedTable, Words, numeric
from harness.report.interactive import figure_of
from harness.report.plot_shapes import INK, LineChart, Panel, Point, RowChart, Series
from harness.store import Record, StudyFolder, TrialRow, write_json, write_text

#: a parameter's name may hold no slash
NAME = '<script>alert("x")<img src=x onerror=alert(1)>[red]&amp;'
HOSTILE = '</script><script>alert("x")</script>[red]&amp;`<b>`'
LR: dict[str, Any] = {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}
DICE: dict[str, Any] = {"kind": "float", "field": "loss.dice.weight", "low": 0.0, "high": 2.0}
#: twelve parameters of all kinds
TWELVE: dict[str, Any] = {
    "backbone": {"kind": "choice", "field": "model.backbone", "choices": ["lcnet_050", "mobilenetv3_small_050"]},
    "stride": {"kind": "choice", "field": "model.stride", "choices": [4, 8]},
    "head": {
        "kind": "choice",
        "field": "model.head",
        "choices": {"linear": {"kind": "linear"}, "conv_stack": {"kind": "conv_stack"}},
    },
    "channels": {
        "kind": "choice", "field": "model.head.channels", "choices": [32, 64], "when": {"head": ["conv_stack"]},
    },
    "augmentation": {"kind": "choice", "field": "augmentation.policy", "choices": ["none", "flip"]},
    "batch": {"kind": "int", "field": "training.batch_size", "low": 2, "high": 8},
    "lr": LR,
    "decay": {"kind": "float", "field": "optimiser.weight_decay", "low": 1e-6, "high": 1e-1, "log": True},
    "dice": DICE,
    "focal": {"kind": "float", "field": "loss.focal.weight", "low": 0.0, "high": 2.0},
    "boundary": {"kind": "float", "field": "loss.boundary.weight", "low": 0.0, "high": 2.0},
    "ohem": {"kind": "float", "field": "loss.ohem.weight", "low": 0.0, "high": 2.0},
}  # fmt: skip


class Reader(HTMLParser):
    """What a browser would see of a page: its tags, ids, links and the words of its table of trials."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.attributes |= set(named)
        self.ids += [named["id"]] if named.get("id") else []
        self.links += [v for k, v in attrs if k in ("href", "src") and v]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def rising(picked: dict[str, Any], epoch: int) -> float:
    """A score that rises with the epochs, highest at a weight of 1."""
    return (0.3 + 0.02 * epoch) * (1 - 0.2 * abs(picked.get("dice", 1.0) - 1))


def without_scripts(page: str) -> str:
    return re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)


@pytest.fixture
def page_of(search_of) -> Callable[..., str]:
    """The page of a made-up search as text."""

    def make(made) -> str:
        made.read()
        return write_page(made.folder).read_text()

    return make


def test_the_answer_stands_first_with_score_baseline_cost_and_the_command(search_of, page_of):
    made = search_of()
    made.trial({"lr": 0.001, "dice": 0.0}, [0.2] * 9)
    made.trial({"lr": 0.01, "dice": 1.0}, [0.1, 0.5, 0.4125] + [0.3] * 6)
    made.trial({"lr": 0.01, "dice": 0.5}, [0.1], "stopped")
    made.trial({"lr": 0.1, "dice": 0.5}, [], "failed")
    text = without_scripts(page_of(made))
    answer = text[text.index('id="answer"') : text.index("</section>")]
    assert text.index('id="answer"') < text.index('id="figures"') < text.index('id="trials"')
    assert "Trial 1 has the highest of 3 scores; it differs from the default Experiment in 2 of its 2 values." in answer
    assert '<dd class="value">0.5000</dd>' in answer and "at epoch 2 of 9 run" in answer
    assert "one seed, so no interval; <code>harness confirm</code> gives one" in answer
    assert '<dd class="value">+0.3000</dd>' in answer and "trial 0 scored 0.2000" in answer
    # 19 epochs of ten seconds on one GPU
    assert '<dd class="value">3.2 min</dd>' in answer and "GPU time, 1 GPU a trial" in answer
    assert "4 trials: 2 complete, 1 stopped, 1 failed" in answer and "19 epochs run of 36 planned (53 %)" in answer
    word = f"{made.folder.path}"
    commands = f"harness confirm {word}\nharness export {word} -o best.yaml\nharness train best.yaml --seeds 3"
    assert commands in answer and "The first re-trains the best trial with fresh seeds" in answer
    assert "part of its lead is luck" in answer


def test_a_baseline_stopped_early_is_compared_after_as_many_epochs(search_of, page_of):
    made = search_of()
    made.trial({"lr": 0.001, "dice": 0.0}, [0.2], "stopped")
    made.trial({"lr": 0.01, "dice": 1.0}, [0.25, *[0.6] * 8])
    text = page_of(made)
    assert "against the default Experiment, after 1 epoch" in text and '<dd class="value">+0.0500</dd>' in text
    assert "after as many the winner had 0.2500" in text


def test_a_stopped_trial_that_scored_higher_is_named_and_the_winner_is_not_called_the_highest(search_of, page_of):
    made = search_of()
    made.trial({"lr": 0.001, "dice": 0.0}, [0.2], "infeasible")
    made.trial({"lr": 0.01, "dice": 1.0}, [0.25, *[0.4] * 8])
    made.trial({"lr": 0.02, "dice": 1.0}, [0.45, 0.44], "stopped")
    text = without_scripts(page_of(made))
    answer = text[text.index('id="answer"') : text.index("</section>")]
    assert "Trial 1 has the only score of a trial trained to its end" in answer
    assert "Trial 2 had 0.4500, and was stopped after 2 epochs: it stands behind them." in answer
    assert "highest of" not in answer and "how much of the gain is real" in answer
    assert "trial 0 scored 0.2000 when it turned out infeasible after 1 epoch" in answer


def test_two_objectives_have_their_front_as_a_table_and_every_trade_its_numbers(search_of, page_of):
    made = search_of(objectives=["score", "parameters"])
    made.trial({"lr": 0.001, "dice": 0.0}, [0.5] * 9, parameters=2_000_000)
    made.trial({"lr": 0.01, "dice": 1.0}, [0.4] * 9, parameters=1_000_000)
    made.trial({"lr": 0.02, "dice": 1.0}, [0.3] * 9, parameters=1_500_000)
    text = without_scripts(page_of(made))
    answer = text[text.index('id="answer"') : text.index("</section>")]
    front = answer[answer.index("The front: ") :].partition("</table>")[0]
    rows = [re.sub("<[^>]*>", " ", row).split() for row in re.findall(r"<tr>(<th scope=\"row\".*)", front)]
    assert rows == [["1", "0", "0.5000", "2,000,000"], ["2", "1", "0.4000", "1,000,000"]]
    for key in ("pareto-parameters", "pareto-ms-per-image", "pareto-memory", "hours"):
        figure = text[text.index(f'<figure id="{key}"') :].partition("</figure>")[0]
        assert "The numbers" in figure and '<th scope="row"' in figure, key


def test_the_mean_and_interval_of_several_seeds_are_shown_where_the_winner_has_them(search_of, page_of):
    made = search_of()
    for score in (0.50, 0.54):
        made.trial({"lr": 0.01, "dice": 1.0}, [*[0.1] * 8, score])
    # the mean is 0.52, its standard error 0.02, and Student's t for one degree of freedom 12.706
    text = page_of(made)
    assert '<dd class="value">0.5200</dd>' in text
    assert f"95 % interval {0.52 - 12.7062 * 0.02:.4f} to {0.52 + 12.7062 * 0.02:.4f}" in text


@pytest.mark.parametrize("trials", [[], [([], "failed")], [([0.3], "stopped")], [([0.3, 0.4], None)]])
def test_a_search_with_little_to_say_has_a_page_all_the_same(search_of, page_of, trials):
    made = search_of()
    for scores, outcome in trials:
        made.trial({"lr": 0.01, "dice": 1.0}, scores, outcome)
    text = page_of(made)
    assert ("there is no winner yet" in text) == (not trials or trials[0][1] in ("failed", None))


def test_every_trial_has_a_row_that_sorts_by_its_full_value(search_of, page_of):
    made = search_of()
    made.trial({"lr": 0.00123456789, "dice": 0.5}, [0.4] * 9)
    made.trial({"lr": 0.1}, [0.2], "stopped")
    text = page_of(made)
    table = text[text.index('<div class="sorted"') :].partition("</table>")[0]
    rows = re.findall(r"<tr>\s*(<th scope=\"row\">.*)", table)
    assert [re.sub("<[^>]*>", " ", row).split() for row in rows] == [
        ["0", "complete", "0.4000", "1", "9", "90.0", "0.001235", "0.5"],
        ["1", "stopped", "0.2000", "1", "1", "10.0", "0.1", "–"],
    ]
    assert 'data-v="0.00123456789"' in rows[0]


def test_hostile_names_and_messages_stay_text(search_of, page_of):
    choice = {"kind": "choice", "field": "model.backbone", "choices": [HOSTILE, "lcnet_050"]}
    made = search_of({"lr": LR, NAME: choice, "[red]": DICE})
    for number in range(12):
        made.trial({"lr": 0.01, NAME: HOSTILE, "[red]": 1.0}, [0.1 * (number % 3)] * 9)
    made.trial({"lr": 0.01, NAME: HOSTILE, "[red]": 1.0}, [], "failed")
    made.ends[-1] = made.ends[-1].model_copy(update={"error": f"{HOSTILE}\n{HOSTILE}"})
    text = page_of(made)
    read = Reader(text)
    assert "alert" not in "".join(re.findall(r"<script>(.*?)</script>", text, flags=re.S))
    assert '<script>alert("x")' not in text and "<b>" not in text
    assert read.tags.count("script") == text.count("<script") == 2 + text.count('type="application/json"')
    assert "img" not in read.tags and not any(name.startswith("on") for name in read.attributes)
    for words in (NAME, HOSTILE, "[red]"):
        assert any(words in text for text in read.texts), "it is on the page, as it was given"
    for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, flags=re.S):
        assert set(json.loads(data)) == {"data", "layout"}


def test_json_in_a_script_can_neither_end_it_nor_change_what_it_says():
    value = {"a": HOSTILE, "b": "\u2028 é [red] <!--"}
    text = str(as_script(value))
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_ids_are_unique_and_every_link_leads_somewhere(search_of, page_of):
    read = Reader(page_of(search_of(TWELVE).halving(40, rising)))
    assert len(read.ids) == len(set(read.ids))
    inside = [link[1:] for link in read.links if link.startswith("#")]
    assert set(inside) <= set(read.ids) and {"main", "answer", "figures", "trials", "provenance"} <= set(inside)
    assert all(link.startswith(("#", "data:")) for link in read.links), "nothing is asked of a network"


def test_a_thousand_trials_of_twelve_parameters_stay_under_five_megabytes(search_of):
    made = search_of(TWELVE, epochs=9).halving(1000, rising, iou={f"class {i}": 0.123456789 + i for i in range(10)})
    made.read()
    page = write_page(made.folder).read_bytes()
    assert len(page) < 5_000_000
    assert page.count(b'<th scope="row">') > 1000


def test_the_same_study_gives_the_same_bytes(search_of):
    made = search_of(TWELVE).halving(40, rising)
    made.read()
    first = write_page(made.folder).read_bytes()
    assert write_page(made.folder).read_bytes() == first


def test_the_library_is_there_once_and_whole(search_of, page_of):
    from plotly.offline import get_plotlyjs

    text = page_of(search_of().halving(12, rising))
    (packed,) = re.findall(r'id="library">(.*?)</script>', text, flags=re.S)
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in text


def test_failed_trials_are_grouped_by_cause_with_what_they_share(search_of, page_of):
    made = search_of()
    made.trial({"lr": 0.001, "dice": 0.5}, [0.4] * 9)
    for number in (1, 2):
        made.trial({"lr": 0.01 * number, "dice": 2.0}, [], "failed")
    text = page_of(made)
    failures = text[text.index('id="failures"') :]
    assert "2 of 3 trials failed, of 1 cause; the commonest first." in failures
    assert "2 trials: out of memory" in failures and "no trial that went well, have dice=2." in failures
    assert re.search(r"harness rerun \S+ 1<", failures)


def test_of_many_causes_twenty_are_shown_and_the_rest_counted(search_of, page_of):
    made = search_of()
    for number in range(30):
        made.trial({"lr": 0.01, "dice": 0.5}, [], "failed")
        # numbers alone would be one cause
        error = f"cause {chr(ord('a') + number % 25)}{chr(ord('a') + number // 25)}\n{'x' * 30_000}"
        made.ends[-1] = made.ends[-1].model_copy(update={"error": error})
    failures = page_of(made).partition('id="failures"')[2].partition("</section>")[0]
    assert "30 of 30 trials failed, of 30 causes" in failures and failures.count("1 trial: cause") == 20
    assert "and 10 more causes, of 10 trials; <code>trials.jsonl</code> holds them all." in failures


def test_a_parameter_called_like_a_column_is_shown_by_its_field(search_of, page_of):
    epochs = {"kind": "int", "field": "training.epochs", "low": 3, "high": 9}
    made = search_of({"epochs": epochs, "Best epoch": LR})
    made.trial({"epochs": 9, "Best epoch": 0.01}, [0.4] * 9)
    heads = page_of(made).partition('<div class="sorted"')[2].partition("</thead>")[0]
    names = re.findall(r"<button type=\"button\">(.*?)</button>", heads)
    assert names == ["trial", "outcome", "score", "best epoch", "epochs", "seconds", "training.epochs", "optimiser.lr"]
    assert "training.epochs&gt;9" in page_of(made)


def test_names_that_plotly_would_read_as_tags_are_escaped_at_axes_and_in_legends():
    points = (Point("a <b>", 0.5),)
    rows = RowChart("x", "x", "x", ("a <b>",), (Panel("", (Series("s <i>", points, INK, "dot"),)),))
    figure = figure_of(rows)
    assert figure.layout.yaxis.ticktext == ("a &lt;b&gt;",) and figure.data[0].name == "s &lt;i&gt;"
    lines = LineChart("x", "x", (Panel("<u>", (Series("s <i>", (Point(0, 0.5),), INK, "line"),), ticks=("<b>",)),))
    figure = figure_of(lines)
    assert figure.layout.xaxis.ticktext == ("&lt;b&gt;",) and figure.layout.annotations[0].text == "&lt;u&gt;"
    assert figure.data[0].hovertemplate.startswith("s &lt;i&gt;, %{x}")


def test_values_that_reached_nothing_are_listed(search_of, page_of):
    made = search_of()
    for dice in (0.5, 1.5):
        made.trial({"lr": 0.01, "dice": dice}, [0.3, 0.4], train_loss=0.7, val_loss=0.9)
    text = page_of(made)
    assert "Values that changed nothing" in text and "dice (0.5 / 1.5)" in text


def test_pictures_are_small_data_uris_with_the_image_first(tmp_path):
    folder = StudyFolder(tmp_path)
    assert pictures_section(folder, {}) is None
    noise = np.random.default_rng(0).integers(0, 255, (300, 600, 3), dtype=np.uint8)
    for column in ("zeta", "truth", "image", "alpha"):
        (folder.tiles / column).mkdir(parents=True)
        for frame in range(4):
            cv2.imwrite(str(folder.tiles / column / f"{frame}.png"), noise)
    section = pictures_section(folder, {"zeta": folder.run("z")})
    pictures = section.blocks[-1]
    assert pictures.columns == ("image", "truth", "zeta", "alpha")
    # noise cannot be compressed: a frame of it alone reaches the limit
    assert len(pictures.rows) == 1 and section.blocks[1].text.startswith("3 frames are left out")
    image, truth, *_ = pictures.rows[0][1]
    assert (image.width, image.height) == (360, 180) and image.uri.startswith("data:image/jpeg;base64,")
    raw = np.frombuffer(base64.b64decode(truth.uri.partition(",")[2]), np.uint8)
    shown = cv2.imdecode(raw, cv2.IMREAD_COLOR)
    colours = {tuple(pixel) for pixel in noise.reshape(-1, 3).tolist()}
    assert {tuple(pixel) for pixel in shown.reshape(-1, 3).tolist()} <= colours, "no colours are mixed"
    (folder.tiles / "alpha" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"alpha/0\.png: cut short or damaged"):
        pictures_section(folder, {})


def test_columns_of_numbers_are_known_by_their_cells():
    assert numeric([("1", "a", "–", "+0.5", "64x112"), ("–", "2", "–", "12.5 %", "3")]) == (
        True, False, False, True, False,
    )  # fmt: skip
    table = SortedTable("t", "", ("a", "b"), ((Cell("1", 1.0), Cell("x")), (Cell("–"), Cell("2"))))
    assert table.right == (True, False)
    assert Rows("", ("a",), ()).rows == () and Words("x").tone == "plain"


def replicates(path: Path, scores: dict[int, list[float]]) -> StudyFolder:
    """A study of one Experiment and a few seeds, made up."""
    path.mkdir(parents=True)
    folder = StudyFolder(path)
    settings = ReplicateSettings(arms={"final": Experiment()}, seeds=len(scores), dataset="0123456789ab")
    write_text(folder.settings, dump_yaml(settings.model_dump(mode="json")))
    write_json(folder.provenance, {"created": "2026-01-01T00:00:00+00:00", "command": ["harness", "train", "<b>.yaml"]})
    record = Record(folder)
    for seed, own in scores.items():
        for epoch, score in enumerate(own, 1):
            record.add_epoch(epoch_row(f"x-s{seed}", epoch, score))
        record.end(f"x-s{seed}", seed, seed, "complete", picked={"arm": "final"})
    return folder


def epoch_row(trial: str, epoch: int, score: float):
    from harness.store import EpochRow

    return EpochRow(
        trial=trial, epoch=epoch, score=score, train_loss=1.0, val_loss=1.0, terms={}, iou={"Sky": 0.9, "Logs": None},
        train_score=None, lr={}, train_seconds=1800.0, val_seconds=0.0, images=10, peak_memory_mb=None, done=False,
    )  # fmt: skip


def test_a_training_shows_mean_interval_curves_and_classes(tmp_path):
    folder = replicates(tmp_path / "final", {0: [0.2, 0.50], 1: [0.3, 0.54]})
    text = write_page(folder).read_text()
    assert '<dd class="value">0.5200</dd>' in text and "mean of 2 seeds, spread 0.0283" in text
    assert f"95 % interval {0.52 - 12.7062 * 0.02:.4f} to {0.52 + 12.7062 * 0.02:.4f} (Student&#39;s t)" in text
    assert "2.0 h" in text and "Not in the truth: Logs." in text
    assert 'id="figure-curves"' in text and 'id="figure-classes"' in text
    assert "harness train &#39;&lt;b&gt;.yaml&#39;" in text


def test_one_seed_has_no_interval(tmp_path):
    text = write_page(replicates(tmp_path / "final", {0: [0.2, 0.5]})).read_text()
    assert "one seed, so no interval; <code>--seeds 3</code> gives one" in text


def test_an_ablation_shows_its_verdicts_figures_and_tables(made_up, matrices):
    design = {"kind": "arms", "baseline": "plain", "arms": ["fast"]}
    made = made_up({"arms": {"plain": {}, "fast": {"set": {"optimiser.lr": 0.02}}}, "design": design})
    names = ("Sky", "Rocks")
    for arm, hit in (("plain", 500), ("fast", 700)):
        for seed in range(3):
            made.trial(arm, seed, names, matrices({"Sky": hit + seed, "Rocks": 300}, names))
    text = render(study_page(made.folder))
    answer = text[text.index('id="answer"') : text.index("</section>")]
    assert '<tr class="marked"><th scope="row">fast</th>' in answer and "better" in answer
    assert text.index('id="answer"') < text.index('id="figures"') < text.index('id="tables"')
    assert render(study_page(made.folder)) == text


def test_a_page_of_64_arms_of_five_seeds_stays_under_five_megabytes(made_up):
    # 18 arms, for time: each more adds as much
    arms = {"plain": {}} | {f"arm {i}": {"set": {"optimiser.lr": 0.01 * i}} for i in range(1, 18)}
    design = {"kind": "arms", "baseline": "plain", "arms": list(arms)[1:]}
    made, rng = made_up({"arms": arms, "design": design}, seeds=5), np.random.default_rng(0)
    rows, ends = [], []
    for arm, seed in product(arms, range(5)):
        trial, scores = f"{arm}-s{seed}", rng.random((27, 15)).tolist()
        for epoch, (score, train, val, lr, encoder, *iou) in enumerate(scores, 1):
            more = {"train_loss": train, "val_loss": val, "lr": {"head": lr, "encoder": encoder}}
            ious = {f"class {i}": value for i, value in enumerate(iou)}
            rows.append(epoch_row(trial, epoch, score).model_copy(update=more | {"iou": ious}))
        best = max(rows[-27:], key=lambda row: row.score)
        ended = {"outcome": "complete", "score": best.score, "best_epoch": best.epoch, "epochs": 27, "seconds": 1.0}
        ends.append(TrialRow(trial=trial, number=len(ends), seed=seed, picked={"arm": arm}, error=None, **ended))
    write_text(made.folder.epochs.path, "".join(f"{row.model_dump_json()}\n" for row in rows))
    write_text(made.folder.trials.path, "".join(f"{row.model_dump_json()}\n" for row in ends))
    page = study_page(made.folder)
    text = render(page)
    (training,) = (section for section in page.sections if section.key == "training")
    assert len(training.blocks) == 18 and "own are in report/plots.html" in text
    library = len(packed_library())
    assert library + (len(text) - library) * 64 / 18 < 5_000_000


def test_harness_report_takes_a_study_in_place_of_a_command(search_of, monkeypatch, capsys):
    made = search_of().halving(3, rising)
    made.read()
    monkeypatch.setenv("HARNESS_RESULTS", str(made.folder.path.parent))
    for words in (["hunt"], ["study", "hunt"], [str(made.folder.path)]):
        (made.folder.path / "report.html").unlink(missing_ok=True)
        monkeypatch.setattr(sys, "argv", ["harness", "report", *words])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None)
        assert f"{made.folder.path}/report.html" in capsys.readouterr().out.replace("\n", "")
        assert (made.folder.path / "report.html").exists()
    monkeypatch.setattr(sys, "argv", ["harness", "report", "no-such-study"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "study 'no-such-study' does not exist" in capsys.readouterr().err


def test_a_folder_of_another_kind_is_refused(tmp_path):
    folder = StudyFolder(tmp_path)
    write_text(folder.settings, "kind: cake\n")
    with pytest.raises(ConfigError, match="kind 'cake' is none of search, replicates, ablation"):
        study_page(folder)
