"""The ONNX file against PyTorch, for each head and kind of model; onnxruntime and the reference are called here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from harness.config import Experiment
from harness.data import build_taxonomy, read_image, render_frame
from harness.engine import onnx as exporter
from harness.engine.onnx import OPSET, SUPPRESSED, TOLERANCE, check_onnx, export_onnx
from harness.engine.trained import Trained
from harness.errors import ModelError
from harness.models import build_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SIZE = (48, 64)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def vit(head: dict[str, Any], trainable: int | str) -> dict[str, Any]:
    return {"kind": "backbone", "backbone": "test_vit", "weights": "none", "trainable_blocks": trainable, "head": head}


UNET = {"kind": "smp", "decoder": "Unet", "encoder": "tu-test_resnet", "weights": "none"}
# frozen, split (its first blocks frozen) and whole, each head once
MODELS = {
    "frozen_vit_linear": vit({"kind": "linear"}, 0),
    "split_vit_convnext_style": vit({"kind": "convnext_style", "channels": 8}, 1),
    "whole_vit_upernet_style": vit({"kind": "upernet_style", "channels": 32}, "all"),
    "split_vit_conv_stack": vit({"kind": "conv_stack", "channels": 8}, 2),
    "unet": UNET,
}


@pytest.fixture
def trained(experiment: Callable[..., Experiment]) -> Callable[..., Trained]:
    def build(model: dict[str, Any], **more: Any) -> Trained:
        what = experiment({"model": model, "data.input_size": list(SIZE)} | more)
        torch.manual_seed(0)
        return Trained(what, build_taxonomy(what.taxonomy), build_model(what.model, 10).eval(), epoch=2, score=0.25)

    return build


@pytest.fixture
def frame() -> np.ndarray:
    return render_frame("train", 0, 54, 96)[0]


def reference(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """Logits (N C H W) of uint8 (N 3 H W), normalised here by hand."""
    pixels = (images / 255 - MEAN[:, None, None]) / DEVIATION[:, None, None]
    with torch.inference_mode():
        logits = model(torch.from_numpy(pixels.astype(np.float32)))
        return F.interpolate(logits, size=SIZE, mode="bilinear", align_corners=False).numpy()


def run(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize("name", MODELS)
def test_the_file_gives_the_logits_of_the_model_for_any_number_of_images(
    trained: Callable[..., Trained], frame: np.ndarray, tmp_path: Path, name: str
) -> None:
    model = trained(MODELS[name])

    parity = export_onnx(model, tmp_path / "model.onnx", frame)

    assert parity.pixels == 4 * SIZE[0] * SIZE[1]
    assert 0 < parity.difference <= TOLERANCE * parity.scale
    for number in (1, 5):
        images = np.random.default_rng(number).integers(0, 256, (number, 3, *SIZE), np.uint8)
        expected = reference(model.model, images)
        np.testing.assert_allclose(run(tmp_path / "model.onnx", images), expected, atol=1e-4 * np.abs(expected).max())
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_the_file_says_what_it_takes_and_which_classes_it_gives(
    trained: Callable[..., Trained], frame: np.ndarray, tmp_path: Path
) -> None:
    model = trained(UNET, **{"data.normalise": "unit", "evaluation.suppress": ["Logs", "Sky"]})

    export_onnx(model, tmp_path / "model.onnx", frame)

    file = onnx.load(tmp_path / "model.onnx")
    about = {entry.key: entry.value for entry in file.metadata_props}
    assert [entry.version for entry in file.opset_import if not entry.domain] == [OPSET]
    assert json.loads(about["classes"])[:2] == ["Trees", "Lush Bushes"] and json.loads(about["raw_ids"])[-1] == 10000
    assert json.loads(about["suppressed"]) == ["Logs", "Sky"]
    assert "uint8 (N, 3, 48, 64)" in about["input"] and "unit" in about["input"]
    assert (about["epoch"], about["validation_score"]) == ("2", "0.25")
    images = np.random.default_rng(0).integers(0, 256, (2, 3, *SIZE), np.uint8)
    logits = run(tmp_path / "model.onnx", images)
    assert (logits[:, [6, 9]] == SUPPRESSED).all() and (np.delete(logits, [6, 9], 1) > SUPPRESSED / 10).all()
    with torch.inference_mode():
        expected = model.model(torch.from_numpy(images / np.float32(255))).numpy()
    np.testing.assert_allclose(logits[:, :6], expected[:, :6], atol=1e-4 * np.abs(expected).max())


def test_a_compiled_model_is_exported_as_it_was_before(
    trained: Callable[..., Trained], tmp_path: Path, falcon_frames: Path
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("compiled code was asked for")

    model = trained(vit({"kind": "linear"}, "all"))
    model.model.decoder.compile(backend=refuse)
    model.model.head.compile(backend=refuse)
    whole = model._replace(model=torch.compile(model.model, backend=refuse))
    real = read_image(next((falcon_frames / "val" / "Color_Images").iterdir()))

    parity = export_onnx(whole, tmp_path / "model.onnx", real)

    assert 0 < parity.difference <= TOLERANCE * parity.scale


def test_other_logits_are_an_error_and_leave_no_file(
    trained: Callable[..., Trained], frame: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = exporter._write

    def write_another(model: Trained, file: Path) -> None:
        with torch.no_grad():
            model.model.head[0].bias[3] += 1e-2
            write(model, file)
            model.model.head[0].bias[3] -= 1e-2

    monkeypatch.setattr(exporter, "_write", write_another)
    with pytest.raises(ModelError, match=r"gives other logits than PyTorch: they differ by up to 0\.01, .* of the lar"):
        export_onnx(trained(UNET), tmp_path / "model.onnx", frame)
    assert list(tmp_path.iterdir()) == []


def test_a_class_may_differ_only_where_pytorch_holds_two_for_equal() -> None:
    # two classes, three pixels: apart, equal to five digits, apart
    eager = np.array([[1.0, 0.50000, 0.2], [0.0, 0.50001, 0.9]], np.float32).reshape(1, 2, 1, 3)
    tie = np.array([[1.0, 0.50001, 0.2], [0.0, 0.50000, 0.9]], np.float32).reshape(1, 2, 1, 3)

    parity = exporter._compare(eager, tie, [])

    assert (parity.pixels, parity.ties, parity.scale) == (3, 1, 1.0)
    assert parity.difference == pytest.approx(1e-5, rel=0.01)
    assert exporter._compare(eager, eager, []).ties == 0
    # 0.00014 apart: each logit is within the tolerance, the choice between them is not
    eager[0, :, 0, 1], tie[0, :, 0, 1] = (0.50000, 0.50014), (0.50008, 0.50006)
    with pytest.raises(ModelError, match="another class than PyTorch at 1 of 3 pixels that are no tie"):
        exporter._compare(eager, tie, [])
    with pytest.raises(ModelError, match="other logits"):
        exporter._compare(eager, np.full_like(eager, np.nan), [])


def test_a_suppressed_class_does_not_widen_the_tolerance() -> None:
    eager = np.array([0.5, 1.0, SUPPRESSED]).reshape(1, 3, 1, 1)
    other = np.array([0.6, 1.0, SUPPRESSED]).reshape(1, 3, 1, 1)
    with pytest.raises(ModelError, match="differ by up to 0.1"):
        exporter._compare(eager, other, [2])


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(wanted: str) -> None:
        if wanted == name:
            raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(exporter, "import_module", missing)
    with pytest.raises(ModelError, match=rf"needs the package {name} .*; pip install 'harness\[onnx\]'"):
        check_onnx()


def test_statistics_of_the_batch_at_hand_cannot_be_exported(
    trained: Callable[..., Trained], frame: np.ndarray, tmp_path: Path
) -> None:
    model = trained(UNET, **{"evaluation.batchnorm": "batch"})
    with pytest.raises(ModelError, match="export a run with evaluation.batchnorm: stored"):
        export_onnx(model, tmp_path / "model.onnx", frame)
