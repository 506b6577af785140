"""Videos of a few frames, written here with OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from harness.config import Experiment
from harness.data import build_taxonomy
from harness.engine import video as videos
from harness.engine.inference import View
from harness.engine.predict import predict_classes
from harness.engine.trained import Trained
from harness.engine.video import Video, open_video, open_videos, write_video
from harness.errors import DataError
from harness.models import build_model

LOOKS = (View(32, 48, False),)


@pytest.fixture
def trained(experiment: Callable[..., Experiment]) -> Trained:
    torch.manual_seed(1)
    model = build_model(experiment().model, 10).eval()
    with torch.no_grad():
        model.head.bias -= model(2 * torch.randn(8, 3, 32, 48)).mean((0, 2, 3))
    return Trained(experiment(), build_taxonomy(experiment().taxonomy), model, epoch=1, score=0.5)


def film(
    path: Path, frames: int = 3, size: tuple[int, int] = (36, 54), codec: str = "MJPG", rate: float = 12.5
) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, size[::-1])
    assert writer.isOpened()
    for number in range(frames):
        coarse = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
        writer.write(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))
    writer.release()
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    capture, found = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        found.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return found


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("b.mp4", "mp4v"), ("C.AVI", "XVID")])
def test_every_frame_gets_its_classes_laid_over_it_at_the_same_rate(
    trained: Trained, tmp_path: Path, name: str, codec: str
) -> None:
    video = open_video(film(tmp_path / name, codec=codec))
    assert (video.rate, video.promised) == (12.5, 3)

    assert list(write_video(trained, video, tmp_path / "out", LOOKS, masks=True)) == [1, 2, 3]

    written = tmp_path / "out" / "overlay" / f"{video.path.stem}.mp4"
    assert open_video(written) == Video(written, 12.5, 3, (36, 54))
    colours = trained.taxonomy.colours
    for number, (image, shown) in enumerate(zip(frames_of(video.path), frames_of(written), strict=True)):
        classes = predict_classes(trained, image, LOOKS)
        mask = cv2.imread(str(tmp_path / "out" / "raw" / video.path.stem / f"{number:06d}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint16
        np.testing.assert_array_equal(mask, np.array(trained.taxonomy.ids)[classes])
        # the codec loses detail, not the colours of areas
        half = (image.astype(float) + colours[classes]) / 2
        assert np.abs(shown - half).mean() < 12
        assert np.abs(shown - half).mean() < np.abs(shown - image.astype(float)).mean() / 2


def test_without_masks_there_is_the_video_alone(trained: Trained, tmp_path: Path) -> None:
    list(write_video(trained, open_video(film(tmp_path / "a.avi")), tmp_path / "out", LOOKS))
    assert [str(p.relative_to(tmp_path / "out")) for p in tmp_path.glob("out/**/*.*")] == ["overlay/a.mp4"]


def test_a_video_of_odd_sides_loses_no_row(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = open_video(film(tmp_path / "a.avi"))
    odd = [np.full((37, 53, 3), 90, np.uint8)] * 2
    monkeypatch.setattr(videos, "_predicted", lambda *_: ((image, np.zeros((37, 53), np.uint8)) for image in odd))

    list(write_video(trained, video, tmp_path / "out", LOOKS))

    shown = frames_of(tmp_path / "out" / "overlay" / "a.mp4")
    assert [frame.shape for frame in shown] == [(38, 54, 3)] * 2
    assert np.abs(shown[0].astype(int) - shown[0][0, 0]).max() < 12


def test_windows_are_taken_in_videos_too(trained: Trained, tmp_path: Path) -> None:
    video = open_video(film(tmp_path / "a.avi", frames=1, size=(64, 96)))

    list(write_video(trained, video, tmp_path / "out", LOOKS, overlap=0.25, masks=True))

    mask = cv2.imread(str(tmp_path / "out" / "raw" / "a" / "000000.png"), cv2.IMREAD_UNCHANGED)
    classes = predict_classes(trained, frames_of(video.path)[0], LOOKS, 0.25)
    np.testing.assert_array_equal(mask, np.array(trained.taxonomy.ids)[classes])


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100], ids=["empty", "junk"])
def test_a_file_that_is_no_video_is_refused_with_its_size(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.mp4: OpenCV cannot open it \({len(content)} bytes\).*ffmpeg -i a\.mp4"):
        open_video(tmp_path / "a.mp4")


def test_a_video_without_a_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.(avi|mp4): (OpenCV cannot open it|not one frame of it)"):
        open_video(film(tmp_path / "a.avi", frames=0))


def test_a_missing_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such video; check the path"):
        open_video(tmp_path / "a.mp4")


def test_two_videos_of_one_name_are_refused_before_one_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="have one name.*two folders"):
        open_videos([tmp_path / "a.mp4", tmp_path / "b" / "a.avi"])


def test_a_video_cut_short_gives_the_frames_that_are_left_beside_the_number_promised(
    trained: Trained, tmp_path: Path
) -> None:
    whole = film(tmp_path / "a.avi", frames=9, size=(128, 192)).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) * 3 // 4])
    video = open_video(tmp_path / "cut.avi")

    done = list(write_video(trained, video, tmp_path / "out", LOOKS))

    assert video.promised == 9 and 1 <= len(done) < 9
    assert len(frames_of(tmp_path / "out" / "overlay" / "cut.mp4")) == len(done)


def test_a_prediction_that_ends_early_leaves_no_half_video(trained: Trained, tmp_path: Path) -> None:
    rows = write_video(trained, open_video(film(tmp_path / "a.avi")), tmp_path / "out", LOOKS)
    next(rows)
    rows.close()
    assert list((tmp_path / "out" / "overlay").iterdir()) == []


def test_a_video_that_was_not_written_whole_is_an_error(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    even, calls = videos._even, iter(range(100))

    def tear(picture: np.ndarray) -> np.ndarray:
        # OpenCV drops a frame of another size without a word
        return even(picture)[:-2] if next(calls) == 2 else even(picture)

    monkeypatch.setattr(videos, "_even", tear)
    with pytest.raises(DataError, match=r"a\.mp4: 2 of 3 frames were written; is the disk full\?"):
        list(write_video(trained, open_video(film(tmp_path / "a.avi")), tmp_path / "out", LOOKS))
    assert list((tmp_path / "out" / "overlay").iterdir()) == []
