"""Which room may import which: an import goes only to a lower floor, and light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
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


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE.parent))


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


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_import_goes_down_a_floor(path: Path) -> None:
    room = room_of(path)
    if room is None:
        assert not [i for i in imports_of(path.read_text()) if i.module.startswith("harness")]
    else:
        assert faults(room, path.read_text()) == []


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


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_run_imports_ray(path: Path) -> None:
    with_ray = [i for i in imports_of(path.read_text()) if i.module.split(".")[0] == "ray"]
    assert room_of(path) == "run" or not with_ray


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_are_deferred_only_by_the_command_line_and_only_for_ray_elsewhere(path: Path) -> None:
    deferred = [i.module for i in imports_of(path.read_text()) if i.deferred]
    assert room_of(path) == "cli" or set(deferred) <= {"harness.run.ray_executor"}


def unsafe_calls(source: str) -> list[str]:
    """Ways to run code that hides in a file: pickle, YAML tags, torch and numpy files of objects."""
    tree = ast.parse(source)
    found = [i.module for i in imports_of(source) if i.module.split(".")[0] in {"pickle", "cloudpickle", "dill"}]
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        name, options = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
        if name.endswith("torch.load") and options.get("weights_only") != "True":
            found.append(ast.unparse(call))
        if name.startswith("yaml.") and "load" in name and name not in {"yaml.safe_load", "yaml.safe_load_all"}:
            found.append(ast.unparse(call))
        if options.get("allow_pickle", "False") != "False":
            found.append(ast.unparse(call))
    classes = [ast.unparse(b) for n in ast.walk(tree) if isinstance(n, ast.ClassDef) for b in n.bases]
    return found + [b for b in classes if b.startswith("yaml.") and "Loader" in b and b != "yaml.SafeLoader"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_file_that_is_read_can_run_code(path: Path) -> None:
    assert unsafe_calls(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import load",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "yaml.load(f, Loader=yaml.Loader)",
        "yaml.unsafe_load(f)",
        "np.load(f, allow_pickle=True)",
        "class L(yaml.UnsafeLoader): pass",
    ],
)
def test_an_unsafe_call_is_noticed(line: str) -> None:
    assert len(unsafe_calls(line)) == 1


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


@pytest.mark.parametrize("command", commands(get_command(app)))
def test_help_loads_neither_torch_nor_ray(command: str) -> None:
    code = f"""
import contextlib, io, sys
from harness.cli import main
sys.argv = ["harness", *{command!r}.split(), "--help"]
text = io.StringIO()
with contextlib.redirect_stdout(text):
    try:
        main()
    except SystemExit as end:
        assert end.code == 0, end.code
assert "Usage" in text.getvalue(), text.getvalue()
"""
    assert not loaded_by(code) & {"torch", "ray", "timm", "albumentations"}
