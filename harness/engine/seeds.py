"""Seeds for each purpose, and the switches that decide whether a run repeats itself."""

from __future__ import annotations

import os

import numpy as np
import torch

# without it torch refuses cuBLAS where only deterministic kernels are allowed; cuBLAS reads it when it starts
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

INITIALISATION, EPOCH, HEAD = 0, 1, 2


def seed_torch(seed: int, purpose: int, epoch: int = 0) -> None:
    """Seed torch on every device as a function of (seed, purpose, epoch), so that no state needs saving."""
    torch.manual_seed(int(np.random.SeedSequence((seed, purpose, epoch)).generate_state(1, np.uint64)[0]))


def set_determinism(on: bool) -> None:
    """Allow only deterministic kernels, or any. Always set: a reused worker keeps the last trial's switches."""
    torch.use_deterministic_algorithms(on)
    torch.backends.cudnn.deterministic = on
    torch.backends.cudnn.benchmark = not on
