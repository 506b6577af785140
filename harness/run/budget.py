"""How much device time a study may use: once it is used up, no epoch is started."""

from __future__ import annotations

from harness.config import Trial
from harness.run.study import Resources, Study, Wrapped
from harness.search import Search
from harness.store import EpochRow


class Budgeted(Wrapped):
    """A study that starts no epoch once its finished epochs have used so many hours of its devices.

    What counts: seconds of set-up, training and validation of every epoch in the journal, those of earlier sessions
    included, times the GPUs of a trial; where trials have none, times their CPU cores. An epoch of an earlier session
    counts by the devices that a trial has now. What was cut short can go on when the study is resumed with more hours.
    """

    def __init__(self, study: Study, hours: float, resources: Resources) -> None:
        super().__init__(study)
        self.hours, self.per_trial = hours, resources.per_trial
        self.unit = "GPU-hours" if resources.gpus_per_trial else "CPU-core-hours"
        self.seconds = sum(row.all_seconds for rows in study.record.epochs.values() for row in rows)
        #: whether something was not started for it
        self.refused = False

    @property
    def allowed(self) -> float:
        """Seconds that the epochs of all trials may take together."""
        return 3600 * self.hours / self.per_trial

    @property
    def used(self) -> float:
        """Hours."""
        return self.seconds * self.per_trial / 3600

    def next_trial(self) -> Trial | None:
        if self.used < self.hours:
            return self.study.next_trial()
        if isinstance(self.study, Search) and not self.study.running:
            self.study.shelve()
        return None

    def waits(self) -> bool:
        return self.used < self.hours and self.study.waits()

    def may_go_on(self) -> bool:
        return self.used < self.hours and self.study.may_go_on()

    def on_epoch(self, row: EpochRow) -> bool:
        known = self.record.epochs.get(row.trial)
        # a resumed training yields the row of its last checkpoint again
        if not known or row.epoch > known[-1].epoch:
            self.seconds += row.all_seconds
        goes_on = self.study.on_epoch(row)
        self.refused |= goes_on and self.used >= self.hours
        return goes_on and self.used < self.hours

    def said(self, planned: int) -> str | None:
        """What to say at the end; none where the budget kept nothing back."""
        if self.used < self.hours or not (self.refused or len(self.record.ended) < planned):
            return None
        return (
            f"--compute-hours {self.hours:g} is used up ({self.used:.3g} {self.unit}, {len(self.record.ended)} of "
            f"{planned} trials ended); --resume with a higher number goes on"
        )
