"""Memory in use on this machine's GPUs, by whatever process.

From nvidia-smi: `torch.cuda.mem_get_info` would open a CUDA context, hundreds of MB on every GPU, in a driver or a
viewer that otherwise needs none.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass

_QUERY = ("--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits")
#: seconds; a call takes a tenth of one
_EVERY, _PATIENCE = 5.0, 5.0


@dataclass(frozen=True)
class GpuMemory:
    """One GPU's memory, GiB."""

    index: int
    used: float
    total: float


class GpuMeter:
    """The memory in use, asked for every few seconds at the most; nothing on a machine without NVIDIA's tools."""

    def __init__(self) -> None:
        self.program = shutil.which("nvidia-smi")
        self.last: tuple[GpuMemory, ...] = ()
        self.asked_at = float("-inf")

    def read(self) -> tuple[GpuMemory, ...]:
        """Each GPU's memory; none where there is no GPU, or its tool does not answer."""
        if self.program is not None and time.monotonic() - self.asked_at >= _EVERY:
            self.last, self.asked_at = _ask(self.program), time.monotonic()
        return self.last


def _ask(program: str) -> tuple[GpuMemory, ...]:
    try:
        said = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    rows = [line.split(", ") for line in said.stdout.splitlines()] if said.returncode == 0 else []
    # a GPU that shares the machine's memory answers [N/A]
    known = [[int(word) for word in row] for row in rows if len(row) == 3 and all(word.isdigit() for word in row)]
    return tuple(GpuMemory(index, used / 1024, total / 1024) for index, used, total in known)
