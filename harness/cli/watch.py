"""`harness watch`: the dashboard of a study that another process drives."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from harness.cli.app import app, console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from harness.run.snapshot import Snapshot

#: seconds between two looks into the folder
_EVERY = 1.0


@app.command()
def watch(
    study: Annotated[str, typer.Argument(help="Study name or folder.")],
    once: Annotated[
        bool, typer.Option("--once", help="Show it once and end; so always where it is no terminal.")
    ] = False,
) -> None:
    """Show a study from a second terminal, live; Ctrl-C ends the view, not the study."""
    from harness.run.folder_view import FolderView
    from harness.store import find_study

    view = FolderView(find_study(study))
    snapshot = view.look()
    if once or not console.is_terminal:
        console.print(_drawn(snapshot))
        return
    with Live(_drawn(snapshot), console=console, auto_refresh=False) as live:
        while snapshot.status != "finished":
            time.sleep(_EVERY)
            snapshot = view.look()
            live.update(_drawn(snapshot), refresh=True)


def _drawn(snapshot: Snapshot) -> RenderableType:
    from harness.run.dashboard import frame

    note = ""
    if snapshot.status == "stopped":
        name = snapshot.plan.name
        note = f"no process drives it; go on with the same command and --name {name} --resume"
    return frame(snapshot, console.width, console.height, note)
