"""Which pretrained weights search spaces ask for, and whether this disk has them; nothing is fetched.

Run as `python -m harness.doctor.weights SPACE.yaml...`: it needs torch and timm.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from harness.config import Space, read_section
from harness.config.model import ModelConfig
from harness.doctor.ask import tell
from harness.errors import HarnessError
from harness.models.names import model_name
from harness.models.weights import HubFile, pretrained_source
from harness.run.preflight import shapes_of


def wanted_weights(spaces: list[Path]) -> list[dict[str, Any]]:
    """For each space and file of pretrained weights its `space`, `name`, `where`, and whether it is `cached`."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for path in spaces:
        for experiment in shapes_of(read_section(Space, path)):
            if experiment.model.weights in ("pretrained", "pretrained_if_available"):
                row = _found(experiment.model)
                rows[path.stem, row["name"]] = {"space": path.stem} | row
    return list(rows.values())


def _found(model: ModelConfig) -> dict[str, Any]:
    try:
        source = pretrained_source(model)
    except HarnessError as error:
        return {"name": model_name(model), "cached": False, "error": str(error)}
    # several decoders share the weights of one encoder
    name = source.repo if isinstance(source, HubFile) else source.path.name
    return {"name": name, "where": str(source), "cached": source.cached() is not None}


if __name__ == "__main__":
    tell({"weights": wanted_weights([Path(word) for word in sys.argv[1:]])})
