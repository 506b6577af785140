from __future__ import annotations

import multiprocessing
import pickle
import shutil
import warnings
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest

from harness.config.data import DataConfig, SyntheticDesert
from harness.data.cache import cache_folder, dataset_root, open_frames, opening
from harness.data.frames import list_frames, read_frame, read_image, read_mask
from harness.errors import DataError


def caches(cache: Path) -> list[str]:
    """Names of the caches; what is being built, or was left of that, must not be there."""
    building = cache / ".building"
    assert not building.exists() or list(building.iterdir()) == []
    return sorted(p.name for p in cache.iterdir() if p != building)


def test_native_frames_are_what_the_files_hold(frames_root):
    frames = open_frames(frames_root, "train", None)
    assert frames.names == tuple("abcde") and len(frames) == 5 and frames.size == (64, 96)
    assert frames.images.dtype == np.uint8 and frames.masks.dtype == np.uint16
    for i, frame in enumerate(list_frames(frames_root, "train")):
        assert np.array_equal(frames.images[i], read_image(frame.image))
        assert np.array_equal(frames.masks[i], read_mask(frame.mask))


@pytest.mark.parametrize("size", [(37, 53), (48, 80), (128, 200), (64, 96)])
def test_resized_frames_are_those_of_albumentations_resize(frames_root, size):
    # what the teams trained on: A.Resize, bilinear image and nearest mask
    frames = open_frames(frames_root, "val", size)
    for i, frame in enumerate(list_frames(frames_root, "val")):
        image, mask = read_frame(frame)
        expected = A.Resize(*size)(image=image, mask=mask)
        assert np.array_equal(frames.images[i], expected["image"])
        assert np.array_equal(frames.masks[i], expected["mask"])
    assert frames.native_sizes == ((64, 96), (64, 96))


def test_resizing_makes_no_new_ids(frames_root):
    native, small = open_frames(frames_root, "train", None), open_frames(frames_root, "train", (37, 53))
    assert set(np.unique(small.masks)) <= set(np.unique(native.masks))
    assert 10000 in np.unique(small.masks)


def test_the_arrays_are_read_only_maps_of_files(frames_root):
    frames = open_frames(frames_root, "train", (32, 48))
    for array in (frames.images, frames.masks):
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_second_opening_reads_no_frame(frames_root, monkeypatch):
    first = open_frames(frames_root, "train", (32, 48))
    monkeypatch.setattr("harness.data.cache.read_frame", None)
    second = open_frames(frames_root, "train", (32, 48))
    assert second.folder == first.folder and np.array_equal(second.images, first.images)


def test_a_removed_cache_is_rebuilt_byte_for_byte(frames_root):
    folder = open_frames(frames_root, "train", (32, 48)).folder
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    shutil.rmtree(folder)
    assert open_frames(frames_root, "train", (32, 48)).folder == folder
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert set(before) == {"frames.json", "images.npy", "masks.npy", "harness-cache.json"}


def test_another_split_size_or_content_is_another_cache(frames_root):
    folders = {open_frames(frames_root, s, z).folder for s in ("train", "val") for z in (None, (32, 48), (48, 32))}
    assert len(folders) == 6
    cv2.imwrite(str(frames_root / "train" / "Segmentation" / "a.png"), np.full((64, 96), 10000, np.uint16))
    changed = open_frames(frames_root, "train", None)
    assert changed.folder not in folders and (changed.masks[0] == 10000).all()


def test_pickling_sends_the_folder_and_not_the_pixels(frames_root):
    frames = open_frames(frames_root, "train", None)
    sent = pickle.dumps(frames)
    assert len(sent) < 1000 < frames.images.nbytes
    received = pickle.loads(sent)
    assert isinstance(received.images, np.memmap) and np.array_equal(received.masks, frames.masks)


def test_a_frame_that_breaks_a_rule_leaves_no_cache_behind(frames_root, cache):
    path = frames_root / "train" / "Color_Images" / "e.png"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"e\.png: cut short"):
        open_frames(frames_root, "train", (32, 48))
    assert caches(cache) == []


def test_frames_of_several_sizes_are_resized_but_not_kept_native(frames_root, add_frame):
    add_frame(frames_root, "train", "odd", height=45, width=71)
    assert open_frames(frames_root, "train", (32, 48)).native_sizes[-1] == (45, 71)
    with pytest.raises(DataError, match=r"odd\.png: 45x71 .*a\.png is 64x96.*data\.input_size"):
        open_frames(frames_root, "train", None)


def test_only_frames_with_a_mask_are_opened_for_scoring_and_all_for_prediction(frames_root, add_frame):
    for name in "xyz":
        add_frame(frames_root, "test", name)
    (frames_root / "test" / "Segmentation" / "y.png").unlink()
    assert open_frames(frames_root, "test", (32, 48)).names == ("x", "z")
    every = open_frames(frames_root, "test", (32, 48), masks=False)
    assert every.names == ("x", "y", "z") and every.masks is None and every.images.shape == (3, 32, 48, 3)


def test_a_split_without_any_mask_cannot_be_scored(frames_root):
    shutil.copytree(frames_root / "val" / "Color_Images", frames_root / "test" / "Color_Images")
    with pytest.raises(DataError, match="no frame has a mask"):
        open_frames(frames_root, "test", None)


def test_8_bit_masks_are_opened_only_on_request(frames_root):
    for path in (frames_root / "val" / "Segmentation").iterdir():
        cv2.imwrite(str(path), np.full((64, 96), 7, np.uint8))
    with pytest.raises(DataError, match="8-bit mask"):
        open_frames(frames_root, "val", None)
    masks = open_frames(frames_root, "val", None, allow_8bit=True).masks
    assert masks.dtype == np.uint16 and (masks == 7).all()
    with pytest.raises(DataError, match="8-bit mask"):
        open_frames(frames_root, "val", None)


def test_too_little_room_is_said_before_anything_is_decoded(frames_root, monkeypatch):
    usage = shutil.disk_usage(frames_root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage._replace(free=1000))
    with pytest.raises(DataError, match="0.0 GB are free; free some room, set HARNESS_CACHE"):
        open_frames(frames_root, "train", None)


def test_the_cache_folder_is_named_by_the_environment(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HARNESS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "harness"


def test_two_processes_that_ask_at_once_get_one_whole_cache(frames_root, cache):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        found = pool.starmap(open_frames, [(frames_root, "train", (37, 53))] * 2, chunksize=1)
    assert found[0].folder == found[1].folder
    assert np.array_equal(found[0].images, found[1].images)
    assert caches(cache) == [found[0].folder.name]


def test_each_decoded_frame_is_told_once_and_an_opened_cache_tells_nothing(frames_root):
    told = []
    with opening(progress=lambda done, total: told.append((done, total))):
        open_frames(frames_root, "train", (32, 48))
        open_frames(frames_root, "train", (32, 48))
    open_frames(frames_root, "val", (32, 48))
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_a_changed_byte_is_noticed_where_frames_are_verified_and_they_are_decoded_again(frames_root):
    first = open_frames(frames_root, "train", (32, 48))
    whole, path = first.images.copy(), first.folder / "images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with opening(verify=True), pytest.warns(UserWarning, match=r"the bytes of images\.npy have changed; it is removed"):
        again = open_frames(frames_root, "train", (32, 48))
    assert np.array_equal(again.images, whole)
    with opening(verify=True), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(open_frames(frames_root, "train", (32, 48)).images, whole)


def test_a_shortened_file_is_noticed_at_every_opening(frames_root):
    path = open_frames(frames_root, "train", (32, 48)).folder / "masks.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.warns(UserWarning, match=rf"masks\.npy has {len(whole) - 100} of its {len(whole)} bytes"):
        open_frames(frames_root, "train", (32, 48))
    assert path.read_bytes() == whole


def test_too_small_a_limit_is_said_with_the_number_that_would_do(frames_root, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE_GB", "0.00001")
    with pytest.raises(DataError, match=r"the limit is 0\.0 GB; set HARNESS_CACHE_GB to 1 or more, or use a smaller"):
        open_frames(frames_root, "train", None)


def test_a_given_root_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert dataset_root(DataConfig(root="/some/frames")).as_posix() == "/some/frames"
    assert dataset_root(DataConfig(root="~/frames")) == tmp_path / "frames"


def test_the_synthetic_desert_is_written_once_for_its_parameters(cache):
    def data(**changed):
        return DataConfig(
            synthetic=SyntheticDesert(**{"train": 2, "val": 1, "test": 1, "height": 32, "width": 48} | changed)
        )

    root = dataset_root(data())
    stamp = (root / "train").stat().st_mtime_ns
    assert dataset_root(data()) == root and (root / "train").stat().st_mtime_ns == stamp
    assert [len(list_frames(root, s)) for s in ("train", "val", "test")] == [2, 1, 1]
    assert dataset_root(data(seed=1)) != root
    assert open_frames(root, "train", None).size == (32, 48)
    assert len([name for name in caches(cache) if name.startswith("desert-v")]) == 2
