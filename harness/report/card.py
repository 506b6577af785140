"""A model card: what a model was made of, what it reaches under every rule, and what nobody knows of it.

After Mitchell et al., Model Cards for Model Reporting (arXiv 1810.03993), for what a search can know of its winner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from harness.config import AblationSettings, Experiment, SearchSettings
from harness.config.model import BackboneModel, SmpModel
from harness.metrics import CONVENTIONS, dataset_counts, iou, precision, recall, score_by_convention
from harness.report.card_facts import CardFacts, Split, StudyFacts
from harness.report.confirmation import cautions, curse
from harness.report.plot_style import hex_colour
from harness.report.table import Table, to_markdown
from harness.report.winner import among_which
from harness.search.confirmation import mean_in_words, seeds_in_words
from harness.stats import mean_interval, spread
from harness.store import TrialRow

#: share of the true pixels below which a class's score rests on little
_RARE = 0.001
#: raw ids of a class that are listed
_IDS = 6


class Handed(NamedTuple):
    """What lies beside the card: the name of its folder, weights or not, and what was said of the ONNX file."""

    folder: str
    weights: bool
    onnx: str | None = None


def card_text(facts: CardFacts, handed: Handed | None = None) -> str:
    """The card as Markdown; with `handed`, how to use what lies beside it."""
    sections = [
        (None, [_what(facts)]),
        ("Use", _use(facts, handed) if handed else []),
        ("Data", _data(facts)),
        ("Classes", _classes(facts)),
        ("Scores under every rule", _rules(facts)),
        ("Cost", _cost(facts)),
        ("How it was chosen", _chosen(facts)),
        ("Limits", ["\n".join(f"- {line}" for line in limits(facts))]),
        ("Provenance", _provenance(facts)),
    ]
    parts = [f"# {_title(facts)}"]
    for heading, blocks in sections:
        if blocks:
            parts += [*([f"## {heading}"] if heading else []), *blocks]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def limits(facts: CardFacts) -> list[str]:
    """What this model was not tested on, and what makes its score too high or its origin doubtful."""
    return [line for part in (_of_frames, _of_choice, _of_classes, _of_training) for line in part(facts)]


def describe_model(experiment: Experiment) -> str:
    """A model in words."""
    model = experiment.model
    if isinstance(model, BackboneModel):
        blocks = {0: "frozen", "all": "all of it trained"}.get(
            model.trainable_blocks, f"last {model.trainable_blocks} blocks trained"
        )
        return f"{model.head.kind} head on {model.backbone} ({blocks})"
    trained = "" if model.trainable_encoder else ", its encoder frozen"
    return f"{model.decoder} on {model.encoder}{trained}" if isinstance(model, SmpModel) else f"{model.name}{trained}"


def _title(facts: CardFacts) -> str:
    if facts.confirmed:
        found = facts.confirmed
        return f"Model card: {found.search.folder.name}, rank {found.rank} by fresh seeds, run {facts.run.path.name}"
    study = f"{facts.study.folder.name}, " if facts.study else ""
    rank = f"rank {facts.rank}, " if facts.rank and _is_search(facts) else ""
    return f"Model card: {study}{rank}run {facts.run.path.name}"


def _what(facts: CardFacts) -> str:
    height, width = facts.experiment.data.input_size
    text = (
        f"Semantic segmentation into {len(facts.taxonomy.names)} classes: {describe_model(facts.experiment)}, "
        f"input {width}×{height} pixels."
    )
    best = _best(facts)
    score = f" {_score_name(facts)} on the validation frames {best.score:.4f} (epoch {best.epoch})." if best else ""
    return text + score + f" {_weights(facts.experiment)}"


def _weights(experiment: Experiment) -> str:
    if experiment.start:
        return f"Training started from the weights of {', '.join(experiment.start)}."
    weights = experiment.model.weights
    if weights == "none":
        return "**The backbone started from random weights (`weights: none`), not from pretrained ones.**"
    if weights == "pretrained":
        return "The backbone started from its library's pretrained weights."
    return f"The backbone started from weights `{weights}`."


def _use(facts: CardFacts, handed: Handed) -> list[str]:
    files = [
        ("experiment.yaml", "everything that decided the training; `harness train experiment.yaml` repeats it"),
        ("best.safetensors", "the weights of the best epoch"),
        ("model.onnx", "pixels to logits, normalisation inside; class names in its metadata"),
    ]
    there = {"experiment.yaml", *(["best.safetensors"] * handed.weights), *(["model.onnx"] * bool(handed.onnx))}
    blocks = ["\n".join(f"- `{name}`: {what}" for name, what in files if name in there)]
    if not handed.weights:
        blocks.append("The weights of this trial were not kept; train the Experiment again to have them.")
    else:
        commands = (
            f"harness predict {handed.folder} PHOTOS… -o out      # masks, overlays; videos too",
            f"harness evaluate {handed.folder} --data DATASET --split test",
        )
        blocks.append("\n".join(["```sh", *commands, "```"]))
    return [*blocks, *([handed.onnx, _onnx_example(facts)] if handed.onnx else [])]


def _onnx_example(facts: CardFacts) -> str:
    height, width = facts.experiment.data.input_size
    lines = (
        "image = cv2.cvtColor(cv2.imread('frame.png'), cv2.COLOR_BGR2RGB)",
        f"pixels = cv2.resize(image, ({width}, {height})).transpose(2, 0, 1)[None]    # uint8, 1×3×{height}×{width}",
        "session = onnxruntime.InferenceSession('model.onnx', providers=['CPUExecutionProvider'])",
        "(logits,) = session.run(None, {'images': pixels})",
        f"classes = logits.argmax(1)[0]    # {height}×{width}, numbers as in the table of classes",
    )
    return "\n".join(["```python", *lines, "```"])


def _data(facts: CardFacts) -> list[str]:
    config, data = facts.experiment.data, facts.data
    height, width = config.input_size
    if config.root is None:
        made = config.synthetic
        where = (
            f"A generated desert (seed {made.seed}): {made.train} training, {made.val} validation and {made.test} test "
            f"frames of {made.width}×{made.height} pixels; the test frames come from another environment."
        )
    else:
        where = f"Folder `{config.root}`."
    lines = [
        where,
        f"Fingerprint of the frames (BLAKE2b of every file): `{data.recorded or data.found or 'not recorded'}`"
        + _compared(data.recorded, data.found)
        + ".",
        f"The model sees them at {width}×{height} pixels, normalised by `{config.normalise}`; scores are computed at "
        + ("each frame's own size." if facts.experiment.evaluation.raster == "native" else "the input size."),
    ]
    if not data.splits:
        return [" ".join(lines)]
    rows = [_split_row(name, split) for name, split in data.splits.items()]
    return [" ".join(lines), _table(("split", "frames", "with a mask", "sizes"), rows)]


def _compared(recorded: str | None, found: str | None) -> str:
    if not recorded or not found:
        return "" if recorded else " (taken today)" if found else ""
    return ", the same today" if recorded == found else f"; **today the folder gives `{found}`: it has changed**"


def _split_row(name: str, split: Split) -> tuple[str, ...]:
    sizes = ", ".join(f"{w}×{h}" + f" ({n})" * (len(split.sizes) > 1) for (w, h), n in sorted(split.sizes.items()))
    return name, f"{split.frames:,}", f"{split.masks:,}", sizes


def _classes(facts: CardFacts) -> list[str]:
    taxonomy, matrices = facts.taxonomy, facts.validation
    names = taxonomy.names
    head = ("", "class", "raw ids", "colour")
    rows = [(str(i), name, _ids(facts, i), hex_colour(taxonomy.colours[i])) for i, name in enumerate(names)]
    if matrices is None:
        return ["No confusion matrices were kept for this run, so there are no scores by class.", _table(head, rows)]
    counts = dataset_counts(matrices)
    total = max(1, int(counts.truth.sum()))
    scores = np.stack([iou(counts), precision(counts), recall(counts)], axis=1)
    cells = [
        (f"{int(pixels):,}", f"{100 * pixels / total:.2f}", *(map(_number, some) if pixels else ("", "", "")))
        for pixels, some in zip(counts.truth, scores, strict=True)
    ]
    head += ("true pixels", "share %", "IoU", "precision", "recall")
    return [
        f"Scores are of the {len(matrices)} validation frames; empty where there is none: the truth holds no pixel of "
        "the class, or, for its precision, it was never predicted.",
        _table(head, [(*row, *more) for row, more in zip(rows, cells, strict=True)]),
    ]


def _ids(facts: CardFacts, index: int) -> str:
    ids = np.flatnonzero(facts.taxonomy.table == index)
    return ", ".join(map(str, ids[:_IDS])) + ", …" * (len(ids) > _IDS)


def _rules(facts: CardFacts) -> list[str]:
    columns = {"validation": facts.validation, "test": facts.test}
    there = {name: matrices for name, matrices in columns.items() if matrices is not None}
    if not there:
        return []
    scores = [score_by_convention(matrices, facts.taxonomy.names) for matrices in there.values()]
    rows = [
        (name, *(_number(score[name]) for score in scores), convention.definition)
        for name, convention in CONVENTIONS.items()
    ]
    return [
        "One set of predictions; a number without its rule cannot be compared with another team's.",
        _table(("rule", *there, "what it is"), rows),
    ]


def _cost(facts: CardFacts) -> list[str]:
    epochs = [row for row in facts.epochs if row.epoch > 0]
    if not epochs:
        return []
    frames = 0 if facts.validation is None else len(facts.validation)
    memory = [row.peak_memory_mb for row in epochs if row.peak_memory_mb is not None]
    device = facts.study.provenance.get("device") if facts.study else None
    training = np.median([1000 * row.train_seconds / max(1, row.images) for row in epochs])
    validation = np.median([1000 * row.val_seconds / frames for row in epochs]) if frames else np.nan
    rows = [
        ("parameters", f"{epochs[-1].parameters:,}"),
        ("epochs run, of planned", f"{len(epochs)} of {facts.experiment.training.epochs}"),
        ("training and validation", _seconds(sum(row.train_seconds + row.val_seconds for row in epochs))),
        ("training, an image (median epoch)", f"{training:.1f} ms"),
        ("validation, a frame (median epoch)", f"{validation:.1f} ms" if frames else "not recorded"),
        ("peak GPU memory", f"{max(memory):,.0f} MB" if memory else "no GPU"),
        ("device", str(device or "not recorded")),
    ]
    return [_table(("what", "measured"), rows)]


def _chosen(facts: CardFacts) -> list[str]:
    study, row = facts.study, facts.row
    if study is None or row is None:
        return ["The run stands alone: no study says what it was chosen from."]
    epoch = f"The weights are those of the epoch of the best {_choosing_split(facts)} score ({row.best_epoch})."
    if facts.confirmed:
        trial = facts.confirmed.trial
        return [f"{_search(facts.confirmed.search, trial.row)} {_again(facts)} {epoch}", *_picked(trial.row)]
    if isinstance(study.settings, SearchSettings):
        return [f"{_search(study, row)} {epoch}", *_picked(row)]
    same = [r for r in study.ranking if r.picked == row.picked and r.outcome == "complete"]
    arm = row.picked.get("arm", "")
    what = f"Arm `{arm}` of the ablation" if isinstance(study.settings, AblationSettings) else "A training of the study"
    text = f"{what} `{study.folder.name}`, seed {row.seed}; {len(same)} seed(s) of it were trained to their end"
    if len(same) > 1:
        scores = np.array([r.score for r in same])
        mean, low, high = mean_interval(scores)
        text += (
            f": mean {mean:.4f}, 95 % interval {low:.4f} to {high:.4f}, spread {spread(scores):.4f}; "
            f"this one has {row.score:.4f}"
        )
    return [f"{text}. {epoch}"]


def _again(facts: CardFacts) -> str:
    """What fresh seeds found, and which of them the weights are of."""
    trial, row = facts.confirmed.trial, facts.row
    best = ", the best of them" if row.trial == trial.best_run.trial else ""
    rank = f"rank {facts.confirmed.rank} of {len(facts.confirmed.confirmation.confirmed)}"
    return (
        f"Trained again from fresh seeds it is {rank}: mean {mean_in_words(trial)} ({seeds_in_words(trial)}). This is "
        f"the run of seed {row.seed}{best}, with {row.score:.4f}."
    )


def _search(study: StudyFacts, row: TrialRow) -> str:
    rank = next((i for i, r in enumerate(study.ranking, 1) if r.trial == row.trial), "none")
    stopped = sum(r.outcome == "stopped" for r in study.rows)
    failed = sum(r.outcome == "failed" for r in study.rows)
    first = next((r for r in study.rows if r.number == 0 and r.score is not None), None)
    text = (
        f"Trial {row.number} of the search `{study.folder.name}` ({study.settings.space.search.strategy}), rank "
        f"{rank} of {len(study.ranking)} trials with a score; of {len(study.rows)} that ended, "
        f"{stopped} stopped early and {failed} failed."
    )
    if first is not None and first.trial != row.trial:
        text += f" The default Experiment (trial 0) reached {first.score:.4f}."
    return text


def _picked(row: TrialRow) -> list[str]:
    rows = [(name, str(value)) for name, value in row.picked.items()]
    return [_table(("picked", "value"), rows)] if rows else []


def _of_frames(facts: CardFacts) -> Iterable[str]:
    if facts.test is None:
        other = _other_frames(facts)
        yield (
            "Not tested on frames that had no say in the choice: the validation frames chose the epoch"
            + (", and the trial" if _is_search(facts) or facts.confirmed else "")
            + f". {other} `harness evaluate … --split test` scores them."
        )
    else:
        counts = dataset_counts(facts.test)
        shown = _number(score_by_convention(facts.test, facts.taxonomy.names)["miou"]) or "not defined"
        yield f"On {len(facts.test)} test frames ({int(counts.truth.sum()):,} true pixels) the mIoU is {shown}."
    if facts.experiment.data.root is None:
        yield "The frames are generated, not photographed: nothing is known of real ones."
    if facts.data.recorded and facts.data.found and facts.data.recorded != facts.data.found:
        yield "The folder of frames has changed since: the scores are of the frames as they were."
    yield "Frames of other sizes, cameras or places than these were not tried."


def _other_frames(facts: CardFacts) -> str:
    return (
        "The test environment differs from the training one and was not scored, so expect less there."
        if "test" in facts.data.splits or facts.experiment.data.root is None
        else "Another environment than theirs was not scored, so expect less there."
    )


def _of_choice(facts: CardFacts) -> Iterable[str]:
    if facts.confirmed:
        yield from _of_confirmation(facts)
    if _is_search(facts) and len(facts.study.ranking) > 1:
        yield (
            f"The score is the {among_which(facts.study.ranking)}, measured on the frames that chose it, and "
            "therefore too high by an unknown amount (winner's curse); `harness train experiment.yaml --seeds 3` and "
            "frames that chose nothing tell the rest."
            if facts.rank == 1
            else f"It was ranked among {len(facts.study.ranking)} on the frames that its score is of."
        )
    alike = [] if not facts.study or not facts.row else [r for r in facts.study.ranking if r.picked == facts.row.picked]
    if len(alike) < 2:
        yield "One seed: how much of the score is luck was not measured."
    if facts.row is not None and facts.row.outcome == "stopped":
        yield f"Stopped early, after {facts.row.epochs} of {facts.experiment.training.epochs} epochs."


def _of_confirmation(facts: CardFacts) -> Iterable[str]:
    confirmation, trial = facts.confirmed.confirmation, facts.confirmed.trial
    if confirmation.first.optimism:
        yield curse(confirmation)
    if len(trial.scores) > 1 and facts.row.trial == trial.best_run.trial:
        yield (
            f"These weights are those of the best of {len(trial.scores)} fresh seeds: their own score, "
            f"{facts.row.score:.4f}, is again too high on average; {trial.mean.point:.4f}, the mean, is what to expect."
        )
    yield from cautions(confirmation)


def _of_classes(facts: CardFacts) -> Iterable[str]:
    if facts.trained_on is not None and (unseen := np.array(facts.taxonomy.names)[facts.trained_on == 0]).size:
        yield f"Never seen in training, as the training frames hold no pixel of them: {', '.join(unseen)}."
    if facts.validation is None:
        return
    truth = dataset_counts(facts.validation).truth
    names = np.array(facts.taxonomy.names)
    absent, rare = names[truth == 0], names[(truth > 0) & (truth < _RARE * truth.sum())]
    if absent.size:
        yield f"Not in the validation frames, so without a score: {', '.join(absent)}."
    if rare.size:
        yield f"Below {100 * _RARE:g} % of the true pixels, so with an unsteady score: {', '.join(rare)}."
    if facts.experiment.evaluation.suppress:
        yield f"Never predicted, by configuration: {', '.join(facts.experiment.evaluation.suppress)}."


def _of_training(facts: CardFacts) -> Iterable[str]:
    if facts.experiment.model.weights == "none" and not facts.experiment.start:
        yield "The backbone started from random weights; pretrained ones usually reach far more."
    protocol = facts.experiment.protocol.model_dump()
    faults = [f"{name}: {value}" for name, value in protocol.items() if value not in (False, "miou")]
    if faults:
        yield f"Trained or scored with faults of a published system, on purpose: {', '.join(faults)}."
    if str(_about(facts).get("commit") or "").endswith("-dirty"):
        yield "The code had changes that no commit holds: it cannot be rebuilt exactly."


def _provenance(facts: CardFacts) -> list[str]:
    about = _about(facts)
    if not about:
        return ["No record of versions and machine lies beside this run."]
    machine = about.get("machine") or {}
    rows = [
        ("trial", facts.run.path.name),
        ("started", str(about.get("created"))),
        ("command", _command(about)),
        ("commit of the harness", str(about.get("commit") or "not a git checkout")),
        ("device", str(about.get("device", "not recorded"))),
        ("machine", ", ".join(f"{value} CPU cores" if k == "cpus" else str(value) for k, value in machine.items())),
        ("Python", str(about.get("python"))),
        *([("command of the search", _command(facts.confirmed.search.provenance))] if facts.confirmed else []),
        *((name, str(version)) for name, version in (about.get("packages") or {}).items() if version),
    ]
    changed = (session.get("changed") or {} for session in about.get("sessions") or [])
    rows += [("changed when resumed", f"{name}: {how}") for one in changed for name, how in one.items()]
    return [_table(("what", "recorded"), rows)]


def _command(about: dict) -> str:
    return " ".join(map(str, about.get("command") or []))


def _about(facts: CardFacts) -> dict:
    return facts.study.provenance if facts.study else {}


def _best(facts: CardFacts):  # noqa: ANN202  (an EpochRow, or None)
    return max(facts.epochs, key=lambda row: row.score, default=None)


def _is_search(facts: CardFacts) -> bool:
    return facts.study is not None and isinstance(facts.study.settings, SearchSettings)


def _score_name(facts: CardFacts) -> str:
    rule = facts.experiment.protocol.score
    return "mIoU" if rule == "miou" else f"Score ({rule})"


def _choosing_split(facts: CardFacts) -> str:
    return "test" if facts.experiment.protocol.select_on_test else "validation"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    # without the heading: the card has its own
    return to_markdown(Table("", "", tuple(columns), tuple(map(tuple, rows)))).split("\n", 2)[2]


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes"
