"""What the raw ids of a mask mean: which class, which name, which colour.

Every mask passes through one table of 65,536 entries. Its start value is UNMAPPED, not 0: a table that starts
with zeros turns every id it forgot into the first class (see `ignitia10`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.config import IGNORE, did_you_mean
from harness.config.data import CustomClass, NamedTaxonomy, TaxonomyConfig
from harness.errors import ConfigError, DataError

#: table entry of a raw id that belongs to no class and is not ignored
UNMAPPED = 254
_RAW_IDS = 65_536


@dataclass(frozen=True, eq=False)
class Taxonomy:
    """The classes of a data set, in index order, and the table from raw ids to them.

    `ids` holds the raw id that `to_raw` writes for each class, `colours` is uint8 (C 3) RGB, `table` is uint8
    (65536): class index, IGNORE (255) or UNMAPPED (254). `eight_bit`: every id that the taxonomy lists is at
    most 255, so that 8-bit masks can hold them.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    colours: NDArray[np.uint8]
    table: NDArray[np.uint8]
    eight_bit: bool

    def to_classes(self, raw: NDArray[np.uint16], source: str) -> NDArray[np.uint8]:
        """Map raw ids, uint16 (H W), to class indices and IGNORE, uint8 (H W).

        `source` names the mask in messages. Raises DataError for another type, or for ids that are not
        listed.
        """
        if raw.dtype != np.uint16:
            raise DataError(f"{source}: raw ids of type {raw.dtype}; they are uint16, read them with read_mask")
        classes = self.table.take(raw)
        if (classes == UNMAPPED).any():
            raise DataError(_unlisted_ids(raw[classes == UNMAPPED], source))
        return classes

    def to_raw(self, classes: NDArray[np.integer]) -> NDArray[np.uint16]:
        """Map class indices, integer (H W), to the raw id of each class, uint16 (H W).

        Raises DataError for a value that is no class; IGNORE has no raw id.
        """
        if classes.size and not 0 <= int(classes.min()) <= int(classes.max()) < len(self.names):
            raise DataError(
                f"class values {classes.min()} to {classes.max()} cannot be written as raw ids: "
                f"the classes are 0 to {len(self.names) - 1}; give a prediction, without ignored pixels"
            )
        return np.array(self.ids, np.uint16)[classes]

    def to_colour(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Paint class indices, uint8 (H W), as RGB, uint8 (H W 3); IGNORE becomes black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self.names)] = self.colours
        return palette[classes]


def build_taxonomy(config: TaxonomyConfig) -> Taxonomy:
    """Build the table that a `taxonomy` section describes.

    Raises ConfigError: a name or an id given twice, a merge that names an unknown class, points to itself or
    is chained, or fewer than two classes left.
    """
    classes, ignored, unlisted = _parts(config)
    _check_names(classes)
    _check_ids(classes, ignored)
    _check_merge(config.merge, [c.name for c in classes])
    kept = [c for c in classes if c.name not in config.merge]
    if len(kept) < 2:
        raise ConfigError(f"taxonomy.merge leaves {len(kept)} class; a taxonomy needs 2 or more: merge fewer")
    table = np.full(_RAW_IDS, unlisted, np.uint8)
    table[list(ignored)] = IGNORE
    index = {c.name: i for i, c in enumerate(kept)} | {"ignore": IGNORE}
    for c in classes:
        table[list(c.ids)] = index[config.merge.get(c.name, c.name)]
    table.setflags(write=False)
    return Taxonomy(
        names=tuple(c.name for c in kept),
        ids=tuple(c.ids[0] for c in kept),
        colours=np.array([c.colour for c in kept], np.uint8),
        table=table,
        eight_bit=max(*ignored, *(i for c in classes for i in c.ids)) <= 255,
    )


_TREES = CustomClass(name="Trees", ids=(100,), colour=(20, 90, 40))
_LUSH_BUSHES = CustomClass(name="Lush Bushes", ids=(200,), colour=(90, 200, 70))
_DRY_GRASS = CustomClass(name="Dry Grass", ids=(300,), colour=(230, 210, 90))
_DRY_BUSHES = CustomClass(name="Dry Bushes", ids=(500,), colour=(150, 110, 40))
_GROUND_CLUTTER = CustomClass(name="Ground Clutter", ids=(550,), colour=(160, 80, 170))
_FLOWERS = CustomClass(name="Flowers", ids=(600,), colour=(240, 90, 160))
_LOGS = CustomClass(name="Logs", ids=(700,), colour=(200, 50, 40))
_ROCKS = CustomClass(name="Rocks", ids=(800,), colour=(130, 130, 135))
_LANDSCAPE = CustomClass(name="Landscape", ids=(7100,), colour=(225, 180, 140))
_SKY = CustomClass(name="Sky", ids=(10000,), colour=(120, 185, 240))

_FALCON10 = (
    _TREES, _LUSH_BUSHES, _DRY_GRASS, _DRY_BUSHES, _GROUND_CLUTTER, _FLOWERS, _LOGS, _ROCKS, _LANDSCAPE, _SKY,
)  # fmt: skip
_FALCON7 = (_TREES, _LUSH_BUSHES, _DRY_GRASS, _DRY_BUSHES, _ROCKS, _LANDSCAPE, _SKY)
# What the Ignitia team trained on: its table forgot 600, and its arrays started with zeros, so that Flowers
# became class 0 (trap T1). Its "Background" is therefore Flowers; raw 0 does not occur in the Falcon frames.
_IGNITIA10 = (
    CustomClass(name="Background", ids=(0, 600), colour=(240, 90, 160)),
    _TREES, _LUSH_BUSHES, _DRY_GRASS, _DRY_BUSHES, _GROUND_CLUTTER, _LOGS, _ROCKS, _LANDSCAPE, _SKY,
)  # fmt: skip

#: classes and ignored ids of each taxonomy that has a name
_NAMED: dict[str, tuple[tuple[CustomClass, ...], tuple[int, ...]]] = {
    "falcon10": (_FALCON10, ()),
    "falcon7": (_FALCON7, (550, 600, 700)),
    "ignitia10": (_IGNITIA10, ()),
}


def _parts(config: TaxonomyConfig) -> tuple[tuple[CustomClass, ...], tuple[int, ...], int]:
    """Classes, ignored ids, and the table entry of every other id."""
    if isinstance(config, NamedTaxonomy):
        return (*_NAMED[config.name], UNMAPPED)
    return config.classes, config.ignore, IGNORE if config.unlisted == "ignore" else UNMAPPED


def _check_names(classes: Sequence[CustomClass]) -> None:
    for name, count in Counter(c.name for c in classes).items():
        if count > 1:
            raise ConfigError(f"taxonomy.classes: {count} classes are called '{name}'; give each its own name")
        if name == "ignore":
            raise ConfigError("taxonomy.classes: 'ignore' cannot be a class; list its ids in taxonomy.ignore")


def _check_ids(classes: Sequence[CustomClass], ignored: Sequence[int]) -> None:
    owner: dict[int, str] = {}
    for name, ids in [*((c.name, c.ids) for c in classes), ("ignore", ignored)]:
        for raw_id in ids:
            if raw_id in owner:
                raise ConfigError(
                    f"taxonomy: raw id {raw_id} is listed for '{owner[raw_id]}' and for '{name}'; "
                    "an id belongs to one class, list it once"
                )
            owner[raw_id] = name


def _check_merge(merge: Mapping[str, str], names: Sequence[str]) -> None:
    for source, target in merge.items():
        if source not in names:
            raise ConfigError(f"taxonomy.merge: no class '{source}'{did_you_mean(source, names)}")
        if target not in (*names, "ignore"):
            raise ConfigError(f"taxonomy.merge.{source}: no class '{target}'{did_you_mean(target, [*names, 'ignore'])}")
        if source == target:
            raise ConfigError(f"taxonomy.merge: '{source}' into itself; name another class, or remove the line")
        if target in merge:
            raise ConfigError(
                f"taxonomy.merge: '{source}' into '{target}', which is merged itself; "
                f"merge '{source}' into '{merge[target]}' instead"
            )


def _unlisted_ids(unmapped: NDArray[np.uint16], source: str) -> str:
    found, counts = np.unique(unmapped, return_counts=True)
    listed = zip(found[:8].tolist(), counts[:8].tolist(), strict=True)
    shown = ", ".join(f"{i} ({n} pixel{'' if n == 1 else 's'})" for i, n in listed)
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return (
        f"{source}: raw ids in no class: {shown}{more}; list them in taxonomy.classes or taxonomy.ignore "
        "of a taxonomy of kind custom, or set its taxonomy.unlisted to ignore"
    )
