"""`harness predict` on videos and with windows."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

HERE = ("--executor", "inprocess")


@pytest.fixture
def run(harness, results, desert, tmp_path) -> str:
    (tmp_path / "e.yaml").write_text("training: {epochs: 1}\ndata: {input_size: [32, 48]}\n")
    assert harness("train", tmp_path / "e.yaml", "--data", desert, "--seeds", "1", "--name", "t", *HERE).code == 0
    return "t"


def film(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 40))
    for number in range(frames):
        writer.write(np.full((40, 64, 3), 6 * number, np.uint8))
    writer.release()
    return path


def test_videos_and_images_are_predicted_in_one_call_and_counted(harness, run, desert, tmp_path):
    video, images, out = film(tmp_path / "drive.avi", 4), desert / "val" / "Color_Images", tmp_path / "out"
    said = harness("predict", run, video, images, "-o", out, "--masks", "--tta", "1,flip")
    assert said.code == 0
    assert f"3 frames → {out}/raw" in said.out
    assert f"drive.avi: 4 frames → {out}/overlay/drive.mp4 and {out}/raw/drive" in said.out
    assert sorted(path.name for path in (out / "raw" / "drive").iterdir()) == [f"{n:06d}.png" for n in range(4)]
    assert len(list((out / "overlay").glob("*.png"))) == 3 and (out / "overlay" / "drive.mp4").stat().st_size > 0


def test_a_broken_video_is_refused_before_anything_is_predicted(harness, run, desert, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    said = harness("predict", run, desert / "val" / "Color_Images", tmp_path / "broken.mp4", "-o", tmp_path / "out")
    assert said.code == 2 and "broken.mp4: OpenCV cannot open it (8 bytes)" in said.err
    assert not (tmp_path / "out").exists()
    said = harness("predict", run, tmp_path / "none.mp4", "-o", tmp_path / "out")
    assert said.code == 2 and "none.mp4: no such video" in said.err


def test_a_video_cut_short_is_predicted_as_far_as_it_goes_and_told(harness, run, tmp_path):
    whole = film(tmp_path / "whole.avi", 40).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) * 3 // 4])
    said = harness("predict", run, tmp_path / "cut.avi", "-o", tmp_path / "out")
    assert said.code == 0 and "its header names 40 frames," in said.out and "is it cut short?" in said.out


def test_windows_see_large_images_at_their_own_size_and_refuse_small_ones(harness, run, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "large.png"), noise)
    cv2.imwrite(str(tmp_path / "small.png"), noise[:30])
    assert harness("predict", run, tmp_path / "large.png", "-o", tmp_path / "cut", "--windows", "0.25").code == 0
    assert harness("predict", run, tmp_path / "large.png", "-o", tmp_path / "whole").code == 0
    cut, whole = (cv2.imread(str(tmp_path / f / "raw" / "large.png"), cv2.IMREAD_UNCHANGED) for f in ("cut", "whole"))
    assert cut.shape == whole.shape == (80, 100) and (cut != whole).any()
    said = harness("predict", run, tmp_path / "small.png", "-o", tmp_path / "x", "--windows", "0.25")
    assert said.code == 2 and "small.png: an image of 100x30 pixels is smaller than a window of 48x32" in said.err
    assert harness("predict", run, tmp_path / "large.png", "-o", tmp_path / "x", "--windows", "1").code == 2


def test_what_is_smaller_than_a_window_is_refused_before_the_first_progress_bar(harness, run, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "large.png"), noise)
    cv2.imwrite(str(tmp_path / "small.png"), noise[:30])
    words = ("-o", tmp_path / "out", "--windows", "0.25")
    said = harness("predict", run, tmp_path / "large.png", tmp_path / "small.png", *words)
    assert said.code == 2 and said.out == "" and not (tmp_path / "out").exists()
    narrow = cv2.VideoWriter(str(tmp_path / "narrow.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (40, 64))
    narrow.write(np.zeros((64, 40, 3), np.uint8))
    narrow.release()
    said = harness("predict", run, tmp_path / "large.png", tmp_path / "narrow.avi", *words)
    assert said.code == 2 and "narrow.avi: a video of 40x64 pixels is smaller" in said.err
    assert said.out == "" and not (tmp_path / "out").exists()
