"""The pictures of a study that has ended: what its runs predict on a few frames."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from rich.text import Text

from harness.cli.app import console
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.store import StudyFolder


def draw_pictures(folder: StudyFolder) -> None:
    """Draw them anew, for the page and the sheet; what keeps it from that is said, also on the page.

    The study has ended well: frames that are gone by now are no reason to end its command without a page.
    """
    from harness.engine.tiles import write_tiles
    from harness.report.pictured import pictured_runs
    from harness.store import write_text

    drawn = {name: run for name, run in pictured_runs(folder).items() if run.best.exists()}
    shutil.rmtree(folder.tiles, ignore_errors=True)
    if not drawn:
        return
    try:
        with console.status("drawing what the runs predict"):
            write_tiles(drawn, next(iter(drawn.values())).read_experiment(), folder.tiles)
    except HarnessError as error:
        shutil.rmtree(folder.tiles, ignore_errors=True)
        write_text(folder.undrawn, f"{error}\n")
        console.print(Text(f"! no pictures: {error}", "yellow"), soft_wrap=True)
    else:
        folder.undrawn.unlink(missing_ok=True)
