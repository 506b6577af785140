"""What goes wrong inside one trial: damaged checkpoints, no memory, a loss that is not finite; the study goes on."""

from __future__ import annotations

import optuna
import pytest
import torch
from torch import Tensor, nn

from harness.ablate import Replicates
from harness.losses import build_loss
from harness.run.inprocess import run_inprocess
from harness.run.study import runs_path
from harness.run.worker import TrialRun, describe_failure
from harness.search import Search
from harness.store import EpochRow, Failure, Record, StudyFolder

SECONDS = {"seconds", "setup_seconds", "train_seconds", "val_seconds"}
LR = {"lr": {"kind": "choice", "field": "optimiser.lr", "choices": [1e-3, 1e-2]}}
#: two or four images a batch, each of six frames
BATCH = {
    "lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-2, "log": True},
    "batch": {"kind": "int", "field": "training.batch_size", "low": 2, "high": 4, "step": 2},
}
CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB."


def journals(folder: StudyFolder) -> list[list[dict]]:
    return [[row.model_dump(exclude=SECONDS) for row in journal.read()] for journal in (folder.trials, folder.epochs)]


def new_folder(parent, name: str) -> StudyFolder:
    (parent / name).mkdir()
    return StudyFolder(parent / name)


# ---- damaged checkpoints ----


def die_after(search: Search, epochs: int) -> StudyFolder:
    """Run a search's first trial for so many epochs, as a driver that is killed then."""
    trial = search.next_trial()
    run = TrialRun(trial, runs_path(search.folder, trial.id))
    for _ in range(epochs):
        search.on_epoch(run.next_row())
    run.close()
    return search.folder


@pytest.mark.parametrize("damaged", [["last"], ["last", "previous"]], ids=["the last", "both"])
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_study_resumed_from_damaged_checkpoints_ends_with_the_journals_of_an_undisturbed_one(
    damaged: list[str], epochs: int, tiny, tiny_space, tmp_path
):
    space = tiny_space(LR, tiny(training__epochs=4), trials=2)
    whole = new_folder(tmp_path, "whole")
    run_inprocess(Search(whole, space, seed=0))
    cut = die_after(Search(new_folder(tmp_path, "cut"), space, seed=0), epochs)
    (first,) = Record(cut).epochs
    for name in damaged:
        path = getattr(cut.run(first), name)
        if path.exists():
            content = bytearray(path.read_bytes())
            content[-len(content) // 3] ^= 1
            path.write_bytes(content)

    run_inprocess(Search(cut, space, seed=0))

    assert journals(cut) == journals(whole)
    assert "last.safetensors was damaged" in cut.run(first).notes.read_text()


def test_replicates_resumed_from_a_damaged_checkpoint_end_as_undisturbed_ones(tiny, tmp_path):
    arms = {"tiny": tiny()}
    whole, cut = new_folder(tmp_path, "whole"), new_folder(tmp_path, "cut")
    run_inprocess(Replicates(whole, arms, range(1)))
    (first,) = Record(die_after(Replicates(cut, arms, range(1)), 2)).epochs
    cut.run(first).last.write_bytes(b"")

    run_inprocess(Replicates(cut, arms, range(1)))

    assert journals(cut) == journals(whole)


@pytest.mark.parametrize(("kind", "kept"), [("search", 1), ("replicates", 0)])
def test_rows_that_a_power_loss_took_from_the_journal_come_again_from_the_checkpoint(
    kind: str, kept: int, tiny, tiny_space, tmp_path
):
    longer = tiny(training__epochs=5)
    space = tiny_space(LR, longer, trials=2)
    space = space.model_copy(update={"search": space.search.model_copy(update={"strategy": "random"})})

    def study(folder: StudyFolder) -> Search | Replicates:
        return Search(folder, space, seed=0) if kind == "search" else Replicates(folder, {"longer": longer}, range(1))

    whole = new_folder(tmp_path, "whole")
    run_inprocess(study(whole))
    cut = die_after(study(new_folder(tmp_path, "cut")), 4)
    rows = cut.epochs.path.read_bytes().splitlines(keepends=True)
    cut.epochs.path.write_bytes(b"".join(rows[:kept]))

    run_inprocess(study(cut))

    assert journals(cut) == journals(whole)


# ---- memory ----


class Full(nn.Module):
    """A loss with memory for two images a training pass, and an error for more."""

    def __init__(self, loss: nn.Module, images: int, error: Exception) -> None:
        super().__init__()
        self.loss, self.images, self.error = loss, images, error

    def forward(self, logits: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if logits.requires_grad and len(logits) > self.images:
            raise self.error
        return self.loss(logits, truth)

    def per_image(self, logits: Tensor, truth: Tensor) -> Tensor:
        return self.loss.per_image(logits, truth)


@pytest.fixture
def memory_for(monkeypatch):
    """Give every training memory for so many images a pass."""

    def small(images: int, error: Exception) -> None:
        monkeypatch.setattr("harness.engine.session.build_loss", lambda *a: Full(build_loss(*a), images, error))

    return small


def test_a_trial_that_does_not_fit_the_gpu_trains_in_halves_under_its_own_id(memory_for, tiny, tiny_space, folder):
    memory_for(2, torch.OutOfMemoryError(CUDA))

    run_inprocess(Search(folder, tiny_space(BATCH, tiny(training__batch_size=4), trials=4), seed=0))

    rows = folder.trials.read()
    assert {row.picked["batch"] for row in rows} == {2, 4}
    assert all(row.outcome != "failed" and not row.out_of_memory for row in rows)
    forced = {row.trial for row in rows if row.picked["batch"] == 4}
    for row in folder.epochs.read():
        assert row.micro_batch == (2 if row.trial in forced else None)
    assert all(folder.run(trial).read_experiment().training.batch_size == 4 for trial in forced)


def constraints(folder: StudyFolder) -> list[dict[str, float]]:
    """By trial, as a plain Optuna study reads them."""
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder.optuna}")
    return [trial.constraints for trial in study.trials]


def cpu_allocator_error() -> RuntimeError:
    with pytest.raises(RuntimeError, match="can't allocate memory") as error:
        torch.empty(2**60, dtype=torch.uint8)
    return error.value


MEMORY = {
    "GPU": (
        1,
        lambda: torch.OutOfMemoryError(CUDA),
        "training step of 4 images of 32 x 48 pixels, nor for 2 at a time",
    ),
    "host": (2, lambda: MemoryError("Unable to allocate 2 GiB"), "out of memory (MemoryError: Unable to allocate 2"),
    "torch on the host": (2, cpu_allocator_error, "out of memory (RuntimeError: "),
    "CUDA itself": (2, lambda: RuntimeError("CUDA error: out of memory"), "out of memory (RuntimeError: CUDA error"),
}


@pytest.mark.parametrize(("images", "error", "said"), MEMORY.values(), ids=MEMORY)
def test_a_trial_without_memory_is_failed_as_a_violated_constraint_and_the_study_goes_on(
    images, error, said, memory_for, tiny, tiny_space, folder
):
    memory_for(images, error())
    batch = {"batch": {"kind": "choice", "field": "training.batch_size", "choices": [4, 1]}}
    whole = tiny(training__batch_size=4, training__epochs=1, model__head={"kind": "linear"})

    run_inprocess(Search(folder, tiny_space(batch, whole, trials=3), seed=0))

    rows = folder.trials.read()
    assert rows[0].picked["batch"] == 4 and len(rows) == 3
    for row, constraint in zip(rows, constraints(folder), strict=True):
        too_large = row.picked["batch"] == 4
        assert row.outcome == ("failed" if too_large else "complete") and row.out_of_memory == too_large
        assert constraint == ({"memory": 1.0} if too_large else {})
    assert said in rows[0].error and "lower training.batch_size (raise training.accumulation instead)" in rows[0].error
    assert "Traceback" in (folder.run(rows[0].trial).path / "error.txt").read_text()
    assert folder.run(rows[0].trial).notes.exists() == (images == 1), "only a GPU's memory is tried again"


def test_a_resumed_study_remembers_that_memory_ran_out(memory_for, tiny, tiny_space, folder, monkeypatch):
    memory_for(0, MemoryError())
    space = tiny_space(LR, tiny(), trials=1)
    killed = Search(folder, space, seed=0)
    # the journal has the trial's row, and Optuna has not been told
    monkeypatch.setattr(killed.proposals, "tell", lambda *_: None)
    run_inprocess(killed)
    assert constraints(folder) == [{}]

    Search(folder, space, seed=0)

    assert constraints(folder) == [{"memory": 1.0}]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "error"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "memory"),
        (ValueError("can't allocate memory"), "error"),
        (OSError(28, "No space left on device"), "disk"),
        (OSError(5, "Input/output error"), "error"),
    ],
)
def test_an_error_is_of_the_trial_its_memory_or_the_disk(error, cause, tmp_path):
    assert describe_failure(error, tmp_path).cause == cause


# ---- losses that are not finite, exceptions ----


class Breaks(nn.Module):
    """A loss that is nan for batches of four, and raises for batches of three."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        total, terms = self.loss(logits, truth)
        if logits.requires_grad and len(logits) == 3:
            raise RuntimeError("a kernel broke")
        return (total * float("nan") if logits.requires_grad and len(logits) == 4 else total), terms

    def per_image(self, logits: Tensor, truth: Tensor) -> Tensor:
        return self.loss.per_image(logits, truth)


def test_a_loss_that_is_not_finite_and_an_exception_end_their_trials_and_the_study_goes_on(
    tiny, tiny_space, folder, monkeypatch
):
    monkeypatch.setattr("harness.engine.session.build_loss", lambda *a: Breaks(build_loss(*a)))
    batch = {"batch": {"kind": "choice", "field": "training.batch_size", "choices": [4, 3, 2]}}

    run_inprocess(Search(folder, tiny_space(batch, tiny(training__batch_size=4), trials=8), seed=0))

    rows = folder.trials.read()
    found = {4: [], 3: [], 2: []}
    for row in rows:
        found[row.picked["batch"]].append(row)
    assert rows[0].picked["batch"] == 4 and all(found.values())
    assert all("the loss is not finite at epoch 1, batch 1: total nan" in row.error for row in found[4])
    assert all(row.error == "RuntimeError: a kernel broke" for row in found[3])
    assert all(row.outcome != "failed" and row.error is None for row in found[2])
    for row in found[4] + found[3]:
        assert row.outcome == "failed" and not row.out_of_memory
        assert "Traceback" in (folder.run(row.trial).path / "error.txt").read_text()
    assert all(constraint == {} for constraint in constraints(folder))


def test_a_trial_gives_its_failure_as_text_with_a_cause(tiny, tmp_path, memory_for):
    memory_for(0, MemoryError())
    run = TrialRun(Replicates(new_folder(tmp_path, "study"), {"tiny": tiny()}, [0]).next_trial(), tmp_path / "run")
    answer = run.next_row()
    assert isinstance(answer, Failure) and not isinstance(answer, EpochRow)
    assert answer.startswith("out of memory (MemoryError: MemoryError); lower") and answer.cause == "memory"
