"""All checks, each as soon as it is known; the slow ones at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.doctor import libraries, machine
from harness.doctor.check import Check

#: libraries asked at once: each takes a core and half a gigabyte
_AT_ONCE = 2


def examine(spaces: Sequence[Path] = (), data: Path | None = None, taxonomy: str = "falcon10") -> Iterator[Check]:
    """Look at Python, libraries, GPUs, Ray, weights, disk, memory and, where one is given, a dataset folder.

    Args:
        spaces: search spaces, whose pretrained weights are looked for on this disk; nothing is fetched.

    Yields:
        Always in the same order, so a check that is done may wait for one before it.
    """
    slow: list[Callable[[], list[Check]]] = [
        libraries.torch,
        libraries.images,
        libraries.ray,
        lambda: libraries.weights(list(spaces)),
    ]
    if data is not None:
        slow.append(lambda: libraries.dataset(data, taxonomy))
    # before a Ray is started to see whether it starts
    cluster = machine.ray_cluster()
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        answers = [pool.submit(check) for check in slow]
        yield from (machine.python(), *machine.packages(), machine.extras())
        # looked at now, not once Ray has been started
        rest = (
            machine.ray_token(),
            cluster,
            *machine.folders(),
            *machine.memory(),
            machine.handles(),
            machine.text_encoding(),
        )
        torch, images, ray, *others = answers
        for answer in (torch, images, ray):
            yield from answer.result()
        yield from rest
        for answer in others:
            yield from answer.result()
