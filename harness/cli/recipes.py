"""Recipes for a search from the command line: --enqueue and --warm-start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.ablate import resolve_arms
from harness.config import Ablation, Experiment, SearchSettings, Space, did_you_mean, read_section
from harness.errors import ConfigError
from harness.search.enqueue import best_recipes, recipe_of
from harness.store import StudyFolder, find_study

#: trials of an earlier study that are tried, where no number is given
TOP = 3


def with_recipes(
    space: Space, enqueue: Sequence[str], warm_start: Sequence[str], resumed: StudyFolder | None
) -> tuple[Space, list[str]]:
    """A space with the recipes of files and earlier studies after its own, and what there is to say of them.

    A resumed study has them in its study.yaml: files and studies, which may have changed since, are not read again.

    Raises:
        HarnessError: a file, an arm or a study that is not there, or that the space cannot take.
    """
    if resumed is not None and resumed.settings.exists():
        return _stored(space, resumed), ["recipes: as in study.yaml"] * bool(enqueue or warm_start)
    recipes, notes = list(space.search.enqueue), []
    for word in enqueue:
        recipe, note = recipe_of(space, _experiment(word), word)
        recipes.append(recipe)
        notes.append(note)
    for word in warm_start:
        name, top = _study_and_top(word)
        best, said = best_recipes(space, find_study(name), top)
        recipes += [recipe for recipe in best if recipe not in recipes]
        notes += said
    return _with(space, tuple(recipes)), notes


def _stored(space: Space, folder: StudyFolder) -> Space:
    """The stored recipes where they begin with the space's own; else its own, which the study then refuses."""
    stored, own = read_section(SearchSettings, folder.settings).space.search.enqueue, space.search.enqueue
    return _with(space, stored) if stored[: len(own)] == own else space


def _with(space: Space, recipes: tuple) -> Space:
    return space.model_copy(update={"search": space.search.model_copy(update={"enqueue": recipes})})


def _experiment(word: str) -> Experiment:
    """The Experiment of `FILE` or, of an ablation, `FILE:ARM`, at its full scale where it has one."""
    file, colon, arm = word.rpartition(":")
    if not colon or Path(word).exists():
        return read_section(Experiment, Path(word))
    ablation = read_section(Ablation, Path(file))
    scale = "full" if "full" in ablation.scale else next(iter(ablation.scale))
    arms = resolve_arms(ablation, scale)
    if arm not in arms:
        raise ConfigError(f"--enqueue {word}: {file} has no arm '{arm}'{did_you_mean(arm, arms)}")
    return arms[arm].experiment


def _study_and_top(word: str) -> tuple[str, int]:
    """`STUDY` or `STUDY:K`."""
    name, colon, top = word.rpartition(":")
    if not colon or not top.isdecimal():
        return word, TOP
    if int(top) < 1:
        raise ConfigError(f"--warm-start {word}: {top} trials; give 1 or more")
    return name, int(top)
