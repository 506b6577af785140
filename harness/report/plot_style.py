"""Colours and words of the plots: one palette that survives colour blindness, and the colours of the classes."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

import numpy as np

from harness.config import Experiment
from harness.config.data import CustomTaxonomy

# Okabe and Ito, Color universal design (2008)
BLUE, VERMILION, GREEN, AMBER, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"
GREY = "#8a9099"

#: verdict of an effect to colour
VERDICTS = {"better": BLUE, "worse": VERMILION, "not resolved": GREY}
TRAINING, VALIDATION, TEST = AMBER, BLUE, VERMILION
GROUPS = (BLUE, VERMILION, GREEN, PURPLE, AMBER, SKY)

#: differences below, at and above 0
DIVERGING = (VERMILION, "#f7f7f7", BLUE)

# from first to last, darker to lighter: order survives without colour, and both ends show on white and on black
_ORDERED = ("#6b2f8f", "#4a5fb0", "#1f8a8c", "#63c75f", "#c9d62b")

# the same as in harness.data.taxonomy, which cannot be imported here: it needs torch
_CLASSES = {
    "Trees": (20, 90, 40), "Lush Bushes": (90, 200, 70), "Dry Grass": (230, 210, 90), "Dry Bushes": (150, 110, 40),
    "Ground Clutter": (160, 80, 170), "Flowers": (240, 90, 160), "Background": (240, 90, 160), "Logs": (200, 50, 40),
    "Rocks": (130, 130, 135), "Landscape": (225, 180, 140), "Sky": (120, 185, 240),
}  # fmt: skip
_LIGHTEST = 0.62  # relative luminance at which a thin line still stands out from white


def class_colours(experiment: Experiment) -> dict[str, str]:
    """Class name to its colour, darkened where a line of it would be lost on white."""
    taxonomy = experiment.taxonomy
    own = {c.name: c.colour for c in taxonomy.classes} if isinstance(taxonomy, CustomTaxonomy) else _CLASSES
    return {name: _hex(_darkened(np.array(colour) / 255)) for name, colour in own.items()}


def ordered_colours(count: int) -> list[str]:
    """Colours for things in an order."""
    stops = np.array([_rgb(colour) for colour in _ORDERED])
    places = np.linspace(0, len(stops) - 1, count)
    channels = [np.interp(places, np.arange(len(stops)), stops[:, i]) for i in range(3)]
    return [_hex(colour) for colour in np.stack(channels, axis=1)]


def signed(value: float) -> str:
    """A difference of scores, with its sign; a dash where it is unknown."""
    return "–" if np.isnan(value) else f"{value:+.3f}".replace("-", "−")


def interval_text(low: float, high: float) -> str:
    """The interval of a difference, empty where it is unknown."""
    return "" if np.isnan(low) else f" [{signed(low)}, {signed(high)}]"


def short(name: str, most: int = 26) -> str:
    """A name with its middle left out where it is too long for an axis."""
    if len(name) <= most:
        return name
    return f"{name[: most // 2]}…{name[len(name) - (most - most // 2 - 1) :]}"


def hex_colour(colour: Iterable[int]) -> str:
    """#rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*map(int, colour))


def plot_safe(text: str) -> str:
    """Text that plotly shows as it is at an axis or in a legend, where it reads tags and entities."""
    return html.escape(text, quote=False)


def hover_safe(text: str) -> str:
    """Text that a hover template shows as it is."""
    return html.escape(text).replace("%", "&#37;")


def file_names(prefix: str, names: Iterable[str]) -> dict[str, str]:
    """A file name for each name, without an ending: safe on every system, no two alike."""
    found: dict[str, str] = {}
    for name in names:
        wanted = own = f"{prefix}_{re.sub(r'[^A-Za-z0-9+-]+', '_', name).strip('_')}"
        number = 1
        # names that differ in case only are one file on some systems
        while own.lower() in {other.lower() for other in found.values()}:
            number += 1
            own = f"{wanted}-{number}"
        found[name] = own
    return found


def plural(count: int, noun: str) -> str:
    """1 seed, 2 seeds."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _darkened(colour: np.ndarray) -> np.ndarray:
    luminance = float(colour**2.2 @ (0.2126, 0.7152, 0.0722))
    return colour if luminance <= _LIGHTEST else colour * (_LIGHTEST / luminance) ** (1 / 2.2)


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def _hex(colour: np.ndarray) -> str:
    return "#" + "".join(f"{round(float(channel) * 255):02x}" for channel in colour)
