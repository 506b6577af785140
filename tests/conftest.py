"""What several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

FALCON_FRAMES = Path(__file__).resolve().parents[1].parent / "shared" / "falcon_frames"


@pytest.fixture(scope="session", autouse=True)
def folders_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's own cache and results."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("HARNESS_CACHE", "HARNESS_RESULTS"):
            patch.setenv(variable, str(tmp_path_factory.mktemp(variable.lower())))
        yield


@pytest.fixture(scope="session")
def falcon_frames() -> Path:
    """Folder of the fourteen real frames, where this checkout has them beside it."""
    if not FALCON_FRAMES.is_dir():
        pytest.skip("the real frames are not beside this checkout")
    return FALCON_FRAMES
