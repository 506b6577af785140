"""The strategies by name: where values come from, and what happens at a rung."""

from __future__ import annotations

from harness.config import Space
from harness.config.space import SearchConfig
from harness.search.asha import Asha
from harness.search.model_per_rung import ModelPerRung
from harness.search.over_all import STARTUP, gp_values, tpe_values
from harness.search.pareto import ParetoRungs
from harness.search.promote import Promote
from harness.search.rungs import NoRungs, RungRule, rung_epochs
from harness.search.values import RandomValues, Source

#: strategies of Optuna's samplers, see `OverAllValues`
_WITHOUT_PRIORS = ("tpe", "asha", "gp_asha")


def rung_rule(config: SearchConfig, max_epochs: int) -> RungRule:
    """What happens at a rung."""
    if config.strategy in ("random", "tpe"):
        return NoRungs()
    if config.cost is not None:
        pauses = config.strategy in ("promote", "random_promote")
        return ParetoRungs(config.grace_epochs, config.reduction_factor, max_epochs, pauses)
    rule = Promote if config.strategy in ("promote", "random_promote") else Asha
    return rule(config.grace_epochs, config.reduction_factor, max_epochs)


def value_source(space: Space, seed: int, started: int = 0) -> Source:
    """Where the values of the trials after the first `started` come from."""
    config = space.search
    if config.strategy in ("random", "random_asha", "random_promote"):
        return RandomValues(space, seed)
    if config.strategy in ("tpe", "asha"):
        return tpe_values(space, seed, started)
    if config.strategy == "gp_asha":
        return gp_values(space, seed, started)
    rungs = rung_epochs(config.grace_epochs, config.reduction_factor, space.experiment.training.epochs)
    return ModelPerRung(space, rungs, seed)


def prior_notes(space: Space) -> list[str]:
    """What to know of a space's priors before a search: where its strategy hardly uses them."""
    strategy = space.search.strategy
    if strategy not in _WITHOUT_PRIORS or all(parameter.prior is None for parameter in space.parameters.values()):
        return []
    return [
        f"priors: strategy '{strategy}' draws by them before trial {STARTUP} alone, since its sampler knows none; "
        "promote and model_asha weigh them in every draw"
    ]
