"""The page of a search: the winner and what it cost, the figures, every trial, and where it all comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.config import Space, apply_overrides, to_overrides
from harness.report.confirmation import winner_changed
from harness.report.html.confirmation import confirmation_section
from harness.report.html.figured import Figured
from harness.report.html.pictures import pictures_section
from harness.report.html.search_data import SearchData, read_search_data
from harness.report.html.search_figures import search_figures
from harness.report.html.sections import Block, Command, Fact, Facts, Page, Rows, Section, Words, rows_from, shown
from harness.report.html.shared_sections import created, failures_section, hours, provenance_section, study_word
from harness.report.html.trial_table import trial_section
from harness.report.pictured import pictured_runs
from harness.report.plot_style import plural
from harness.report.unreached import Unreached, find_unreached
from harness.report.winner import among_which, named_above
from harness.search import baseline_pick, default_pick
from harness.search.confirmation import (
    LEAST_SEEDS,
    LEVEL,
    Confirmation,
    Retrained,
    asks_for_confirmation,
    is_confirmed,
    read_confirmation,
)
from harness.stats import Estimate, mean_interval
from harness.store import EpochRow, Record, StudyFolder, TrialRow, best_epoch
from harness.store.front import front_of

_PAIRS = 20
#: how the keys of figures of one parameter begin
_SLICE = "slice-"


@dataclass(frozen=True)
class _Search:
    """A search and its ended trials; `ranking`: those with a score, as `harness export` ranks them.

    `baseline` is the trial of the default Experiment; none: it was not tried, or has not ended.
    """

    folder: StudyFolder
    data: SearchData
    rows: tuple[TrialRow, ...]
    ranking: tuple[TrialRow, ...]
    baseline: TrialRow | None
    confirmation: Confirmation | None = None

    @property
    def confirmed(self) -> Retrained | None:
        """The best by fresh seeds; none where no confirmation stands."""
        return self.confirmation.confirmed[0] if is_confirmed(self.confirmation) else None

    @property
    def space(self) -> Space:
        return self.data.space


def search_page(folder: StudyFolder) -> Page:
    """Everything that a search's folder says, the answer first.

    Raises:
        StudyError, ConfigError: the folder holds no search.
    """
    data = read_search_data(folder)
    return assemble(folder, data, search_figures(data))


def assemble(folder: StudyFolder, data: SearchData, figures: Sequence[Figured]) -> Page:
    """A search's page with the figures given."""
    search = _search(folder, data)
    sections = [
        _answer_section(search),
        confirmation_section(folder),
        *_figure_sections(figures),
        pictures_section(folder, pictured_runs(folder)),
        trial_section(search.rows, search.space) if search.rows else None,
        failures_section(folder, search.rows),
        _unreached_section(search),
        provenance_section(folder),
    ]
    config = search.space.search
    about = ("Search", f"{len(search.rows)} of {config.trials} trials", f"strategy {config.strategy}", created(folder))
    return Page(folder.name, tuple(filter(None, about)), tuple(s for s in sections if s is not None))


def _figure_sections(figures: Sequence[Figured]) -> list[Section]:
    """The figures of the whole study, and those of one parameter each."""
    slices = tuple(one for one in figures if one.key.startswith(_SLICE))
    others = tuple(one for one in figures if one not in slices)
    found = [Section("figures", "What the trials show", others)] if others else []
    return [*found, *([Section("slices", "Score against each parameter", slices)] if slices else [])]


def _search(folder: StudyFolder, data: SearchData) -> _Search:
    rows = tuple(trial.row for trial in data.trials if trial.row is not None)
    ranking = tuple(trial.row for trial in data.ranked if trial.row is not None)
    default = baseline_pick(data.space)
    baseline = next((row for row in rows if row.number == 0 and row.picked == default), None)
    return _Search(folder, data, rows, ranking, baseline, read_confirmation(folder))


def _answer_section(search: _Search) -> Section:
    if not search.ranking:
        words = Words("No trial has ended with a score, so there is no winner yet.", "warning")
        return Section("answer", "The answer", (words, Facts((_cost(search),))))
    best = search.confirmed
    winner = best.row if best else search.ranking[0]
    facts = (
        (_fresh_score(search, best), _fresh_gain(search, best))
        if best
        else (_score(search, winner), _gain(search, winner))
    )
    blocks = (
        _lead(search, winner),
        Facts((*facts, _cost(search))),
        *_front(search),
        *_cautions(search),
        _values(search, winner),
        _next(search),
    )
    return Section("answer", "The answer", blocks)


def _lead(search: _Search, winner: TrialRow) -> Words:
    place = "is the best by fresh seeds" if search.confirmed else f"has the {among_which(search.ranking)}"
    above = "" if search.confirmed else named_above(search.ranking)
    if winner == search.baseline:
        return Words(f"The default Experiment itself, trial 0, {place}: no trial did better.{above}", "lead")
    changed = _changed(search, winner)
    differs = f"; it differs from the default Experiment in {len(changed)} of its {len(winner.picked)} values"
    return Words(f"Trial {winner.number} {place}{differs if changed else ''}.{above}", "lead")


def _fresh_score(search: _Search, best: Retrained) -> Fact:
    """The mean of the fresh seeds; the search's own score as what it was."""
    words = (
        f"mean of {plural(len(best.scores), 'fresh seed')}; {_interval(best.mean)}",
        f"{best.row.score:.4f} in the search, a score that had a say in the choice",
    )
    return Fact(f"{search.data.score_title} of trial {best.row.number}", f"{best.mean.point:.4f}", words)


def _fresh_gain(search: _Search, best: Retrained) -> Fact:
    """The confirmed best against the default: seed by seed where both were trained again."""
    base, term = search.baseline, "against the default Experiment"
    if base is None or base.picked == best.row.picked:
        return _gain(search, best.row)
    again = next((t for t in search.confirmation.confirmed if t.row.picked == base.picked), None)
    if again is not None and (gains := [best.scores[s] - again.scores[s] for s in best.scores if s in again.scores]):
        gain = mean_interval(gains, LEVEL)
        interval = gain if len(gains) >= LEAST_SEEDS else gain._replace(low=np.nan, high=np.nan)
        return Fact(term, _signed(gain.point), (f"over the same fresh seeds; {_interval(interval)}",))
    if base.outcome != "complete" or base.score is None:
        return Fact(term, "–", ("Trial 0 was neither trained to its end nor again with fresh seeds.",))
    words = f"trial 0 scored {base.score:.4f} in the search, with one seed; it was not trained again"
    return Fact(term, _signed(best.mean.point - base.score), (words,))


def _interval(estimate: Estimate) -> str:
    if np.isnan(estimate.low):
        return f"no interval from fewer than {LEAST_SEEDS}"
    return f"{100 * LEVEL:g} % interval {estimate.low:.4f} to {estimate.high:.4f}".replace("-", "−")


def _front(search: _Search) -> list[Rows]:
    """With two objectives the trials that no other beats: `harness export --rank` counts along them."""
    objective = search.space.search.cost
    if objective is None:
        return []
    unit, form = ("parameters", "{:,.0f}") if objective == "parameters" else ("training ms/image", "{:.2f}")
    found = front_of(Record(search.folder), objective)
    rows = [(str(i), str(row.number), f"{row.score:.4f}", form.format(cost)) for i, (row, cost) in enumerate(found, 1)]
    caption = "The front: no trial is as good in both and better in one"
    return [Rows(caption, ("rank", "trial", search.data.score_title, unit), tuple(rows), right=(True,) * 4)]


def _score(search: _Search, winner: TrialRow) -> Fact:
    """The winner's score: the mean where its values ran to their end with several seeds."""
    alike = [row for row in search.ranking if row.picked == winner.picked and row.outcome == "complete"]
    same = [row.score for row in alike if row.score is not None]
    term = f"{search.data.score_title} of trial {winner.number}"
    if len(same) > 1:
        mean, low, high = mean_interval(np.array(same))
        words = f"mean of {len(same)} seeds; 95 % interval {low:.4f} to {high:.4f}"
        return Fact(term, f"{mean:.4f}", (words,))
    at = f"at epoch {winner.best_epoch} of {winner.epochs} run" + (
        ", where it was stopped: it did not run to its end" if winner.outcome == "stopped" else ""
    )
    return Fact(term, f"{winner.score:.4f}", (at, "one seed, so no interval; `harness confirm` gives one"))


def _gain(search: _Search, winner: TrialRow) -> Fact:
    """The winner against trial 0, at the same number of epochs where trial 0 was stopped earlier."""
    base, term = search.baseline, "against the default Experiment"
    if base is None:
        return Fact(term, "–", ("It was not tried: the space does not contain it, or `default_first` is off.",))
    if base == winner:
        return Fact(term, "–", ("It is the winner.",))
    if base.score is None:
        return Fact(term, "–", ("Trial 0, the default Experiment, ended without a score.",))
    at_end = f"trial 0 scored {base.score:.4f}"
    if base.outcome == "complete":
        return Fact(term, _signed(winner.score - base.score), (at_end,))
    upto = _best_until(search.data.by_id[winner.trial].epochs, base.epochs)
    epochs = "1 epoch" if base.epochs == 1 else f"{base.epochs} epochs"
    ended = {"stopped": "was stopped", "infeasible": "turned out infeasible"}.get(base.outcome, base.outcome)
    words = (
        f"{at_end} when it {ended} after {epochs}",
        f"after as many the winner had {upto:.4f}; how far trial 0 would have come is not known",
    )
    return Fact(f"{term}, after {epochs}", _signed(upto - base.score), words)


def _best_until(rows: Sequence[EpochRow], epochs: int) -> float:
    best = best_epoch(row for row in rows if row.epoch <= epochs)
    return float("nan") if best is None else best.score


def _cost(search: _Search) -> Fact:
    rows = search.rows
    outcomes = ("complete", "stopped", "infeasible", "failed")
    counted = [(word, sum(row.outcome == word for row in rows)) for word in outcomes]
    kinds = ", ".join(f"{count} {word}" for word, count in counted if count)
    epochs, planned = sum(row.epochs for row in rows), sum(trial.planned for trial in search.data.trials if trial.row)
    spent, on_what = hours(search.folder, rows)
    share = f" ({100 * epochs / planned:.0f} %)" if planned else ""
    words = (on_what, f"{len(rows)} trials: {kinds or 'none'}", f"{epochs} epochs run of {planned} planned{share}")
    return Fact("cost", spent, words)


def _cautions(search: _Search) -> list[Words]:
    found, scored = [], len(search.ranking)
    if is_confirmed(search.confirmation):
        changed = winner_changed(search.confirmation)
        found.append(Words(f"{changed} See `Confirmation with fresh seeds` below."))
    elif scored > 1:
        found.append(
            Words(
                f"The winner's score is the {among_which(search.ranking)}, each of one training: part of its lead is "
                "luck, and trained again it will score lower on average. Only new seeds say how much of the gain is "
                "real."
            )
        )
    if search.space.experiment.protocol.select_on_test:
        found.append(Words("Trials were chosen on the test frames: the score is no estimate for new ones.", "warning"))
    left = search.space.search.trials - len(search.rows)
    if left > 0:
        found.append(Words(f"{left} of {search.space.search.trials} trials have not ended: the winner may change."))
    return found


def _values(search: _Search, winner: TrialRow) -> Rows:
    """The winner's values beside the default's; those that differ are marked."""
    base = default_pick(search.space) or {}
    names = [name for name in search.space.parameters if name in winner.picked]
    columns = ("parameter", f"trial {winner.number}", *(["default"] if base else []), "field")
    rows = [
        (
            name,
            shown(winner.picked[name]),
            *([shown(base.get(name))] if base else []),
            search.space.parameters[name].field,
        )
        for name in names
    ]
    changed = _changed(search, winner)
    marked = tuple(i for i, name in enumerate(names) if name in changed)
    caption = "Its values" + ("; marked: other than the default's" if marked else "")
    return Rows(caption, columns, tuple(rows), marked=marked)


def _changed(search: _Search, winner: TrialRow) -> list[str]:
    base = default_pick(search.space)
    return [] if base is None else [name for name, v in winner.picked.items() if base.get(name) != v]


def _next(search: _Search) -> Command:
    study = study_word(search.folder)
    asked = asks_for_confirmation(search.folder, study)
    if asked is None:
        lines = (f"harness export {study} -o best.yaml", f"harness export {study} --to model")
        return Command(lines, "The best by fresh seeds, as a complete file or with weights and model card:")
    confirm, does = asked
    lines = (confirm, f"harness export {study} -o best.yaml", "harness train best.yaml --seeds 3")
    words = f"The first {does}, which gives an interval; the others take the winner and train it anew:"
    return Command(lines, words)


def _unreached_section(search: _Search) -> Section | None:
    """Pairs of trials whose values differ and whose losses do not; none where every value changed something."""
    found = find_unreached(
        search.rows,
        {trial.trial: trial.epochs for trial in search.data.trials},
        lambda row: apply_overrides(search.space.experiment, to_overrides(search.space, row.picked)),
    )
    if not found:
        return None
    words = (
        "These trials have other values and the same losses to the last bit. Such a parameter does not reach the "
        "training, or nothing that it acts on was there."
    )
    more = [Words(f"and {len(found) - _PAIRS} more pairs", "muted")] if len(found) > _PAIRS else []
    blocks: tuple[Block, ...] = (Words(words, "warning"), rows_from("", [_pair(p) for p in found[:_PAIRS]]), *more)
    return Section("unreached", "Values that changed nothing", blocks)


def _pair(pair: Unreached) -> dict[str, object]:
    differ = ", ".join(f"{name} ({shown(a)} / {shown(b)})" for name, (a, b) in pair.parameters.items())
    return {"trials": f"{pair.first.number}, {pair.second.number}", "epochs compared": pair.epochs, "differ in": differ}


def _signed(value: float) -> str:
    return "–" if value != value else f"{value:+.4f}".replace("-", "−")
