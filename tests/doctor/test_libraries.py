"""What is made of the answers of libraries, good ones and broken ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.doctor import answers, dataset, libraries, weights
from harness.doctor.ask import MARK, Answer, ask, tell

GPU = {"name": "H100", "free": 70e9, "total": 80e9, "error": ""}
TORCH = {"version": "2.13.0", "cuda": "13.0", "threads": 8, "gpus": [GPU]}
DRIVER = ["GPU 0: NVIDIA H100 (UUID: ...)"]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that `ask` can run, and gives its name."""

    def write(source: str) -> str:
        (tmp_path / "pretend.py").write_text(source)
        return "pretend"

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return write


def test_an_answer_is_found_among_what_a_library_prints(module):
    noise = f"print('welcome'); print({MARK + json.dumps({'a': 1})!r}); print('bye')"
    assert ask(module(noise)) == Answer({"a": 1})


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise ImportError('libcudart.so.12: cannot open')", "ImportError: libcudart.so.12: cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its process died of SIGSEGV: nothing was said"),
        ("raise SystemExit(3)", "nothing was said"),
        ("print('no answer')", "nothing was said"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
    ],
)
def test_a_broken_library_is_reported_however_it_breaks(module, source, error):
    timeout = 1 if "sleep" in source else 60
    assert ask(module(source), timeout=timeout) == Answer({}, error)


def test_what_is_told_is_one_line(capsys):
    tell({"a": "b\nc"})
    assert capsys.readouterr().out == MARK + '{"a": "b\\nc"}\n'


def test_torch_and_its_gpus_have_a_line_each():
    checks = libraries.torch_checks(Answer(TORCH), DRIVER)
    assert [check.state for check in checks] == ["ok", "ok"]
    assert "2.13.0, CUDA 13.0" in checks[0].found and checks[1].found == "H100, 70.0 of 80.0 GB free"


@pytest.mark.parametrize(
    ("gpu", "state", "words"),
    [
        (GPU | {"free": 10e9}, "warn", "nvidia-smi"),
        (GPU | {"error": "no kernel image is available"}, "bad", "no kernel image is available"),
    ],
)
def test_a_gpu_that_is_taken_or_cannot_compute_is_told(gpu, state, words):
    check = libraries.torch_checks(Answer(TORCH | {"gpus": [gpu]}), DRIVER)[1]
    assert check.state == state and words in check.found + check.remedy


def test_a_gpu_that_torch_does_not_see_is_a_fault_and_no_gpu_at_all_a_hint(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    none, without = TORCH | {"gpus": []}, TORCH | {"gpus": [], "cuda": None}
    assert libraries.torch_checks(Answer(none), [])[1].state == "warn"
    blind = libraries.torch_checks(Answer(without), DRIVER)[1]
    assert blind.state == "bad" and "built without CUDA" in blind.found
    assert "newer than the driver" in libraries.torch_checks(Answer(none), DRIVER)[1].found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert libraries.torch_checks(Answer(none), DRIVER)[1].remedy == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    "error", [subprocess.TimeoutExpired("nvidia-smi", 60), PermissionError(13, "Permission denied")]
)
def test_a_driver_whose_tool_hangs_or_cannot_be_run_is_a_fault_with_what_helps(monkeypatch, error):
    def hangs(*_, **__):
        raise error

    monkeypatch.setattr(libraries, "ask", lambda *words: Answer(TORCH | {"gpus": []}))
    monkeypatch.setattr(libraries.shutil, "which", lambda program: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(libraries.subprocess, "run", hangs)
    *_, driver = libraries.torch()
    assert (
        driver.state == "bad" and driver.found.startswith("nvidia-smi does not answer: ") and "dmesg" in driver.remedy
    )


def test_libraries_that_do_not_import_are_faults_with_the_command_that_mends_them():
    gone = Answer({}, "ModuleNotFoundError: No module named 'torch'")
    (check,) = libraries.torch_checks(gone, DRIVER)
    assert check.state == "bad" and check.remedy == "pip install 'torch' -c constraints.txt"
    abi = Answer({}, "ImportError: A module compiled using NumPy 1.x: numpy.core.multiarray _ARRAY_API not found")
    assert "built for another NumPy" in libraries.image_checks(abi)[0].remedy
    (check,) = libraries.ray_checks(Answer({}, "ModuleNotFoundError: No module named 'ray'"))
    assert check.state == "bad" and "ray[tune]" in check.remedy and "--executor inprocess" in check.remedy
    (check,) = libraries.ray_checks(Answer({}, "no answer within 180 s"))
    assert check.state == "bad" and "does not start: no answer" in check.found and "session_latest" in check.remedy


def test_libraries_that_work_say_their_versions():
    found = {"numpy": "2.4", "cv2": "5.0", "albumentations": "2.0.8"}
    assert libraries.image_checks(Answer(found))[0].found == "cv2 5.0, albumentations 2.0.8, numpy 2.4"
    assert "started and answered in 2.5 s" in libraries.ray_checks(Answer({"version": "2.60", "seconds": 2.5}))[0].found


def test_opencv_and_albumentations_answer_here():
    assert libraries.images()[0].state == "ok"


def test_torch_answers_here(monkeypatch):
    assert set(answers.torch()) == {"version", "cuda", "threads", "gpus"}
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError):
        answers.torch()


def test_each_space_says_which_of_its_weights_are_here():
    rows = [
        {"space": "heads", "name": "timm/a", "cached": True},
        {"space": "heads", "name": "timm/b", "cached": False},
        {"space": "deeplab", "name": "smp/c", "cached": True},
    ]
    heads, deeplab = libraries.weight_checks(Answer({"weights": rows}))
    assert heads.state == "warn" and heads.found == "1 of 2 not in the cache: timm/b" and "HF_HOME" in heads.remedy
    assert deeplab.state == "ok" and deeplab.found == "all 1 in the cache: smp/c"
    assert libraries.weight_checks(Answer({"weights": []}))[0].found == "no space asks for pretrained ones"
    assert libraries.weight_checks(Answer({}, "ModuleNotFoundError: timm"))[0].state == "warn"
    assert libraries.weights([])[0].state == "ok"


def test_weights_are_looked_up_by_file_once_and_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.models.weights.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("harness.models.weights.HubFile.fetch", lambda _: pytest.fail("fetched"))
    (tmp_path / "s.yaml").write_text(
        "experiment: {model: {kind: smp, encoder: resnet18, weights: pretrained}, data: {input_size: [64, 64]}}\n"
        "parameters:\n"
        "  decoder: {kind: choice, field: model.decoder, choices: [Unet, FPN]}\n"
        "  encoder: {kind: choice, field: model.encoder, choices: [resnet18, tu-resnet18]}\n"
    )
    rows = weights.wanted_weights([tmp_path / "s.yaml"])
    assert [row["name"] for row in rows] == ["smp-hub/resnet18.imagenet", "timm/resnet18.a1_in1k"]
    assert not any(row["cached"] for row in rows) and {row["space"] for row in rows} == {"s"}
    saved = tmp_path / "hub" / "models--timm--resnet18.a1_in1k"
    (saved / "snapshots" / "0123").mkdir(parents=True)
    (saved / "refs").mkdir()
    (saved / "refs" / "main").write_text("0123")
    (saved / "snapshots" / "0123" / "model.safetensors").write_bytes(b"")
    assert [row["cached"] for row in weights.wanted_weights([tmp_path / "s.yaml"])] == [False, True]


def test_a_space_of_random_weights_wants_none(tmp_path):
    (tmp_path / "s.yaml").write_text("parameters: {lr: {kind: float, field: optimiser.lr, low: 1e-4, high: 1e-2}}\n")
    assert weights.wanted_weights([tmp_path / "s.yaml"]) == []


def test_a_dataset_is_in_order_or_has_its_problems_named(falcon_frames, tmp_path):
    found = dataset.looked_at(falcon_frames, "falcon10")
    (check,) = libraries.dataset_checks(Answer(found), falcon_frames)
    assert check.state == "ok" and "10 train, 4 val frames of 960x540" in check.found
    (check,) = libraries.dataset_checks(Answer(dataset.looked_at(tmp_path, "falcon10")), tmp_path)
    assert check.state == "bad" and "problem(s)" in check.found and check.remedy == f"harness data check {tmp_path}"
    assert libraries.dataset_checks(Answer({}, "KilledError"), Path("x"))[0].state == "bad"
