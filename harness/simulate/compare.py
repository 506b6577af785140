"""Whole studies, simulated: what each way to search would find, and how many epochs it would need."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from harness.config import Space, apply_overrides, read_section
from harness.config.space import SearchConfig, Strategy
from harness.search import rung_epochs
from harness.simulate.black_box import black_box_space
from harness.simulate.curves import FAMILIES, Curves, ParametricCurves
from harness.simulate.executor import Trace, simulate
from harness.simulate.recorded import RecordedCurves
from harness.simulate.table import share
from harness.store import find_study

DEFAULT_STRATEGIES: tuple[Strategy, ...] = ("promote", "asha", "random_asha")
_CALLS = ("next_trial", "on_epoch", "on_end")


class Compared(NamedTuple):
    """One way to search: a trace for each instance, and shares of the epochs of random search in full."""

    search: SearchConfig
    traces: list[Trace]
    #: until the final best of random search in full, of TPE with stopping ASHA; inf: never
    to_random: list[float]
    to_usual: list[float]


def curves_over(what: str | None, seeds: int) -> list[Curves]:
    """Instances of curves: every family with every seed, or one recorded study as often as there are seeds.

    Args:
        what: a space file, a study's name or folder; none: the black box of the strategy table.

    Raises:
        StudyError: there is neither such a file nor such a study, or it is too short to replay.
    """
    if what is None or Path(what).is_file():
        space = black_box_space() if what is None else read_section(Space, Path(what))
        return [ParametricCurves(space, family, seed) for family in FAMILIES for seed in range(seeds)]
    return [RecordedCurves(find_study(what))] * seeds


def options_of(
    space: Space,
    strategies: Sequence[str] | None,
    factors: Sequence[int] | None,
    graces: Sequence[int] | None,
    trials: int | None,
) -> list[SearchConfig]:
    """Search settings for every combination of what was asked for; the rest is the space's own."""
    own = space.search if trials is None else apply_overrides(space.search, {"trials": trials})
    combinations = itertools.product(
        strategies or DEFAULT_STRATEGIES, factors or [own.reduction_factor], graces or [own.grace_epochs]
    )
    return [apply_overrides(own, {"strategy": s, "reduction_factor": f, "grace_epochs": g}) for s, f, g in combinations]


def compare(
    instances: Sequence[Curves], options: Sequence[SearchConfig], workers: int, on_disk: bool = False
) -> list[Compared]:
    """Simulate a whole study for every option and instance, and the two that they are measured by."""

    def run(search: SearchConfig) -> list[Trace]:
        return [
            simulate(curves.space.model_copy(update={"search": search}), curves, workers, seed, on_disk=on_disk)
            for seed, curves in enumerate(instances)
        ]

    plain = apply_overrides(options[0], {"default_first": False})
    random, usual = (run(apply_overrides(plain, {"strategy": name})) for name in ("random", "asha"))
    compared = []
    for search in options:
        traces = run(search)
        to_random, to_usual = (
            [_share(trace, other, full) for trace, other, full in zip(traces, reference, random, strict=True)]
            for reference in (random, usual)
        )
        compared.append(Compared(search, traces, to_random, to_usual))
    return compared


def _share(trace: Trace, reference: Trace, full: Trace) -> float:
    """Epochs until the reference's final best, over those of random search in full."""
    return share(np.array(trace.true), reference.true[-1]) * trace.epochs / full.epochs


def print_comparison(compared: Sequence[Compared], instances: Sequence[Curves], console: Console, timed: bool) -> None:
    """A line for each way to search; with `timed`, the real milliseconds of the search's calls."""
    hours = all(isinstance(curves, RecordedCurves) for curves in instances)
    table = Table(box=None, pad_edge=False)
    for name in ("strategy", "factor", "grace", "rungs", "final score", "epochs", "of", "to (a)", "to (b)"):
        table.add_column(name, justify="left" if name == "strategy" else "right")
    if hours:
        table.add_column("hours", justify="right")
    epochs = instances[0].space.experiment.training.epochs
    for one in compared:
        cells = _cells(one, epochs)
        table.add_row(*cells, *([f"{np.mean([t.seconds for t in one.traces]) / 3600:.2f}"] if hours else []))
    console.print(table)
    console.print(
        "final score: true score of the weights with the highest observed one, mean over "
        f"{len(instances)} studies; (a), (b): share of random search's epochs until its final best, until that of "
        "TPE + stopping ASHA, median",
        style="dim",
    )
    if timed:
        console.print(_timing(compared))


def _cells(one: Compared, epochs: int) -> list[str]:
    search = one.search
    used, final = [t.epochs for t in one.traces], [t.true[-1] for t in one.traces]
    return [
        search.strategy + (", default first" if search.default_first else ""),
        str(search.reduction_factor),
        str(search.grace_epochs),
        " ".join(map(str, rung_epochs(search.grace_epochs, search.reduction_factor, epochs))),
        f"{np.mean(final):.4f}",
        f"{np.mean(used):.0f}",
        str(search.trials * epochs),
        share_text(float(np.median(one.to_random))),
        share_text(float(np.median(one.to_usual))),
    ]


def _timing(compared: Sequence[Compared]) -> Table:
    title = "milliseconds of a call: median / 99 % / longest"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for name in ("strategy", "trials", *_CALLS):
        table.add_column(name, justify="left" if name == "strategy" else "right")
    for one in compared:
        trials = np.mean([trace.trials for trace in one.traces])
        table.add_row(one.search.strategy, f"{trials:.0f}", *(_call_text(one.traces, name) for name in _CALLS))
    return table


def _call_text(traces: Sequence[Trace], name: str) -> str:
    seconds = np.concatenate([trace.calls.get(name, []) for trace in traces])
    if not len(seconds):
        return "–"
    middle, most = np.quantile(seconds, [0.5, 0.99]) * 1000
    return f"{middle:.1f} / {most:.1f} / {seconds.max() * 1000:.0f}"


def share_text(value: float) -> str:
    """A share with two digits, or `never`."""
    return "never" if np.isinf(value) else f"{value:.2f}"
