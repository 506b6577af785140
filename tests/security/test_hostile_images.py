"""Pictures made to cost memory, to hang a reader, or to be read as something else than they seem."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from harness.config.data import NamedTaxonomy
from harness.data import Frame, build_taxonomy, check_dataset, dataset_fingerprint, list_frames, read_image, read_mask
from harness.data.frames import MAX_PIXELS, read_frame
from harness.data.loose_files import frames_of_images, mask_pairs
from harness.errors import DataError

MASK = np.full((16, 24), 7100, np.uint16)
IMAGE = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8).repeat(8, 0).repeat(8, 1)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, pixels: bytes, *before: bytes, after: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + pixels + after + chunk(b"IEND", b"")


def picture(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(IMAGE).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset of three training frames and one to validate."""
    for split, names in (("train", "abc"), ("val", "d")):
        for folder, array in (("Color_Images", IMAGE), ("Segmentation", MASK)):
            (tmp_path / split / folder).mkdir(parents=True)
            for name in names:
                cv2.imwrite(str(tmp_path / split / folder / f"{name}.png"), array)
    return tmp_path


@contextmanager
def little_memory() -> Iterator[None]:
    """NumPy and Python may not take more than ten megabytes at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("width", "height"), [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (MAX_PIXELS + 1, 1), (1, 2**30)]
)
@pytest.mark.parametrize("read", [read_mask, read_image])
def test_a_small_png_of_a_huge_picture_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read, width: int, height: int
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(width, height, 8, 0, b"\0" * 1_000_000))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with (
        little_memory(),
        pytest.raises(DataError, match=rf"bomb\.png: {width}x{height} pixels; images of up to 67108864"),
    ):
        read(path)


def test_a_jpeg_of_a_huge_picture_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(picture("JPEG"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", 60_000, 50_000)
    (tmp_path / "bomb.jpg").write_bytes(bytes(content))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(
        DataError, match=r"bomb\.jpg: 50000x60000 pixels; images of up to 67108864 pixels \(8192x8192\)"
    ):
        read_image(tmp_path / "bomb.jpg")


def test_a_second_header_does_not_hide_a_huge_picture(tmp_path: Path) -> None:
    small = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(png(60_000, 60_000, 8, 0, b"\0\0", small))
    with pytest.raises(DataError, match="60000x60000 pixels"):
        read_image(tmp_path / "bomb.png")


def test_pixels_that_go_on_for_gigabytes_are_not_unpacked(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in MASK)
    (tmp_path / "long.png").write_bytes(png(24, 16, 16, 0, rows + b"\0" * 20_000_000))
    with little_memory():
        assert np.array_equal(read_mask(tmp_path / "long.png"), MASK)


def test_a_file_of_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with little_memory(), pytest.raises(DataError, match=r"large\.png: 1099511627776 bytes; an image has up to"):
        read_image(path)


def test_what_opencv_itself_refuses_is_refused_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise cv2.error("some assertion")

    (tmp_path / "a.png").write_bytes(picture("PNG"))
    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(DataError, match=r"a\.png: OpenCV cannot decode it"):
        read_image(tmp_path / "a.png")


CONTROL = chunk(b"acTL", struct.pack(">II", 1, 0))
OTHER = struct.pack(">IIIIIHHBB", 0, 24, 16, 0, 0, 1, 10, 0, 0)


@pytest.mark.parametrize(
    "hidden",
    [
        # the pixels of the file are no part of the animation: OpenCV shows others
        (b"", chunk(b"fcTL", OTHER) + chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(b"\0" * 49 * 16))),
        (chunk(b"fcTL", OTHER), b""),
        (chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 1, 10, 0, 0)), b""),
    ],
    ids=["another picture", "one picture", "a part of it"],
)
def test_an_animated_png_is_refused(tmp_path: Path, hidden: tuple[bytes, bytes]) -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in MASK)
    (tmp_path / "moving.png").write_bytes(png(24, 16, 16, 0, rows, CONTROL, hidden[0], after=hidden[1]))
    for read in (read_mask, read_image):
        with pytest.raises(DataError, match=r"moving\.png: an animated PNG, several pictures in one file"):
            read(tmp_path / "moving.png")


def test_an_image_of_16_bits_is_refused_because_it_would_become_dark(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), IMAGE.astype(np.uint16))
    assert cv2.imread(str(path), cv2.IMREAD_COLOR).max() == 0
    with pytest.raises(DataError, match=r"deep\.png: an image of 16 bits a channel; a frame has 8"):
        read_image(path)


def test_a_cmyk_jpeg_has_the_colours_that_other_readers_see(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    path.write_bytes(picture("JPEG", "CMYK", quality=98))
    with Image.open(path) as other:
        difference = np.abs(read_image(path).astype(int) - np.array(other.convert("RGB")).astype(int))
    assert difference.max() <= 3


def exif(orientation: int) -> Image.Exif:
    about = Image.Exif()
    about[0x0112] = orientation
    return about


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_image_is_read_upright_and_is_no_frame_with_a_mask(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    path, mask = tmp_path / "turned.png", tmp_path / "mask.png"
    path.write_bytes(picture(kind, exif=exif(orientation)))
    with Image.open(path) as other:
        upright = np.array(ImageOps.exif_transpose(other))
    assert np.abs(read_image(path).astype(int) - upright).max() <= 3
    for size in ((16, 24), (24, 16)):
        cv2.imwrite(str(mask), np.full(size, 7100, np.uint16))
        with pytest.raises(DataError, match=r"turned\.png: stored turned or mirrored \(Exif orientation\)"):
            read_frame(Frame("a", path, mask))


@pytest.mark.parametrize(
    "about",
    [exif(1), exif(0), exif(9), b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"],
)
def test_exif_that_turns_nothing_or_is_damaged_is_of_no_account(tmp_path: Path, about: object) -> None:
    path, mask = tmp_path / "a.jpg", tmp_path / "mask.png"
    path.write_bytes(picture("JPEG", exif=about))
    cv2.imwrite(str(mask), MASK)
    assert read_frame(Frame("a", path, mask))[0].shape == (16, 24, 3)


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture(tmp_path: Path) -> None:
    content = picture("JPEG")
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(content)) + b"Other\0" + content
    (tmp_path / "a.jpg").write_bytes(content[:2] + thumbnail + content[2:])
    assert read_image(tmp_path / "a.jpg").shape == (16, 24, 3)
    (tmp_path / "a.jpg").write_bytes(content[:2] + thumbnail + content[2:-20])
    with pytest.raises(DataError, match="cut short"):
        read_image(tmp_path / "a.jpg")


def test_a_pipe_among_the_images_is_refused_and_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "train" / "Color_Images" / "e.png")
    cv2.imwrite(str(root / "train" / "Segmentation" / "e.png"), MASK)
    with pytest.raises(DataError, match=r"e\.png: no file \(a folder, a pipe, a device\)"):
        dataset_fingerprint(root)
    with pytest.raises(DataError, match=r"e\.png: no file"):
        read_frame(list_frames(root, "train")[3])
    problems = check_dataset(root, build_taxonomy(NamedTaxonomy())).problems
    assert len(problems) == 1 and "e.png: no file" in problems[0]
    with pytest.raises(DataError, match="no such image or folder"):
        frames_of_images([root / "train" / "Color_Images" / "e.png"])


def test_a_device_without_end_is_refused(root: Path) -> None:
    (root / "train" / "Color_Images" / "a.png").unlink()
    (root / "train" / "Color_Images" / "a.png").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"a\.png: no file \(a folder, a pipe, a device\)"):
        dataset_fingerprint(root)


@pytest.mark.parametrize("target", ["/etc/passwd", "..", "loop.png", "/nowhere/at/all"])
def test_a_link_to_something_else_is_refused_with_its_name_and_tells_nothing_of_it(root: Path, target: str) -> None:
    path = root / "train" / "Color_Images" / "loop.png"
    path.symlink_to(target)
    cv2.imwrite(str(root / "train" / "Segmentation" / "loop.png"), MASK)
    problems = check_dataset(root, build_taxonomy(NamedTaxonomy())).problems
    assert len(problems) == 1 and "loop.png: " in problems[0] and "root:" not in problems[0]


def test_a_link_to_an_image_is_that_image(root: Path) -> None:
    path = root / "train" / "Color_Images" / "a.png"
    kept = path.rename(root / "kept.png")
    path.symlink_to(kept)
    assert np.array_equal(read_frame(list_frames(root, "train")[0])[0], IMAGE[..., ::-1])
    assert len(dataset_fingerprint(root)) == 16


@pytest.mark.parametrize(
    "name", ["a\nb", "größe", "[red]x", "-rf", "x" * 240, " ", "a'b\"c", "%s%n", "\x1b[2J", "a?b#c"]
)
def test_any_name_is_a_frames_name(root: Path, name: str) -> None:
    for folder in ("Color_Images", "Segmentation"):
        (root / "train" / folder / "a.png").rename(root / "train" / folder / f"{name}.png")
    assert name in [frame.name for frame in list_frames(root, "train")]
    assert len(dataset_fingerprint(root)) == 16
    result = check_dataset(root, build_taxonomy(NamedTaxonomy()))
    assert not result.problems
    assert frames_of_images([root / "train" / "Color_Images"])
    assert mask_pairs(root / "train" / "Segmentation", root / "train" / "Segmentation")


def test_a_name_that_is_no_utf_8_is_a_frames_name(root: Path) -> None:
    for folder in ("Color_Images", "Segmentation"):
        place = os.fsencode(root / "train" / folder)
        os.rename(place + b"/a.png", place + b"/\xff\xfe.png")
    assert len(list_frames(root, "train")) == 3
    assert len(dataset_fingerprint(root)) == 16


def test_what_file_managers_leave_behind_is_no_image(root: Path) -> None:
    for folder in ("Color_Images", "Segmentation"):
        (root / "train" / folder / "._a.png").write_bytes(b"left by a file manager")
    assert len(frames_of_images([root / "train" / "Color_Images"])) == 3
    assert len(mask_pairs(root / "train" / "Segmentation", root / "train" / "Segmentation")) == 3


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"<svg/>", b"%PDF-1.4", b"\x80\x04\x95"])
def test_an_empty_or_other_file_is_refused_with_its_size(root: Path, content: bytes) -> None:
    (root / "train" / "Color_Images" / "a.png").write_bytes(content)
    problems = check_dataset(root, build_taxonomy(NamedTaxonomy())).problems
    assert len(problems) == 1 and f"a.png: cut short or damaged ({len(content)} bytes)" in problems[0]
