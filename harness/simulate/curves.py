"""Learning curves as functions of picked values, so that a strategy can be tried without a training.

Four families, over any Space. With t = epoch / last epoch and a quality q in 0-1 of the values:

    smooth   from START to the end score along 1 - exp(-4 t^0.7): the rank after one epoch is nearly the last rank
    cross    the same shape, but late values (strong augmentation, a high rate under a cosine, ...) slow it down
             (rate 6 to 1.8) and raise the end score: who starts slowly ends best
    hard     cross, with every rate multiplied by a log-normal of its own, and more validation noise
    power    end score - b epoch^-a + b E^-a with end score, a and b smooth random functions (random Fourier features)
             of the values, fast learners ending lower: another functional form than the first three

Over 12 instances of the black box, the mean rank correlation of the score after 1 / 3 / 9 of 30 epochs with the last
one is 0.95 / 0.98 / 0.99 (smooth), 0.52 / 0.63 / 0.84 (cross), 0.24 / 0.42 / 0.71 (hard), 0.58 / 0.81 / 0.96 (power).
The families were set by these figures, not by what any strategy reached on them.
"""

from __future__ import annotations

import zlib
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np

from harness.config import Space, apply_overrides, to_overrides
from harness.config.space import ChoiceParameter, Parameter, Scalar
from harness.search.values import Picked, position, random_pick

Family = Literal["smooth", "cross", "hard", "power"]
FAMILIES: tuple[Family, ...] = get_args(Family)

START, LOWEST, SPAN, LATE_GAIN = 0.10, 0.30, 0.25, 0.04
#: rate of a saturating curve: with late values, without any, its spread in `hard`, in `smooth`
SLOW_RATE, FAST_RATE, RATE_SPREAD, SMOOTH_RATE = 1.8, 6.0, 0.15, 4.0
NOISE = {"smooth": 0.003, "cross": 0.003, "hard": 0.006, "power": 0.004}
#: draws of which the best is the default Experiment: known to be good, not the best there is
DEFAULT_OF = 10
#: fields whose values may be late; where a space has none of them, its first two parameters are
_LATE_FIELDS = ("augmentation", "schedule", "optimiser")


class Curve(NamedTuple):
    """One trial: scores after each epoch (E) without and with validation noise, and seconds of one epoch."""

    true: np.ndarray
    observed: np.ndarray
    seconds: float


class Curves(Protocol):
    """Learning curves over a Space."""

    space: Space

    def curve(self, picked: Picked, seed: int) -> Curve:
        """The curve of one trial; the same values and seed give the same curve."""


class ParametricCurves:
    """One instance of a family over a Space: which values are good and which are slow is drawn from the seed.

    The default Experiment of its space is the best of ten random ones.
    """

    def __init__(self, space: Space, family: Family, seed: int) -> None:
        self.family, self.seed = family, seed
        self.epochs = space.experiment.training.epochs
        rng = np.random.default_rng([seed, zlib.crc32(family.encode())])
        self.surface = _Fourier(space, rng) if family == "power" else _Bowls(space, rng)
        self.space = self._with_default(space, rng)

    def curve(self, picked: Picked, seed: int) -> Curve:
        """The curve of one trial; validation noise depends on the values and the seed."""
        own = zlib.crc32(repr(sorted(picked.items())).encode())
        true = self._power(picked) if self.family == "power" else self._saturating(picked, own)
        noise = np.random.default_rng([self.seed, own, seed]).normal(0, NOISE[self.family], self.epochs)
        return Curve(true, true + noise, self.surface.seconds(picked))

    def _saturating(self, picked: Picked, own: int) -> np.ndarray:
        quality, late = self.surface.quality(picked), self.surface.lateness(picked)
        end, rate = LOWEST + SPAN * quality, SMOOTH_RATE
        if self.family != "smooth":
            end, rate = end + LATE_GAIN * late, FAST_RATE * (SLOW_RATE / FAST_RATE) ** late
        if self.family == "hard":
            rate *= np.exp(np.random.default_rng([self.seed, own]).normal(0, RATE_SPREAD))
        t = np.arange(1, self.epochs + 1) / self.epochs
        return START + (end - START) * (1 - np.exp(-rate * t**0.7)) / (1 - np.exp(-rate))

    def _power(self, picked: Picked) -> np.ndarray:
        quality, slow, depth = self.surface.features(picked)
        end, exponent, gap = LOWEST + SPAN * quality + LATE_GAIN * slow, 1.2 - 0.9 * slow, 0.10 + 0.45 * depth
        epochs = np.arange(1, self.epochs + 1)
        return end - gap * (epochs**-exponent - float(self.epochs) ** -exponent)

    def _with_default(self, space: Space, rng: np.random.Generator) -> Space:
        draws = [random_pick(space, rng) for _ in range(DEFAULT_OF)]
        best = max(draws, key=lambda picked: self.curve(picked, 0).true[-1])
        experiment = apply_overrides(space.experiment, to_overrides(space, best))
        return space.model_copy(update={"experiment": experiment})


class _Bowls:
    """Quality as a weighted sum of one bowl or table per parameter and of products of five pairs."""

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        self.space = space
        self.names = list(space.parameters)
        self.optimum = {name: rng.uniform(0.1, 0.9) for name in self.names}
        self.table = {name: _label_values(p, rng) for name, p in space.parameters.items()}
        # a few parameters decide most of it
        self.weights = dict(zip(self.names, rng.dirichlet(np.full(len(self.names), 0.7)), strict=True))
        self.pairs = [rng.choice(self.names, 2, replace=len(self.names) < 2) for _ in range(5)]
        late = [n for n, p in space.parameters.items() if p.field.startswith(_LATE_FIELDS)] or self.names[:2]
        self.late = dict(zip(late, rng.dirichlet(np.ones(len(late))), strict=True))
        self.costly = rng.choice(self.names)

    def quality(self, picked: Picked) -> float:
        utility = {name: self._utility(name, picked) for name in self.names}
        alone = sum(self.weights[name] * utility[name] for name in self.names)
        together = np.mean([utility[a] * utility[b] for a, b in self.pairs])
        return float(0.75 * alone + 0.25 * together)

    def lateness(self, picked: Picked) -> float:
        """0-1: how strong the late values are."""
        return float(sum(weight * self._position(name, picked) for name, weight in self.late.items()))

    def seconds(self, picked: Picked) -> float:
        return float(np.exp(1.4 * (self._position(self.costly, picked) - 0.5)))

    def _utility(self, name: str, picked: Picked) -> float:
        if name in picked and isinstance(self.space.parameters[name], ChoiceParameter):
            return self.table[name][picked[name]]
        optimum = self.optimum[name]
        away = (self._position(name, picked) - optimum) / max(optimum, 1 - optimum)
        return float(1 - away**2)

    def _position(self, name: str, picked: Picked) -> float:
        return position(self.space.parameters[name], picked[name]) if name in picked else 0.5


class _Fourier:
    """Three smooth random functions of all parameters, each in 0-1, and the seconds of an epoch."""

    FEATURES = 24

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        self.space = space
        width = sum(len(p.values()) if isinstance(p, ChoiceParameter) else 1 for p in space.parameters.values())
        self.frequencies = rng.normal(0, 1.2, (self.FEATURES, width)) * rng.dirichlet(np.full(width, 0.7)) * width / 2
        self.phases = rng.uniform(0, 2 * np.pi, self.FEATURES)
        self.mixes = rng.normal(0, 1, (4, self.FEATURES)) / np.sqrt(self.FEATURES / 2)
        # what is good is often slow
        self.mixes[1] = 0.5 * self.mixes[0] + np.sqrt(0.75) * self.mixes[1]

    def features(self, picked: Picked) -> np.ndarray:
        return self._all(picked)[:3]

    def seconds(self, picked: Picked) -> float:
        return float(np.exp(1.4 * (self._all(picked)[3] - 0.5)))

    def _all(self, picked: Picked) -> np.ndarray:
        waves = np.cos(self.frequencies @ one_hot(self.space, picked) + self.phases)
        return 1 / (1 + np.exp(-1.5 * self.mixes @ waves))


def one_hot(space: Space, picked: Picked) -> np.ndarray:
    """Values as numbers in 0-1: a choice as one number per label, what is not active as 0."""
    parts: list[float] = []
    for name, parameter in space.parameters.items():
        if isinstance(parameter, ChoiceParameter):
            parts += [float(name in picked and picked[name] == label) for label in parameter.values()]
        else:
            parts.append(position(parameter, picked[name]) if name in picked else 0.0)
    return np.array(parts)


def _label_values(parameter: Parameter, rng: np.random.Generator) -> dict[Scalar, float]:
    if not isinstance(parameter, ChoiceParameter):
        return {}
    labels = list(parameter.values())
    return dict(zip(labels, rng.permutation(np.linspace(0, 1, len(labels))).tolist(), strict=True))
