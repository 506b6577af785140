"""What docs/adding.md promises: its snippets, put into a copy of the repository, pass the tests that it names.

A snippet begins with a comment, `# FILE, HOW: LINE`. HOW is `before`, `after` or `in place of`; LINE is how the line
begins, spaces included, and exactly one line of the file begins so. What follows, up to the next such comment, goes in
as it stands but for blank lines at its end; then the formatter runs.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding.md").read_text()


class Snippet(NamedTuple):
    """Lines for a file, and where they go."""

    file: str
    how: str
    line: str
    text: str


PLACE = re.compile(r"^# (\S+\.py), (before|after|in place of): (.*)\n", re.M)
BLOCKS = re.findall(r"^```python\n((?s:.*?))^```$", PAGE, re.M)


def snippets_of(block: str) -> list[Snippet]:
    """The snippets of a block, which begins with one."""
    first, *parts = PLACE.split(block)
    assert first == "", f"no place is named above {first!r}"
    places = zip(*(parts[start::4] for start in range(4)), strict=True)
    return [Snippet(*place, text.rstrip("\n") + "\n") for *place, text in places]


SNIPPETS = [snippet for block in BLOCKS for snippet in snippets_of(block)]
FILES = sorted({snippet.file for snippet in SNIPPETS})
COMMANDS = re.findall(r"^    python -m (pytest .*)$", PAGE, re.M)


def applied(snippet: Snippet, text: str) -> str:
    """The text of a file with a snippet put in."""
    lines = text.splitlines(keepends=True)
    found = [place for place, line in enumerate(lines) if line.startswith(snippet.line)]
    assert len(found) == 1, f"{len(found)} lines of {snippet.file} begin with {snippet.line!r}"
    start = found[0] + (snippet.how == "after")
    end = found[0] + (snippet.how != "before")
    return "".join([*lines[:start], snippet.text, *lines[end:]])


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as the page leaves it."""
    root = tmp_path_factory.mktemp("copy")
    for name in ("harness", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for snippet in SNIPPETS:
        file = root / snippet.file
        file.write_text(applied(snippet, file.read_text()))
    assert run(root, "ruff", "format", *FILES).returncode == 0
    return root


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # PYTHONPATH: the copy is imported, not what is installed
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_page_has_a_block_for_a_head_a_term_and_a_policy() -> None:
    assert len(BLOCKS) == len(COMMANDS) == 3
    assert {snippet.how for snippet in SNIPPETS} == {"before", "after", "in place of"}
    with pytest.raises(AssertionError, match="no place is named"):
        snippets_of("x = 1\n")


def test_a_snippet_goes_before_after_or_in_place_of_its_line() -> None:
    text = "one\ntwo\nthree\n"
    results = [applied(Snippet("f", how, "tw", "new\n"), text) for how in ("before", "after", "in place of")]
    assert results == ["one\nnew\ntwo\nthree\n", "one\ntwo\nnew\nthree\n", "one\nnew\nthree\n"]
    with pytest.raises(AssertionError, match="2 lines of f begin with 't'"):
        applied(Snippet("f", "after", "t", "new\n"), text)


def test_the_snippets_pass_the_tests_that_the_page_names(copy: Path) -> None:
    """One call for all three: its start takes longest."""
    words = [shlex.split(command)[1:] for command in COMMANDS]
    files = dict.fromkeys(word for own in words for word in own[: own.index("-k")])
    chosen = " or ".join(f"({own[own.index('-k') + 1]})" for own in words)
    done = run(copy, "pytest", "-p", "no:cacheprovider", "-vv", *files, "-k", chosen)
    assert done.returncode == 0, done.stdout[-6000:]
    for name in ("[separable]", "absolute_error]", "[sensor_noise]", "[dusk]"):
        assert name in done.stdout, f"no test of {name}"


def test_the_linter_has_nothing_to_say_of_the_snippets(copy: Path) -> None:
    done = run(copy, "ruff", "check", *FILES)
    assert done.returncode == 0, done.stdout
