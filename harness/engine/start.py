"""Weights to start from: another run of the study, or a checkpoint file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from harness.config import Trial
from harness.engine.checkpoint import load_header, model_tensors
from harness.errors import StudyError
from harness.losses import resize_logits
from harness.store import RunFolder, checked_name

_RUN = "run:"
#: the only part of a model that may stay random, where the number of classes differs
_HEAD = "head."


def load_start(model: nn.Module, trial: Trial, run: RunFolder) -> bool:
    """Copy starting weights into a model; True if every layer got them.

    Raises:
        StudyError: weights that are missing, or that do not fit outside the head.
    """
    start = trial.experiment.start
    if len(start) != 1:
        return False
    path = start_path(start[0], trial, run)
    load_header(path)
    given, wanted = model_tensors(path), model.state_dict()
    fitting = {name: tensor for name, tensor in given.items() if _fits(tensor, wanted.get(name))}
    missing = [name for name in wanted if name not in fitting]
    wrong = [name for name in missing if not name.startswith(_HEAD)]
    if wrong:
        raise StudyError(
            f"start {start[0]}: {len(wrong)} of {len(wanted)} tensors of the model have no match there, first "
            f"'{wrong[0]}'; only the head may differ: start from a run of the same backbone and head"
        )
    # a head of other classes is dropped whole: half of one would be neither old nor new
    kept = {name: t for name, t in fitting.items() if not (missing and name.startswith(_HEAD))}
    model.load_state_dict(kept, strict=False)  # what is left out was just checked to be the head
    return not missing


def start_path(start: str, trial: Trial, run: RunFolder) -> Path:
    """The checkpoint that `start` names: `run:FINGERPRINT` is the run of the same seed beside this one.

    Raises:
        StudyError: it is not there.
    """
    beside = checked_name(f"{start.removeprefix(_RUN)}-s{trial.seed}") if start.startswith(_RUN) else None
    path = Path(start) if beside is None else run.path.parent / beside
    path = RunFolder(path).best if path.is_dir() else path
    if not path.is_file():
        raise StudyError(
            f"start {start}: there are no weights at {path}; train that run first, or give a checkpoint file. "
            "Nothing is started from random weights in its place"
        )
    return path


class Ensemble(nn.Module):
    """The mean of the members' logits, each resized to the input (N 3 H W -> N C H W)."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        size = (images.shape[-2], images.shape[-1])
        return torch.stack([resize_logits(member(images), size) for member in self.members]).mean(0)


def _fits(tensor: Tensor, wanted: Tensor | None) -> bool:
    return wanted is not None and tensor.shape == wanted.shape and tensor.dtype == wanted.dtype
