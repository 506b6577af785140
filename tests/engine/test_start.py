"""Weights to start from, one run or several: what is taken over, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from harness.config import Experiment, Trial, fingerprint
from harness.engine.checkpoint import pack_weights
from harness.engine.start import Ensemble, load_start, start_path
from harness.errors import StudyError
from harness.models import build_model
from harness.store import RunFolder, write_bytes

Build = Callable[..., Experiment]
UPERNET = {"model.head": {"kind": "upernet_style", "channels": 32}}


def _model(experiment: Experiment, classes: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(experiment.model, classes)


def _saved(path: Path, experiment: Experiment, classes: int = 4, seed: int = 1) -> nn.Module:
    """A model of random weights, saved as the best of a run folder."""
    path.mkdir(parents=True)
    model = _model(experiment, classes, seed)
    write_bytes(RunFolder(path).best, pack_weights(model, {"epoch": 1}))
    return model


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _part(model: nn.Module, part: str) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith(f"{part}.")}


def _trial(experiment: Build, start: list[str], **overrides: Any) -> Trial:
    return Trial(experiment(UPERNET | {"start": start} | overrides), 3)


def test_without_a_start_a_model_keeps_its_random_weights(experiment: Build, tmp_path: Path) -> None:
    whole = experiment()
    model = _model(whole, 4, seed=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    assert load_start(model, Trial(whole, 0), RunFolder(tmp_path)) is False
    assert _same(model.state_dict(), before)


def test_weights_of_the_same_shape_fill_every_layer_and_every_buffer(experiment: Build, tmp_path: Path) -> None:
    given = _saved(tmp_path / "given", experiment(UPERNET))
    with torch.no_grad():
        given.encoder.train()(torch.rand(2, 3, 32, 48))  # statistics of BatchNorm that are not those of the beginning
    write_bytes(tmp_path / "given" / "best.safetensors", pack_weights(given, {"epoch": 1}))
    model = _model(experiment(UPERNET), 4, seed=2)

    assert load_start(model, _trial(experiment, [str(tmp_path / "given")]), RunFolder(tmp_path / "run")) is True
    assert _same(model.state_dict(), given.state_dict())


def test_a_head_of_other_classes_is_dropped_whole_and_the_rest_is_taken(experiment: Build, tmp_path: Path) -> None:
    given = _saved(tmp_path / "given", experiment(UPERNET), classes=4)
    model = _model(experiment(UPERNET), 7, seed=2)
    head = _part(model, "head")

    assert load_start(model, _trial(experiment, [str(tmp_path / "given")]), RunFolder(tmp_path / "run")) is False

    assert _same(_part(model, "encoder"), _part(given, "encoder"))
    assert _same(_part(model, "decoder"), _part(given, "decoder"))
    # not even a tensor of the head that would fit: half of one is neither old nor new
    assert _same(_part(model, "head"), head)


def test_a_head_whose_bias_alone_would_fit_stays_random_as_a_whole(experiment: Build, tmp_path: Path) -> None:
    given = _saved(tmp_path / "given", experiment(UPERNET))
    narrow = {**given.state_dict(), "head.weight": torch.zeros(4, 8, 1, 1)}
    path = tmp_path / "narrow.safetensors"
    save_file({f"model.{name}": tensor for name, tensor in narrow.items()}, path, {"header": "{}"})
    model = _model(experiment(UPERNET), 4, seed=2)
    head = _part(model, "head")

    assert load_start(model, _trial(experiment, [str(path)]), RunFolder(tmp_path / "run")) is False
    assert _same(_part(model, "head"), head)


def test_weights_of_another_backbone_are_refused_with_the_first_layer_that_has_no_match(
    experiment: Build, tmp_path: Path
) -> None:
    _saved(tmp_path / "given", experiment({"model.backbone": "test_convnext", "model.stride": None} | UPERNET))
    model = _model(experiment(UPERNET), 4, seed=2)

    with pytest.raises(StudyError, match=r"tensors of the model have no match there, first 'encoder\..*only the head"):
        load_start(model, _trial(experiment, [str(tmp_path / "given")]), RunFolder(tmp_path / "run"))


def test_another_decoder_is_refused_too(experiment: Build, tmp_path: Path) -> None:
    _saved(tmp_path / "given", experiment())
    model = _model(experiment(UPERNET), 4, seed=2)

    with pytest.raises(StudyError, match=r"first 'decoder\."):
        load_start(model, _trial(experiment, [str(tmp_path / "given")]), RunFolder(tmp_path / "run"))


def test_a_run_is_the_one_of_the_same_seed_beside_this_one(experiment: Build, tmp_path: Path) -> None:
    digits = fingerprint(experiment(UPERNET))
    for seed in (3, 4):
        _saved(tmp_path / f"{digits}-s{seed}", experiment(UPERNET), seed=seed)
    trial = _trial(experiment, [f"run:{digits}"])

    path = start_path(f"run:{digits}", trial, RunFolder(tmp_path / trial.id))

    assert path == tmp_path / f"{digits}-s3" / "best.safetensors"
    model = _model(experiment(UPERNET), 4, seed=9)
    assert load_start(model, trial, RunFolder(tmp_path / trial.id)) is True
    assert _same(model.state_dict(), _model(experiment(UPERNET), 4, seed=3).state_dict())


@pytest.mark.parametrize("name", ["best.safetensors", ""])
def test_a_checkpoint_file_and_its_folder_name_the_same_weights(experiment: Build, tmp_path: Path, name: str) -> None:
    _saved(tmp_path / "given", experiment(UPERNET))

    path = start_path(str(tmp_path / "given" / name), _trial(experiment, ["x"]), RunFolder(tmp_path / "run"))

    assert path == tmp_path / "given" / "best.safetensors"


@pytest.mark.parametrize("start", ["run:0123456789ab", "nowhere/best.safetensors"])
def test_weights_that_are_not_there_are_an_error_and_never_random_ones(
    experiment: Build, tmp_path: Path, start: str
) -> None:
    model = _model(experiment(UPERNET), 4, seed=2)

    with pytest.raises(StudyError, match=f"start {start}: there are no weights at .*Nothing is started from random"):
        load_start(model, _trial(experiment, [start]), RunFolder(tmp_path / "run"))


def test_a_run_without_a_finished_epoch_has_no_weights_yet(experiment: Build, tmp_path: Path) -> None:
    (tmp_path / "0123456789ab-s3").mkdir()

    with pytest.raises(StudyError, match=r"there are no weights at .*0123456789ab-s3/best\.safetensors"):
        start_path("run:0123456789ab", _trial(experiment, ["x"]), RunFolder(tmp_path / "run"))


def test_a_file_of_another_program_is_refused(experiment: Build, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file(_model(experiment(UPERNET), 4, seed=1).state_dict(), path)
    assert load_file(path)

    with pytest.raises(StudyError, match="has no header of this harness"):
        load_start(_model(experiment(UPERNET), 4, seed=2), _trial(experiment, [str(path)]), RunFolder(tmp_path / "run"))


def test_an_ensemble_averages_its_members_logits_at_the_inputs_size() -> None:
    torch.manual_seed(0)
    fine, coarse = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, stride=4, padding=1)
    images = torch.rand(2, 3, 17, 30)

    logits = Ensemble([fine, coarse])(images)

    up = F.interpolate(coarse(images), size=(17, 30), mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits, (fine(images) + up) / 2)


def test_an_ensemble_of_equal_members_says_what_one_says() -> None:
    torch.manual_seed(0)
    member = nn.Conv2d(3, 4, 1)
    images = torch.rand(1, 3, 8, 8)

    torch.testing.assert_close(Ensemble([member, member, member])(images), member(images))
