"""The model card, from records made up by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.config import Experiment, SearchSettings, Space, dump_yaml, read_settings, validate_section
from harness.data import build_taxonomy, dataset_fingerprint, write_desert
from harness.errors import ConfigError, StudyError
from harness.metrics import CONVENTIONS
from harness.report.card import Handed, card_text, describe_model, limits
from harness.report.card_facts import CardFacts, DataFacts, look_at_frames, read_facts
from harness.store import EpochRow, Record, RunFolder, StudyFolder, write_json, write_text

CLASSES = {
    "kind": "custom",
    "classes": [
        {"name": "Sand", "ids": [1, 7], "colour": [10, 20, 30]},
        {"name": "Rock", "ids": [2], "colour": [255, 0, 0]},
        {"name": "Log|s", "ids": [3], "colour": [0, 0, 255]},
    ],
}
# by hand: Sand 6 of 6 + 2 - IoU 6/8, Rock 8 of 10 + 0 - IoU 8/10, no Log in the truth and none predicted
MATRICES = np.array([[[3, 0, 0, 0], [1, 4, 0, 0], [0, 0, 0, 0]], [[3, 0, 0, 0], [1, 4, 0, 0], [0, 0, 0, 0]]])


def row(trial: str, epoch: int, score: float, **more: object) -> EpochRow:
    values = {
        "train_loss": 1.0, "val_loss": 1.0, "terms": {}, "iou": {}, "train_score": None, "lr": {}, "images": 20,
        "train_seconds": 2.0 * epoch, "val_seconds": 0.5, "parameters": 1_234_567, "peak_memory_mb": 2048.4,
        "done": epoch == 3,
    }  # fmt: skip
    return EpochRow(trial=trial, epoch=epoch, score=score, **values | more)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    root = tmp_path / "frames"
    write_desert(root, train=3, val=2, test=1, height=32, width=48, seed=0)
    values = {
        "data": {"root": str(root), "input_size": [32, 48]},
        "taxonomy": CLASSES,
        "model": {"kind": "backbone", "backbone": "test_vit", "weights": "none", "trainable_blocks": 2},
        "training": {"epochs": 3},
    }
    return validate_section(Experiment, values, "made up")


@pytest.fixture
def hunt(experiment: Experiment, tmp_path: Path) -> StudyFolder:
    """A search of three trials: 0 the default, 1 the best, 2 stopped; trial 1 has matrices."""
    folder = StudyFolder(tmp_path / "hunt")
    folder.path.mkdir()
    space = {
        "experiment": json.loads(experiment.model_dump_json()),
        "parameters": {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1}},
    }
    dataset = dataset_fingerprint(Path(experiment.data.root))
    settings = SearchSettings(space=validate_section(Space, space, "space"), seed=0, dataset=dataset)
    write_text(folder.settings, dump_yaml(settings.model_dump(mode="json")))
    about = {
        "created": "2026-01-02T03:04:05+00:00", "command": ["harness", "search", "x.yaml"], "commit": "abc-dirty",
        "python": "3.11.7", "packages": {"torch": "2.13.0", "ray": None}, "machine": {"system": "Linux", "cpus": 8},
        "device": "NVIDIA H100",
    }  # fmt: skip
    write_json(folder.provenance, about)
    record = Record(folder)
    for number, (name, scores) in enumerate({"a": [0.1, 0.3, 0.4], "b": [0.2, 0.775, 0.5], "c": [0.05]}.items()):
        for epoch, score in enumerate(scores, 1):
            record.add_epoch(row(name, epoch, score))
        record.end(name, number, 0, "complete" if len(scores) == 3 else "stopped", picked={"lr": 0.01 * number})
        folder.run(name).path.mkdir(parents=True)
        write_text(folder.run(name).experiment, dump_yaml(experiment.model_dump(mode="json")))
    _keep(folder.run("b").confusion, MATRICES)
    return folder


def _keep(path: Path, matrices: np.ndarray) -> None:
    np.savez_compressed(path, names=np.array([f"{i}.png" for i in range(len(matrices))]), matrices=matrices)


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    lines = text.split(f"## {heading}", 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = [line for line in lines[start:] if line.startswith("|")]
    rows = rows[: next((i for i, line in enumerate(lines[start:]) if not line.startswith("|")), None)]
    return [[cell.strip() for cell in r.replace("\\|", "/").strip("|").split("|")] for r in rows[2:]]


def test_scores_by_class_are_those_worked_by_hand(hunt: StudyFolder) -> None:
    rows = table(card_text(read_facts(hunt.run("b"))), "Classes")
    assert rows == [
        ["0", "Sand", "1, 7", "#0a141e", "6", "37.50", "0.7500", "0.7500", "1.0000"],
        ["1", "Rock", "2", "#ff0000", "10", "62.50", "0.8000", "1.0000", "0.8000"],
        ["2", "Log/s", "3", "#0000ff", "0", "0.00", "", "", ""],
    ]


def test_every_rule_is_there_by_name_with_its_definition(hunt: StudyFolder) -> None:
    rows = {name: (score, text) for name, score, text in table(card_text(read_facts(hunt.run("b"))), "Scores under")}
    assert list(rows) == list(CONVENTIONS)
    assert rows["miou"][0] == "0.7750" and rows["all_classes"][0] == f"{(0.75 + 0.8) / 3:.4f}"
    assert rows["accuracy"][0] == "0.8750" and rows["codecrunch7"][0] == ""
    assert rows["micro"][1].startswith("DINOv2 U-Net team, headline: sum of intersections")


def test_test_scores_have_their_column_and_the_limits_say_them(hunt: StudyFolder) -> None:
    _keep(hunt.run("b").test_confusion, MATRICES[:1, :, [1, 0, 2, 3]])
    facts = read_facts(hunt.run("b"))
    text = card_text(facts)
    assert "| rule | validation | test | what it is |" in text
    # the columns of Sand and Rock changed places: Sand 0 of 3, Rock 1 of 5 + 3 others
    assert table(text, "Scores under")[0][1:3] == ["0.7750", f"{(0 + 1 / 8) / 2:.4f}"]
    assert any(line.startswith("On 1 test frames (8 true pixels) the mIoU is") for line in limits(facts))
    assert not any("Not tested on frames" in line for line in limits(facts))


def test_cost_is_as_recorded(hunt: StudyFolder) -> None:
    costs = dict(table(card_text(read_facts(hunt.run("b"))), "Cost"))
    # epochs of 2, 4 and 6 s over 20 images; 0.5 s over 2 frames
    assert costs["training, an image (median epoch)"] == "200.0 ms"
    assert costs["validation, a frame (median epoch)"] == "250.0 ms"
    assert costs["training and validation"] == "14 s" and costs["epochs run, of planned"] == "3 of 3"
    assert costs["parameters"] == "1,234,567" and costs["peak GPU memory"] == "2,048 MB"
    assert costs["device"] == "NVIDIA H100"


def test_how_it_was_chosen_names_rank_trials_and_the_default(hunt: StudyFolder) -> None:
    text = card_text(read_facts(hunt.run("b")))
    assert text.startswith("# Model card: hunt, rank 1, run b\n")
    assert "Trial 1 of the search `hunt` (" in text and "rank 1 of 3 trials with a score" in text
    assert "of 3 that ended, 1 stopped early and 0 failed" in text
    assert "The default Experiment (trial 0) reached 0.4000." in text
    assert "best validation score (2)" in text and table(text, "How it")[0] == ["lr", "0.01"]
    assert "rank 2 of 3" in card_text(read_facts(hunt.run("a")))


def test_limits_name_what_was_not_tested_and_what_makes_the_score_too_high(hunt: StudyFolder) -> None:
    said = "\n".join(limits(read_facts(hunt.run("b"))))
    assert "the validation frames chose the epoch, and the trial" in said
    assert "The test environment differs from the training one and was not scored" in said
    assert "the highest of 3" in said and "winner's curse" in said
    assert "One seed: how much of the score is luck was not measured." in said
    assert "Not in the validation frames, so without a score: Log|s." in said
    assert "random weights" in said and "no commit holds" in said
    assert "Stopped early" not in said
    assert "Stopped early, after 1 of 3 epochs." in "\n".join(limits(read_facts(hunt.run("c"))))


def test_random_weights_are_said_at_once_and_other_origins_are_named(hunt: StudyFolder) -> None:
    facts = read_facts(hunt.run("b"))
    assert "random weights (`weights: none`)" in card_text(facts).split("##")[0]
    for weights, said in (("pretrained", "its library's pretrained weights"), ("/x/y.safetensors", "weights `/x/y")):
        model = facts.experiment.model.model_copy(update={"weights": weights})
        other = replace(facts, experiment=facts.experiment.model_copy(update={"model": model}))
        assert said in card_text(other).split("##")[0] and "random weights" not in card_text(other)
    started = replace(facts, experiment=facts.experiment.model_copy(update={"start": ("run:0123456789ab",)}))
    assert "started from the weights of run:0123456789ab" in card_text(started)


def test_the_frames_are_counted_and_compared_with_the_record(hunt: StudyFolder, experiment: Experiment) -> None:
    text = card_text(read_facts(hunt.run("b")))
    assert table(text, "Data") == [
        ["train", "3", "3", "48×32"], ["val", "2", "2", "48×32"], ["test", "1", "1", "48×32"],
    ]  # fmt: skip
    assert f"`{dataset_fingerprint(Path(experiment.data.root))}`, the same today" in text
    image = Path(experiment.data.root) / "val" / "Color_Images" / "0000000.png"
    cv2.imwrite(str(image), np.zeros((32, 48, 3), np.uint8))
    facts = read_facts(hunt.run("b"))
    assert "it has changed" in card_text(facts)
    assert any("folder of frames has changed since" in line for line in limits(facts))


def test_frames_that_are_gone_leave_the_record(hunt: StudyFolder, experiment: Experiment, tmp_path: Path) -> None:
    recorded = dataset_fingerprint(Path(experiment.data.root))
    Path(experiment.data.root).rename(tmp_path / "elsewhere")
    text = card_text(read_facts(hunt.run("b")))
    assert f"`{recorded}`." in text and "| split |" not in text
    assert look_at_frames(None, None) == DataFacts(None, None, {})


def test_provenance_has_versions_commit_machine_and_command(hunt: StudyFolder) -> None:
    rows = dict(table(card_text(read_facts(hunt.run("b"))), "Provenance"))
    assert rows["command"] == "harness search x.yaml" and rows["commit of the harness"] == "abc-dirty"
    assert rows["torch"] == "2.13.0" and "ray" not in rows and rows["machine"] == "Linux, 8 CPU cores"
    assert rows["device"] == "NVIDIA H100" and rows["started"] == "2026-01-02T03:04:05+00:00"


def test_what_lies_beside_the_card_is_explained(hunt: StudyFolder) -> None:
    facts = read_facts(hunt.run("b"))
    assert "## Use" not in card_text(facts)
    without = card_text(facts, Handed("best", weights=False))
    assert "best.safetensors" not in without and "The weights of this trial were not kept" in without
    text = card_text(facts, Handed("best", weights=True, onnx="It agrees."))
    assert "harness predict best" in text and "`model.onnx`: pixels to logits" in text and "It agrees." in text
    assert "cv2.resize(image, (48, 32))" in text
    assert "onnx" not in card_text(facts, Handed("best", weights=True))


def test_seeds_of_the_same_experiment_have_their_mean_and_interval(made_up, matrices) -> None:
    ablation = {
        "arms": {"first": {}, "second": {"set": {"optimiser.lr": 0.01}}},
        "design": {"kind": "ladder", "rungs": ["first", "second"]},
        "scale": {"full": {"seeds": 3}},
    }
    study = made_up(ablation)
    names = build_taxonomy(Experiment().taxonomy).names
    for seed, hits in enumerate((500, 600, 700)):
        study.trial("first", seed, names, matrices({"Sky": hits}, names))
        RunFolder(study.folder.run(f"first-s{seed}").path).experiment.write_text("data: {root: null}\n")
    facts = read_facts(study.folder.run("first-s1"))
    text = card_text(facts)
    assert "Arm `first` of the ablation `study`, seed 1; 3 seed(s)" in text
    # t with two degrees of freedom: 4.302653 * 0.1 / sqrt(3)
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert f"mean 0.6000, 95 % interval {0.6 - half:.4f} to {0.6 + half:.4f}" in text
    said = "\n".join(limits(facts))
    assert "One seed" not in said and "winner's curse" not in said and "The frames are generated" in said


def test_a_run_without_a_study_has_a_card_of_what_is_known(experiment: Experiment, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "alone")
    run.path.mkdir()
    run.experiment.write_text(dump_yaml(experiment.model_dump(mode="json")))
    facts = read_facts(run)
    text = card_text(facts)
    assert isinstance(facts, CardFacts) and facts.rank is None
    assert "The run stands alone" in text and "No confusion matrices were kept" in text
    assert "(taken today)" in text and "No record of versions" in text and "## Cost" not in text


def test_a_folder_without_a_run_and_settings_of_no_kind_are_refused(hunt: StudyFolder, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no run here"):
        read_facts(RunFolder(tmp_path / "nothing"))
    assert isinstance(read_settings(hunt.settings), SearchSettings)
    for text in ("kind: nonsense\n", "seed: 1\n", "kind: [search]\n", "[]\n"):
        hunt.settings.write_text(text)
        with pytest.raises(ConfigError, match=r"kind .* is none of search, replicates, ablation"):
            read_settings(hunt.settings)


def test_a_damaged_record_is_named(hunt: StudyFolder) -> None:
    whole = hunt.run("b").confusion.read_bytes()
    for content in (b"", whole[: len(whole) // 2]):
        hunt.run("b").confusion.write_bytes(content)
        with pytest.raises(StudyError, match=r"confusion\.npz: damaged .*; restore it, or remove it"):
            read_facts(hunt.run("b"))
    _keep(hunt.run("b").confusion, MATRICES[0])
    with pytest.raises(StudyError, match=r"confusion\.npz: damaged"):
        read_facts(hunt.run("b"))
    hunt.run("b").confusion.unlink()
    hunt.provenance.write_text("{")
    with pytest.raises(StudyError, match=r"provenance\.json: damaged"):
        read_facts(hunt.run("b"))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            {"kind": "backbone", "backbone": "resnet18", "trainable_blocks": 0},
            "convnext_style head on resnet18 (frozen)",
        ),
        ({"kind": "smp", "decoder": "FPN", "encoder": "resnet34"}, "FPN on resnet34"),
        ({"kind": "torchvision", "trainable_encoder": False}, "deeplabv3_mobilenet_v3_large, its encoder frozen"),
    ],
)
def test_a_model_in_words(model: dict, words: str) -> None:
    assert describe_model(validate_section(Experiment, {"model": model}, "e")) == words


def test_classes_without_a_training_pixel_are_named_once_a_training_has_counted_them(
    hunt: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    facts = read_facts(hunt.run("b"))
    assert facts.trained_on is None and not any("Never seen" in line for line in limits(facts))
    some = replace(facts, trained_on=np.array([4, 0, 0]))
    said = "Never seen in training, as the training frames hold no pixel of them: Rock, Log|s."
    assert said in limits(some) and f"- {said}" in card_text(some)
    assert not any("Never seen" in line for line in limits(replace(facts, trained_on=np.array([4, 1, 1]))))
