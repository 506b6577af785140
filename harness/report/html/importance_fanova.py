"""fANOVA: how much of a score's variance over the space each parameter explains alone.

Hutter, Hoos and Leyton-Brown, An efficient approach for assessing hyperparameter importance, ICML 2014: a forest of
regression trees is fitted to the scores, and the variance of each tree over the whole space is split exactly. The
forest is a small one of our own (Optuna's needs scikit-learn, which nothing else here does), on parameters that are
cut into cells: a label, or an equal share of a range on its own scale.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints, Floats, Bools = NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]

#: smallest leaf: so many trials, or this share of them
_LEAST, _LEAST_SHARE = 3, 0.01


class Grid(NamedTuple):
    """The cells of all parameters in one row: `sizes` (P,) of each, `ordered` (P,) whether they have an order."""

    sizes: Ints
    ordered: Bools

    @property
    def starts(self) -> Ints:
        return np.cumsum(self.sizes) - self.sizes

    @property
    def owner(self) -> Ints:
        """The parameter of each cell (C,)."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


class _Leaf(NamedTuple):
    inside: Bools  # (C,)
    value: float


def fanova(cells: Ints, grid: Grid, scores: Floats, seed: int, trees: int = 32) -> Floats:
    """Share of the variance that each parameter explains alone, 0-1 (P,); the rest is joint effects.

    Args:
        cells: (N P), from 0 within each parameter.
        scores: (N,).
        seed: of the bootstrap samples.
        trees: size of the forest.
    """
    rng = np.random.default_rng(seed)
    flat = cells + grid.starts
    shares = []
    for _ in range(trees):
        drawn = rng.integers(0, len(scores), len(scores))
        share = _variance_shares(_grow(flat[drawn], scores[drawn], grid), grid)
        if share is not None:
            shares.append(share)
    # no tree has a split where nothing explains anything
    return np.mean(shares, axis=0) if shares else np.zeros(len(grid.sizes))


def _grow(flat: Ints, scores: Floats, grid: Grid) -> list[_Leaf]:
    """The leaves of one regression tree; `flat` (N P) are cells in the one row of all."""
    least = max(_LEAST, int(_LEAST_SHARE * len(scores)))
    leaves: list[_Leaf] = []
    left = [(np.arange(len(scores)), np.ones(int(grid.sizes.sum()), bool))]
    owner = grid.owner
    while left:
        rows, inside = left.pop()
        split = _best_split(flat[rows], scores[rows], grid, owner, least)
        if split is None:
            leaves.append(_Leaf(inside, float(scores[rows].mean())))
            continue
        parameter, below = split
        goes_below = below[flat[rows, parameter]]
        others = owner != parameter
        left.append((rows[goes_below], inside & (below | others)))
        left.append((rows[~goes_below], inside & (~below | others)))
    return leaves


def _best_split(flat: Ints, scores: Floats, grid: Grid, owner: Ints, least: int) -> tuple[int, Bools] | None:
    """The parameter, and its cells on one side (C,), that lower the squared error most; None: a leaf."""
    n, total, parameters = len(scores), scores.sum(), flat.shape[1]
    if n < 2 * least:
        return None
    counts = np.bincount(flat.ravel(), minlength=len(owner))
    sums = np.bincount(flat.ravel(), weights=np.repeat(scores, parameters), minlength=len(owner))
    # labels by their mean: the best split of a set is one of that order (Breiman et al., CART, 1984)
    means = np.divide(sums, counts, out=np.full(len(owner), total / n), where=counts > 0)
    order = np.lexsort((np.where(grid.ordered[owner], np.arange(len(owner)), means), owner))
    below = np.cumsum(counts[order]) - n * owner
    below_sum = np.cumsum(sums[order]) - total * owner
    fits = (below >= least) & (n - below >= least)
    if not fits.any():
        return None
    kept, kept_sum = below[fits], below_sum[fits]
    gains = kept_sum**2 / kept + (total - kept_sum) ** 2 / (n - kept) - total**2 / n
    best = int(np.argmax(gains))
    if gains[best] <= 1e-12 * max(1.0, total**2):
        return None
    at = int(np.flatnonzero(fits)[best])
    side = np.zeros(len(owner), bool)
    side[order[grid.starts[owner[at]] : at + 1]] = True
    return int(owner[at]), side


def _variance_shares(leaves: list[_Leaf], grid: Grid) -> Floats | None:
    """A tree's variance by parameter alone over its variance, all cells of a parameter equally likely (P,)."""
    inside = np.stack([leaf.inside for leaf in leaves]).astype(float)
    values = np.array([leaf.value for leaf in leaves])
    widths = np.add.reduceat(inside, grid.starts, axis=1) / grid.sizes
    volumes = widths.prod(axis=1)
    mean = volumes @ values
    variance = volumes @ (values - mean) ** 2
    if variance <= 0:
        return None
    # the mean over all other parameters, at each cell
    marginal = values @ (inside * (volumes[:, None] / widths)[:, grid.owner])
    return np.add.reduceat((marginal - mean) ** 2, grid.starts) / grid.sizes / variance
