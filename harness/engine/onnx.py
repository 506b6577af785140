"""A trained run as one ONNX file that takes pixels and gives logits, checked against PyTorch before it is kept.

Normalisation and the last resize are inside, so that nothing is left to repeat, or to get wrong, where it is used.
"""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from harness.engine.inference import class_logits, normalise
from harness.engine.trained import Trained
from harness.errors import ModelError
from harness.store import provenance

#: the version of ONNX's operators: the first with every one that our models need, and understood widest
OPSET = 18
#: largest difference of a logit, as a share of the largest logit: float32 sums in another order stay far below
TOLERANCE = 1e-4
#: what stands for -inf in classes of `evaluation.suppress`: resizing -inf would make nan
SUPPRESSED = -1e4
#: frames of noise in one batch, beside the real one in a batch of its own
_NOISE = 3
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class Parity(NamedTuple):
    """How far onnxruntime was from PyTorch on random frames and a real one.

    `difference` is the largest of any logit, `scale` the largest logit; at `ties` of the `pixels` the class
    differs, each time between two logits that PyTorch holds for equal within the tolerance.
    """

    difference: float
    scale: float
    pixels: int
    ties: int


class PixelsToLogits(nn.Module):
    """What is exported; uint8 RGB (N 3 H W), at the input size -> float32 logits (N C H W)."""

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = trained.model.encoder, trained.model.decoder, trained.model.head
        # normalising is one product and one sum, read from the function itself: its numbers stand in one place
        low, high = (
            normalise(torch.full((1, 3, 1, 1), value, dtype=torch.uint8), trained.experiment.data.normalise)
            for value in (0, 255)
        )
        self.register_buffer("low", low)
        self.register_buffer("step", (high - low) / 255)
        self.size = trained.experiment.data.input_size
        self.suppressed = _suppressed(trained)

    def forward(self, images: Tensor) -> Tensor:
        # not through the model's stem, which takes images one by one on a CPU: that would fix the batch
        logits = self.head(self.decoder(self.encoder(images.float() * self.step + self.low)))
        logits = F.interpolate(logits, size=self.size, mode="bilinear", align_corners=False)
        if self.suppressed:
            logits = logits.index_fill(1, torch.tensor(self.suppressed), SUPPRESSED)
        return logits


def check_onnx() -> None:
    """Refuse early where the packages that write and check an ONNX file are missing.

    Raises:
        ModelError: with the command that installs them.
    """
    for name in _PACKAGES:
        _package(name)


def export_onnx(trained: Trained, path: Path, frame: NDArray[np.uint8]) -> Parity:
    """Write a trained run as an ONNX file and compare it with PyTorch; the file is there only where they agree.

    The graph: `images` uint8 (N 3 H W), RGB at the input size, any N -> `logits` float32 (N C H W). Weights above
    2 GB lie beside it, in PATH.data. Class names and the rest are in the file's metadata.

    Args:
        frame: a real frame, RGB uint8 (h w 3) of any size, to compare on.

    Raises:
        ModelError: a missing package, a model that cannot be exported, or one that gives other logits there.
    """
    check_onnx()
    if trained.experiment.evaluation.batchnorm == "batch":
        raise ModelError(
            "evaluation.batchnorm batch normalises by the batch at hand, and an ONNX graph holds stored statistics; "
            "export a run with evaluation.batchnorm: stored"
        )
    trained = trained._replace(model=_eager_copy(trained.model))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as unfinished:
        # under its own name: a file of weights beside it is found by that
        file = Path(unfinished) / path.name
        _write(trained, file)
        parity = check_parity(trained, file, frame)
        for written in sorted(file.parent.iterdir()):
            written.replace(path.parent / written.name)
    return parity


def check_parity(trained: Trained, file: Path, frame: NDArray[np.uint8]) -> Parity:
    """Compare an ONNX file with the model that it was made from, on the CPU, on noise and on a frame.

    Raises:
        ModelError: logits differ by more than the tolerance, or a class does where it is no tie.
    """
    height, width = trained.experiment.data.input_size
    session = _session(file)
    noise = np.random.default_rng(0).integers(0, 256, (_NOISE, 3, height, width), np.uint8)
    real = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)[None]
    found = [
        _compare(_eager(trained, batch), session.run(None, {"images": batch})[0], _suppressed(trained))
        for batch in (noise, np.ascontiguousarray(real))
    ]
    return Parity(
        max(p.difference for p in found),
        max(p.scale for p in found),
        sum(p.pixels for p in found),
        sum(p.ties for p in found),
    )


def metadata(trained: Trained) -> dict[str, str]:
    """What the file says of itself, by key: lists as JSON."""
    height, width = trained.experiment.data.input_size
    source = provenance()
    return {
        "input": f"images: uint8 (N, 3, {height}, {width}), RGB, 0-255, the frame resized bilinearly; "
        f"normalisation ({trained.experiment.data.normalise}) is inside",
        "output": f"logits: float32 (N, {len(trained.taxonomy.names)}, {height}, {width}); "
        "the class of a pixel is the argmax over axis 1",
        "classes": json.dumps(trained.taxonomy.names),
        "raw_ids": json.dumps(trained.taxonomy.ids),
        "colours": json.dumps(trained.taxonomy.colours.tolist()),
        "suppressed": json.dumps(trained.experiment.evaluation.suppress),
        "epoch": str(trained.epoch),
        "validation_score": repr(trained.score),
        "harness": f"{source['packages']['harness'] or 'not installed'}, commit {source['commit'] or 'unknown'}",
    }


def _eager_copy(model: nn.Module) -> nn.Module:
    """The model on the CPU, without what torch.compile made of it or of its parts: deepcopy leaves that behind."""
    return copy.deepcopy(getattr(model, "_orig_mod", model)).cpu().eval()


def _write(trained: Trained, file: Path) -> None:
    height, width = trained.experiment.data.input_size
    example = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            # torch's own, about its own
            warnings.filterwarnings("ignore", r".*is deprecated.*", FutureWarning)
            program = torch.onnx.export(
                PixelsToLogits(trained).eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        first = next(iter(str(error).strip().splitlines()), "no reason given")
        raise ModelError(
            f"PyTorch {torch.__version__} cannot export this model to ONNX: {first}; export without --onnx, or train "
            "another backbone or decoder"
        ) from error
    program.model.metadata_props.update(metadata(trained))
    program.save(file)


def _eager(trained: Trained, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits as validation computes them, but in float32: the graph knows no autocast."""
    training = trained.experiment.training.model_copy(update={"precision": "fp32"})
    experiment = trained.experiment.model_copy(update={"training": training})
    size = experiment.data.input_size
    return class_logits(trained.model, torch.from_numpy(images), size, experiment).numpy()


def _suppressed(trained: Trained) -> list[int]:
    return [trained.taxonomy.names.index(name) for name in trained.experiment.evaluation.suppress]


def _compare(eager: NDArray, onnx: NDArray, suppressed: list[int]) -> Parity:
    """Two arrays of logits (N C H W), without the suppressed classes."""
    eager, onnx = (np.delete(logits, suppressed, axis=1).astype(np.float64) for logits in (eager, onnx))
    scale, difference = float(np.abs(eager).max()), float(np.abs(eager - onnx).max())
    # written so that nan fails
    if not difference <= TOLERANCE * scale:
        raise ModelError(
            f"the ONNX file gives other logits than PyTorch: they differ by up to {difference:.3g}, "
            f"{difference / scale if scale else float('inf'):.2g} of the largest ({scale:.3g}), and {TOLERANCE:g} is "
            "allowed; nothing was written. Other versions of torch and onnxruntime may agree, or export without --onnx"
        )
    chosen, wanted = onnx.argmax(1)[:, None], eager.argmax(1)[:, None]
    lead = np.take_along_axis(eager, wanted, 1) - np.take_along_axis(eager, chosen, 1)
    if (lead > TOLERANCE * scale).any():
        raise ModelError(
            f"the ONNX file gives another class than PyTorch at {int((lead > TOLERANCE * scale).sum())} of {lead.size} "
            "pixels that are no tie; nothing was written. Export without --onnx"
        )
    return Parity(difference, scale, lead.size, int((chosen != wanted).sum()))


def _session(file: Path) -> Any:
    onnxruntime = _package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(f"an ONNX file needs the package {name} ({error}); pip install 'harness[onnx]'") from error
