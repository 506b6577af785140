"""Checkpoints: one safetensors file each, whatever is no tensor as JSON in its header.

One file, because two cannot be replaced at once: a kill between them would leave weights and state of
different epochs. No random state is stored: every draw is a function of (seed, epoch, index).

safetensors notices a file that was cut short, and no changed byte inside a tensor. So the header holds a CRC-32 of
the whole file, its own eight digits as zeros, which is compared whenever tensors are read.

An encoder that never trains is the exception: it is written once for all runs of a study, by the digest of its
weights, which each checkpoint names; it can be a hundred times the rest.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from harness.config import printable
from harness.errors import StudyError
from harness.store import RunFolder, naming_what_fails, write_bytes

Tensors = dict[str, torch.Tensor]

_ENCODER = "encoder."
#: the checksum's place in a header: its name as it stands in the file, and what is there before it is known
_SUM, _UNKNOWN = "crc32", "0" * 8
_BEFORE_SUM = rf"\"{_SUM}\": \"".encode()
#: bytes read at once: they are still in the core's own cache when they are summed
_BLOCK = 1 << 20


class DamagedCheckpoint(StudyError):
    """A checkpoint that cannot be read, or whose bytes have changed since it was written."""

    def __init__(self, path: Path, why: Exception | str) -> None:
        """Take the file and what is wrong with it."""
        super().__init__(f"{path}: not a readable checkpoint ({why}); train again or give another run")
        self.why = why


def write_checkpoint(path: Path, packed: bytes, before: Path | None = None) -> None:
    """Write what one of the `pack_` functions made, with its checksum; what it replaces is kept at `before`.

    Raises:
        StorageError: it cannot be written.
    """
    body = 8 + int.from_bytes(packed[:8], "little")
    at = packed.index(_BEFORE_SUM) + len(_BEFORE_SUM)
    checksum = f"{zlib.crc32(packed):08x}".encode()
    write_bytes(path, packed[:at] + checksum + packed[at + 8 : body], memoryview(packed)[body:], before=before)


def pack_weights(model: nn.Module, header: dict[str, Any], frozen: str | None = None) -> bytes:
    """A checkpoint of a model's parameters and buffers, with a JSON header.

    Args:
        frozen: the digest of an encoder that never trains, left out here and written once by `save_frozen`.
    """
    return _pack(_own(model, frozen), _naming(header, frozen))


def save_frozen(path: Path, model: nn.Module) -> None:
    """Write an encoder that never trains, unless that was done before."""
    if not path.exists():
        with naming_what_fails(path.parent):
            path.parent.mkdir(exist_ok=True)
        tensors = {f"model.{_ENCODER}{k}": v for k, v in model.encoder.state_dict().items()}
        write_checkpoint(path, _pack(tensors, {}))


def pack_state(
    model: nn.Module, optimiser: torch.optim.Optimizer, header: dict[str, Any], frozen: str | None = None
) -> bytes:
    """A checkpoint of everything that the next epoch needs."""
    tensors = _own(model, frozen)
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items() if isinstance(v, torch.Tensor)}
    return _pack(tensors, _naming(header, frozen))


def load_header(path: Path) -> dict[str, Any]:
    """The JSON header of a checkpoint.

    Raises:
        StudyError: the file is missing or is no checkpoint of ours.
    """
    header = _whole_header(path)
    header.pop(_SUM, None)
    return header


def check_sum(path: Path) -> None:
    """Read a checkpoint, every byte of it, and compare its checksum; one without, of an older version, passes.

    Raises:
        DamagedCheckpoint: it cannot be read, or its bytes have changed.
    """
    checksum = str(_whole_header(path).get(_SUM, _UNKNOWN))
    if checksum == _UNKNOWN:
        return
    with open(path, "rb") as file:
        head = file.read(8)
        head += file.read(int.from_bytes(head, "little"))
        found = zlib.crc32(head.replace(_BEFORE_SUM + checksum.encode(), _BEFORE_SUM + _UNKNOWN.encode(), 1))
        while block := file.read(_BLOCK):
            found = zlib.crc32(block, found)
    if f"{found:08x}" != checksum:
        raise DamagedCheckpoint(path, f"its bytes have changed: their CRC-32 is {found:08x} and was {checksum}")


def model_tensors(path: Path) -> Tensors:
    """A checkpoint's parameters and buffers, by the model's own names.

    Raises:
        StudyError: it is no checkpoint of ours, or one of its numbers is inf or nan.
    """
    tensors = _part(_read(path) | _frozen(path), "model.")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise StudyError(f"{path}: tensor {printable(name)} holds inf or nan; train again or give another run")
    return tensors


def load_weights(path: Path, model: nn.Module) -> None:
    """Put a checkpoint's parameters and buffers into a model, every one of them.

    Raises:
        StudyError: names or shapes differ from the model's.
    """
    _fill(model, model_tensors(path), path)


def load_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, frozen: str | None = None) -> None:
    """Put a checkpoint's model and optimiser state back.

    Args:
        frozen: the digest of the encoder that the model holds already, where it never trains.

    Raises:
        DamagedCheckpoint: it cannot be read; changed bytes are `check_sum`'s to find.
        StudyError: names or shapes differ from the model's, or the checkpoint belongs to another frozen encoder.
    """
    written = load_header(path).get("frozen")
    if written != frozen:
        raise StudyError(
            f"{path}: written with the frozen encoder {written}, and this one is {frozen}: its weights file has "
            "changed, or another version of torch or timm draws other random weights; use the versions in "
            "provenance.json, or train again"
        )
    tensors = _load(path)
    held = {k: v for k, v in model.state_dict().items() if frozen and k.startswith(_ENCODER)}
    _fill(model, _part(tensors, "model.") | held, path)
    state: dict[int, Tensors] = {}
    for name, tensor in _part(tensors, "optimiser.").items():
        index, _, key = name.partition(".")
        if not index.isdecimal():
            raise StudyError(f"{path}: 'optimiser.{printable(name)}' is no state of an optimiser; train again")
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _naming(header: dict[str, Any], frozen: str | None) -> dict[str, Any]:
    return header | {"frozen": frozen} if frozen else header


def _own(model: nn.Module, frozen: str | None) -> Tensors:
    state = model.state_dict()
    return {f"model.{k}": v for k, v in state.items() if not (frozen and k.startswith(_ENCODER))}


def _frozen(path: Path) -> Tensors:
    """The frozen encoder that a checkpoint names; nothing where it names none."""
    digest = load_header(path).get("frozen")
    return _read(RunFolder(path.parent).frozen(digest)) if digest else {}


def _whole_header(path: Path) -> dict[str, Any]:
    """The header with the checksum."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        header = json.loads(metadata["header"]) if "header" in metadata else None
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(path, error) from error
    if not isinstance(header, dict):
        raise StudyError(f"{path}: has no header of this harness; give a checkpoint that it wrote")
    return header


def _read(path: Path) -> Tensors:
    check_sum(path)
    return _load(path)


def _load(path: Path) -> Tensors:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedCheckpoint(path, error) from error


def _fill(model: nn.Module, tensors: Tensors, path: Path) -> None:
    found, expected = _shapes(tensors), _shapes(model.state_dict())
    wrong = [name for name in expected | found if found.get(name) != expected.get(name)]
    if wrong:
        raise StudyError(
            f"{path}: {len(wrong)} tensors differ from the model's; the first, {wrong[0]}, has shape "
            f"{found.get(wrong[0], 'none')} instead of {expected.get(wrong[0], 'none')}: it was written for "
            "another model; give the run folder of this Experiment"
        )
    wrong = [name for name, tensor in model.state_dict().items() if tensors[name].dtype != tensor.dtype]
    if wrong:
        raise StudyError(
            f"{path}: {len(wrong)} tensors are of another type than the model's, the first, {wrong[0]}, "
            f"{tensors[wrong[0]].dtype}; they would be rounded: give the file that the training wrote"
        )
    model.load_state_dict(tensors)


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _pack(tensors: Tensors, header: dict[str, Any]) -> bytes:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # the checksum first, so that its name is found before any other
    return save(plain, metadata={"header": json.dumps({_SUM: _UNKNOWN} | header)})
