from __future__ import annotations

import os
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.data.frames import (
    dataset_fingerprint,
    image_size,
    list_frames,
    read_frame,
    read_image,
    read_in_order,
    read_mask,
)
from harness.errors import DataError


def mask_of(root, name="a"):
    return root / "train" / "Segmentation" / f"{name}.png"


def image_of(root, name="a"):
    return root / "train" / "Color_Images" / f"{name}.png"


def test_frames_are_paired_and_sorted_by_name(frames_root):
    frames = list_frames(frames_root, "train")
    assert [f.name for f in frames] == list("abcde")
    assert frames[1].image == image_of(frames_root, "b") and frames[1].mask == mask_of(frames_root, "b")


def test_jpeg_images_are_frames_and_hidden_files_are_not(frames_root):
    cv2.imwrite(str(image_of(frames_root).with_suffix(".jpg")), read_image(image_of(frames_root)))
    image_of(frames_root).unlink()
    (frames_root / "train" / "Color_Images" / "._a.png").write_bytes(b"left by a file manager")
    frames = list_frames(frames_root, "train")
    assert len(frames) == 5 and frames[0].image.suffix == ".jpg"
    assert read_image(frames[0].image).shape == (64, 96, 3)


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("Segmentation", "1 images without a mask \\(c\\)"),
        ("Color_Images", "Segmentation: 1 masks without an image \\(c\\)"),
    ],
)
def test_an_orphan_in_train_is_refused_with_its_name(frames_root, gone, words):
    (frames_root / "train" / gone / "c.png").unlink()
    with pytest.raises(DataError, match=words):
        list_frames(frames_root, "train")


def test_many_orphans_are_counted_and_the_first_named(frames_root):
    for name in "abcde":
        mask_of(frames_root, name).unlink()
    with pytest.raises(DataError, match=r"5 images without a mask \(a, b, c, d, \.\.\.\)"):
        list_frames(frames_root, "train")


@pytest.mark.parametrize("masks", [0, 1, 3])
def test_test_frames_may_lack_masks(frames_root, add_frame, masks):
    for name in "xyz":
        add_frame(frames_root, "test", name)
    for name in "xyz"[masks:]:
        (frames_root / "test" / "Segmentation" / f"{name}.png").unlink()
    assert [f.mask is not None for f in list_frames(frames_root, "test")] == [i < masks for i in range(3)]


def test_test_frames_need_no_mask_folder(frames_root):
    shutil.copytree(frames_root / "val" / "Color_Images", frames_root / "test" / "Color_Images")
    assert [f.mask for f in list_frames(frames_root, "test")] == [None, None]


def test_a_mask_without_an_image_is_refused_in_test_too(frames_root, add_frame):
    add_frame(frames_root, "test", "x")
    add_frame(frames_root, "test", "y")
    (frames_root / "test" / "Color_Images" / "y.png").unlink()
    with pytest.raises(DataError, match="1 masks without an image"):
        list_frames(frames_root, "test")


def test_two_images_of_one_name_are_refused(frames_root):
    shutil.copy(image_of(frames_root), image_of(frames_root).with_suffix(".jpg"))
    with pytest.raises(DataError, match=r"1 names with two images \(a\)"):
        list_frames(frames_root, "train")


def test_a_missing_folder_is_refused_with_the_layout_and_the_splits_there_are(frames_root):
    with pytest.raises(DataError, match=r"test: .*Color_Images/\*\.png.* splits found under .*: train, val\."):
        list_frames(frames_root, "test")
    with pytest.raises(DataError, match="splits found under .*nowhere: none.*data.root"):
        list_frames(frames_root / "nowhere", "train")
    with pytest.raises(DataError, match="split 'validation' does not exist"):
        list_frames(frames_root, "validation")


def test_a_split_without_images_is_refused(tmp_path):
    for folder in ("Color_Images", "Segmentation"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    with pytest.raises(DataError, match="no .png or .jpg image"):
        list_frames(tmp_path, "train")


def test_images_are_read_as_rgb(tmp_path):
    blue = np.zeros((3, 5, 3), np.uint8)
    blue[..., 2] = 200
    cv2.imwrite(str(tmp_path / "a.png"), blue[..., ::-1])
    assert np.array_equal(read_image(tmp_path / "a.png"), blue)


def test_all_65536_raw_ids_are_kept_exactly(tmp_path):
    raw = np.arange(65536, dtype=np.uint16).reshape(128, 512)
    cv2.imwrite(str(tmp_path / "a.png"), raw)
    found = read_mask(tmp_path / "a.png")
    assert found.dtype == np.uint16 and np.array_equal(found, raw)


def test_opencv_by_default_keeps_only_the_high_byte_of_an_id(tmp_path):
    # the corruption that read_mask exists to prevent: 100 and 200 become one class, 10000 becomes 39
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[100, 200, 300, 500, 800, 7100, 10000]], np.uint16))
    assert cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_GRAYSCALE).tolist() == [[0, 0, 1, 1, 3, 27, 39]]
    assert read_mask(tmp_path / "a.png").tolist() == [[100, 200, 300, 500, 800, 7100, 10000]]


def test_an_8_bit_mask_is_refused_unless_the_ids_fit_into_8_bits(tmp_path):
    path = tmp_path / "small.png"
    cv2.imwrite(str(path), np.array([[39, 3]], np.uint8))
    with pytest.raises(DataError, match=r"small\.png: an 8-bit mask.*IMREAD_UNCHANGED.*16-bit original"):
        read_mask(path)
    found = read_mask(path, allow_8bit=True)
    assert found.dtype == np.uint16 and found.tolist() == [[39, 3]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_coloured_mask_is_refused(tmp_path, dtype):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), dtype))
    with pytest.raises(DataError, match="mask of 3 channels"):
        read_mask(tmp_path / "a.png", allow_8bit=True)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.995])
@pytest.mark.parametrize(("path_of", "read"), [(image_of, read_image), (mask_of, read_mask)])
def test_a_png_that_is_cut_short_is_refused(frames_root, path_of, read, share):
    path = path_of(frames_root)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"a\.png: cut short or damaged"):
        read(path)


@pytest.mark.parametrize("missing", [1, 4, 12, 13])
def test_a_png_that_lacks_its_last_bytes_is_refused(frames_root, missing):
    mask_of(frames_root).write_bytes(mask_of(frames_root).read_bytes()[:-missing])
    with pytest.raises(DataError, match="cut short"):
        read_mask(mask_of(frames_root))


def test_a_png_with_one_flipped_bit_is_refused(frames_root):
    content = bytearray(image_of(frames_root).read_bytes())
    content[len(content) // 2] ^= 1
    image_of(frames_root).write_bytes(bytes(content))
    with pytest.raises(DataError, match="damaged"):
        read_image(image_of(frames_root))


def test_a_png_with_bytes_after_its_end_is_read(frames_root):
    whole = read_mask(mask_of(frames_root))
    mask_of(frames_root).write_bytes(mask_of(frames_root).read_bytes() + b"\n")
    assert np.array_equal(read_mask(mask_of(frames_root)), whole)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_jpeg_that_is_cut_short_is_refused(tmp_path, share):
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"a\.jpg: cut short"):
        read_image(path)


def test_a_file_that_is_no_image_or_not_there_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(DataError, match=r"a\.png: cut short or damaged \(8 bytes\)"):
        read_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"b\.png: cannot be read \(No such file"):
        read_mask(tmp_path / "b.png")


def test_a_mask_of_another_size_than_its_image_is_refused(frames_root):
    cv2.imwrite(str(mask_of(frames_root)), np.full((32, 96), 100, np.uint16))
    with pytest.raises(DataError, match=r"a\.png: 96x32 pixels, but its image a\.png has 96x64 pixels"):
        read_frame(list_frames(frames_root, "train")[0])


def test_a_frame_without_a_mask_is_read_without_one(frames_root):
    shutil.copytree(frames_root / "val" / "Color_Images", frames_root / "test" / "Color_Images")
    image, mask = read_frame(list_frames(frames_root, "test")[0])
    assert image.shape == (64, 96, 3) and mask is None


def test_the_fingerprint_changes_with_one_byte_one_name_and_nothing_else(frames_root):
    first = dataset_fingerprint(frames_root)
    assert len(first) == 16 and int(first, 16) >= 0
    path = mask_of(frames_root)
    content = path.read_bytes()
    os.utime(path, (1, 1))
    assert dataset_fingerprint(frames_root) == first
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    os.utime(path, (2, 2))
    assert dataset_fingerprint(frames_root) != first
    path.write_bytes(content)
    os.utime(path, (3, 3))
    assert dataset_fingerprint(frames_root) == first
    image_of(frames_root).rename(image_of(frames_root, "a2"))
    assert dataset_fingerprint(frames_root) != first


def test_the_fingerprint_belongs_to_the_content_not_to_the_place(frames_root, tmp_path):
    shutil.copytree(frames_root, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "notes.txt").write_text("no frame")
    assert dataset_fingerprint(frames_root) == dataset_fingerprint(tmp_path / "elsewhere")


def test_a_fingerprint_of_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="no frames there"):
        dataset_fingerprint(tmp_path)


def test_results_come_in_order_however_many_there_are():
    assert list(read_in_order(lambda x: x * x, range(100))) == [x * x for x in range(100)]


def test_the_size_of_an_image_is_told_without_decoding_it_and_turned_ones_as_they_are_read(tmp_path):
    Image.new("RGB", (7, 5)).save(tmp_path / "plain.png")
    about = Image.Exif()
    about[0x0112] = 6
    Image.new("RGB", (7, 5)).save(tmp_path / "turned.jpg", exif=about)
    assert image_size(tmp_path / "plain.png") == (5, 7)
    assert image_size(tmp_path / "turned.jpg") == read_image(tmp_path / "turned.jpg").shape[:2] == (7, 5)
    (tmp_path / "cut.png").write_bytes((tmp_path / "plain.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"cut\.png: cut short or damaged \(40 bytes\)"):
        image_size(tmp_path / "cut.png")
