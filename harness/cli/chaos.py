"""`harness chaos`."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import SOME_FAILED, app, console
from harness.cli.options import Cpus, Data, Executor, Set
from harness.errors import StudyError


@app.command()
def chaos(
    space: Annotated[Path, typer.Argument(metavar="SPACE", help="Space file of a search of a few minutes.")],
    minutes: Annotated[float, typer.Option(min=0.0, help="Inject faults for so long.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Decides which faults come, and when.")] = 0,
    data: Data = None,
    set_: Set = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials of the search; none: the space's own.")] = None,
    max_epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of a trial; none: the space's own.")] = None,
    cpus_per_trial: Cpus = 1.0,
    executor: Executor = "ray",
    nodes: Annotated[
        int, typer.Option(min=1, help="2 and more: on a Ray cluster of so many nodes, which are lost too.")
    ] = 1,
) -> None:
    """Kill, interrupt, suspend and damage a search at random, and compare what is left with the same search left alone.

    Its trials run one at a time, so that both searches meet the same results in the same order.
    """
    from harness.chaos import Plan, report_table
    from harness.chaos import chaos as disturb
    from harness.cli import inputs

    if nodes > 1 and executor != "ray":
        raise StudyError(f"--nodes {nodes}: a cluster is Ray's; leave --executor {executor} or --nodes out")
    inputs.read_space(space, None, data, set_ or [], trials=trials, max_epochs=max_epochs)
    given = {"--data": data, "--trials": trials, "--max-epochs": max_epochs, "--cpus-per-trial": cpus_per_trial}
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    options += [word for text in set_ or [] for word in ("--set", text)]
    plan = Plan(space, (*options, "--concurrency", "1"), minutes * 60, seed, executor, nodes, cpus_per_trial)
    # as Ctrl-C: nodes are ended and disks unmounted
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="harness-chaos-"))
    report = disturb(home, plan, lambda text: console.print(text, highlight=False))
    console.print(report_table(report))
    if not report.good():
        console.print(f"all studies are kept in {home}", highlight=False, soft_wrap=True)
        raise typer.Exit(SOME_FAILED)
    shutil.rmtree(home)
