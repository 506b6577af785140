"""What several tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

from harness.config import (
    Experiment,
    ReplicateSettings,
    SearchSettings,
    Space,
    Trial,
    apply_overrides,
    dump_yaml,
    validate_section,
)
from harness.store import EpochRow, StudyFolder, TrialRow, write_text

# tests that start Ray, a program or a browser wait more than they compute
WORKERS_PER_CORE = 1.5
#: files of minutes: begun first, so that no process is left alone with one at the end; those on Ray not side by side
LONG_FILES = (
    "run/test_cluster", "docs/test_commands", "test_published_arms", "run/test_worker_deaths", "test_every_field",
    "engine/test_fit", "run/test_ray_executor", "run/test_resume", "engine/test_onnx", "run/test_full_disk",
    "report/html/test_browser", "run/test_interrupt",
)  # fmt: skip
FALCON_FRAMES = Path(__file__).resolve().parents[1].parent / "shared" / "falcon_frames"


def pytest_xdist_auto_num_workers() -> int:
    """How many processes `pytest -n auto` starts."""
    return max(1, int(WORKERS_PER_CORE * (os.cpu_count() or 1)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first."""
    names = [f"tests/{name}.py" for name in LONG_FILES]

    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return names.index(file) if file in names else len(names)

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def folders_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's own cache and results."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("HARNESS_CACHE", "HARNESS_RESULTS"):
            patch.setenv(variable, str(tmp_path_factory.mktemp(variable.lower())))
        yield


@pytest.fixture(scope="session")
def falcon_frames() -> Path:
    """Folder of the fourteen real frames, where this checkout has them beside it."""
    if not FALCON_FRAMES.is_dir():
        pytest.skip("the real frames are not beside this checkout")
    return FALCON_FRAMES


class MadeUpHunt:
    """A search on disk and its confirmation, nothing trained: trial i has the weight i / 10 of the dice loss."""

    def __init__(self, path: Path, epochs: int, seed: int = 0) -> None:
        path.mkdir(parents=True)
        self.folder, self.space, self.seed = StudyFolder(path), dice_space(epochs), seed
        self.write(self.folder, SearchSettings(space=self.space, seed=seed, dataset="f00d"), [])
        self.rows: list[tuple[TrialRow, list[EpochRow]]] = []

    def search(self, *curves: Sequence[float], seeds: Mapping[int, int] | None = None) -> MadeUpHunt:
        """A trial for each curve of scores, complete where it has all epochs; `seeds`: trial to one that is not 0.

        A trial with a seed of its own has the values of the one before.
        """
        for number, curve in enumerate(curves):
            own = (seeds or {}).get(number, self.seed)
            weight = number if own == self.seed else number - 1
            whole = len(curve) == self.space.experiment.training.epochs
            id_ = Trial(dice_experiment(self.space.experiment.training.epochs, weight), own).id
            outcome = "complete" if whole else "stopped"
            self.rows.append(ended(id_, number, outcome, own, {"dice": weight / 10}, curve))
        self.write(self.folder, SearchSettings(space=self.space, seed=self.seed, dataset="f00d"), self.rows)
        return self

    def confirm(
        self,
        arms: Mapping[int, Mapping[int, Sequence[float] | str | None]],
        seeds: int = 3,
        first: int = 1000,
        name: str = "confirm",
    ) -> MadeUpHunt:
        """Search trial to its fresh seeds' curves; a text: how it failed; None: it has not ended."""
        epochs = self.space.experiment.training.epochs
        ranked = sorted(self.rows, key=lambda one: (one[0].outcome != "complete", -one[0].score, one[0].number))
        experiments, rows = {}, []
        for trial, curves in arms.items():
            rank = [row.number for row, _ in ranked].index(trial) + 1
            experiments[f"rank-{rank}"] = dice_experiment(epochs, trial)
            for seed, curve in curves.items():
                id_, picked = Trial(dice_experiment(epochs, trial), seed).id, {"arm": f"rank-{rank}"}
                if isinstance(curve, str):
                    rows.append(ended(id_, len(rows), "failed", seed, picked, [], curve))
                elif curve is not None:
                    rows.append(ended(id_, len(rows), "complete", seed, picked, curve))
        folder = StudyFolder(self.folder.path / name)
        folder.path.mkdir()
        settings = ReplicateSettings(arms=experiments, seeds=seeds, first_seed=first, dataset="f00d")
        self.write(folder, settings, rows)
        return self

    @staticmethod
    def write(folder: StudyFolder, settings, rows: Sequence[tuple[TrialRow, list[EpochRow]]]) -> None:
        write_text(folder.settings, dump_yaml(settings.model_dump(mode="json")))
        write_text(folder.trials.path, "".join(row.model_dump_json() + "\n" for row, _ in rows))
        write_text(folder.epochs.path, "".join(e.model_dump_json() + "\n" for _, own in rows for e in own))


@cache
def dice_space(epochs: int) -> Space:
    parameters = {"dice": {"kind": "float", "field": "loss.dice.weight", "low": 0.0, "high": 9.0}}
    values = {"experiment": {"training": {"epochs": epochs}}, "parameters": parameters}
    return validate_section(Space, values, "space")


@cache
def dice_experiment(epochs: int, trial: int) -> Experiment:
    return apply_overrides(dice_space(epochs).experiment, {"loss.dice.weight": trial / 10})


def ended(
    id_: str, number: int, outcome: str, seed: int, picked: dict, curve: Sequence[float], error: str | None = None
) -> tuple[TrialRow, list[EpochRow]]:
    """A trial's row and those of its epochs."""
    best = max(curve, default=None)
    row = TrialRow(
        trial=id_, number=number, outcome=outcome, seed=seed, picked=picked, score=best,
        best_epoch=curve.index(best) + 1 if curve else None, epochs=len(curve), seconds=10.0 * len(curve), error=error,
    )  # fmt: skip
    epochs = [
        EpochRow(
            trial=id_, epoch=epoch, score=score, train_loss=1.0 / number if number else 2.0, val_loss=score, terms={},
            iou={}, train_score=None, lr={}, train_seconds=8.0, val_seconds=2.0, images=6, peak_memory_mb=None,
            done=epoch == len(curve),
        )
        for epoch, score in enumerate(curve, 1)
    ]  # fmt: skip
    return row, epochs


@pytest.fixture
def hunt_of(tmp_path: Path) -> Callable[..., MadeUpHunt]:
    """Starts a made-up search called `hunt`: `hunt_of(epochs=1).search([0.5], ...).confirm({0: {1000: [0.4]}})`."""
    return lambda epochs=1, seed=0, name="hunt": MadeUpHunt(tmp_path / name, epochs, seed)
