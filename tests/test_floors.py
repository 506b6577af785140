"""Which room may import which: an import goes only to a lower floor, and light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.main import get_command

from harness.cli import app

PACKAGE = Path(__file__).resolve().parents[1] / "harness"
FLOORS = {
    "errors": 0,  # below everything, config included
    "config": 1,
    "store": 2,
    "stats": 2,
    "data": 3,
    "models": 3,
    "losses": 3,
    "metrics": 3,
    "engine": 4,
    "search": 4,
    "ablate": 4,
    "run": 5,
    "simulate": 5,
    "bench": 6,
    "doctor": 6,
    "chaos": 6,
    "report": 6,
    "cli": 7,
    "__main__": 8,
}
MODULES = sorted(PACKAGE.rglob("*.py"))


class Import(NamedTuple):
    module: str
    line: int
    deferred: bool


@cache
def imports_of(source: str) -> list[Import]:
    """Every import of a module's text, `from a import b` as a and as a.b."""
    tree = ast.parse(source)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(n) for function in functions for n in ast.walk(function)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(a.name, node.lineno, id(node) in inside) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            found.append(Import(node.module, node.lineno, id(node) in inside))
            if node.module == "harness":
                found += [Import(f"harness.{a.name}", node.lineno, id(node) in inside) for a in node.names]
    return found


def room_of(path: Path) -> str | None:
    """The room of a file; None for the package's own __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return None if parts == ("__init__",) else parts[0]


def faults(room: str, source: str) -> list[str]:
    """The imports that do not go to a lower floor."""
    rooms = [(i.module.split(".")[1], i) for i in imports_of(source) if i.module.startswith("harness.")]
    return [
        f"line {i.line}: {room} (floor {FLOORS[room]}) imports {i.module} (floor {FLOORS[other]})"
        for other, i in rooms
        if other in FLOORS and other != room and FLOORS[other] >= FLOORS[room]
    ]


def test_every_room_has_a_floor_and_every_floor_a_room() -> None:
    assert {room_of(path) for path in MODULES} - {None} <= set(FLOORS)
    assert set(FLOORS) == {room_of(path) for path in MODULES} - {None}


def named(found: Callable[[Path], list[str]]) -> dict[str, list[str]]:
    """What is found in each module in which something is found."""
    return {str(path.relative_to(PACKAGE.parent)): faulty for path in MODULES if (faulty := found(path))}


def test_every_import_goes_down_a_floor() -> None:
    def upwards(path: Path) -> list[str]:
        room, source = room_of(path), path.read_text()
        if room is not None:
            return faults(room, source)
        return [i.module for i in imports_of(source) if i.module.startswith("harness")]

    assert named(upwards) == {}


@pytest.mark.parametrize(
    "line",
    [
        "from harness.models import build_model",
        "import harness.run.study",
        "from harness import losses",
        "def f():\n    from harness.engine import fit",
    ],
)
def test_an_import_upwards_or_of_a_neighbour_is_noticed(line: str) -> None:
    assert len(faults("data", line)) == 1


def test_only_run_imports_ray() -> None:
    def of_ray(path: Path) -> list[str]:
        return [i.module for i in imports_of(path.read_text()) if i.module.split(".")[0] == "ray"]

    assert {path.split("/")[1] for path in named(of_ray)} == {"run"}


def test_imports_are_deferred_only_by_the_command_line_and_only_for_ray_elsewhere() -> None:
    def deferred(path: Path) -> list[str]:
        found = [
            i.module for i in imports_of(path.read_text()) if i.deferred and i.module != "harness.run.ray_executor"
        ]
        return [] if room_of(path) == "cli" else found

    assert named(deferred) == {}


def loaded_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter holds after `code`."""
    end = "\nimport sys\nprint('\\n'.join(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + end], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["config", "store", "stats", "metrics", "report", "ablate", "search", "cli"])
def test_a_light_room_loads_neither_torch_nor_ray(module: str) -> None:
    loaded = loaded_by(f"import harness.{module}")
    assert "harness" in loaded
    assert not loaded & {"torch", "ray", "timm", "albumentations"}


def commands(command: object, words: str = "") -> list[str]:
    """Every command and group of the command line, as the words to type."""
    inside = getattr(command, "commands", {})
    return [words] + [w for name, inner in inside.items() for w in commands(inner, f"{words} {name}".strip())]


def test_the_commands_are_found_through_their_groups() -> None:
    assert {"", "search", "describe", "data", "data synth"} <= set(commands(get_command(app)))


def test_help_of_every_command_loads_neither_torch_nor_ray() -> None:
    code = f"""
import contextlib, io, sys
from harness.cli import main
for command in {commands(get_command(app))!r}:
    sys.argv = ["harness", *command.split(), "--help"]
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        try:
            main()
        except SystemExit as end:
            assert end.code == 0, (command, end.code)
    assert "Usage" in text.getvalue(), (command, text.getvalue())
    heavy = set(sys.modules) & {{"torch", "ray", "timm", "albumentations"}}
    assert not heavy, (command, heavy)
"""
    assert "harness" in loaded_by(code)
