"""Checks that need no library: Python, what is installed, disk, memory, handles, text encoding."""

from __future__ import annotations

import locale
import os
import platform
import resource
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from harness.doctor.check import Check, bad, ok, warn
from harness.errors import ConfigError
from harness.store.cache_folders import cache_folder, folder_size, lock_of
from harness.store.cache_room import size_limit
from harness.store.folders import results_folder

_GB = 10**9
#: bytes below which a folder is nearly full, and full
_LITTLE, _NONE = 10 * _GB, _GB // 2
#: bytes of shared memory that loader processes and Ray's object store want
_SHARED = _GB
#: open files: Ray opens some hundred per worker
_HANDLES, _FEWEST = 4096, 512
#: builds of OpenCV: all of them write the same folder, cv2
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def python() -> Check:
    """The interpreter that runs."""
    return ok("Python", f"{platform.python_version()} at {sys.executable}")


def packages(installed: Mapping[str, str] | None = None, required: list[str] | None = None) -> list[Check]:
    """What is installed against what the harness asks for, and two builds of OpenCV side by side.

    Args:
        installed: distribution to version; none: those of this Python.
        required: requirements as pip writes them; none: the harness's own.
    """
    installed = _installed() if installed is None else installed
    checks = [_requirements(installed, required), _one_opencv(installed), _albumentations(installed)]
    return [check for check in checks if check is not None]


def extras(installed: Mapping[str, str] | None = None) -> Check:
    """What only some options need; nothing is wrong without them."""
    installed = _installed() if installed is None else installed
    needs = {
        "--onnx": ("onnx", "onnxscript", "onnxruntime"),
        "--tracker": ("tensorboard", "mlflow-skinny", "wandb"),
        "dashboard": ("optuna-dashboard",),
    }
    here = [name for name, those in needs.items() if all(one in installed for one in those)]
    gone = {name: [one for one in those if one not in installed] for name, those in needs.items() if name not in here}
    parts = [f"{name} works" for name in here] + [f"{name} lacks {', '.join(m)}" for name, m in gone.items()]
    if gone:
        parts.append("pip install 'harness[onnx,trackers,dashboard]' adds them")
    return ok("optional", "; ".join(parts))


def folders() -> list[Check]:
    """Room and locks where decoded frames and features lie, and room where studies are written."""
    checks = [_limit(), _disk("cache", cache_folder(), "HARNESS_CACHE")]
    return [*checks, _locks(), _disk("results", results_folder().resolve(), "HARNESS_RESULTS")]


def memory() -> list[Check]:
    """Main memory that is free, and shared memory."""
    return [_main_memory(), shared_memory()]


def shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """The size of /dev/shm, through which loader processes and Ray hand over batches."""
    if not folder.is_dir():
        return ok("shared memory", f"{folder} is not there: this system shares memory otherwise")
    total, _, free = shutil.disk_usage(folder)
    found = f"{_size(free)} of {_size(total)} free in {folder}"
    if free < _SHARED:
        return warn(
            "shared memory",
            found,
            "loader processes may die of a bus error: docker run --shm-size=8g, or training.workers 0",
        )
    return ok("shared memory", found)


def handles() -> Check:
    """How many files a process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    found = "unlimited" if unlimited else f"ulimit -n {soft}"
    remedy = f"ulimit -n {min(65536, hard) if hard > 0 else 65536} before harness, or in /etc/security/limits.conf"
    if unlimited or soft >= _HANDLES:
        return ok("open files", found)
    return (bad if soft < _FEWEST else warn)("open files", f"{found}: few for Ray with many workers", remedy)


def text_encoding(encodings: Mapping[str, str] | None = None) -> Check:
    """Whether files and the screen are UTF-8.

    Args:
        encodings: use to encoding; none: those of this process.
    """
    encodings = encodings or {
        "files": locale.getpreferredencoding(False),
        "screen": getattr(sys.stdout, "encoding", None) or "utf-8",
        "file names": sys.getfilesystemencoding(),
    }
    others = {use: name for use, name in encodings.items() if name.lower().replace("-", "") != "utf8"}
    if not others:
        return ok("text encoding", "UTF-8")
    found = ", ".join(f"{use} {name}" for use, name in others.items())
    return warn("text encoding", f"not UTF-8: {found}", "export LC_ALL=C.UTF-8 PYTHONUTF8=1")


def ray_cluster(temporary: Path | None = None, processes: Path = Path("/proc")) -> Check:
    """Whether a Ray runs on this machine, and whether it still answers.

    Args:
        temporary: Ray's own folder; none: where Ray puts it.
        processes: the folder in which Linux lists processes.
    """
    file = (temporary or Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray") / "ray_current_cluster"
    wanted = os.environ.get("RAY_ADDRESS", "")
    address = wanted or (file.read_text().strip() if file.is_file() else "")
    if address and _answers(address):
        return ok("Ray cluster", f"one answers at {address}; only --address auto joins it")
    if wanted:
        return warn("Ray cluster", f"nothing answers at RAY_ADDRESS {wanted}", "unset RAY_ADDRESS")
    left = _ray_processes(processes)
    if left:
        found = f"{len(left)} process(es) of a Ray that does not answer: {', '.join(map(str, left))}"
        return warn("Ray cluster", found, "ray stop, unless a study has started it this moment")
    return ok("Ray cluster", "none runs here; a study starts its own and ends it")


def ray_token(home: Path | None = None) -> Check:
    """Whether Ray's token is there and private: workers on other nodes need the same one."""
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or (home or Path.home()) / ".ray" / "auth_token")
    if mode == "disabled":
        return warn(
            "Ray token",
            "RAY_AUTH_MODE=disabled: whoever reaches Ray's ports can run code as you",
            "unset RAY_AUTH_MODE, unless nobody else reaches this machine",
        )
    if os.environ.get("RAY_AUTH_TOKEN"):
        return ok("Ray token", "in RAY_AUTH_TOKEN")
    if not file.exists():
        if mode == "token":
            return bad("Ray token", f"RAY_AUTH_MODE=token, and {file} is missing", "ray get-auth-token --generate")
        return ok("Ray token", f"none yet: Ray makes {file} at its first start")
    if not os.access(file, os.R_OK):
        return bad("Ray token", f"{file} cannot be read", f"chown $USER {file}, or set RAY_AUTH_TOKEN_PATH")
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return warn("Ray token", f"{file} can be read by others", f"chmod 600 {file}")
    return ok("Ray token", f"{file}; every node of a cluster needs the same")


def _installed() -> dict[str, str]:
    named = ((d.metadata["Name"], d.version) for d in metadata.distributions())
    # a broken installation can leave a folder without a name
    return {_canonical(name): version for name, version in named if name}


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _requirements(installed: Mapping[str, str], required: list[str] | None) -> Check:
    if required is None:
        if "harness" not in installed:
            return warn("packages", "the harness is not installed, its needs are not known", "pip install -e .")
        required = metadata.requires("harness") or []
    needs = [need for need in map(Requirement, required) if not need.marker or need.marker.evaluate({"extra": ""})]
    missing = [str(need) for need in needs if _canonical(need.name) not in installed]
    wrong = [
        f"{need.name} {version} (needs {need.specifier})"
        for need in needs
        if (version := installed.get(_canonical(need.name))) and not need.specifier.contains(version, prereleases=True)
    ]
    if missing or wrong:
        parts = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"wrong: {', '.join(wrong)}"] * bool(wrong)
        return bad("packages", "; ".join(parts), "pip install -e . -c constraints.txt")
    return ok("packages", f"{len(needs)} required ones are there, in versions that fit")


def _one_opencv(installed: Mapping[str, str]) -> Check | None:
    builds = [name for name in _OPENCV if name in installed]
    if len(builds) < 2:
        return None
    others = [name for name in builds if name != "opencv-python-headless"]
    return bad(
        "OpenCV builds",
        f"{' and '.join(f'{name} {installed[name]}' for name in builds)} overwrite each other's files",
        f"pip uninstall -y {' '.join(builds)} && pip install opencv-python-headless"
        if others
        else "pip install --force-reinstall opencv-python-headless",
    )


def _albumentations(installed: Mapping[str, str]) -> Check | None:
    version = installed.get("albumentations")
    if version in (None, "2.0.8"):
        return None
    return bad(
        "albumentations",
        f"{version}: augmentation draws other pictures, or none, in other versions",
        "pip install albumentations==2.0.8",
    )


def _limit() -> Check:
    try:
        limit = size_limit() if cache_folder().exists() or os.environ.get("HARNESS_CACHE_GB") else None
    except ConfigError as error:
        return bad("cache limit", str(error), "export HARNESS_CACHE_GB=50")
    used = folder_size(cache_folder()) if cache_folder().is_dir() else 0
    own = "HARNESS_CACHE_GB" if os.environ.get("HARNESS_CACHE_GB") else "half of the disk"
    most = own if limit is None else f"{_size(limit)} ({own})"
    return ok("cache limit", f"{_size(used)} used of {most}")


def _disk(name: str, folder: Path, variable: str) -> Check:
    there = _existing(folder)
    if not os.access(there, os.W_OK):
        return bad(name, f"{folder} cannot be written", f"export {variable}=/a/folder/of/yours")
    free = shutil.disk_usage(there).free
    found, remedy = f"{_size(free)} free at {folder}", f"free some, or export {variable}=/a/larger/disk"
    if free < _NONE:
        return bad(name, found, remedy)
    return warn(name, found, remedy) if free < _LITTLE else ok(name, found)


def _locks() -> Check:
    folder = cache_folder()
    if not os.access(_existing(folder), os.W_OK):
        return warn("cache locks", f"not tried: {folder} cannot be written", "see cache")
    try:
        with lock_of(folder / "doctor"):
            return ok("cache locks", "processes can wait for each other")
    except (OSError, RuntimeError) as error:
        return bad("cache locks", str(error), "export HARNESS_CACHE=/a/folder/on/a/local/disk")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _main_memory() -> Check:
    free, total = (os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    available = _available() or free
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = f"{_size(available)} of {_size(total)} free; {cores} CPU cores"
    if available < 2 * _GB:
        return warn("memory", found, "end other programs, or give fewer trials at once: --concurrency 1")
    return ok("memory", found)


def _available() -> int:
    """Bytes that can be had without swapping, which is more than what is unused; 0 where Linux does not say."""
    file = Path("/proc/meminfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


def _answers(address: str) -> bool:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host or "127.0.0.1", int(port)), timeout=2):
            return True
    except (OSError, ValueError):
        return False


def _ray_processes(folder: Path) -> list[int]:
    """Ids of the processes that are the heart of a Ray; none where the system does not list them as Linux does."""
    found = []
    for file in folder.glob("[0-9]*/comm"):
        # a process may end while it is looked at
        with suppress(OSError):
            if file.read_text().strip() in ("raylet", "gcs_server"):
                found.append(int(file.parent.name))
    return sorted(found)


def _size(amount: float) -> str:
    return f"{amount / _GB:.0f} GB" if amount >= 10 * _GB else f"{amount / _GB:.1f} GB"
