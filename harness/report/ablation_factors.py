"""The factors of an ablation: Shapley values, interactions of two, and factorial effects."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.ablate.designs import SHAPLEY_EXACT, shapley_orders
from harness.ablate.factorial import FactorialEffect, factorial_effects, fraction_of
from harness.ablate.shapley import FactorShare, attribute, interaction_intervals
from harness.report.ablation_shared import (
    DASH,
    NO_TRIAL,
    ONE_SEED,
    generator,
    miou_scores,
    number,
    p_value,
    percent,
    signed,
    span,
    study_table,
)
from harness.report.records import AblationRecords
from harness.report.table import Table


def shapley_table(records: AblationRecords) -> Table:
    """Each factor's Shapley value and share of the total gain; dashes where an arm is missing."""
    ablation, factors = records.settings.ablation, list(records.settings.ablation.factors)
    columns = ("factor", "value", "interval", "share", "share interval", "order error", "authors' guess")
    guesses = {name: factor.guess or "" for name, factor in ablation.factors.items()}
    title, why = "Each factor's fair share of the gain (Shapley)", _incomplete(records)
    if why:
        cells = [(name, *[DASH] * 5, guesses[name]) for name in factors]
        return study_table(records, "shapley", title, columns, cells, [why])
    sampled = len(factors) > SHAPLEY_EXACT
    orders = shapley_orders(factors, ablation.design.permutations) if sampled else None
    found = attribute(_by_subset(records), factors, generator(), orders)
    cells = [_share_cells(share, guesses[share.factor]) for share in found.shares]
    whole = "" if math.isnan(found.shares[0].share.point) else "100.0 %"
    total = (signed(found.total.point), span(found.total, signed))
    cells.append(("total gain", *total, whole, "", "", ""))
    notes = [
        f"the values sum to the total gain from no factor to all, {total[0]}, over {found.n} seed(s); value interval: "
        "Student's t over seeds; share interval: bootstrap over seeds, too narrow with few",
        "a share is left out where the total gain is not told from 0",
        f"estimated from {len(orders)} orders of factors" if orders else "every subset was run: no order error",
        *([ONE_SEED] if found.n == 1 else []),
    ]
    return study_table(records, "shapley", title, columns, cells, notes)


def interactions_table(records: AblationRecords) -> Table:
    """Shapley interaction of every two factors; no rows where a subset was not run."""
    factors = list(records.settings.ablation.factors)
    why = _incomplete(records)
    if len(factors) > SHAPLEY_EXACT:
        why = f"interactions need every subset; above {SHAPLEY_EXACT} factors only some are run"
    found = {} if why else interaction_intervals(_by_subset(records), factors)
    cells = [(_product(pair, factors), signed(e.point), span(e, signed)) for pair, e in found.items()]
    notes = [
        "what two factors add together beyond what each adds alone; 95 % interval, Student's t over seeds",
        *([why] if why else []),
    ]
    columns = ("factors", "interaction", "interval")
    return study_table(records, "interactions", "Interactions of two factors", columns, cells, notes)


def factorial_table(records: AblationRecords) -> Table:
    """Main effects and interactions of two of a factorial, with their aliases; dashes where an arm is missing."""
    ablation, factors = records.settings.ablation, list(records.settings.ablation.factors)
    columns = ("effect", "estimate", "interval", "p", "Holm p", "verdict", "aliases", "authors' guess")
    fraction, why = fraction_of(factors, ablation.design.halvings), _incomplete(records)
    arms = {name: arm.factors for name, arm in records.arms.items()}
    found = [] if why else factorial_effects(miou_scores(records), arms, fraction)
    cells = [_factorial_cells(effect, factors, _guess_of(records, effect.factors)) for effect in found]
    if why:
        cells = [(name, *[DASH] * 6, ablation.factors[name].guess or "") for name in factors]
    kind = f"a fraction of resolution {fraction.resolution}" if fraction.words else "the full factorial: no aliases"
    notes = [
        "main effect: mean score with the factor on minus with it off; interaction: half of what one factor changes "
        "in the other's effect; 95 % interval by least squares, seeds as blocks; Holm over the effects of this table",
        f"{kind}; an estimate is the effect plus its aliases, with their signs",
        *([why] if why else []),
    ]
    return study_table(records, "factorial", "Main effects and interactions of two", columns, cells, notes)


def _share_cells(share: FactorShare, guess: str) -> tuple[str, ...]:
    value = (signed(share.value.point), span(share.value, signed))
    part = (percent(share.share.point), span(share.share, percent))
    return (share.factor, *value, *part, number(share.order_error), guess)


def _factorial_cells(effect: FactorialEffect, factors: Sequence[str], guess: str) -> tuple[str, ...]:
    e = effect.effect
    verdict = "not resolved" if not effect.p_holm <= 0.05 else "better" if e.point > 0 else "worse"
    aliases = ", ".join(f"{'+' if sign > 0 else '-'}{_product(alias, factors)}" for sign, alias in effect.aliases)
    numbers = (signed(e.point), span(e, signed), p_value(effect.p), p_value(effect.p_holm))
    return (_product(effect.factors, factors), *numbers, verdict, aliases, guess)


def _incomplete(records: AblationRecords) -> str:
    """Why the factors' effects cannot be told; empty where they can."""
    scores = miou_scores(records)
    missing = [arm for arm in records.arms if arm not in scores]
    if missing:
        return f"{NO_TRIAL} of {', '.join(missing)}: the factors' effects need every arm of the design"
    common = set.intersection(*(set(by_seed) for by_seed in scores.values()))
    return "" if common else "no seed is complete in every arm: the factors' effects need one"


def _by_subset(records: AblationRecords) -> dict[frozenset[str], dict[int, float]]:
    return {records.arms[arm].factors: by_seed for arm, by_seed in miou_scores(records).items()}


def _guess_of(records: AblationRecords, names: frozenset[str]) -> str:
    return records.settings.ablation.factors[next(iter(names))].guess or "" if len(names) == 1 else ""


def _product(names: frozenset[str], factors: Sequence[str]) -> str:
    return " × ".join(name for name in factors if name in names)
