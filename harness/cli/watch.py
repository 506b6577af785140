"""`harness watch`: the dashboard of a study that another process drives."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from harness.cli.app import app, console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from harness.run.folder_view import FolderView
    from harness.run.snapshot import Snapshot
    from harness.store import StudyFolder

#: seconds between two looks into the folder
_EVERY = 1.0
#: seconds in which the confirmation that a search was asked for begins: its frames are looked at, and Ray starts
_PATIENCE = 60.0


@app.command()
def watch(
    study: Annotated[str, typer.Argument(help="Study name or folder.")],
    once: Annotated[
        bool, typer.Option("--once", help="Show it once and end; so always where it is no terminal.")
    ] = False,
) -> None:
    """Show a study from a second terminal, live, to its end; Ctrl-C ends the view, not the study."""
    from harness.run.folder_view import FolderView
    from harness.store import find_study

    folder = find_study(study)
    view = FolderView(folder)
    snapshot = view.look()
    if once or not console.is_terminal:
        console.print(_drawn(snapshot))
        return
    with Live(console=console, auto_refresh=False) as live:
        _follow(view, snapshot, live)
        if (confirmation := _confirmation_of(folder)) is not None:
            view = FolderView(confirmation)
            _follow(view, view.look(), live)


def _follow(view: FolderView, snapshot: Snapshot, live: Live) -> None:
    """Show a study for as long as a process drives it."""
    live.update(_drawn(snapshot), refresh=True)
    while snapshot.status == "running":
        time.sleep(_EVERY)
        snapshot = view.look()
        live.update(_drawn(snapshot), refresh=True)


def _confirmation_of(folder: StudyFolder) -> StudyFolder | None:
    """The confirmation of a search that a process drives; where the search's command asked for it, once it begins."""
    from harness.run.driver_lock import is_driven
    from harness.run.session import last_session
    from harness.search.confirmation import confirmations

    asked = any(word.split("=")[0] == "--confirm" for word in last_session(folder).command)
    until = time.monotonic() + (_PATIENCE if asked else 0.0)
    while True:
        found = [study for study in confirmations(folder)[-1:] if is_driven(study)]
        if found or time.monotonic() >= until:
            return found[0] if found else None
        time.sleep(_EVERY)


def _drawn(snapshot: Snapshot) -> RenderableType:
    from harness.run.dashboard import frame

    note = ""
    if snapshot.status == "stopped":
        name = snapshot.plan.name
        note = f"no process drives it; go on with the same command and --name {name} --resume"
    return frame(snapshot, console.width, console.height, note)
