"""The sheet of pictures of an ablation: image, truth, and what each arm predicts."""

from __future__ import annotations

from pathlib import Path

from harness.data import read_image
from harness.report.plots import tile_sheet
from harness.report.records import AblationRecords
from harness.store import write_bytes

_FIRST = ("image", "truth")


def write_tile_sheet(records: AblationRecords, out: Path) -> list[Path]:
    """Write `tiles.png` from the pictures that the ablation kept; nothing where it kept none."""
    tiles = records.folder.tiles
    columns = [name for name in (*_FIRST, *records.arms) if (tiles / name).is_dir()]
    if not columns:
        return []
    frames = sorted(path.name for path in (tiles / _FIRST[0]).glob("*.png"))
    pictures = {name: [read_image(tiles / name / frame) for frame in frames] for name in columns}
    write_bytes(out / "tiles.png", tile_sheet(pictures, [Path(frame).stem for frame in frames]))
    return [out / "tiles.png"]
