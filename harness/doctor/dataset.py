"""A look at every file of a dataset folder; run as `python -m harness.doctor.dataset FOLDER TAXONOMY`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from harness.config.data import NamedTaxonomy
from harness.data import build_taxonomy, check_dataset
from harness.doctor.ask import tell


def looked_at(folder: Path, taxonomy: str) -> dict[str, Any]:
    """Frames by split, sizes, and every broken rule."""
    result = check_dataset(folder, build_taxonomy(NamedTaxonomy(name=taxonomy)))
    sizes = {f"{width}x{height}": count for (height, width), count in result.sizes.items()}
    return {"frames": dict(result.frames), "sizes": sizes, "problems": list(result.problems)}


if __name__ == "__main__":
    tell(looked_at(Path(sys.argv[1]), sys.argv[2]))
