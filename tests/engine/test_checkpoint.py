from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from harness.engine.checkpoint import load_header, load_state, load_weights, pack_state, pack_weights
from harness.errors import StudyError
from harness.store import write_bytes

OPTIMISERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.1),
    "sgd with momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.1),
}


def _model(channels: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.Conv2d(channels, 2, 1))


def _steps(model: nn.Module, optimiser: torch.optim.Optimizer, seed: int, steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimiser.zero_grad()
        model(torch.randn(2, 3, 6, 6, generator=generator)).square().mean().backward()
        optimiser.step()


def _bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_a_restored_training_goes_on_bit_for_bit(tmp_path: Path, kind: str) -> None:
    model = _model()
    optimiser = OPTIMISERS[kind](model)
    _steps(model, optimiser, seed=1)
    write_bytes(tmp_path / "last.safetensors", pack_state(model, optimiser, {}))

    restored = _model()
    restored_optimiser = OPTIMISERS[kind](restored)
    load_state(tmp_path / "last.safetensors", restored, restored_optimiser)

    assert _bits(restored) == _bits(model)
    _steps(model, optimiser, seed=2)
    _steps(restored, restored_optimiser, seed=2)
    assert _bits(restored) == _bits(model)


def test_a_parameter_that_has_not_moved_yet_has_no_state(tmp_path: Path) -> None:
    model = _model()
    optimiser = OPTIMISERS["adamw"](model)
    model[0].requires_grad_(False)
    _steps(model, optimiser, seed=1)
    write_bytes(tmp_path / "last.safetensors", pack_state(model, optimiser, {}))

    restored = _model()
    restored_optimiser = OPTIMISERS["adamw"](restored)
    load_state(tmp_path / "last.safetensors", restored, restored_optimiser)

    assert restored_optimiser.state_dict()["state"].keys() == optimiser.state_dict()["state"].keys() == {2, 3, 4, 5}


def test_weights_hold_parameters_and_buffers_with_their_types(tmp_path: Path) -> None:
    model = _model()
    model(torch.randn(2, 3, 6, 6))
    write_bytes(tmp_path / "best.safetensors", pack_weights(model, {}))

    restored = _model()
    load_weights(tmp_path / "best.safetensors", restored)

    assert _bits(restored) == _bits(model)
    assert restored[1].num_batches_tracked.dtype == torch.int64
    assert restored[1].num_batches_tracked.item() == 1
    assert [file.name for file in tmp_path.iterdir()] == ["best.safetensors"]


def test_the_header_comes_back_as_it_was(tmp_path: Path) -> None:
    header = {"rows": [{"epoch": 1, "score": 0.1 + 0.2, "lr": {"head": 1e-7}, "none": None}], "name": "Wüste"}

    write_bytes(tmp_path / "best.safetensors", pack_weights(_model(), header))

    assert load_header(tmp_path / "best.safetensors") == header


def _read_everything(path: Path) -> list[Callable[[], object]]:
    model = _model()
    return [
        lambda: load_header(path),
        lambda: load_weights(path, model),
        lambda: load_state(path, model, OPTIMISERS["adamw"](model)),
    ]


@pytest.mark.parametrize("length", [0, 5, 200, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "last.safetensors"
    write_bytes(path, pack_weights(_model(), {}))
    path.write_bytes(path.read_bytes()[:length])

    for read in _read_everything(path):
        with pytest.raises(StudyError, match=r"last\.safetensors: not a readable checkpoint \(.+\); train again"):
            read()


def test_a_pickle_under_our_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    torch.save({f"model.{name}": tensor for name, tensor in _model().state_dict().items()}, path)

    for read in _read_everything(path):
        with pytest.raises(StudyError, match=r"last\.safetensors: not a readable checkpoint"):
            read()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for read in _read_everything(tmp_path / "last.safetensors"):
        with pytest.raises(StudyError, match=r"last\.safetensors: not a readable checkpoint"):
            read()


def test_a_safetensors_file_of_another_program_has_no_header(tmp_path: Path) -> None:
    save_file(_model().state_dict(), tmp_path / "foreign.safetensors", metadata={"format": "pt"})

    with pytest.raises(StudyError, match=r"foreign\.safetensors: has no header of this harness"):
        load_header(tmp_path / "foreign.safetensors")
    with pytest.raises(StudyError, match=r"foreign\.safetensors: has no header of this harness"):
        load_weights(tmp_path / "foreign.safetensors", _model())


def test_a_checkpoint_of_another_model_is_refused_with_the_first_difference(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    write_bytes(path, pack_weights(_model(channels=8), {}))
    model = _model(channels=4)
    before = _bits(model)

    with pytest.raises(
        StudyError, match=r"7 tensors differ .* 0\.weight, has shape \(8, 3, 3, 3\) instead of \(4, 3, 3, 3\)"
    ):
        load_weights(path, model)
    assert _bits(model) == before


def test_a_checkpoint_with_a_layer_too_many_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    write_bytes(path, pack_weights(nn.Sequential(*_model(), nn.Conv2d(2, 2, 1)), {}))

    with pytest.raises(StudyError, match=r"2 tensors differ .* 3\.bias, has shape \(2,\) instead of none"):
        load_weights(path, _model())
