"""What an expert expects of a number: a normal density around a centre, cut off at the ends of the range.

All in positions 0-1 on the parameter's own scale. How a model weighs it is that of pi-BO (Hvarfner et al., ICLR 2022,
arXiv 2204.11051): its score of a candidate is multiplied by the prior to the power BETA / results. That a share of the
draws stays uniform is as in PriorBand (Mallik et al., NeurIPS 2023, arXiv 2306.12370): a wrong centre is overcome.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

#: standard deviation of the density, as a share of the range
WIDTH = 0.15
#: results at which a model gives the prior its own weight; with ten times as many it counts a tenth
BETA = 10.0

_NORMAL = NormalDist()


def near(centre: float, uniform: float) -> float:
    """A uniform number in 0-1 as a position near the centre: the inverse of the density's distribution function."""
    low, high = _ends(centre)
    drawn = centre + WIDTH * _NORMAL.inv_cdf(min(max(low + uniform * (high - low), 1e-300), 1 - 1e-16))
    return min(max(drawn, 0.0), 1.0)


def density(centre: float, positions: np.ndarray) -> np.ndarray:
    """Of positions (N), relative to the uniform density."""
    low, high = _ends(centre)
    scaled = (positions - centre) / WIDTH
    return np.exp(-0.5 * scaled**2) / (math.sqrt(2 * math.pi) * WIDTH * (high - low))


def weight(results: int) -> float:
    """How much of the prior's logarithm counts beside a model of so many results."""
    return BETA / max(results, 1)


def _ends(centre: float) -> tuple[float, float]:
    """The normal's distribution function at both ends of the range."""
    return _NORMAL.cdf(-centre / WIDTH), _NORMAL.cdf((1 - centre) / WIDTH)
