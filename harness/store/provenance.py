"""Where numbers come from: commit, versions, hardware, data."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.errors import StudyError
from harness.store.files import write_json

_PACKAGES = (
    "harness", "torch", "torchvision", "timm", "segmentation-models-pytorch", "ray", "optuna", "albumentations",
    "opencv-python-headless", "numpy",
)  # fmt: skip
#: what is the same at every start of a study, unless something was changed meanwhile
_LASTING = ("commit", "python", "packages", "machine", "device")


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


def record_session(path: Path, asked: Mapping[str, Any], **facts: Any) -> None:
    """Add this start of a study's driver to its provenance.json, which the first one makes.

    Args:
        asked: what may be asked for anew at every start: trials or seeds, budgets.
        facts: more of what `provenance` tells, `resources` among them.

    Raises:
        StudyError: the file is damaged.
    """
    now = provenance(**facts)
    first = _read(path) if path.exists() else now
    session = {
        "started": now["created"],
        "command": now["command"],
        "resources": facts.get("resources"),
        "asked": dict(asked),
        "changed": _changed(first, now),
    }
    write_json(path, {**first, "sessions": [*first.get("sessions", []), session]})


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise StudyError(
            f"{path}: not JSON ({error}); restore it, or move it away: the study goes on without, and makes a new one"
        ) from error


def _changed(first: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """`old -> new` of what is not as it was at the study's first start, by dotted path."""
    old, new = ({name: flat for part in _LASTING for name, flat in _flat(about, part)} for about in (first, now))
    return {name: f"{old.get(name)} -> {value}" for name, value in new.items() if old.get(name) != value}


def _flat(about: dict[str, Any], part: str) -> list[tuple[str, Any]]:
    value = about.get(part)
    return [(f"{part}.{name}", inner) for name, inner in value.items()] if isinstance(value, dict) else [(part, value)]


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
