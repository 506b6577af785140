"""What the libraries answer, each in a process of its own: `python -m harness.doctor.answers torch|images|ray`."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import Any

from harness.doctor.ask import tell
from harness.errors import first_line


def torch() -> dict[str, Any]:
    """Version, CUDA, and each GPU with its memory in bytes; one small product is computed on each."""
    torch, numpy = import_module("torch"), import_module("numpy")
    # crosses between the two libraries: fails where they were built for different versions of NumPy's interface
    torch.from_numpy(numpy.ones(3)).numpy()
    gpus = []
    for index in range(torch.cuda.device_count()):
        try:
            side = torch.ones(64, 64, device=f"cuda:{index}")
            works = "" if float((side @ side).sum()) == 64**3 else "a product on it is wrong"
            free, total = torch.cuda.mem_get_info(index)
        except RuntimeError as error:
            works, free, total = first_line(error), 0, 0
        name = torch.cuda.get_device_name(index)
        gpus.append({"name": name, "free": free, "total": total, "error": works})
    return {"version": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads(), "gpus": gpus}


def images() -> dict[str, Any]:
    """Versions of OpenCV, albumentations and NumPy; each works on the other's arrays."""
    numpy, cv2 = import_module("numpy"), import_module("cv2")
    picture = cv2.resize(numpy.zeros((8, 8, 3), numpy.uint8), (4, 4))
    albumentations = import_module("albumentations")
    albumentations.Compose([albumentations.HorizontalFlip(p=1)], seed=0)(image=picture)
    versions = {"numpy": numpy.__version__, "cv2": cv2.__version__, "albumentations": albumentations.__version__}
    return versions | {"folder": str(cv2.__file__)}


def ray() -> dict[str, Any]:
    """Version, and the seconds until a local Ray with one core has run one function."""
    ray = import_module("ray")
    started = time.perf_counter()
    # the object store at its least, as in harness.run.cluster
    options = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    ray.init(address="local", log_to_driver=False, logging_level="ERROR", **options)
    try:
        answer = ray.get(ray.remote(_square).remote(12), timeout=120)
    finally:
        ray.shutdown()
    if answer != 144:
        raise RuntimeError(f"a worker answered {answer} in place of 144")
    return {"version": ray.__version__, "seconds": time.perf_counter() - started}


def _square(number: int) -> int:
    return number * number


if __name__ == "__main__":
    tell({"torch": torch, "images": images, "ray": ray}[sys.argv[1]]())
