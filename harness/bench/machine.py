"""What a benchmark ran on, in words of hardware and versions: never a host's name or a path."""

from __future__ import annotations

import os
import platform
import re
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from harness.store.provenance import commit

_PACKAGES = ("torch", "timm", "segmentation-models-pytorch", "albumentations", "opencv-python-headless", "numpy", "ray")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu() -> str | None:
    """The name of the first GPU, or None."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def machine_name() -> str:
    """A folder's name for this hardware, such as `2-cores-no-gpu`."""
    name = gpu()
    return f"{cores()}-cores-{'no-gpu' if name is None else _slug(name)}"


def about(command: str) -> dict[str, str]:
    """Command, commit, date, hardware and versions, as words to print under a table."""
    return {
        "command": command,
        "commit": commit() or "no git checkout",
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "hardware": f"{cores()} cores of {_processor()}, {_memory()}, {gpu() or 'no GPU'}",
        "versions": ", ".join([f"python {platform.python_version()}", *_versions()]),
    }


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _processor() -> str:
    return _first_value(Path("/proc/cpuinfo"), "model name") or platform.machine()


def _memory() -> str:
    found = _first_value(Path("/proc/meminfo"), "MemTotal")
    return f"{int(found.split()[0]) / 2**20:.0f} GiB of memory" if found else "memory unknown"


def _first_value(file: Path, key: str) -> str | None:
    if not file.is_file():
        return None
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), None)


def _versions() -> list[str]:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found
