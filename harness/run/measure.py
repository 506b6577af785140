"""What one trial takes, measured on a single step of each model and size before the first trial starts."""

from __future__ import annotations

import math
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from harness.config import Experiment
from harness.data import build_taxonomy
from harness.engine.inference import class_logits, forward
from harness.engine.optimiser import build_optimiser
from harness.errors import StudyError
from harness.losses import build_loss
from harness.models import build_model
from harness.run.worker import pick_device

#: what a GPU loses to CUDA itself and to memory in pieces, beside the peak that torch counts: MB and share
_CONTEXT_MB, _MARGIN = 700, 1.1
_STEPS = 3


class Measured(NamedTuple):
    """One model at one size: parameters, milliseconds of a training step per image, peak memory in MB (10^6 bytes).

    The peak is None where the step did not fit, and nan on a CPU, where nothing tells it.
    """

    parameters: int
    milliseconds: float
    peak_memory_mb: float | None


def measure_all(experiments: Sequence[Experiment], threads: int) -> list[Measured]:
    """One measurement for each Experiment, in a process of its own, so that its memory is given back."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        process.submit(torch.set_num_threads, threads).result()
        return list(process.map(measure, experiments))


def measure(experiment: Experiment) -> Measured:
    """Train a few steps on random pixels of the input size, and score one batch as validation does."""
    device = pick_device()
    classes = len(build_taxonomy(experiment.taxonomy).names)
    model = build_model(experiment.model.model_copy(update={"weights": "none"}), classes).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    try:
        seconds = _steps(model, experiment, classes, device)
        _validation(model, experiment, device)
    except torch.OutOfMemoryError:
        return Measured(parameters, math.nan, None)
    return Measured(parameters, 1000 * seconds / experiment.training.batch_size, _peak(device))


def gpu_share(peak_memory_mb: float, gpu_memory_mb: float) -> float:
    """The share of one GPU that a trial needs: 1/k for the largest k of them that fit together.

    Raises:
        StudyError: not even one fits.
    """
    needed = peak_memory_mb * _MARGIN + _CONTEXT_MB
    together = math.floor(gpu_memory_mb / needed)
    if together < 1:
        raise StudyError(
            f"a trial needs {needed:.0f} MB of GPU memory ({peak_memory_mb:.0f} measured, with margin), and the GPU "
            f"has {gpu_memory_mb:.0f}: lower training.batch_size (raise training.accumulation instead) or "
            "data.input_size, or use training.precision bf16"
        )
    # rounded down, so that k shares never exceed one GPU
    return math.floor(1e4 / together) / 1e4


def _steps(model: torch.nn.Module, experiment: Experiment, classes: int, device: torch.device) -> float:
    """Seconds of one step, the first left out."""
    names = build_taxonomy(experiment.taxonomy).names
    loss = build_loss(experiment.loss, np.ones(classes), names).to(device)
    optimiser = build_optimiser(experiment.optimiser, model)
    images = _images(experiment, experiment.training.batch_size, device)
    truth = torch.randint(0, classes, (len(images), *experiment.data.input_size), device=device)
    seconds = []
    for _ in range(_STEPS):
        _wait(device)
        started = time.perf_counter()
        logits = forward(model, images, experiment)
        loss(logits, truth)[0].backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _validation(model: torch.nn.Module, experiment: Experiment, device: torch.device) -> None:
    size = experiment.data.input_size
    if experiment.evaluation.raster == "native" and experiment.data.root is None:
        size = (experiment.data.synthetic.height, experiment.data.synthetic.width)
    model.eval()
    images = _images(experiment, experiment.evaluation.batch_size, device)
    class_logits(model, images, size, experiment).argmax(1)
    _wait(device)


def _images(experiment: Experiment, count: int, device: torch.device) -> torch.Tensor:
    shape = (count, 3, *experiment.data.input_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 1e6
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    return math.nan
