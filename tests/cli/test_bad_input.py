"""Bad input is exit code 2 and one message on standard error, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from huggingface_hub import constants


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cached weights and no network, on any machine."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def refused(harness, results):
    """Call with bad input; returns the message, which is all that is printed and written."""

    def call(*words: object) -> str:
        said = harness(*words)
        assert said.code == 2
        assert said.out == ""
        assert said.err.startswith("error: ") and said.err.count("error: ") == 1
        assert "Traceback" not in said.err
        assert not results.exists(), "something was written"
        return said.err.removeprefix("error: ").strip()

    return call


def rewritten(space: Path, old: str, new: str) -> Path:
    text = space.read_text()
    assert old in text
    space.write_text(text.replace(old, new))
    return space


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size: 2", "batchsize: 2", "experiment.training.batchsize: unknown key; did you mean 'batch_size'?"),
        ("kind: linear", "kind: lineer", "experiment.model.head: kind 'lineer' does not exist; did you mean 'linear'?"),
        (
            "strategy: random_asha",
            "strategy: random_asa",
            "search.strategy: 'random_asa' is not a choice; did you mean 'random_asha'?",
        ),
        ("batch_size: 2", "batch_size: 0", "training.batch_size: input should be greater than or equal to 1, not 0"),
        ("epochs: 2", "epochs: two", "experiment.training.epochs: input should be a valid integer, not 'two'"),
        ("low: 1e-4", "low: 1", "low 1.0 must be below high 0.1"),
        ("field: optimiser.lr", "field: optimizer.lr", "there is no field 'optimizer'; did you mean 'optimiser'?"),
        ("parameters:", "parameters: {}\nparameters:", "key 'parameters' stands twice"),
    ],
)
def test_a_mistake_in_the_space_is_named_with_the_field(refused, space, old, new, message):
    said = refused("search", rewritten(space, old, new), "--executor", "inprocess")
    assert message in said


def test_a_mistake_in_a_file_is_named_with_file_and_line(refused, space):
    wrong = rewritten(space, "strategy: random_asha", "strategy: random_asa")
    said = refused("search", wrong, "--executor", "inprocess")
    assert said.startswith(f"{space}:7: search.strategy:")


def test_a_file_that_does_not_exist_is_refused(refused, tmp_path):
    assert "gone.yaml: cannot be read" in refused("search", tmp_path / "gone.yaml")
    assert "gone.yaml: cannot be read" in refused("train", tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=3", "override training.epoch: there is no field 'training.epoch'; did you mean 'epochs'?"),
        ("training.epochs", "override 'training.epochs' has no '='; write it as path.to.field=value"),
        ("training.epochs=many", "training.epochs: input should be a valid integer, not 'many'"),
        ("loss.dice.weight=-1", "loss.dice.weight: input should be greater than or equal to 0, not -1"),
    ],
)
def test_an_override_that_fits_no_field_is_refused(refused, space, override, message):
    assert message in refused("search", space, "--set", override, "--executor", "inprocess")


def test_a_missing_data_folder_is_refused(refused, space, tmp_path):
    said = refused("search", space, "--data", tmp_path / "nowhere", "--executor", "inprocess")
    assert "nowhere/train: no frames there; the layout is" in said


def test_an_image_without_a_mask_is_refused(refused, space, frames):
    mask = sorted((frames / "train" / "Segmentation").iterdir())[0]
    mask.unlink()
    said = refused("search", space, "--data", frames, "--executor", "inprocess")
    assert f"1 images without a mask ({mask.stem})" in said


def test_an_8_bit_mask_is_refused(refused, space, frames):
    mask = sorted((frames / "train" / "Segmentation").iterdir())[0]
    cv2.imwrite(str(mask), np.zeros((32, 48), np.uint8))
    assert f"{mask}: an 8-bit mask" in refused("search", space, "--data", frames, "--executor", "inprocess")


def test_an_unlisted_id_is_refused_before_the_first_trial(refused, space, frames):
    mask = sorted((frames / "val" / "Segmentation").iterdir())[0]
    raw = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    raw[0, :2] = 1234
    cv2.imwrite(str(mask), raw)
    said = refused("search", space, "--data", frames, "--executor", "inprocess")
    assert f"{mask}: raw ids in no class: 1234 (2 pixels)" in said


def test_a_truncated_png_is_refused(refused, space, frames):
    image = sorted((frames / "train" / "Color_Images").iterdir())[0]
    image.write_bytes(image.read_bytes()[:100])
    assert f"{image}: cut short or damaged (100 bytes)" in refused(
        "search", space, "--data", frames, "--executor", "inprocess"
    )


def test_an_input_size_that_the_model_cannot_take_is_refused(refused, space, desert):
    words = ["--set", "model.backbone=vit_tiny_patch16_224", "--set", "model.stride=null"]
    said = refused(
        "search", space, "--data", desert, *words, "--set", "data.input_size=[32, 50]", "--executor", "inprocess"
    )
    assert said == "vit_tiny_patch16_224: input width 50 is not a multiple of 16; use 48 or 64"


def test_weights_that_cannot_be_had_are_refused(refused, space, desert):
    said = refused("search", space, "--data", desert, "--set", "model.weights=pretrained", "--executor", "inprocess")
    assert "pretrained weights are not in the cache and could not be fetched" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_is_refused_where_there_is_none(refused, space):
    assert "asks for a GPU, and torch sees none on this machine" in refused("search", space, "--gpus-per-trial", "0.5")


def test_more_cores_than_there_are_are_refused(refused, space):
    assert "--cpus-per-trial 4096: this machine has" in refused("search", space, "--cpus-per-trial", 4096)


def test_an_existing_name_is_refused_without_resume_and_a_new_one_with_it(harness, results, space, desert):
    words = ("search", space, "--data", desert, "--executor", "inprocess")
    said = harness(*words, "--name", "new", "--resume")
    assert (said.code, results.exists()) == (2, False)
    assert "--resume: there is no study at" in said.err
    (results / "old").mkdir(parents=True)
    (results / "old" / "thesis.txt").touch()
    said = harness(*words, "--name", "old")
    assert (said.code, [path.name for path in (results / "old").iterdir()]) == (2, ["thesis.txt"])
    assert "study 'old' already exists" in said.err


def test_resume_needs_a_name(refused, space):
    assert refused("search", space, "--resume") == "--resume needs --name: which study is to go on?"


@pytest.mark.parametrize("duration", ["90", "soon", "5 m", "1h30", "-3m"])
def test_a_duration_that_is_none_is_refused(harness, results, space, duration):
    said = harness("search", space, f"--time-budget={duration}", "--executor", "inprocess")
    assert (said.code, said.out, results.exists()) == (2, "", False)
    assert f"'{duration}' is no duration; write 90s, 30m, 2h, 1d or 1h30m" in said.err


@pytest.mark.parametrize(
    "words", [("search", "--trials", "0"), ("search", "--executor", "slurm"), ("hunt",), ("search", "--trails", "3")]
)
def test_words_that_the_command_line_does_not_know_are_refused(harness, results, words):
    said = harness(*words)
    assert (said.code, said.out, results.exists()) == (2, "", False)
    assert said.err


def test_a_study_or_run_that_does_not_exist_is_refused(refused, tmp_path):
    assert "study 'gone' does not exist" in refused("export", "gone")
    assert "run 'gone' does not exist: give a run folder" in refused("evaluate", "gone")
    assert "run 'gone' does not exist" in refused("predict", "gone", tmp_path, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_of_masks_that_do_not_pair_are_refused(refused, desert, tmp_path):
    masks = desert / "val" / "Segmentation"
    assert "no such folder; give a folder of raw-id masks" in refused("score", tmp_path / "gone", masks)
    assert "mask(s) without a partner" in refused("score", desert / "train" / "Segmentation", masks)


def test_masks_of_two_sizes_are_refused_with_the_file(refused, frames, desert):
    mask = sorted((frames / "val" / "Segmentation").iterdir())[0]
    cv2.imwrite(str(mask), np.full((16, 24), 10000, np.uint16))
    said = refused("score", frames / "val" / "Segmentation", desert / "val" / "Segmentation")
    assert "16" in said and "32" in said


def test_data_check_lists_every_problem_and_ends_with_their_number(harness, frames):
    image = sorted((frames / "train" / "Color_Images").iterdir())[0]
    image.write_bytes(image.read_bytes()[:100])
    mask = sorted((frames / "val" / "Segmentation").iterdir())[0]
    cv2.imwrite(str(mask), np.zeros((32, 48), np.uint8))
    said = harness("data", "check", frames)
    assert said.code == 2
    assert f"{image}: cut short" in said.out and f"{mask}: an 8-bit mask" in said.out
    assert "2 problem(s) in 6 train, 3 val, 2 test frames" in said.err


def test_the_program_itself_ends_with_code_2_and_the_message(space, tmp_path):
    rewritten(space, "strategy: random_asha", "strategy: random_asa")
    ran = subprocess.run(
        [sys.executable, "-c", "from harness.cli import main; main()", "search", str(space)],
        env={**os.environ, "HARNESS_RESULTS": str(tmp_path / "results")},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert (
        ran.stderr.startswith("error: ") and "'random_asa' is not a choice; did you mean 'random_asha'?" in ran.stderr
    )
