"""A path takes, round by round, the factor that measured best on top of those taken before."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.ablate import GreedyPath, baseline_of, resolve_arms, rungs_of
from harness.config import Ablation, validate_section
from harness.config.ablation import with_steps
from harness.errors import ConfigError
from harness.store import EpochRow, StudyFolder

FACTORS = {
    "lr": {"set": {"optimiser.lr": 0.01}},
    "batch": {"set": {"training.batch_size": 2}},
    "dice": {"set": {"loss.dice.weight": 0.5}},
}
#: mean score of each arm: `lr` is best alone, but `batch` and `dice` are worth more on top of each other
SCORES = {
    "baseline": 0.40, "lr": 0.45, "batch": 0.50, "dice": 0.44, "lr+batch": 0.46, "batch+dice": 0.60, "lr+dice": 0.70,
    "all": 0.55,
}  # fmt: skip
ROUNDS = [["baseline", "lr", "batch", "dice"], ["lr+batch", "batch+dice"], ["all"]]


def path(steps: tuple[str, ...] = (), factors: dict = FACTORS) -> Ablation:
    return validate_section(Ablation, {"factors": factors, "design": {"kind": "path", "steps": steps}}, "test")


class Walk:
    """A path over made-up scores: the arm of each trial in order, and the steps as study.yaml would keep them."""

    def __init__(self, place: Path, fails: str | None = None, seeds: int = 2) -> None:
        place.mkdir()
        self.folder, self.fails, self.seeds, self.steps = StudyFolder(place), fails, seeds, ()

    def study(self) -> GreedyPath:
        return GreedyPath(self.folder, path(self.steps), "full", range(self.seeds), self._keep)

    def _keep(self, steps: tuple[str, ...]) -> None:
        self.steps = steps

    def go(self, most: int = 99) -> list[tuple[str, int]]:
        """Open the folder and run up to so many trials."""
        study, done = self.study(), []
        while len(done) < most and (trial := study.next_trial()) is not None:
            arm = study.arm_of[trial.id]
            failed = arm == self.fails and trial.seed == 1
            # the seeds differ by more than the arms: only their mean says which is better
            study.on_epoch(row(trial.id, SCORES[arm] + 0.2 * (trial.seed - 0.5)))
            study.on_end(trial.id, "broke down" if failed else None)
            done.append((arm, trial.seed))
        return done


def row(trial: str, score: float) -> EpochRow:
    return EpochRow(
        trial=trial, epoch=1, score=score, train_loss=1.0, val_loss=1.0, terms={}, iou={}, train_score=None, lr={},
        train_seconds=1.0, val_seconds=1.0, images=1, peak_memory_mb=None, done=True,
    )  # fmt: skip


def test_the_arms_are_the_baseline_and_each_factor_left_on_every_prefix() -> None:
    assert list(resolve_arms(path(), "full")) == ROUNDS[0]
    arms = resolve_arms(path(("batch", "dice")), "full")
    assert list(arms) == [*ROUNDS[0], *ROUNDS[1], *ROUNDS[2]]
    assert arms["batch+dice"].experiment.training.batch_size == 2
    assert arms["batch+dice"].experiment.loss.dice.weight == 0.5
    assert arms["batch+dice"].experiment.optimiser == arms["baseline"].experiment.optimiser
    assert list(resolve_arms(path(("batch", "dice", "lr")), "full")) == list(arms)


def test_the_rungs_are_the_baseline_and_the_steps_one_after_the_other() -> None:
    assert baseline_of(path(("lr",))) == "baseline"
    assert rungs_of(path()) == ("baseline",)
    assert rungs_of(path(("dice", "lr", "batch"))) == ("baseline", "dice", "lr+dice", "all")


def test_each_round_takes_the_factor_with_the_highest_mean_over_seeds(tmp_path: Path) -> None:
    walk = Walk(tmp_path / "walk")
    assert walk.go() == [(arm, seed) for arms in ROUNDS for seed in range(2) for arm in arms]
    assert walk.steps == ("batch", "dice", "lr")


@pytest.mark.parametrize("stop", [1, 8, 9, 10, 12, 13, 14])
def test_a_path_that_is_interrupted_goes_on_where_it_was(tmp_path: Path, stop: int) -> None:
    walk, undisturbed = Walk(tmp_path / "walk"), Walk(tmp_path / "undisturbed")
    assert walk.go(most=stop) + walk.go() == undisturbed.go()
    assert walk.folder.trials.read() == undisturbed.folder.trials.read()
    assert walk.steps == undisturbed.steps == ("batch", "dice", "lr")


def test_a_trial_under_way_at_the_interrupt_is_run_again_before_the_round_ends(tmp_path: Path) -> None:
    walk = Walk(tmp_path / "walk")
    walk.go(most=9)
    study = walk.study()
    trial = study.next_trial()
    assert study.on_end(trial.id) is None
    assert walk.go()[0] == (study.arm_of[trial.id], trial.seed)
    assert walk.steps == ("batch", "dice", "lr")


def test_an_arm_of_which_a_trial_failed_is_not_taken_however_high_its_other_seeds(tmp_path: Path) -> None:
    walk = Walk(tmp_path / "walk", fails="batch")
    walk.go()
    assert walk.steps == ("lr", "dice", "batch")


def test_a_path_ends_where_every_arm_of_a_round_failed(tmp_path: Path) -> None:
    walk = Walk(tmp_path / "walk", fails="all")
    walk.go()
    assert walk.steps == ("batch", "dice")
    assert walk.study().next_trial() is None


def test_it_waits_for_the_scores_of_a_round(tmp_path: Path) -> None:
    study = Walk(tmp_path / "walk", seeds=1).study()
    trials = [study.next_trial() for _ in ROUNDS[0]]
    assert study.next_trial() is None and study.waits() and study.steps == ()
    for trial in trials:
        study.on_epoch(row(trial.id, SCORES[study.arm_of[trial.id]]))
        study.on_end(trial.id)
    assert not study.waits()
    assert study.arm_of[study.next_trial().id] == "lr+batch"


def test_a_factor_that_changes_nothing_is_refused_before_the_first_trial() -> None:
    idle = FACTORS | {"idle": {"set": {"optimiser.lr": path().experiment.optimiser.lr}}}
    del idle["lr"]
    with pytest.raises(ConfigError, match="arm 'idle' and arm 'baseline' are the same training"):
        resolve_arms(path(factors=idle), "full")


def test_factors_that_would_undo_each_other_are_refused() -> None:
    head = {"head": {"set": {"model.head": {"kind": "linear"}}}, "wide": {"set": {"model.head.channels": 32}}}
    with pytest.raises(ConfigError, match="factors 'head' and 'wide' of a path both change model.head, so that one"):
        resolve_arms(path(factors=head), "full")


@pytest.mark.parametrize("name", ["all", "baseline", "lr+batch"])
def test_a_factor_may_not_be_called_as_an_arm_is(name: str) -> None:
    with pytest.raises(ConfigError, match="called '.*', as an arm may be; rename it"):
        resolve_arms(path(factors=FACTORS | {name: {"set": {"training.epochs": 5}}}), "full")


@pytest.mark.parametrize(
    "steps, message", [(("lr", "x"), "takes 'x'; the factors are lr, batch, dice"), (("lr", "lr"), "takes 'lr' twice")]
)
def test_steps_that_are_no_path_are_refused(steps: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        path(steps)


def test_taking_a_step_leaves_the_rest_of_the_ablation_as_it_was() -> None:
    assert with_steps(path(), ("lr",)) == path(("lr",))
