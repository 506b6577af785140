"""Checks of libraries, from what each answered in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from harness.doctor.ask import Answer, ask
from harness.doctor.check import Check, bad, ok, warn
from harness.errors import first_line

_GB = 10**9
#: share of a GPU's memory that may be taken by others
_TAKEN = 0.5
_LISTED = 5


def torch() -> list[Check]:
    """PyTorch, and every GPU that it sees."""
    answer = ask("harness.doctor.answers", "torch")
    try:
        return torch_checks(answer, nvidia_gpus())
    except (subprocess.TimeoutExpired, OSError) as error:
        remedy = "see what the kernel says: dmesg | grep -i -e nvrm -e xid; restart the driver or the machine"
        return [
            *torch_checks(answer, []),
            bad("GPU driver", f"nvidia-smi does not answer: {first_line(error)}", remedy),
        ]


def torch_checks(answer: Answer, driver: list[str]) -> list[Check]:
    """From what PyTorch said and the GPUs that the driver lists."""
    if answer.error:
        return [bad("PyTorch", answer.error, _install("torch", answer.error))]
    found = answer.values
    cuda = f"CUDA {found['cuda']}" if found["cuda"] else "built without CUDA"
    first = ok("PyTorch", f"{found['version']}, {cuda}, {found['threads']} threads")
    return [first, *(map(_gpu, found["gpus"]) if found["gpus"] else [_no_gpu(found["cuda"], driver)])]


def images() -> list[Check]:
    """OpenCV, albumentations and NumPy, together."""
    return image_checks(ask("harness.doctor.answers", "images"))


def image_checks(answer: Answer) -> list[Check]:
    if answer.error:
        return [bad("OpenCV", answer.error, _install("opencv-python-headless albumentations==2.0.8", answer.error))]
    versions = ", ".join(f"{name} {answer.values[name]}" for name in ("cv2", "albumentations", "numpy"))
    return [ok("OpenCV", versions)]


def ray() -> list[Check]:
    """Whether Ray starts here and runs a function."""
    return ray_checks(ask("harness.doctor.answers", "ray"))


def ray_checks(answer: Answer) -> list[Check]:
    if answer.error is None:
        return [ok("Ray", f"{answer.values['version']}, started and answered in {answer.values['seconds']:.1f} s")]
    if _is_import_error(answer.error):
        return [bad("Ray", answer.error, f"{_install('ray[tune]', answer.error)}; until then --executor inprocess")]
    remedy = "ray stop; look into /tmp/ray/session_latest/logs; until it starts, --executor inprocess works without"
    return [bad("Ray", f"does not start: {answer.error}", remedy)]


def weights(spaces: list[Path]) -> list[Check]:
    """Which pretrained weights of the spaces are on this disk."""
    if not spaces:
        return [ok("weights", "no search space was found to look into")]
    return weight_checks(ask("harness.doctor.weights", *map(str, spaces)))


def weight_checks(answer: Answer) -> list[Check]:
    if answer.error:
        return [warn("weights", f"not looked up: {answer.error}", "mend the libraries above first")]
    rows = answer.values["weights"]
    return [_weights_of(space, [row for row in rows if row["space"] == space]) for space in _spaces(rows)] or [
        ok("weights", "no space asks for pretrained ones")
    ]


def dataset(folder: Path, taxonomy: str) -> list[Check]:
    """Every file of a dataset folder."""
    return dataset_checks(ask("harness.doctor.dataset", str(folder), taxonomy, timeout=24 * 3600), folder)


def dataset_checks(answer: Answer, folder: Path) -> list[Check]:
    if answer.error:
        return [bad("dataset", answer.error, "see what is wrong: harness data check " + str(folder))]
    found = answer.values
    counted = ", ".join(f"{count} {split}" for split, count in found["frames"].items())
    if found["problems"]:
        first = "; ".join(found["problems"][:2])
        return [
            bad(
                "dataset",
                f"{folder}: {len(found['problems'])} problem(s) in {counted} frames, first: {first}",
                f"harness data check {folder}",
            )
        ]
    return [ok("dataset", f"{folder}: {counted} frames of {', '.join(found['sizes'])}, every one in order")]


def nvidia_gpus() -> list[str]:
    """The GPUs that NVIDIA's driver lists, a line each; none without a driver.

    Raises:
        TimeoutExpired, OSError: its tool hangs, or cannot be run.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60)
    return [line for line in done.stdout.splitlines() if line.startswith("GPU ")]


def _gpu(gpu: dict) -> Check:
    if gpu["error"]:
        return bad(
            "GPU", f"{gpu['name']}: {gpu['error']}", "install a build of PyTorch for it: pytorch.org/get-started"
        )
    found = f"{gpu['name']}, {gpu['free'] / _GB:.1f} of {gpu['total'] / _GB:.1f} GB free"
    if gpu["free"] < (1 - _TAKEN) * gpu["total"]:
        return warn("GPU", found, "others use it: nvidia-smi shows who")
    return ok("GPU", found)


def _no_gpu(cuda: str | None, driver: list[str]) -> Check:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not driver:
        return warn("GPU", "none: models train on the CPU", "enough for small models; others need a GPU")
    if visible is not None and visible.strip() in ("", "-1"):
        return warn("GPU", f"hidden by CUDA_VISIBLE_DEVICES='{visible}'", "unset CUDA_VISIBLE_DEVICES")
    why = (
        "this PyTorch is built without CUDA" if cuda is None else "PyTorch sees none: its CUDA is newer than the driver"
    )
    return bad("GPU", f"{len(driver)} GPU(s), but {why}", "install a build that fits: pytorch.org/get-started")


def _weights_of(space: str, rows: list[dict]) -> Check:
    name, gone = f"weights {space}", [row for row in rows if not row.get("cached")]
    if not gone:
        return ok(name, f"all {len(rows)} in the cache: {_some([row['name'] for row in rows])}")
    return warn(
        name,
        f"{len(gone)} of {len(rows)} not in the cache: {_some([row['name'] for row in gone])}",
        "fetched at the first use where the network allows; otherwise copy the caches of a machine that has them "
        "(HF_HOME, TORCH_HOME)",
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _spaces(rows: list[dict]) -> list[str]:
    return list(dict.fromkeys(row["space"] for row in rows))


def _is_import_error(error: str) -> bool:
    return error.startswith(("ModuleNotFoundError", "ImportError"))


def _install(what: str, error: str) -> str:
    if "numpy" in error.lower() and ("abi" in error.lower() or "binary" in error.lower() or "_ARRAY_API" in error):
        return f"built for another NumPy: pip install --force-reinstall {what} -c constraints.txt"
    again = "" if error.startswith("ModuleNotFoundError") else " --force-reinstall"
    return f"pip install{again} '{what}' -c constraints.txt"
