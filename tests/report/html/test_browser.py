"""The page of a study in a browser: what it draws, sorts, filters and prints, on a wide and a narrow screen."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from harness.report.html.page import write_page
from harness.store import StudyFolder


def without(what: str) -> None:
    """Leave this module out; where all of it must run, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and in CI the pages are tested in a browser", pytrace=False)
    pytest.skip(what, allow_module_level=True)


def find_chromium() -> str | None:
    """The system's Chromium, or the one that Playwright brought along."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


if importlib.util.find_spec("playwright") is None:
    without("playwright is not installed (pip install 'harness[dev]')")

from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

CHROMIUM = find_chromium()
if CHROMIUM is None:
    without("there is no chromium, chromium-browser or google-chrome on PATH, and Playwright has none of its own")

LR: dict[str, Any] = {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}
HEAD = {
    "kind": "choice",
    "field": "model.head",
    "choices": {"linear": {"kind": "linear"}, "conv_stack": {"kind": "conv_stack"}},
}
CHANNELS = {
    "kind": "choice",
    "field": "model.head.channels",
    "choices": [32, 64, 128],
    "when": {"head": ["conv_stack"]},
}
#: seconds that a browser has on a busy machine
PATIENCE = 120
DRAWN = "plots.every(plot => plot.querySelector('.main-svg'))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def written() -> list[StudyFolder]:
    """The study, once a test has asked for it: its page is only read."""
    return []


@pytest.fixture
def study(search_of, written: list[StudyFolder]) -> StudyFolder:
    """A search of 60 trials, two of which failed; trial 0 has the default's values."""
    if written:
        return written[0]
    made = search_of(
        {"lr": LR, "head": HEAD, "channels": CHANNELS, "[red] <b>": LR | {"field": "optimiser.weight_decay"}}
    )
    made.halving(57, lambda picked, epoch: (0.2 + 0.03 * epoch) * (0.5 + 5 * picked["lr"] ** 0.5))
    made.trial({"lr": 0.0002, "head": "linear", "[red] <b>": 0.001}, [0.1], "stopped")
    for _ in range(2):
        made.trial({"lr": 0.1, "head": "linear", "[red] <b>": 0.01}, [], "failed")
    made.read()
    write_page(made.folder)
    written.append(made.folder)
    return made.folder


def wait_until(page: Page, expression: str) -> None:
    """Wait until an expression holds; Playwright's own waiting evaluates strings, which the page's policy forbids."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{PATIENCE} seconds are over, and this does not hold: {expression}")


class Opened:
    """A page, and what went wrong on it."""

    def __init__(self, browser: Browser, study: StudyFolder, width: int = 1200, scheme: str = "light") -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page.set_default_timeout(PATIENCE * 1000)
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto((study.path / "report.html").resolve().as_uri())
        wait_until(self.page, "document.documentElement.dataset.library === 'ready'")

    def scroll_through(self) -> None:
        """As a reader does who wants to see every figure."""
        # not Playwright's scrolling, which first waits for frames of an idle page, and on a busy machine in vain
        wait_until(self.page, f"{DRAWN} || void plots.find(plot => !plot.querySelector('.main-svg')).scrollIntoView()")

    def check_figures(self) -> None:
        """Every figure is drawn, and nothing went wrong."""
        self.scroll_through()
        assert self.page.evaluate("plots.every(plot => plot.getBoundingClientRect().height > 100)")
        assert self.faults == []

    def column(self, name: str) -> list[str]:
        """The cells of the rows that are shown."""
        return self.page.evaluate(
            """name => {
                const box = document.querySelector(".sorted");
                const at = [...box.querySelectorAll("thead th")].findIndex(head => head.textContent === name);
                return [...box.querySelectorAll("tbody tr")].filter(row => !row.hidden)
                  .map(row => row.cells[at].textContent.trim());
            }""",
            name,
        )


@pytest.fixture
def opened(browser: Browser, study: StudyFolder) -> Iterator[Opened]:
    one = Opened(browser, study)
    yield one
    one.page.close()


def test_every_figure_is_drawn_when_it_comes_into_view_without_an_error_or_a_request(opened):
    assert opened.page.evaluate("plots.map(plot => plot.dataset.figure)") == [
        "learning-curves", "best-over-trials", "best-over-cost", "parallel-coordinates", "importance",
        "pareto-parameters", "pareto-ms-per-image", "pareto-memory", "stopping", "epochs-run", "hours", "classes",
        "slice-0-lr", "slice-1-head", "slice-2-channels", "slice-3-red-b",
    ]  # fmt: skip
    at_first = opened.page.evaluate("plots.filter(plot => plot.querySelector('.main-svg')).length")
    assert at_first < 16, "what is far below is not drawn yet"
    opened.check_figures()
    assert opened.requests == [opened.page.url], "nothing but the page itself is asked for"


def test_a_click_on_a_head_sorts_numbers_as_numbers_and_again_the_other_way(opened):
    head = opened.page.locator(".sorted th", has_text="lr").first
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    rates = [float(text) for text in opened.column("lr")]
    assert rates == sorted(rates) and len(rates) == 60
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert [float(text) for text in opened.column("lr")] == rates[::-1]
    assert head.get_attribute("aria-sort") == "descending"


def test_what_is_missing_stays_below_and_a_score_sorts_highest_first(opened):
    opened.page.locator(".sorted th button", has_text="channels").click()
    channels = opened.column("channels")
    known = [int(text) for text in channels if text != "–"]
    assert 0 < len(known) < 60 and known == sorted(known)
    assert channels == [*map(str, known), *["–"] * (60 - len(known))]
    opened.page.locator(".sorted th button", has_text="score").click()
    scores = opened.column("score")
    assert scores[-2:] == ["–", "–"]
    assert [float(text) for text in scores[:-2]] == sorted((float(text) for text in scores[:-2]), reverse=True)


def test_the_filter_takes_words_and_conditions_and_says_how_many_are_left(opened):
    box, left = opened.page.locator(".sorted input"), opened.page.locator(".sorted output")
    everything = opened.column("lr")
    box.fill("head=linear lr>0.01")
    assert set(opened.column("head")) == {"linear"}
    assert 0 < len(opened.column("lr")) < 60 and all(float(text) > 0.01 for text in opened.column("lr"))
    assert left.text_content() == f"{len(opened.column('lr'))} of 60"
    box.fill("FAILED")
    assert opened.column("outcome") == ["failed", "failed"]
    box.fill("")
    assert opened.column("lr") == everything and left.text_content() == "60 of 60"


def test_the_keyboard_alone_skips_sorts_and_filters(opened):
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator(".sorted th button", has_text="trial").focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert opened.column("trial") == [str(number) for number in range(60)]
    page.keyboard.press("Space")
    assert opened.column("trial")[0] == "59"
    page.locator(".sorted input").focus()
    page.keyboard.type("failed")
    assert len(opened.column("trial")) == 2


def test_the_command_can_be_copied(browser, study):
    one = Opened(browser, study)
    one.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    one.page.locator("#answer .copy").click()
    wait_until(one.page, "document.querySelector('#answer .copy').textContent === 'Copied'")
    lines = one.page.evaluate("navigator.clipboard.readText()").splitlines()
    assert lines[0].startswith("harness confirm ") and lines[1].endswith("-o best.yaml")
    assert lines[2:] == ["harness train best.yaml --seeds 3"]
    one.page.close()


def test_dark_follows_the_system_and_the_button_and_figures_follow_both(browser, study):
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "plots[0].querySelector('.xtitle').style.fill"
    one = Opened(browser, study, scheme="dark")
    one.scroll_through()
    assert (one.page.evaluate(ground), one.page.evaluate(ink)) == ("rgb(20, 23, 27)", "rgb(230, 233, 237)")
    one.page.locator("#theme").click()
    assert one.page.evaluate(ground) == "rgb(255, 255, 255)"
    wait_until(one.page, f"{ink} === 'rgb(29, 33, 38)'")
    one.page.locator("#theme").click()
    one.page.emulate_media(color_scheme="light")
    assert one.page.evaluate(ground) == "rgb(20, 23, 27)", "the reader's choice outlasts the system's"
    assert one.faults == []
    one.page.close()


def test_on_a_phone_nothing_but_tables_and_figures_in_their_boxes_is_wider_than_the_screen(browser, study):
    one = Opened(browser, study, width=390)
    one.scroll_through()
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert one.page.evaluate("document.querySelector('.sorted .scroll').scrollWidth > 390"), "it scrolls inside its box"
    assert one.faults == []
    one.page.close()


def test_on_paper_all_figures_are_drawn_in_light_colours_without_controls(browser, study):
    one = Opened(browser, study, scheme="dark")
    one.page.emulate_media(media="print")
    wait_until(one.page, DRAWN)
    assert one.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert one.page.evaluate("plots[0].querySelector('.xtitle').style.fill") == "rgb(0, 0, 0)"
    assert one.page.evaluate("plots.every(plot => plot.querySelector('.main-svg').clientWidth <= 660)")
    for control in ("#theme", ".copy", ".filter", "nav"):
        assert not one.page.locator(control).first.is_visible()
    rows = one.page.locator(".sorted tbody tr:visible")
    assert rows.count() == 50 and one.page.locator(".on-paper").is_visible()
    # those that failed stand at the end of the table
    one.page.evaluate(
        """() => {
            const input = document.querySelector(".sorted input");
            input.value = "outcome=failed";
            input.dispatchEvent(new Event("input"));
        }"""
    )
    assert rows.count() == 2
    assert len(re.findall(rb"/Type\s*/Page\b", one.page.pdf(format="A4"))) > 3
    assert one.faults == []
    one.page.close()


def test_a_browser_that_cannot_unpack_the_library_says_so_and_shows_the_rest(browser, study):
    page = browser.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto((study.path / "report.html").resolve().as_uri())
    assert "cannot unpack the figures" in page.locator("#no-library").text_content()
    assert page.locator("#no-library").is_visible() and page.locator(".sorted tbody tr").count() == 60
    page.close()


def test_the_page_of_an_ablation_is_drawn(browser, made_up, matrices):
    design = {"kind": "arms", "baseline": "plain", "arms": ["fast <b>"]}
    made = made_up({"arms": {"plain": {}, "fast <b>": {"set": {"optimiser.lr": 0.02}}}, "design": design})
    names = ("Sky", "Rocks")
    for arm, hit in (("plain", 500), ("fast <b>", 700)):
        for seed in range(3):
            made.trial(arm, seed, names, matrices({"Sky": hit + seed, "Rocks": 300}, names), lr={"head": 0.01})
    write_page(made.folder)
    one = Opened(browser, made.folder)
    keys = one.page.evaluate("plots.map(plot => plot.dataset.figure)")
    assert keys[:6] == [
        "figure-differences", "figure-class_differences", "figure-scoring_rules", "figure-class_iou",
        "figure-class_shares", "figure-learning_rates",
    ]  # fmt: skip
    assert len(keys) == 8 and keys[6] == "figure-curves_plain" and keys[7].startswith("figure-curves_fast")
    one.check_figures()
    assert one.page.evaluate("[...document.querySelectorAll('svg text')].some(t => t.textContent === 'fast <b>')")
    assert one.requests == [one.page.url]
    one.page.close()


def test_a_confirmed_search_and_a_training_show_figures_and_pictures(browser, hunt_of):
    hunt = hunt_of().search([0.60], [0.58]).confirm({0: {1000 + i: [0.4 + 0.01 * i] for i in range(3)}})
    confirm = StudyFolder(hunt.folder.path / "confirm")
    for folder, column in ((hunt.folder, "trial 0"), (confirm, "seed 1002")):
        for name in ("image", "truth", column):
            (folder.tiles / name).mkdir(parents=True)
            cv2.imwrite(str(folder.tiles / name / "0.png"), np.full((20, 30, 3), 99, np.uint8))
    # the one of a single Experiment is a training like any other
    for folder, key in ((hunt.folder, "figure-confirmation"), (confirm, "figure-curves")):
        write_page(folder)
        one = Opened(browser, folder, width=390)
        assert one.page.locator(f"#{key} .plot").count() == 1
        one.check_figures()
        assert one.page.locator("#pictures img").count() == 3
        assert one.page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth === 30)")
        assert one.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert one.requests == [one.page.url]
        one.page.close()
