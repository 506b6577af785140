from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from harness.engine.seeds import EPOCH, INITIALISATION, seed_torch, set_determinism


@pytest.fixture
def switches() -> Iterator[None]:
    """Leave torch's switches as they were."""
    before = torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


def _draws(*about: int) -> list[float]:
    seed_torch(*about)
    return torch.rand(4).tolist()


def test_a_seed_gives_the_same_draws_whatever_was_drawn_before() -> None:
    first = _draws(7, EPOCH, 3)
    torch.rand(11)

    assert _draws(7, EPOCH, 3) == first


def test_seed_purpose_and_epoch_each_change_the_draws() -> None:
    about = [(0, INITIALISATION), (0, EPOCH, 1), (0, EPOCH, 2), (1, INITIALISATION), (1, EPOCH, 1), (2**63, EPOCH, 1)]

    assert len({tuple(_draws(*a)) for a in about}) == len(about)


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("on", [True, False])
def test_the_switches_are_set_both_ways(on: bool) -> None:
    set_determinism(not on)

    set_determinism(on)

    assert torch.are_deterministic_algorithms_enabled() is on
    assert torch.backends.cudnn.deterministic is on
    assert torch.backends.cudnn.benchmark is not on


def test_cublas_is_told_to_repeat_itself_before_it_starts() -> None:
    # the two values that torch accepts
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")
