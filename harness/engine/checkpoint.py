"""Checkpoints: one safetensors file each, whatever is no tensor as JSON in its header.

One file, because two cannot be replaced at once: a kill between them would leave weights and state of
different epochs. No random state is stored: every draw is a function of (seed, epoch, index).

An encoder that never trains is the exception: it is written once for all runs of a study, by the digest of its
weights, which each checkpoint names; it can be a hundred times the rest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from harness.errors import StudyError
from harness.store import RunFolder, write_bytes

Tensors = dict[str, torch.Tensor]

_ENCODER = "encoder."


def pack_weights(model: nn.Module, header: dict[str, Any], frozen: str | None = None) -> bytes:
    """A checkpoint of a model's parameters and buffers, with a JSON header.

    Args:
        frozen: the digest of an encoder that never trains, left out here and written once by `save_frozen`.
    """
    return _pack(_own(model, frozen), _naming(header, frozen))


def save_frozen(path: Path, model: nn.Module) -> None:
    """Write an encoder that never trains, unless that was done before."""
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        tensors = {f"model.{_ENCODER}{k}": v for k, v in model.encoder.state_dict().items()}
        write_bytes(path, _pack(tensors, {}))


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
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    if "header" not in metadata:
        raise StudyError(f"{path}: has no header of this harness; give a checkpoint that it wrote")
    return json.loads(metadata["header"])


def model_tensors(path: Path) -> Tensors:
    """A checkpoint's parameters and buffers, by the model's own names."""
    return _part(_read(path) | _frozen(path), "model.")


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
        StudyError: names or shapes differ from the model's, or the checkpoint belongs to another frozen encoder.
    """
    written = load_header(path).get("frozen")
    if written != frozen:
        raise StudyError(
            f"{path}: written with the frozen encoder {written}, and this one is {frozen}: its weights file has "
            "changed, or another version of torch or timm draws other random weights; use the versions in "
            "provenance.json, or train again"
        )
    tensors = _read(path)
    held = {k: v for k, v in model.state_dict().items() if frozen and k.startswith(_ENCODER)}
    _fill(model, _part(tensors, "model.") | held, path)
    state: dict[int, Tensors] = {}
    for name, tensor in _part(tensors, "optimiser.").items():
        index, _, key = name.partition(".")
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


def _read(path: Path) -> Tensors:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _fill(model: nn.Module, tensors: Tensors, path: Path) -> None:
    found, expected = _shapes(tensors), _shapes(model.state_dict())
    wrong = [name for name in expected | found if found.get(name) != expected.get(name)]
    if wrong:
        raise StudyError(
            f"{path}: {len(wrong)} tensors differ from the model's; the first, {wrong[0]}, has shape "
            f"{found.get(wrong[0], 'none')} instead of {expected.get(wrong[0], 'none')}: it was written for "
            "another model; give the run folder of this Experiment"
        )
    model.load_state_dict(tensors)


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _unreadable(path: Path, error: Exception) -> StudyError:
    return StudyError(f"{path}: not a readable checkpoint ({error}); train again or give another run")


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _pack(tensors: Tensors, header: dict[str, Any]) -> bytes:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, metadata={"header": json.dumps(header)})
