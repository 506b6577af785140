"""Ctrl-C and SIGTERM in two steps: the epoch in hand is finished first; asked again, everything stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from harness.config import Trial
from harness.run.study import Study, Wrapped
from harness.store import EpochRow

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAID = "finishing the epoch in hand; Ctrl-C again stops at once"


class Stop:
    """Whether a study was asked to end before its time."""

    def __init__(self) -> None:
        self.asked = False
        self._news = threading.Event()

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Remember the first signal; raise KeyboardInterrupt at every later one."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._news.set()

    def tell(self, console: Console) -> None:
        """Wait for the first signal, or for `over`, and say what happens now."""
        self._news.wait()
        if self.asked:
            console.print(_SAID, highlight=False, soft_wrap=True)

    def over(self) -> None:
        """End `tell`: nothing can be asked any more."""
        self._news.set()


@contextmanager
def stoppable(console: Console) -> Iterator[Stop]:
    """Take SIGINT and SIGTERM over for as long as trials run; outside the main thread, where none arrives, nothing.

    Raises:
        KeyboardInterrupt: at the second signal, wherever the main thread is.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # a thread of its own: what prints in a handler may interrupt itself in the middle of a line
    teller = threading.Thread(target=stop.tell, args=(console,), name="interrupt", daemon=True)
    teller.start()
    before = {number: signal.signal(number, stop.on_signal) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.over()
        teller.join()


class Stoppable(Wrapped):
    """A study that, once asked to stop, starts no trial and lets none begin another epoch.

    What was cut short has no row in the journal: a resumed study goes on with it from its last epoch.
    """

    def __init__(self, study: Study, stop: Stop) -> None:
        super().__init__(study)
        self.stop = stop

    def next_trial(self) -> Trial | None:
        return None if self.stop.asked else self.study.next_trial()

    def waits(self) -> bool:
        return not self.stop.asked and self.study.waits()

    def may_go_on(self) -> bool:
        return not self.stop.asked and self.study.may_go_on()

    def on_epoch(self, row: EpochRow) -> bool:
        return self.study.on_epoch(row) and not self.stop.asked
