"""Every command of the README and of docs/ runs, page by page and in the order in which it stands there.

A command is a line of a block that begins with `harness `, `make ` or `python -m pdb -m harness `. Each page has a
folder of its own with the names that the pages use: DATASET, TRUTH, photos/, drive.mp4, search_spaces/, ablations/, a
search `desert`, and every YAML block whose first line is `# NAME.yaml`. Words that make a command small are appended:
of an option given twice, the last counts.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import pytest
import typer

from harness.cli import app, main
from harness.data import write_desert
from harness.report.html.search_data import read_search_data
from harness.report.html.search_figures import search_figures
from harness.report.plots import write_plots
from harness.report.records import AblationRecords
from harness.store import StudyFolder, find_study

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)

HERE = "--executor inprocess --gpus-per-trial 0 --quiet"
TINY = (
    "--set data.input_size=[32,64] --set model.weights=none --set training.batch_size=2 --set training.precision=fp32 "
    "--set training.workers=0"
)
#: by command: what makes it small
SMALL = {
    "search": f"{HERE} {TINY} --trials 2 --max-epochs 1",
    "confirm": f"{HERE} --top 1 --seeds 1",
    "train": f"{HERE} --seeds 1",
    "ablate": f"{HERE} {TINY} --scale smoke --seeds 1",
    "simulate": "--seeds 1 --trials 4 --strategy random_asha",
}
#: in the spaces: networks and sizes for a GPU, and what stands for them here
LITTLE = {
    "vit_small_patch14_dinov2": "test_vit",
    "vit_base_patch14_reg4_dinov2": "test_vit2",
    "[266, 476]": "[32, 64]",
    "[364, 644]": "[48, 96]",
}
#: without --data the synthetic desert is drawn
DRAWN = "--set data.synthetic.train=4 --set data.synthetic.val=2 --set data.synthetic.test=2"
#: of the search `desert`: no trial is the default Experiment
SPACE = """
experiment:
  data: {input_size: [32, 64], synthetic: {train: 4, val: 2, test: 2, height: 32, width: 64}}
  training: {epochs: 1, batch_size: 2}
search: {trials: 2, strategy: random, default_first: false}
parameters:
  lr: {kind: float, field: optimiser.lr, low: 2e-3, high: 1e-2}
  dice_weight: {kind: float, field: loss.dice.weight, low: 0.5, high: 1.0}
  focal_weight: {kind: float, field: loss.focal.weight, low: 0.5, high: 1.0}
"""
#: by the line itself: what makes it small, in place of its command's words
INSTEAD = {
    "harness search my_space.yaml --data DATASET --name mine --gpus-per-trial 0.5 --resume --trials 64": (
        f"{HERE} {TINY} --max-epochs 1 --trials 3"
    ),
    "harness ablate my_ablation.yaml --data DATASET --name mine_full --gpus-per-trial 0.5": (
        f"{HERE} {TINY} --scale smoke --seeds 1 --set training.epochs=1"
    ),
    "harness ablate my_ablation.yaml --data DATASET --name raced --race 8": (
        f"{HERE} {TINY} --scale smoke --seeds 1 --race 2 --set training.epochs=1"
    ),
    # the scale is that of the search, whose trials were small
    "harness ablate --path desert": f"{HERE} --seeds 1",
}
MANY_ARMS = "16 and 14 arms take minutes; tests/test_published_arms.py trains every one of them"
#: by the line itself: why it cannot run here; it is parsed all the same
ONLY_PARSED = {
    "harness ablate ablations/ignitia_phase2_shapley.yaml --data DATASET --name shares": MANY_ARMS,
    "harness ablate ablations/ignitia_as_run.yaml --data DATASET --name as_run --gpus-per-trial 0.5": MANY_ARMS,
    "harness doctor --data DATASET": "a process for each library: half a minute, and tests/doctor runs them",
    "python -m pdb -m harness rerun mine 1": "a debugger waits for somebody to type",
    "harness search my_space.yaml --data DATASET --name cluster --gpus-per-trial 1 --address auto": "needs a cluster",
}


class Line(NamedTuple):
    """A command as it stands on a page, without its comment, and its words."""

    page: Path
    number: int
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def lines_of(page: Path) -> Iterator[Line]:
    """The commands of a page's blocks, indented or fenced; a backslash at the end of a line goes on in the next."""
    fenced, begun, start = False, "", 0
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    ") or begun:
            start = start if begun else number
            begun += line.strip()
            if begun.endswith("\\"):
                begun = begun[:-1]
                continue
            if re.match(r"(harness|make|python -m pdb -m harness) ", begun):
                yield Line(page, start, shlex.join(shlex.split(begun, comments=True)))
            begun = ""


LINES = [line for page in PAGES for line in lines_of(page)]


def is_ours(line: Line) -> bool:
    return not line.text.startswith("make ")


def own_words(line: Line) -> list[str]:
    """The words after `harness`, however it is called."""
    words = line.words
    return words[words.index("harness") + 1 :]


def parse(words: list[str]) -> None:
    """Let the command line read words, without running them; what it does not know is refused."""
    command = typer.main.get_command(app)
    context = command.make_context("harness", list(words))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize(
    "line", [line for line in LINES if is_ours(line)], ids=lambda line: f"{line.page.name}:{line.number}"
)
def test_the_command_line_knows_every_option_of_a_command(line: Line) -> None:
    parse(own_words(line))


def test_an_unknown_option_would_be_refused() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(["search", "--no-such-option"])
    with pytest.raises(Exception, match="No such option"):
        parse(["cache", "clear", "--no-such-option"])


@pytest.fixture(scope="session")
def desert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("docs") / "DATASET"
    write_desert(root, train=4, val=2, test=2, height=32, width=64, seed=0)
    return root


@pytest.fixture(scope="session")
def search_of_the_desert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search whose winner differs from the default Experiment in three values."""
    results, space = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("space") / "space.yaml"
    space.write_text(SPACE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_RESULTS", str(results))
        patch.setattr(sys, "argv", ["harness", "search", str(space), "--name", "desert", *HERE.split()])
        with pytest.raises(SystemExit) as exit_:
            main()
    assert not exit_.value.code
    return results / "desert"


@pytest.fixture
def sandbox(tmp_path: Path, desert: Path, search_of_the_desert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages name."""
    shutil.copytree(search_of_the_desert, tmp_path / "results" / "desert")
    shutil.copytree(desert, tmp_path / "DATASET")
    shutil.copytree(desert / "val" / "Color_Images", tmp_path / "photos")
    shutil.copytree(desert / "val" / "Segmentation", tmp_path / "TRUTH")
    (tmp_path / "ablations").symlink_to(ROOT / "ablations")
    write_small_spaces(tmp_path / "search_spaces")
    write_film(tmp_path / "drive.mp4", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def plots_of_one_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the plots of a page's first ablation only: they take longer than its trainings; tests/report draws more."""
    drawn: list[Path] = []

    def draw_once(records: AblationRecords, out: Path) -> list[Path]:
        drawn.append(out)
        return write_plots(records, out) if set(drawn) == {out} else []

    monkeypatch.setattr("harness.report.plots.write_plots", draw_once)


def write_small_spaces(folder: Path) -> None:
    folder.mkdir()
    for space in (ROOT / "search_spaces").iterdir():
        text = space.read_text()
        for large, little in LITTLE.items():
            text = text.replace(large, little)
        (folder / space.name).write_text(text)


def write_film(path: Path, photos: Path) -> None:
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, (64, 32))
    for photo in sorted(photos.iterdir()):
        film.write(cv2.imread(str(photo)))
    film.release()


def write_yaml_blocks(page: Path, folder: Path) -> None:
    for name, text in re.findall(r"^```yaml\n# ([\w.-]+\.yaml).*\n((?s:.*?))^```$", page.read_text(), re.M):
        (folder / name).write_text(text)


@pytest.mark.filterwarnings("ignore:.*noload:sqlalchemy.exc.SADeprecationWarning")
@pytest.mark.usefixtures("plots_of_one_study")
@each_page
def test_the_commands_of_a_page_run_one_after_the_other(page, sandbox, monkeypatch, capsys) -> None:
    run_page(page, sandbox, monkeypatch, capsys)
    missing = [name for name in result_files(page) if not Path(name).exists()]
    assert missing == [], f"{page.name} names files of studies that its own commands do not write"
    if page.name == "reading-a-report.md":
        check_that_every_figure_is_spoken_of(page, find_study("first"))


def check_that_every_figure_is_spoken_of(page: Path, search: StudyFolder) -> None:
    """The figures of a search's page, by their titles and in their order, begin the paragraphs on them."""
    figures = search_figures(read_search_data(search))
    bold = " ".join(re.findall(r"\*\*(.+?)\*\*", page.read_text()))
    places = [bold.find(figure.title) for figure in figures if not figure.key.startswith("slice-")]
    assert len(places) > 10
    assert -1 not in places and places == sorted(places)


def run_page(page: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    write_yaml_blocks(page, sandbox)
    for line in lines_of(page):
        for words in harness_words(line):
            code, said = call(words, monkeypatch, capsys)
            assert code == 0, f"{page.name}:{line.number}: harness {shlex.join(words)}\nended with {code}:\n{said}"


def harness_words(line: Line) -> list[list[str]]:
    """What is called for a line: nothing for one that is only parsed; for `make`, what its target calls."""
    if line.text in ONLY_PARSED:
        return []
    if not is_ours(line):
        return [small(words) for words in make_targets()[line.words[1]]]
    words = [found for word in own_words(line) for found in (sorted(glob(word)) if "*" in word else [word])]
    return [small(words, line.text)]


def small(words: list[str], text: str = "") -> list[str]:
    drawn = DRAWN if words[0] == "search" and "--data" not in words else ""
    return [*words, *shlex.split(f"{drawn} {INSTEAD.get(text, SMALL.get(words[0], ''))}")]


def make_targets() -> dict[str, list[list[str]]]:
    """The Makefile's targets, and the words of every `harness` that each of them calls."""
    found: dict[str, list[list[str]]] = {}
    for line in (ROOT / "Makefile").read_text().splitlines():
        if target := re.match(r"([a-z]+):", line):
            calls = found.setdefault(target[1], [])
        elif call := re.match(r"\t\$\(BIN\)/harness (.*)", line):
            calls.append(shlex.split(call[1]))
    return found


def call(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["harness", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr()
    return exit_.value.code or 0, f"{said.out}\n{said.err}"


def result_files(page: Path) -> set[str]:
    """Paths below results/ that a page names and the repository lacks, but for those with a word in capitals."""
    named = re.findall(r"results/[\w./*-]+", page.read_text())
    return {name for name in named if not re.search(r"[A-Z]{2}|…|\*", name) and not (ROOT / name).exists()}


def test_every_make_target_of_the_pages_exists() -> None:
    asked = {line.words[1] for line in LINES if not is_ours(line)}
    assert asked and asked <= set(make_targets())


def test_the_tables_of_this_file_hold_no_line_that_the_pages_do_not() -> None:
    texts, commands = {line.text for line in LINES}, {own_words(line)[0] for line in LINES if is_ours(line)}
    assert set(ONLY_PARSED) | set(INSTEAD) <= texts
    assert set(SMALL) <= commands


@each_page
def test_every_option_that_a_page_names_in_its_prose_exists(page: Path) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text()))
    assert named - set(all_options(typer.main.get_command(app))) - {"--help"} == set()


def all_options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from parameter.opts
    for inner in getattr(command, "commands", {}).values():
        yield from all_options(inner)


@each_page
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    top = "harness|tests|docs|search_spaces|ablations|deploy|results/bench|results/published"
    named = re.findall(rf"(?<![\w/.])(?:{top})/[\w./-]*\w/?|results/LOG\.md", page.read_text())
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == []


@each_page
def test_every_link_within_the_repository_resolves(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(found), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
