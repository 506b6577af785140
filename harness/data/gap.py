"""How far two splits lie apart: shares of the classes, and colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.census import Census
from harness.errors import DataError


def gap(a: Census, b: Census) -> dict[str, Any]:
    """Compare two splits, in plain values.

    Keys: `frames`, [a, b]; `classes`, one dict per class in index order: `class`, `share_a` and `share_b` (% of the
    pixels that belong to a class), `shift` (b minus a, points), `absent` ("a", "b", "both" or None); `ignored`:
    `share_a`, `share_b` (% of all pixels of the masks), `shift`; `colours`, one dict per channel: `channel`,
    `mean_a`, `mean_b`, `shift` (0-255); `total_variation`, half the sum of the absolute differences of the class
    shares, 0 (same) to 1 (no class in common). The columns of CodeCrunch's Table 1. Raises DataError for counts
    of two taxonomies, or a split without a pixel of any class.
    """
    if a.names != b.names:
        raise DataError(
            f"classes {', '.join(a.names)} against {', '.join(b.names)}; count both splits with the same taxonomy"
        )
    shares_a, shares_b = _shares(a, "first"), _shares(b, "second")
    names = zip(a.names, shares_a.tolist(), shares_b.tolist(), strict=True)
    means = zip("RGB", a.colour_mean.tolist(), b.colour_mean.tolist(), strict=True)
    return {
        "frames": [a.frames, b.frames],
        "classes": [
            {
                "class": name,
                "share_a": first,
                "share_b": second,
                "shift": second - first,
                "absent": _absent(first, second),
            }
            for name, first, second in names
        ],
        "ignored": {"share_a": _ignored(a), "share_b": _ignored(b), "shift": _ignored(b) - _ignored(a)},
        "colours": [
            {"channel": channel, "mean_a": first, "mean_b": second, "shift": second - first}
            for channel, first, second in means
        ],
        "total_variation": float(np.abs(shares_b - shares_a).sum() / 200),
    }


def _shares(census: Census, which: str) -> NDArray[np.float64]:
    total = census.pixels.sum()
    if total == 0:
        raise DataError(
            f"the {which} of the two splits has {census.labelled} masks for {census.frames} frames and no pixel of any "
            "class, so it has no class shares; compare splits with masks"
        )
    return 100 * census.pixels / total


def _ignored(census: Census) -> float:
    return 100 * census.ignored / int(census.ignored + census.pixels.sum())


def _absent(first: float, second: float) -> str | None:
    return {(True, True): "both", (True, False): "a", (False, True): "b"}.get((first == 0, second == 0))
