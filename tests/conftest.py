"""What several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

FALCON_FRAMES = Path(__file__).resolve().parents[1].parent / "shared" / "falcon_frames"


@pytest.fixture(scope="session")
def falcon_frames() -> Path:
    """Folder of the fourteen real frames, where this checkout has them beside it."""
    if not FALCON_FRAMES.is_dir():
        pytest.skip("the real frames are not beside this checkout")
    return FALCON_FRAMES
