"""Every field of an Experiment, when it is changed, changes what is built.

A new field joins by one line in `TABLE`: its path, another value, and who would see the difference. Where the
path goes through a section of one kind, the kind stands in brackets; `REACH` holds what such a section needs
beside its kind.
"""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from safetensors.torch import save_file

import harness.data.batches
from harness.config import IGNORE, Experiment, Trial, apply_overrides
from harness.config.loss import LossConfig
from harness.data import build_taxonomy, dataset_root, open_frames, train_batches, write_desert
from harness.engine.checkpoint import pack_weights
from harness.engine.evaluate import evaluate, open_eval_frames, open_train_frames
from harness.engine.fit import fit, open_session, train_epoch
from harness.engine.inference import class_logits, normalise, views
from harness.engine.optimiser import build_optimiser
from harness.engine.schedule import encoder_is_frozen, learning_rates
from harness.losses import build_loss
from harness.models import build_model, parameter_counts
from harness.store import RunFolder, write_bytes

CPU = torch.device("cpu")
#: for sessions that start from no run
NOWHERE = RunFolder(Path("nowhere"))
CLASSES = ("sand", "rock", "bush")
FILES = Path("files")  # stands for the folder of the test's own files, see `put_files`

BASE: dict[str, Any] = {
    "data.synthetic": {"train": 4, "val": 2, "test": 1, "height": 40, "width": 72},
    "data.input_size": [32, 64],
    "model": {
        "kind": "backbone", "backbone": "test_convnext", "weights": "none", "trainable_blocks": "all",
        "head": {"kind": "linear"},
    },
    "training.epochs": 4,
    "training.batch_size": 2,
}  # fmt: skip

ALPHA = {"name": "alpha", "ids": [100, 200, 300, 500, 550, 600], "colour": [1, 2, 3]}
BETA = {"name": "beta", "ids": [700, 800, 7100, 10000], "colour": [4, 5, 6]}

#: what a section of a kind needs beside its kind
REACH: dict[str, dict[str, Any]] = {
    "model[backbone]": BASE["model"],
    "taxonomy[custom]": {"classes": [ALPHA, BETA]},
    "model[smp]": {"decoder": "Unet", "encoder": "tu-mobilenetv3_small_050", "weights": "none"},
    "model[torchvision]": {"weights": "none"},
    "class_weights[explicit]": {"values": {"sand": 1.0, "rock": 2.0, "bush": 3.0}},
    "steps[random_crop]": {"height": 32, "width": 32},
}


# ---- what is observed: of the built thing, never of the configuration ----


def sees_frames(experiment: Experiment) -> list[Any]:
    """The pixels of all splits as they are opened for training and scoring."""
    evaluated = [open_eval_frames(experiment, split) for split in ("val", "test")]
    opened = [open_train_frames(experiment), *(f for pair in evaluated for f in pair)]
    return [(f.images.shape, _digest(f.images), _digest(f.masks)) for f in opened]


def sees_batch(experiment: Experiment) -> list[Any]:
    """Eight epochs' training batches."""
    frames, taxonomy = open_train_frames(experiment), build_taxonomy(experiment.taxonomy)
    root, size = dataset_root(experiment.data), experiment.data.input_size
    truth, style = open_frames(root, "train", None), open_frames(root, "test", size, masks=False)
    seen = []
    for epoch in range(8):
        batches = train_batches(
            frames,
            taxonomy,
            experiment.augmentation,
            size,
            batch_size=experiment.training.batch_size,
            drop_last=experiment.training.drop_last,
            workers=0,
            seed=0,
            epoch=epoch,
            protocol=experiment.protocol,
            truth=truth,
            style=style,
        )
        seen += [(images.shape, _digest(images), _digest(truth)) for images, truth in batches]
    return seen


def sees_taxonomy(experiment: Experiment) -> list[Any]:
    """The table from raw ids to classes, and what is written and painted for each class."""
    taxonomy = build_taxonomy(experiment.taxonomy)
    every_class = np.arange(len(taxonomy.names), dtype=np.uint8)
    written = taxonomy.to_raw(every_class), taxonomy.to_colour(every_class)
    return [taxonomy.names, _digest(taxonomy.table), *map(_digest, written)]


def sees_model(experiment: Experiment) -> list[Any]:
    """Parameters, trainable and not, and the logits of one batch in training mode, all for one seed."""
    torch.manual_seed(0)
    model = build_model(experiment.model, len(CLASSES)).train()
    images = torch.rand(2, 3, *experiment.data.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(images)
    trains = [(name, p.requires_grad) for name, p in model.named_parameters()]
    return [parameter_counts(model), trains, logits.shape, _digest(logits)]


def sees_pixels(experiment: Experiment) -> list[Any]:
    """What the model is given of one grey frame, in training and in scoring."""
    images = torch.full((1, 3, *experiment.data.input_size), 100, dtype=torch.uint8)
    return [_digest(normalise(images, experiment.data.normalise)), _digest(_seen_by_model(experiment, images))]


def sees_loss(experiment: Experiment) -> list[float]:
    """The loss of fixed logits, one class absent from the truth, some pixels ignored."""
    loss = build_loss(experiment.loss, np.array([900, 90, 10]), CLASSES)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, len(CLASSES), 6, 6, generator=generator)
    truth = torch.randint(0, 2, (2, 6, 6), generator=generator)
    truth[:, 0] = IGNORE
    return [_rounded(loss(logits, truth)[0].item())]


def sees_optimiser(experiment: Experiment) -> list[Any]:
    """The optimiser's class, and the settings of each of its groups."""
    optimiser = build_optimiser(experiment.optimiser, _small_model())
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimiser.param_groups]
    return [type(optimiser).__name__, groups]


def sees_rates(experiment: Experiment) -> list[Any]:
    """Every epoch's learning rates, with a score that never rises, and whether the encoder is frozen."""
    epochs = range(1, experiment.training.epochs + 1)
    rates = [learning_rates(experiment, epoch, [0.5] * (epoch - 1)) for epoch in epochs]
    return [rates, [encoder_is_frozen(experiment.schedule, epoch) for epoch in epochs]]


def sees_epoch(experiment: Experiment) -> list[Any]:
    """What the first epoch saw and scored, and how far it moved the encoder and the head."""
    session = open_session(Trial(experiment, 0), NOWHERE, CPU)
    parts = session.model.encoder, session.model.head
    before = [_flat(part) for part in parts]
    row, _ = train_epoch(session, [])
    moved = [_rounded((_flat(part) - start).norm().item()) for part, start in zip(parts, before, strict=True)]
    return [_rounded(row.train_loss), row.train_score, row.images, moved]


def sees_training(experiment: Experiment, folder: Path) -> list[int]:
    """The epochs of a whole training."""
    return [row.epoch for row in fit(Trial(experiment, 0), RunFolder(folder / "run"), CPU)]


def sees_run_folder(experiment: Experiment, folder: Path) -> list[str]:
    """The files that a whole training leaves behind."""
    assert sees_training(experiment, folder)
    return sorted(path.name for path in (folder / "run").iterdir())


def sees_score(experiment: Experiment) -> list[Any]:
    """The number that chooses the best epoch, and the frames behind it."""
    session = open_session(Trial(experiment, 0), NOWHERE, CPU)
    row, evaluation = train_epoch(session, [])
    return [_rounded(row.score), evaluation.names, _rounded(row.val_loss)]


def sees_class_weights(experiment: Experiment) -> list[Any]:
    """The class weights that a session counts for its loss."""
    return [buffer.tolist() for buffer in open_session(Trial(experiment, 0), NOWHERE, CPU).loss.buffers()]


def sees_evaluation(experiment: Experiment) -> list[Any]:
    """Confusion matrices of the validation frames with the configured views, and the batch sizes they came in."""
    session = open_session(Trial(experiment, 0), NOWHERE, CPU)
    sizes: list[int] = []
    session.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    looks = views(experiment, experiment.evaluation.tta)
    result = evaluate(session.model, session.val_frames, experiment, session.taxonomy, CPU, looks=looks)
    return [result.matrices.tolist(), sizes]


def sees_switches(experiment: Experiment) -> list[bool]:
    """torch's switches for deterministic kernels."""
    open_session(Trial(experiment, 0), NOWHERE, CPU)
    cudnn = torch.backends.cudnn
    return [torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark]


def sees_loaders(experiment: Experiment) -> list[int]:
    """The processes that each loader of an epoch is asked to start, without starting them."""
    asked: list[int] = []
    real = harness.data.batches.DataLoader

    def loader(*args: Any, num_workers: int, multiprocessing_context: Any, **options: Any) -> Any:
        asked.append(num_workers)
        return real(*args, num_workers=0, multiprocessing_context=None, **options)

    with mock.patch.object(harness.data.batches, "DataLoader", loader):
        train_epoch(open_session(Trial(experiment, 0), NOWHERE, CPU), [])
    return asked


def sees_compiled(experiment: Experiment) -> list[bool]:
    """Which parts of the model are compiled when they are called."""
    model = open_session(Trial(experiment, 0), NOWHERE, CPU).model
    return [part._compiled_call_impl is not None for part in (model.encoder, model.decoder, model.head)]


def sees_second_epoch(experiment: Experiment) -> list[list[Any]]:
    """The truths that the model is given in epoch 2."""
    return [truth.tolist() for _, truth in open_session(Trial(experiment, 0), NOWHERE, CPU).inputs(2)]


def _seen_by_model(experiment: Experiment, images: torch.Tensor) -> torch.Tensor:
    return class_logits(torch.nn.Identity(), images, experiment.data.input_size, experiment)


def _flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()


def _rounded(value: float) -> float:
    """Five digits: what differs in the last bits of a float32 only is the same."""
    return float(f"{value:.5g}")


@cache
def _small_model() -> torch.nn.Module:
    model = apply_overrides(Experiment(), {"model.head": {"kind": "conv_stack", "channels": 8}}).model
    return build_model(model, len(CLASSES))


def _digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


# ---- the table ----


class Case(NamedTuple):
    """Another value for a field, who sees the difference, and what else must be set for the field to matter."""

    value: Any
    observer: Callable[..., list[Any]]
    also: dict[str, Any] = {}


def _steps() -> dict[str, Case]:
    """Each augmentation step, applied always unless its probability is the question."""
    fields: dict[str, dict[str, Any]] = {
        "horizontal_flip": {},
        "vertical_flip": {},
        "shift_scale_rotate": {"shift": 0.3, "scale": 0.5, "degrees": 90.0},
        "blur": {"gaussian": [7, 9], "median": [7, 9]},
        "gaussian_blur": {"kernel": [7, 9], "sigma": [4.0, 5.0]},
        "brightness_contrast": {"brightness": [0.3, 0.4], "contrast": [0.3, 0.4]},
        "hue_saturation_value": {"hue": 90, "saturation": 100, "value": 100},
        "tone": {"brightness": 0.5, "contrast": 0.5, "hue": 90, "saturation": 100, "value": 100},
        "colour_jitter": {
            "brightness": [0.2, 0.3], "contrast": [0.2, 0.3], "saturation": [0.2, 0.3], "hue": [0.2, 0.3]
        },
        "rgb_shift": {"limit": 90},
        "channel_shuffle": {},
        "grey": {},
        "shadow": {},
        "clahe": {"clip_limit": 20.0, "tiles": 2},
        "random_resized_crop": {"area": [0.1, 0.2], "ratio": [0.5, 0.6]},
        "random_crop": {"height": 40, "width": 48},
        "cutmix": {},
        "fourier": {"beta": 0.3},
    }  # fmt: skip
    table = {}
    for kind, changes in fields.items():
        path = f"augmentation[steps].steps[{kind}]"
        crops = "crop" in kind
        table |= {f"{path}.{name}": Case(value, sees_batch) for name, value in changes.items()}
        table[f"{path}.kind"] = Case(kind, sees_batch)
        if not crops:
            table[f"{path}.probability"] = Case(0.0, sees_batch)
    return table


def _terms() -> dict[str, Case]:
    """Each term of the loss, its weight above 0 unless that is the question."""
    table = {}
    for term in LossConfig.model_fields:
        path = f"loss.{term}"
        on = {f"{path}.weight": 1.0}
        weights = f"{path}.class_weights"
        inverse = {weights: {"kind": "inverse_frequency"}}
        table |= {
            f"{path}.weight": Case(2.5, sees_loss),
            f"{weights}[none].kind": Case("none", sees_loss, on | inverse),
            f"{weights}[inverse_frequency].kind": Case("inverse_frequency", sees_loss, on),
            f"{weights}[inverse_frequency].maximum": Case(1.5, sees_loss, on),
            f"{weights}[log_frequency].kind": Case("log_frequency", sees_loss, on),
            f"{weights}[log_frequency].offset": Case(4.0, sees_loss, on),
            f"{weights}[explicit].kind": Case("explicit", sees_loss, on),
            f"{weights}[explicit].values": Case({"sand": 2.0, "rock": 1.0, "bush": 4.0}, sees_loss, on),
        }
    return table


def _rates(kind: str) -> dict[str, Case]:
    """What both optimisers have."""
    path = f"optimiser[{kind}]"
    return {
        f"{path}.lr": Case(0.02, sees_optimiser),
        f"{path}.encoder_lr": Case(0.02, sees_optimiser),
        f"{path}.decoder_lr": Case(0.02, sees_optimiser),
        f"{path}.weight_decay": Case(0.2, sees_optimiser),
        f"{path}.clip_norm": Case(1e-3, sees_epoch),
        f"{path}.encoder_clip_norm": Case(1e-3, sees_epoch),
    }


def _warmup(kind: str) -> dict[str, Case]:
    """What every schedule has."""
    path = f"schedule[{kind}]"
    frozen = {"schedule.freeze_encoder_epochs": 1}
    return {
        f"{path}.kind": Case(kind, sees_rates, {"schedule": {"kind": "constant" if kind == "cosine" else "cosine"}}),
        f"{path}.warmup_epochs": Case(2, sees_rates),
        f"{path}.freeze_encoder_epochs": Case(1, sees_epoch),
        f"{path}.encoder_warmup_epochs": Case(2, sees_rates, frozen),
    }


VIT = {"model.backbone": "test_vit", "data.input_size": [32, 64]}
#: a network with BatchNorm
NORMS = {"model.backbone": "test_efficientnet"}
NAMES = build_taxonomy(Experiment().taxonomy).names
START = [str(FILES / "start.safetensors")]
TURNED = {"kind": "steps", "steps": [{"kind": "shift_scale_rotate", "probability": 1.0}]}
#: scores that cannot change: nothing moves but a head, by next to nothing
STILL = {"model.trainable_blocks": 0, "optimiser.lr": 1e-12, "schedule": {"kind": "constant"}}

TABLE: dict[str, Case] = {
    "data.root": Case(str(FILES / "desert"), sees_frames),
    "data.synthetic.train": Case(5, sees_frames),
    "data.synthetic.val": Case(3, sees_frames),
    "data.synthetic.test": Case(2, sees_frames),
    "data.synthetic.height": Case(48, sees_frames),
    "data.synthetic.width": Case(80, sees_frames),
    "data.synthetic.seed": Case(1, sees_frames),
    "data.input_size": Case([32, 48], sees_frames),
    "data.normalise": Case("unit", sees_pixels),
    "taxonomy[named].kind": Case("named", sees_taxonomy, {"taxonomy": {"kind": "custom", "classes": [ALPHA, BETA]}}),
    "taxonomy[named].name": Case("falcon7", sees_taxonomy),
    "taxonomy[named].merge": Case({"Logs": "Rocks"}, sees_taxonomy),
    "taxonomy[custom].kind": Case("custom", sees_taxonomy),
    "taxonomy[custom].classes": Case([BETA, ALPHA], sees_taxonomy),
    "taxonomy[custom].classes.name": Case([ALPHA | {"name": "gamma"}, BETA], sees_taxonomy),
    "taxonomy[custom].classes.ids": Case([ALPHA | {"ids": [100, 200]}, BETA], sees_taxonomy),
    "taxonomy[custom].classes.colour": Case([ALPHA | {"colour": [7, 8, 9]}, BETA], sees_taxonomy),
    "taxonomy[custom].ignore": Case([27], sees_taxonomy),
    "taxonomy[custom].unlisted": Case("ignore", sees_taxonomy),
    "taxonomy[custom].merge": Case(
        {"alpha": "ignore"}, sees_taxonomy, {"taxonomy.classes": [ALPHA, BETA, ALPHA | {"name": "gamma", "ids": [1]}]}
    ),
    "augmentation[named].kind": Case("named", sees_batch, {"augmentation": {"kind": "steps"}}),
    "augmentation[named].policy": Case("ignitia_phase3", sees_batch),
    "augmentation[steps].kind": Case("steps", sees_batch),
    "augmentation[steps].steps": Case([{"kind": "grey"}], sees_batch),
    **_steps(),
    "model[backbone].kind": Case("backbone", sees_model, {"model": REACH["model[smp]"] | {"kind": "smp"}}),
    "model[backbone].backbone": Case("mobilenetv3_small_050", sees_model),
    "model[backbone].weights": Case(str(FILES / "backbone.safetensors"), sees_model),
    "model[backbone].trainable_blocks": Case(1, sees_model, VIT),
    "model[backbone].stride": Case(8, sees_model),
    "model[backbone].head[linear].kind": Case("linear", sees_model, {"model.head": {"kind": "conv_stack"}}),
    "model[backbone].head[convnext_style].kind": Case("convnext_style", sees_model),
    "model[backbone].head[convnext_style].channels": Case(16, sees_model),
    "model[backbone].head[upernet_style].kind": Case("upernet_style", sees_model),
    "model[backbone].head[upernet_style].channels": Case(64, sees_model),
    "model[backbone].head[upernet_style].dropout": Case(0.6, sees_model),
    "model[backbone].head[conv_stack].kind": Case("conv_stack", sees_model),
    "model[backbone].head[conv_stack].channels": Case(16, sees_model),
    "model[smp].kind": Case("smp", sees_model),
    "model[smp].decoder": Case("FPN", sees_model),
    "model[smp].encoder": Case("mobilenet_v2", sees_model),
    "model[smp].weights": Case(str(FILES / "smp.safetensors"), sees_model),
    "model[smp].trainable_encoder": Case(False, sees_model),
    "model[torchvision].kind": Case("torchvision", sees_model),
    "model[torchvision].name": Case("deeplabv3_resnet50", sees_model),
    "model[torchvision].weights": Case(str(FILES / "torchvision.safetensors"), sees_model),
    "model[torchvision].trainable_encoder": Case(False, sees_model),
    **_terms(),
    "loss.cross_entropy.label_smoothing": Case(0.2, sees_loss),
    "loss.focal.gamma": Case(1.0, sees_loss, {"loss.focal.weight": 1.0}),
    "loss.dice.smooth": Case(50.0, sees_loss, {"loss.dice.weight": 1.0}),
    "loss.focal_weight_inside.gamma": Case(1.0, sees_loss, {"loss.focal_weight_inside.weight": 1.0}),
    "loss.dice_all_classes.smooth": Case(50.0, sees_loss, {"loss.dice_all_classes.weight": 1.0}),
    "loss.boundary.sigma": Case(0.5, sees_loss, {"loss.boundary.weight": 1.0}),
    "loss.ohem.threshold": Case(0.2, sees_loss, {"loss.ohem.weight": 1.0}),
    "loss.ohem.keep": Case(1.0, sees_loss, {"loss.ohem.weight": 1.0}),
    "optimiser[adamw].kind": Case("adamw", sees_optimiser, {"optimiser": {"kind": "sgd"}}),
    **_rates("adamw"),
    "optimiser[adamw].beta1": Case(0.5, sees_optimiser),
    "optimiser[adamw].beta2": Case(0.9, sees_optimiser),
    "optimiser[sgd].kind": Case("sgd", sees_optimiser),
    **_rates("sgd"),
    "optimiser[sgd].momentum": Case(0.5, sees_optimiser),
    "optimiser[sgd].nesterov": Case(True, sees_optimiser),
    **_warmup("constant"),
    **_warmup("cosine"),
    "schedule[cosine].floor": Case(0.3, sees_rates),
    **_warmup("plateau"),
    "schedule[plateau].factor": Case(0.1, sees_rates),
    "schedule[plateau].patience": Case(0, sees_rates),
    "training.epochs": Case(3, sees_training, STILL),
    "training.batch_size": Case(4, sees_batch),
    "training.accumulation": Case(2, sees_epoch),
    "training.drop_last": Case(True, sees_batch, {"training.batch_size": 3}),
    "training.precision": Case("bf16", sees_epoch),
    "training.batchnorm": Case("frozen", sees_epoch, NORMS),
    "training.patience": Case(1, sees_training, STILL),
    "training.workers": Case(3, sees_loaders),
    "training.deterministic": Case(True, sees_switches),
    "training.compile": Case("default", sees_compiled),
    "training.cached_views": Case(1, sees_second_epoch, {"model.trainable_blocks": 0}),
    "training.score_training_set": Case(True, sees_epoch),
    "evaluation.raster": Case("input", sees_evaluation),
    "evaluation.batch_size": Case(1, sees_evaluation),
    "evaluation.tta.scales": Case([1.0, 1.5], sees_evaluation),
    "evaluation.tta.flip": Case(True, sees_evaluation),
    "evaluation.tta.rounding": Case("floor", sees_evaluation, VIT | {"evaluation.tta.scales": [0.8]}),
    "evaluation.suppress": Case(list(NAMES[:-1]), sees_evaluation),
    "evaluation.batchnorm": Case("batch", sees_evaluation, NORMS),
    "evaluation.score_test": Case(True, sees_run_folder),
    "protocol.bilinear_masks": Case(True, sees_batch, {"evaluation.raster": "input"}),
    "protocol.border_class": Case(True, sees_batch, {"augmentation": TURNED}),
    "protocol.augmented_class_counts": Case(
        True,
        sees_class_weights,
        {"augmentation": TURNED, "loss.cross_entropy.class_weights": {"kind": "inverse_frequency"}},
    ),
    "protocol.reset_best": Case(True, sees_training, {"start": START}),
    "protocol.select_on_test": Case(True, sees_score),
    "protocol.score": Case("per_image_union", sees_score),
    "start": Case(START, sees_epoch),
}


#: these terms divide by the sum of the class weights, so that a factor common to all of them cancels
SCALE_FREE = {
    f"loss.{term}.class_weights[inverse_frequency].maximum"
    for term in ("cross_entropy", "focal", "dice", "dice_all_classes", "dice_absent_perfect", "ohem")
}


# ---- the tests ----


def fields_of(annotation: Any, path: str = "") -> Iterator[str]:
    """The path of every field below an annotation, with the kind of each section of a tagged union in brackets."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            here = f"{path}.{name}".lstrip(".")
            inner = list(_sections_below(field.annotation))
            if not inner or _is_list(field.annotation):
                yield here
            for section in inner:
                tagged = "kind" in section.model_fields
                yield from fields_of(section, f"{here}[{section.model_fields['kind'].default}]" if tagged else here)


def _sections_below(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _sections_below(inner)


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) is tuple


def test_the_table_names_every_field_of_an_experiment_and_no_other() -> None:
    fields = set(fields_of(Experiment))
    assert len(fields) > 180
    assert sorted(fields - set(TABLE)) == [], "fields that nobody looks at: add a line to TABLE"
    assert sorted(set(TABLE) - fields) == [], "lines of TABLE whose field is gone"


def pair(path: str, case: Case) -> tuple[Experiment, Experiment]:
    """The Experiment in which the field matters, and the same with the field changed."""
    parts = path.split(".")
    if parts[0] == "augmentation[steps]" and len(parts) > 2:
        return _step_pair(parts[1].removeprefix("steps[").removesuffix("]"), parts[2], case.value)
    base, here = dict(BASE), ""
    for part in parts:
        name, _, kind = part.removesuffix("]").partition("[")
        here = f"{here}.{name}".lstrip(".")
        section = {"kind": kind} | _reach(here, kind) if kind else None
        if section and parts[-1] == "kind" and part == parts[-2]:
            return _apply(base | case.also), _apply(base | case.also | {here: section})
        if section:
            base[here] = section
    if parts[:2] == ["taxonomy[custom]", "classes"]:
        here = "taxonomy.classes"
    base |= case.also
    return _apply(base), _apply(base | {here: case.value})


def _step_pair(kind: str, field: str, value: Any) -> tuple[Experiment, Experiment]:
    step = {"kind": kind} | REACH.get(f"steps[{kind}]", {}) | ({} if "crop" in kind else {"probability": 1.0})
    before, after = ([], [step]) if field == "kind" else ([step], [step | {field: value}])
    steps = ({"augmentation": {"kind": "steps", "steps": steps}} for steps in (before, after))
    first, second = (_apply(BASE | change) for change in steps)
    return first, second


def _reach(here: str, kind: str) -> dict[str, Any]:
    return REACH.get(f"{here}[{kind}]") or REACH.get(f"{here.split('.')[-1]}[{kind}]") or {}


def _apply(overrides: dict[str, Any]) -> Experiment:
    return apply_overrides(Experiment(), overrides)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with another desert, and weights for the models of the table."""
    folder = tmp_path_factory.mktemp("files")
    write_desert(folder / "desert", train=4, val=2, test=1, height=40, width=72, seed=9)
    torch.manual_seed(99)
    for kind in ("backbone", "smp", "torchvision"):
        path = f"model[{kind}].weights"
        model = build_model(pair(path, TABLE[path])[0].model, len(CLASSES))
        save_file(model.state_dict(), folder / f"{kind}.safetensors")
    write_bytes(folder / "start.safetensors", pack_weights(build_model(_apply(BASE).model, len(NAMES)), {}))
    return folder


@pytest.fixture
def torch_switches() -> Iterator[None]:
    """torch's switches as they were, whatever a session sets."""
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before[0])
    cudnn.deterministic, cudnn.benchmark = before[1:]


def put_files(case: Case, files: Path) -> Case:
    """The case with the test's own folder in place of `FILES`."""
    return case._replace(value=_put(case.value, files), also={path: _put(v, files) for path, v in case.also.items()})


def _put(value: Any, files: Path) -> Any:
    if isinstance(value, list):
        return [_put(item, files) for item in value]
    inside = isinstance(value, str) and value.startswith(f"{FILES}/")
    return str(files / Path(value).relative_to(FILES)) if inside else value


@pytest.mark.usefixtures("torch_switches")
@pytest.mark.parametrize("path", [path for path in TABLE if path not in SCALE_FREE])
def test_a_changed_field_changes_what_is_built(path: str, files: Path, tmp_path: Path) -> None:
    case = put_files(TABLE[path], files)
    base, changed = pair(path, case)
    assert base != changed
    first, again, other = (_observe(case.observer, e, tmp_path / str(i)) for i, e in enumerate((base, base, changed)))
    assert first == again, "what is built does not repeat itself"
    assert first != other, f"{path} changes nothing that is built"


@pytest.mark.parametrize("path", sorted(SCALE_FREE))
def test_the_scale_of_class_weights_cancels_in_a_term_that_divides_by_their_sum(path: str) -> None:
    base, changed = pair(path, TABLE[path])
    assert base != changed
    assert sees_loss(base) == sees_loss(changed)


def _observe(observer: Callable[..., list[Any]], experiment: Experiment, folder: Path) -> list[Any]:
    return observer(experiment, folder) if observer in (sees_training, sees_run_folder) else observer(experiment)
