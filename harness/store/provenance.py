"""Where numbers come from: commit, versions, hardware, data."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "harness", "torch", "torchvision", "timm", "segmentation-models-pytorch", "ray", "optuna", "albumentations",
    "opencv-python-headless", "numpy",
)  # fmt: skip


def provenance(**more: Any) -> dict[str, Any]:
    """Commit, command, versions and machine of this process, and whatever else is given (seeds, data, device)."""
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cpus": os.cpu_count()},
        **more,
    }


def commit() -> str | None:
    """The commit of the source tree, `-dirty` where it has changes; None where it is no git checkout."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    described = subprocess.run(
        ["git", "-C", source, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        capture_output=True,
        text=True,
    )
    return described.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
