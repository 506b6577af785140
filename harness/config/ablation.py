"""The Ablation: named arms or factors on a base Experiment, and the design that compares them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from harness.config.base import Name, Section
from harness.config.experiment import Experiment

Overrides = dict[str, JsonValue]


class Arm(Section):
    """A named Experiment: another arm's (or the base's) with fields changed."""

    base: str | None = Field(None, description="arm whose changes come first; none: the ablation's Experiment")
    set: Overrides = Field({}, description="dotted path to value")
    start: str | tuple[str, ...] | None = Field(
        None, description="arm whose best weights, same seed, the training starts from; several: an ensemble of them"
    )

    def starts(self) -> tuple[str, ...]:
        """The arms that this one starts from."""
        return () if self.start is None else (self.start,) if isinstance(self.start, str) else self.start

    guess: str | None = Field(None, description="what its authors said of its effect, printed beside the measured one")


class Factor(Section):
    """A change that can be on or off."""

    set: Overrides = Field(min_length=1, description="dotted path to value when on; off: the baseline's")
    guess: str | None = Field(None, description="what its authors said of its share, printed beside the measured one")


class Ladder(Section):
    """Arms in order, each compared with the one before and with the first: a phase comparison."""

    kind: Literal["ladder"] = "ladder"
    rungs: tuple[str, ...] = Field(min_length=2, description="names of arms, in order")


class Arms(Section):
    """Arms, each compared with the baseline arm."""

    kind: Literal["arms"] = "arms"
    baseline: str = Field(description="name of the baseline arm")
    arms: tuple[str, ...] = Field(min_length=1, description="names of the other arms")


class OneFactor(Section):
    """The baseline, and the baseline with each factor on."""

    kind: Literal["one_factor"] = "one_factor"


class LeaveOneOut(Section):
    """All factors on, and all but each one."""

    kind: Literal["leave_one_out"] = "leave_one_out"


class Factorial(Section):
    """Every combination of factors, or a regular fraction of them."""

    kind: Literal["factorial"] = "factorial"
    halvings: int = Field(0, ge=0, le=8, description="0: all 2^k combinations; p: a fraction of 2^(k-p)")


class Shapley(Section):
    """Each factor's fair share of the gain from none to all, with pairwise interactions."""

    kind: Literal["shapley"] = "shapley"
    permutations: int = Field(16, ge=1, le=1000, description="orders drawn where there are more than 6 factors")


class Path(Section):
    """The factors one by one, each time the one that scores highest on top of those taken before."""

    kind: Literal["path"] = "path"
    steps: tuple[str, ...] = Field((), description="factors taken so far, in order; written as the study goes")


Design = Annotated[Ladder | Arms | OneFactor | LeaveOneOut | Factorial | Shapley | Path, Field(discriminator="kind")]


class Scale(Section):
    """The same study at another size."""

    seeds: int = Field(3, ge=1, le=100, description="replicates of every arm")
    set: Overrides = Field({}, description="dotted path to value, put over every arm last")


class Ablation(Section):
    """Arms or factors, a design, and the sizes at which the study can be run."""

    experiment: Experiment = Field(Experiment(), description="the Experiment that arms and factors change")
    arms: dict[Name, Arm] = Field({}, description="name to arm (ladder, arms); none in other designs")
    factors: dict[Name, Factor] = Field({}, description="name to factor (every other design); none in a ladder or arms")
    design: Design = Field(description="which arms there are and what is compared")
    scale: dict[Name, Scale] = Field(
        {"full": Scale()}, min_length=1, description="smoke, small, full: the same study at three sizes"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Ablation:
        _check_unused(self)
        if isinstance(self.design, Ladder | Arms):
            unknown = [name for name in design_arms(self.design) if name not in self.arms]
            if unknown:
                raise ValueError(f"the design names {unknown}; the arms are {', '.join(self.arms) or 'none'}")
        elif len(self.factors) < 2:
            raise ValueError(f"a {self.design.kind} design needs two factors or more, not {len(self.factors)}")
        if isinstance(self.design, Path):
            _check_steps(self.design.steps, list(self.factors))
        names = list(self.arms)
        for index, (name, arm) in enumerate(self.arms.items()):
            for other in (*arm.starts(), *([arm.base] if arm.base else [])):
                if other not in names[:index]:
                    raise ValueError(f"arm '{name}': '{other}' must be an arm above it; above it: {names[:index]}")
        return self


def _check_unused(ablation: Ablation) -> None:
    """What a design does not look at would be left out without a word."""
    named = isinstance(ablation.design, Ladder | Arms)
    section, unused = ("factors", ablation.factors) if named else ("arms", ablation.arms)
    if unused:
        made = "named arms" if named else "factors"
        others = "one_factor, leave_one_out, factorial, shapley, path" if named else "ladder or arms"
        raise ValueError(
            f"{section} {', '.join(unused)}: a {ablation.design.kind} design is made of {made} alone; "
            f"take {section} out, or use a design of {section}: {others}"
        )


def _check_steps(steps: tuple[str, ...], factors: list[str]) -> None:
    for index, step in enumerate(steps):
        if step not in factors:
            raise ValueError(f"the path takes '{step}'; the factors are {', '.join(factors)}")
        if step in steps[:index]:
            raise ValueError(f"the path takes '{step}' twice; take it once")


def with_steps(ablation: Ablation, steps: tuple[str, ...]) -> Ablation:
    """An ablation along a path that has taken these steps."""
    return ablation.model_copy(update={"design": Path(steps=steps)})


def design_arms(design: Ladder | Arms) -> tuple[str, ...]:
    """The arms that a design of named arms compares, the reference first."""
    return design.rungs if isinstance(design, Ladder) else (design.baseline, *design.arms)
