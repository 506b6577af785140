from __future__ import annotations

import binascii
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from harness.engine.checkpoint import (
    DamagedCheckpoint,
    check_sum,
    load_header,
    load_state,
    load_weights,
    pack_state,
    pack_weights,
    write_checkpoint,
)
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


# ---- the checksum ----


def _written(path: Path, header: dict | None = None) -> bytes:
    write_checkpoint(path, pack_weights(_model(), header or {"epoch": 1}))
    return path.read_bytes()


def test_the_checksum_is_that_of_the_file_with_zeros_in_its_place(tmp_path: Path) -> None:
    content = _written(tmp_path / "best.safetensors", {"name": "Wüste", "crc": "crc32"})
    at = content.index(b'crc32\\": \\"') + len(b'crc32\\": \\"')
    expected = binascii.crc32(content[:at] + b"00000000" + content[at + 8 :])

    assert int(content[at : at + 8], 16) == expected
    check_sum(tmp_path / "best.safetensors")
    assert load_header(tmp_path / "best.safetensors") == {"name": "Wüste", "crc": "crc32"}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_a_changed_byte_in_the_tensors_is_found_where_safetensors_finds_none(tmp_path: Path, share: float) -> None:
    path = tmp_path / "best.safetensors"
    content = bytearray(_written(path))
    body = 8 + int.from_bytes(content[:8], "little")
    content[body + int(share * (len(content) - 1 - body))] ^= 1
    path.write_bytes(content)

    load_file(path)
    with pytest.raises(
        DamagedCheckpoint, match=r"its bytes have changed: their CRC-32 is \w{8} and was \w{8}\); train"
    ):
        check_sum(path)
    with pytest.raises(StudyError, match=r"best\.safetensors: not a readable checkpoint \(its bytes have changed"):
        load_weights(path, _model())


def test_a_changed_byte_in_the_header_is_found(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    content = _written(path, {"score": 0.25})
    path.write_bytes(content.replace(b"0.25", b"0.95"))

    assert load_header(path) == {"score": 0.95}
    with pytest.raises(DamagedCheckpoint, match="its bytes have changed"):
        check_sum(path)


def test_a_header_that_is_no_json_any_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(_written(path).replace(b'epoch\\"', b"epoch\\u"))

    with pytest.raises(DamagedCheckpoint, match="not a readable checkpoint"):
        load_header(path)


def test_a_file_without_a_checksum_is_read_as_before_there_was_one(tmp_path: Path) -> None:
    model, path = _model(), tmp_path / "older.safetensors"
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(tensors, path, metadata={"header": json.dumps({"epoch": 3})})
    restored = _model()

    check_sum(path)
    load_weights(path, restored)

    assert load_header(path) == {"epoch": 3} and _bits(restored) == _bits(model)


def test_what_a_checkpoint_replaces_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    last, previous = tmp_path / "last.safetensors", tmp_path / "previous.safetensors"
    contents = []
    for epoch in (1, 2, 3):
        write_checkpoint(last, pack_weights(_model(), {"epoch": epoch}), previous)
        contents.append(last.read_bytes())
        assert previous.exists() == (epoch > 1)

    assert previous.read_bytes() == contents[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [last.name, previous.name]
