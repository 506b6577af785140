"""Where numbers come from: commit, versions, hardware, data."""

from __future__ import annotations

import json
import math
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
from harness.store.folders import StudyFolder

_PACKAGES = (
    "harness", "torch", "torchvision", "timm", "segmentation-models-pytorch", "ray", "optuna", "albumentations",
    "opencv-python-headless", "numpy",
)  # fmt: skip
#: what is the same at every start of a study, unless something was changed meanwhile
_LASTING = ("commit", "python", "packages", "machine", "device")
#: what is read again later, and its type
_TYPES = {"command": list, "packages": dict, "machine": dict, "resources": dict, "sessions": list}
_HELD = ("gpus_per_trial", "cpus_per_trial")


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
    first = _read(path) or now
    session = {
        "started": now["created"],
        "command": now["command"],
        "resources": facts.get("resources"),
        "asked": dict(asked),
        "changed": _changed(first, now),
    }
    write_json(path, {**first, "sessions": [*first.get("sessions", []), session]})


def read_provenance(folder: StudyFolder) -> dict[str, Any]:
    """What a study's provenance.json holds; nothing where the file is missing.

    Raises:
        StudyError: the file is damaged.
    """
    return _read(folder.provenance)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        about = json.loads(path.read_bytes())
        _check(about)
    # deeply nested brackets end in RecursionError
    except (ValueError, RecursionError) as error:
        raise StudyError(
            f"{path}: damaged ({error}); restore it, or move it away: the study goes on without, and makes a new one"
        ) from error
    return about


def _check(about: Any) -> None:
    if not isinstance(about, dict):
        raise ValueError("it is no JSON object")
    for name, type_ in _TYPES.items():
        if about.get(name) is not None and not isinstance(about[name], type_):
            raise ValueError(f"{name} is no {type_.__name__}")
    if not all(isinstance(session, dict) for session in about.get("sessions") or []):
        raise ValueError("sessions holds something that is none")
    held = [value for key, value in (about.get("resources") or {}).items() if key in _HELD and value is not None]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in held):
        raise ValueError("resources holds something that is no number")


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
