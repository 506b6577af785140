"""Checkpoints that are none: each is refused with its name, and nothing in them is run."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from harness.config import Experiment, Trial, apply_overrides, validate_section
from harness.config.model import TorchvisionModel
from harness.engine.checkpoint import load_header, load_state, load_weights, pack_weights
from harness.engine.start import load_start, start_path
from harness.engine.trained import open_run
from harness.errors import ModelError, StudyError
from harness.models import build_model
from harness.models.whole import build_torchvision
from harness.store import RunFolder

CPU = torch.device("cpu")
EXPERIMENT = validate_section(
    Experiment,
    {
        "data": {"synthetic": {"train": 2, "val": 1, "test": 1, "height": 32, "width": 48}, "input_size": [32, 48]},
        "model": {"kind": "backbone", "backbone": "test_efficientnet", "weights": "none", "trainable_blocks": "all",
                  "stride": 8, "head": {"kind": "linear"}},
    },
    "tiny",
)  # fmt: skip
HEADER = {"epoch": 1, "score": 0.5}
WEIGHT = "model.head.weight"


class Payload:
    """What a pickle runs when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def packed() -> bytes:
    torch.manual_seed(0)
    return pack_weights(build_model(EXPERIMENT.model, 10), HEADER)


@pytest.fixture
def run(tmp_path: Path, packed: bytes) -> RunFolder:
    """A run with its best weights, beside which other runs may lie."""
    folder = RunFolder(tmp_path / "study" / "runs" / "one-s0")
    folder.create(Trial(EXPERIMENT, 0))
    folder.best.write_bytes(packed)
    return folder


def repacked(packed: bytes, change: Callable[[dict[str, torch.Tensor]], object], header: Any = HEADER) -> bytes:
    tensors = load(packed)
    change(tensors)
    return save(tensors, metadata={"header": header if isinstance(header, str) else json.dumps(header)})


def raw(header: bytes, length: int | None = None, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def refuse(run: RunFolder, message: str) -> None:
    """Every reader says the same of it."""
    model = build_model(EXPERIMENT.model, 10)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(StudyError, match=message):
        open_run(run, CPU)
    with pytest.raises(StudyError):
        load_header(run.best)
        load_weights(run.best, model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_untouched_one_opens(run: RunFolder) -> None:
    assert open_run(run, CPU)[3:] == (1, 0.5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        raw(b"{}", length=100 << 30),
        raw(b"{}", length=2**64 - 1),
        raw(b"not json"),
        raw(b"[]"),
        raw(b"{" * 5000),
        raw(b'{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4000000000000]}}'),
        raw(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}', body=b"\0" * 4),
        raw(b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', body=b"\0" * 4),
        raw(b'{"a": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 4]}}', body=b"\0" * 4),
        raw(b'{"__metadata__": {"header": 3}}'),
        b"\x80\x04\x95" + b"x" * 100,
        b"PK\x03\x04" + b"\0" * 100,
    ],
    ids=lambda c: c[8:30].decode(errors="replace").strip("\0") or "empty",
)
def test_a_file_that_is_none_is_refused(run: RunFolder, content: bytes) -> None:
    run.best.write_bytes(content)
    refuse(run, r"best\.safetensors: (not a readable checkpoint|has no header)")


@pytest.mark.parametrize(
    "header", ["not json", "[]", "3", "null", '"text"', "[" * 100_000, "{}", '{"epoch": "1", "score": null}']
)
def test_a_header_that_is_not_ours_is_refused(run: RunFolder, packed: bytes, header: str) -> None:
    run.best.write_bytes(repacked(packed, lambda tensors: None, header))
    with pytest.raises(StudyError, match=r"best\.safetensors: (not a readable|has no header|does not name its epoch)"):
        open_run(run, CPU)


def test_more_keys_in_the_header_change_nothing(run: RunFolder, packed: bytes) -> None:
    more = HEADER | {"__class__": "os.system", "model": {"kind": "x"}, "experiment": {}}
    run.best.write_bytes(repacked(packed, lambda tensors: None, more))
    assert open_run(run, CPU)[3:] == (1, 0.5)


@pytest.mark.parametrize("checksum", [3, "", "x" * 1000, None, ["a"], "ffffffff"])
def test_a_checksum_of_another_kind_is_refused(run: RunFolder, packed: bytes, checksum: object) -> None:
    run.best.write_bytes(repacked(packed, lambda tensors: None, {"crc32": checksum} | HEADER))
    refuse(run, r"best\.safetensors: not a readable checkpoint")


@pytest.mark.parametrize("kind", [torch.float64, torch.int8, torch.bfloat16, torch.bool, torch.int64])
def test_weights_of_another_type_are_refused_because_they_would_be_rounded(
    run: RunFolder, packed: bytes, kind: torch.dtype
) -> None:
    run.best.write_bytes(repacked(packed, lambda t: t.update({WEIGHT: t[WEIGHT].to(kind)})))
    refuse(run, rf"best\.safetensors: 1 tensors are of another type .* head\.weight, {kind}")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(run: RunFolder, packed: bytes, value: float) -> None:
    run.best.write_bytes(repacked(packed, lambda t: t[WEIGHT].view(-1)[0].fill_(value)))
    refuse(run, r"best\.safetensors: tensor head\.weight holds inf or nan")


def test_tensors_that_are_missing_of_another_shape_or_too_many_are_refused(run: RunFolder, packed: bytes) -> None:
    for change in (
        lambda t: t.pop(WEIGHT),
        lambda t: t.update({WEIGHT: t[WEIGHT][:3].contiguous()}),
        lambda t: t.update({"model.more": torch.zeros(1)}),
    ):
        run.best.write_bytes(repacked(packed, change))
        refuse(run, r"best\.safetensors: 1 tensors differ from the model's")


@pytest.mark.parametrize(
    "digest", ["../../../elsewhere", "/etc/passwd", "..", "a/b", "a\0b", "a\nb", "x" * 300, 3, ["a"], {"a": 1}, True]
)
def test_a_frozen_encoder_outside_the_study_is_not_looked_for(
    run: RunFolder, packed: bytes, monkeypatch: pytest.MonkeyPatch, digest: object
) -> None:
    outside = run.path.parents[2] / "elsewhere.safetensors"
    outside.write_bytes(packed)
    run.best.write_bytes(repacked(packed, lambda tensors: None, HEADER | {"frozen": digest}))
    refuse(run, "cannot be the name of a study or of something in it")


def test_a_pickle_by_the_name_of_a_checkpoint_is_refused_and_not_run(run: RunFolder, tmp_path: Path) -> None:
    for write in (
        lambda p: p.write_bytes(pickle.dumps(Payload(tmp_path / "ran"), protocol=2)),
        lambda p: torch.save(Payload(tmp_path / "ran"), p),
    ):
        write(run.best)
        refuse(run, r"best\.safetensors: not a readable checkpoint")
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["start.pt", "start.pth", "start.bin", "start.safetensors"])
def test_a_pickle_to_start_from_is_refused_and_not_run(run: RunFolder, tmp_path: Path, name: str) -> None:
    torch.save({"model.head.weight": Payload(tmp_path / "ran")}, tmp_path / name)
    trial = Trial(apply_overrides(EXPERIMENT, {"start": [str(tmp_path / name)]}), 0)
    with pytest.raises(StudyError, match=rf"{name}: not a readable checkpoint"):
        load_start(build_model(EXPERIMENT.model, 10), trial, run)
    with pytest.raises(ModelError, match="weights .*start"):
        build_model(EXPERIMENT.model.model_copy(update={"weights": str(tmp_path / name)}), 10)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_in_the_place_of_the_librarys_weights_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "deeplab.pth"
    config = TorchvisionModel(name="deeplabv3_resnet50", weights="none")
    for write in (
        lambda: torch.save({"a": Payload(tmp_path / "ran")}, path),
        lambda: path.write_bytes(pickle.dumps(Payload(tmp_path / "ran"), protocol=2)),
        lambda: path.write_bytes(b""),
        lambda: torch.save([1, 2], path),
    ):
        write()
        with pytest.raises(ModelError, match=r"deeplab\.pth: no file of tensors alone .* remove it"):
            build_torchvision(config, 10, path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("start", ["run:../../../elsewhere", "run:/etc/x", "run:a/b", "run:a\nb"])
def test_a_run_to_start_from_is_one_of_the_same_study(run: RunFolder, packed: bytes, start: str) -> None:
    outside = RunFolder(run.path.parents[2] / "elsewhere-s0")
    outside.path.mkdir()
    outside.best.write_bytes(packed)
    with pytest.raises(StudyError, match="cannot be the name of a study or of something in it: "):
        start_path(start, Trial(EXPERIMENT, 0), run)


def test_state_of_no_optimiser_is_refused(run: RunFolder, packed: bytes) -> None:
    model = build_model(EXPERIMENT.model, 10)
    optimiser = torch.optim.AdamW(model.parameters())
    run.last.write_bytes(repacked(packed, lambda t: t.update({"optimiser.x.exp_avg": torch.zeros(1)})))
    with pytest.raises(StudyError, match=r"last\.safetensors: 'optimiser\.x\.exp_avg' is no state of an optimiser"):
        load_state(run.last, model, optimiser)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=64), st.integers(0, 500), st.booleans())
def test_any_bytes_anywhere_in_the_head_of_a_checkpoint_open_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, packed: bytes, data: bytes, at: int, cut: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "some.safetensors"
    path.write_bytes(packed[:at] + data + (b"" if cut else packed[at + len(data) :]))
    try:
        load_weights(path, build_model(EXPERIMENT.model, 10))
    except StudyError as error:
        assert str(error).startswith(str(path))
