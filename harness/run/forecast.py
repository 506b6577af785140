"""What a study will take, said before its first trial starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from harness.config import Experiment
from harness.data import dataset_root, list_frames
from harness.run.dashboard import about
from harness.run.measure import Measured
from harness.run.snapshot import Tally
from harness.store import EpochRow


class Pace(NamedTuple):
    """Seconds of one epoch, and what they are known from."""

    seconds: float
    source: str


class Limit(NamedTuple):
    """An option, and the share of the study that it allows; 1 or more: all of it."""

    option: str
    share: float


def forecast(tally: Tally, workers: int, pace: Pace | None, limits: Sequence[Limit] = ()) -> str:
    """Trials, epochs and hours of a study from now on, in one line; which limit will end it before."""
    epochs = tally.epochs_left()
    if not epochs:
        return ""
    on = f"on {workers} worker{'s' * (workers != 1)}"
    if pace is None:
        ends = [f"; {limit.option} may end it before" for limit in limits]
        return f"{_amount(tally, epochs)} {on}; how long they take is known after the first{''.join(ends)}"
    ends = [f"; {_ends(limit)}" for limit in limits]
    hours = about(epochs * pace.seconds / workers)
    return f"{_amount(tally, epochs)}, {hours} {on} ({pace.source}){''.join(ends)}"


def measured_pace(shapes: Sequence[Experiment], found: Sequence[Measured]) -> Pace | None:
    """An epoch by the measured steps of each model and size, as if each were tried as often; none: none fits."""
    # a step that did not fit has no milliseconds
    pairs = [(e, one) for e, one in zip(shapes, found, strict=True) if one.milliseconds == one.milliseconds]
    if not pairs:
        return None
    seconds = fmean(one.milliseconds / 1000 * _train_frames(e) for e, one in pairs)
    models = f"{len(pairs)} models and sizes" if len(pairs) > 1 else "the model"
    return Pace(seconds, f"by --measure: training steps of {models}, without validation")


def recorded_pace(rows: Iterable[EpochRow], source: str) -> Pace | None:
    """An epoch by those that were trained before; none where there are none."""
    seconds = [row.seconds for row in rows if row.epoch > 0]
    return Pace(fmean(seconds), source.format(len(seconds))) if seconds else None


def limits_of(
    tally: Tally, workers: int, pace: Pace | None, time_left: float | None, device_left: float | None
) -> list[Limit]:
    """The limits that were asked for.

    Args:
        time_left: seconds on the clock.
        device_left: seconds that the epochs of all trials may take together.
    """
    needed = (tally.epochs_left() or 0) * (pace.seconds if pace else 0)
    options = (("--time-budget", time_left, needed / workers), ("--compute-hours", device_left, needed))
    return [Limit(name, max(0.0, left) / takes if takes else 1.0) for name, left, takes in options if left is not None]


def _amount(tally: Tally, epochs: float) -> str:
    plan = tally.plan
    guessed = "at most " if plan.at_most else "about " if plan.rule().rungs else ""
    if tally.trials:
        ended = sum(trial.row is not None for trial in tally.trials.values())
        return f"{plan.planned} trials, {ended} ended: {guessed}{epochs:.0f} epochs left"
    of = f" of {plan.planned * plan.epochs}" if plan.rule().rungs else ""
    return f"{plan.planned} trials, {guessed}{epochs:.0f}{of} epochs"


def _ends(limit: Limit) -> str:
    if limit.share >= 1:
        return f"{limit.option} allows all of it"
    return f"{limit.option} will end it after about {max(1, round(100 * limit.share))} %"


def _train_frames(experiment: Experiment) -> int:
    return len(list_frames(dataset_root(experiment.data), "train"))
