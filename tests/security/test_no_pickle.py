"""Nothing that a file says is run: no pickle, no eval, no YAML tag, in our code and in what it calls."""

from __future__ import annotations

import ast
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from harness.search import Search
from harness.store import EpochRow, StudyFolder

PACKAGE = Path(__file__).resolve().parents[2] / "harness"
MODULES = sorted(PACKAGE.rglob("*.py"))
UNPICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
SPACE = """
experiment:
  data: {input_size: [32, 48]}
  model: {kind: backbone, backbone: test_efficientnet, weights: none, trainable_blocks: all, stride: 8,
          head: {kind: linear}}
  training: {epochs: 1, batch_size: 2}
search: {trials: 2, strategy: STRATEGY}
parameters:
  lr: {kind: float, field: optimiser.lr, low: 1e-4, high: 1e-1, log: true}
"""


def calls(source: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Every call in a module's text: what is called, and its options."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}


def imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def faults(source: str) -> list[str]:
    """What in a module's text could run what a file says."""
    found = [name for name in imports(source) if name in UNPICKLERS]
    bases = [ast.unparse(b) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ClassDef) for b in n.bases]
    found += [b for b in bases if b.startswith("yaml.") and "Loader" in b and b != "yaml.SafeLoader"]
    for name, options in calls(source):
        last = name.rpartition(".")[2]
        if name in ("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"):
            found.append(name)
        if name in ("np.load", "numpy.load") and options.get("allow_pickle") != "False":
            found.append(name)
        if name in ("torch.load", "torch.jit.load", "torch.hub.load") and options.get("weights_only") != "True":
            found.append(name)
        if name.startswith("yaml.") and last in ("load", "load_all", "full_load", "unsafe_load"):
            found.append(name)
        if last in ("read_pickle", "Unpickler") or options.get("shell") == "True" or name == "os.system":
            found.append(name)
    return found


def test_no_module_can_run_what_a_file_says() -> None:
    found = {str(path.relative_to(PACKAGE.parent)): faults(path.read_text()) for path in MODULES}
    assert {path: all_of_it for path, all_of_it in found.items() if all_of_it} == {}
    assert len(found) > 200


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from _pickle import loads",
        "import joblib",
        "eval(text)",
        "exec(text)",
        "np.load(f)",
        "np.load(f, mmap_mode='r')",
        "np.load(f, allow_pickle=True)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.hub.load(a, b)",
        "yaml.load(f, Loader=yaml.SafeLoader)",
        "yaml.full_load(f)",
        "yaml.unsafe_load(f)",
        "class L(yaml.UnsafeLoader): pass",
        "pd.read_pickle(f)",
        "subprocess.run(words, shell=True)",
        "os.system(word)",
    ],
)
def test_a_way_to_run_what_a_file_says_is_noticed(line: str) -> None:
    assert len(faults(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "np.load(f, allow_pickle=False)",
        "torch.load(f, weights_only=True)",
        "model.eval()",
        "re.compile(a)",
    ],
)
def test_what_is_safe_is_let_through(line: str) -> None:
    assert faults(line) == []


@pytest.fixture(scope="module", params=["promote", "tpe"])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, Path]:
    """A search of two short trainings, and a picture."""
    import sys

    from harness.cli import main
    from harness.data import write_desert

    root = tmp_path_factory.mktemp("pickles")
    write_desert(root / "desert", train=2, val=1, test=1, height=32, width=48, seed=0)
    (root / "space.yaml").write_text(SPACE.replace("STRATEGY", request.param))
    cv2.imwrite(str(root / "image.png"), np.zeros((32, 48, 3), np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_RESULTS", str(root / "results"))
        words = ["search", "space.yaml", "--data", "desert", "--name", "hunt", "--executor", "inprocess"]
        patch.chdir(root)
        patch.setattr(sys, "argv", ["harness", *words])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code
    return StudyFolder(root / "results" / "hunt"), root


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads a pickle fails the test."""

    def poison(*_: object, **__: object) -> None:
        pytest.fail("a pickle was read")

    class Poison(pickle.Unpickler):
        def load(self) -> None:
            poison()

    for name in ("load", "loads"):
        monkeypatch.setattr(pickle, name, poison)
        monkeypatch.setattr(f"_pickle.{name}", poison)
    for name in ("Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, Poison)
    monkeypatch.setattr("_pickle.Unpickler", Poison)


def test_the_poison_works(poisoned: None, tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "a.pt")
    with pytest.raises(pytest.fail.Exception, match="a pickle was read"):
        torch.load(tmp_path / "a.pt", weights_only=False)


def test_a_study_is_opened_reported_exported_and_predicted_with_without_a_pickle(
    harness: Callable, study: tuple[StudyFolder, Path], poisoned: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, root = study
    monkeypatch.chdir(root)
    search = ("search", "space.yaml", "--data", "desert", "--name", folder.name, "--executor", "inprocess", "--resume")
    monkeypatch.setenv("HARNESS_RESULTS", str(folder.path.parent))
    for words in (
        ("export", folder.path),
        ("evaluate", folder.path, "--data", "desert"),
        ("predict", folder.path, "image.png", "-o", tmp_path / "out"),
        ("rerun", folder.path, "0"),
        search,
    ):
        said = harness(*words)
        assert said.code == 0, said.err
    assert (tmp_path / "out" / "raw" / "image.png").is_file()


def test_a_storage_holds_text_and_numbers_alone(study: tuple[StudyFolder, Path]) -> None:
    database = sqlite3.connect(study[0].optuna)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    values = [value for table in tables for row in database.execute(f'SELECT * FROM "{table}"') for value in row]
    database.close()
    assert values and not [value for value in values if isinstance(value, bytes)]


def test_no_state_of_a_sampler_is_kept(study: tuple[StudyFolder, Path]) -> None:
    pickles = [p for p in study[0].path.rglob("*") if p.suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib")]
    assert pickles == []
    for path in (p for p in study[0].path.rglob("*") if p.is_file()):
        assert not path.read_bytes().startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")), path


def test_a_search_on_a_storage_on_disk_goes_on_without_a_pickle(
    study: tuple[StudyFolder, Path], poisoned: None, tmp_path: Path
) -> None:
    from harness.config import SearchSettings, read_section

    space = read_section(SearchSettings, study[0].settings).space
    space = space.model_copy(update={"search": space.search.model_copy(update={"trials": 30})})
    (tmp_path / "paper").mkdir()
    for _ in range(2):
        search = Search(StudyFolder(tmp_path / "paper"), space, 0)
        for _ in range(12):
            trial = search.next_trial()
            search.on_epoch(
                EpochRow(
                    trial=trial.id,
                    epoch=1,
                    score=0.5,
                    train_loss=1.0,
                    val_loss=1.0,
                    terms={},
                    iou={},
                    train_score=None,
                    lr={},
                    train_seconds=1.0,
                    val_seconds=1.0,
                    images=2,
                    peak_memory_mb=None,
                    done=True,
                )  # fmt: skip
            )
            search.on_end(trial.id)
    assert len(search.record.ended) == 24
