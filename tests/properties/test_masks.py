"""Any picture in the place of a mask or an image: its exact values, or a DataError with the file's name."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from harness.config import IGNORE
from harness.config.data import CustomClass, CustomTaxonomy, NamedTaxonomy
from harness.data import Frame, build_taxonomy, check_dataset, read_image, read_mask
from harness.data.frames import read_frame
from harness.errors import DataError

bounded = settings(max_examples=100, deadline=None, derandomize=True, database=None)
FALCON = (100, 200, 300, 500, 550, 600, 700, 800, 7100, 10000)
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
ids = st.sampled_from([*FALCON, 0, 1, 27, 39, 254, 255, 256, 65535]) | st.integers(0, 65535)
masks = sizes.flatmap(lambda shape: arrays.arrays(np.uint16, shape, elements=ids))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that every example writes anew."""
    return tmp_path_factory.mktemp("masks") / "a.png"


def png_bytes(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def hand_made(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG of these rows, each with its filter byte, and more chunks before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + pixels + chunk(b"IEND", b"")


@bounded
@given(masks)
@example(np.array([[10000]], np.uint16))
def test_ids_of_16_bits_come_back_exactly_at_any_size(path: Path, mask: np.ndarray) -> None:
    path.write_bytes(png_bytes(mask))
    found = read_mask(path)
    assert found.dtype == np.uint16 and np.array_equal(found, mask)


@bounded
@given(
    sizes,
    st.sampled_from([np.uint8, np.uint16]),
    st.sampled_from([1, 3, 4]),
    st.sampled_from([".png", ".jpg", ".tiff", ".bmp", ".webp"]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_a_picture_of_any_kind_is_the_mask_that_it_was_or_refused(
    path: Path, size: tuple[int, int], kind: type, channels: int, ending: str, allow_8bit: bool, random
) -> None:
    if ending in (".jpg", ".webp", ".bmp") and kind is np.uint16:
        kind = np.uint8
    shape = size if channels == 1 else (*size, channels)
    array = np.array([random.randrange(np.iinfo(kind).max + 1) for _ in range(int(np.prod(shape)))], kind).reshape(
        shape
    )
    path.write_bytes(cv2.imencode(ending, array)[1].tobytes())
    whole = ending == ".png" and channels == 1 and (kind is np.uint16 or allow_8bit)
    if whole:
        assert np.array_equal(read_mask(path, allow_8bit), array)
    else:
        with pytest.raises(DataError, match=r"a\.png: "):
            read_mask(path, allow_8bit)


@bounded
@given(st.binary(max_size=200))
@example(b"")
@example(b"\x89PNG\r\n\x1a\n")
@example(b"\xff\xd8\xff\xd9")
@example(b"\xff\xd8\xff\xc0\x00\x02\xff\xda\x00\x02\xff\xd9")
def test_any_bytes_are_refused_as_mask_and_as_image(path: Path, data: bytes) -> None:
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"):
        path.write_bytes(start + data)
        for read in (read_mask, read_image):
            with pytest.raises(DataError, match=r"a\.png: (cut short|OpenCV cannot decode)"):
                read(path)


MASK = np.random.default_rng(0).choice(np.array(FALCON, np.uint16), (7, 5))
IMAGE = np.random.default_rng(1).integers(0, 256, (7, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (read_mask, png_bytes(MASK)),
        (read_image, png_bytes(IMAGE)),
        (read_image, cv2.imencode(".jpg", IMAGE)[1].tobytes()),
    ],
    ids=["mask", "png", "jpeg"],
)
def test_a_file_cut_at_any_byte_is_refused(path: Path, read: Callable, content: bytes) -> None:
    path.write_bytes(content)
    whole = read(path)
    for end in range(len(content)):
        path.write_bytes(content[:end])
        try:
            found = read(path)
        except DataError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert np.array_equal(found, whole), f"{end} of {len(content)} bytes"


@bounded
@given(st.data())
def test_a_byte_changed_anywhere_in_a_mask_is_noticed(path: Path, data: st.DataObject) -> None:
    content = bytearray(png_bytes(MASK))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        found = read_mask(path)
    except DataError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert np.array_equal(found, MASK)


@pytest.mark.parametrize(
    ("depth", "rows"), [(1, b"\0\xa0"), (2, b"\0\x1b\xe4"), (4, b"\0\x12\x34\x12\x34")], ids=["1 bit", "2 bit", "4 bit"]
)
def test_ids_of_fewer_than_8_bits_are_refused_because_they_would_be_stretched(
    path: Path, depth: int, rows: bytes
) -> None:
    path.write_bytes(hand_made(8, 1, depth, 0, rows))
    # what read_mask must not pass on: 1 of one bit becomes 255
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).max() > 1 << depth
    with pytest.raises(DataError, match=rf"a\.png: a mask of {depth} bit a pixel; export it as a 16-bit"):
        read_mask(path, allow_8bit=True)


@pytest.mark.parametrize("grey", [False, True])
def test_a_mask_of_a_palette_is_refused(path: Path, grey: bool) -> None:
    palette = bytes(range(6)) if not grey else b"\1\1\1\4\4\4"
    path.write_bytes(hand_made(2, 1, 8, 3, b"\0\0\1", chunk(b"PLTE", palette)))
    with pytest.raises(DataError, match="a mask of 3 channels; .* not colours"):
        read_mask(path, allow_8bit=True)


ROWS = b"".join(b"\0" + row.astype(">u2").tobytes() for row in MASK)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"gAMA", struct.pack(">I", 100_000)),
        chunk(b"sBIT", b"\x0c"),
        chunk(b"tRNS", struct.pack(">H", 100)),
        chunk(b"bKGD", struct.pack(">H", 100)),
        chunk(b"iCCP", b"k\0\0" + zlib.compress(b"x" * 50_000)),
        chunk(b"tEXt", b"k\0" + b"x" * 20_000_000),
        chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 50_000_000)),
        chunk(b"abCd", b"anything"),
        chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0"),
    ],
    ids=lambda c: c[4:8].decode(),
)
def test_what_stands_beside_the_pixels_changes_no_id(path: Path, extra: bytes) -> None:
    path.write_bytes(hand_made(5, 7, 16, 0, ROWS, extra))
    assert np.array_equal(read_mask(path), MASK)


def test_an_interlaced_mask_is_read_exactly(path: Path) -> None:
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [MASK[y::dy, x::dx] for y, x, dy, dx in passes]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for part in parts if part.size for row in part)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 7, 16, 0, 0, 0, 1))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert np.array_equal(read_mask(path), MASK)


@pytest.mark.parametrize("end", range(0, len(zlib.compress(ROWS)), 3))
def test_pixels_cut_short_inside_whole_chunks_are_refused(path: Path, end: int) -> None:
    # every checksum is right: what is missing is missing in the compressed stream
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 7, 16, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(ROWS)[:end]) + chunk(b"IEND", b""))
    with pytest.raises(DataError, match=r"a\.png: OpenCV cannot decode it"):
        read_mask(path)


@bounded
@given(sizes, sizes)
@example((1, 1), (1, 1))
def test_a_frame_is_exact_where_its_sizes_agree_and_refused_where_not(
    path: Path, image_size: tuple[int, int], mask_size: tuple[int, int]
) -> None:
    image = np.full((*image_size, 3), 77, np.uint8)
    mask = np.full(mask_size, 7100, np.uint16)
    image_path = path.with_name("image.png")
    image_path.write_bytes(png_bytes(image))
    path.write_bytes(png_bytes(mask))
    frame = Frame("a", image_path, path)
    if image_size == mask_size:
        found = read_frame(frame)
        assert np.array_equal(found[0], image) and np.array_equal(found[1], mask)
    else:
        with pytest.raises(DataError, match=r"a\.png: .* pixels, but its image image\.png has"):
            read_frame(frame)


def own_classes(mask: np.ndarray, order: tuple[int, ...], ignored: tuple[int, ...]) -> np.ndarray | None:
    """The classes of raw ids, pixel by pixel; None where one is in no class."""
    table = {raw: index for index, raw in enumerate(order)} | dict.fromkeys(ignored, IGNORE)
    if not {int(raw) for raw in mask.flat} <= set(table):
        return None
    return np.array([table[int(raw)] for raw in mask.flat], np.uint8).reshape(mask.shape)


@bounded
@given(masks | masks.map(lambda m: np.array(FALCON, np.uint16)[m % 10]), st.sampled_from(["falcon10", "falcon7"]))
def test_any_ids_become_the_classes_of_a_table_or_are_refused(mask: np.ndarray, name: str) -> None:
    ignored = () if name == "falcon10" else (550, 600, 700)
    order = tuple(raw for raw in FALCON if raw not in ignored)
    expected = own_classes(mask, order, ignored)
    taxonomy = build_taxonomy(NamedTaxonomy(name=name))
    if expected is None:
        with pytest.raises(DataError, match=r"m\.png: raw ids in no class: \d+ \(\d+ pixel"):
            taxonomy.to_classes(mask, "m.png")
    else:
        assert np.array_equal(taxonomy.to_classes(mask, "m.png"), expected)


@bounded
@given(arrays.arrays(st.sampled_from([np.uint8, np.int16, np.int64, np.float32, np.bool_]), (2, 3)))
def test_ids_of_another_type_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="they are uint16"):
        build_taxonomy(NamedTaxonomy()).to_classes(array, "m.png")


@bounded
@given(st.integers(0, 65535), st.integers(0, 65535), st.sampled_from(["error", "ignore"]), masks)
def test_a_taxonomy_of_any_two_ids_maps_exactly_those(one: int, two: int, unlisted: str, mask: np.ndarray) -> None:
    if one == two:
        return
    classes = tuple(CustomClass(name=n, ids=(i,), colour=(0, 0, 0)) for n, i in (("a", one), ("b", two)))
    taxonomy = build_taxonomy(CustomTaxonomy(classes=classes, unlisted=unlisted))
    known = np.isin(mask, [one, two])
    if unlisted == "error" and not known.all():
        with pytest.raises(DataError, match="raw ids in no class"):
            taxonomy.to_classes(mask, "m.png")
    else:
        found = taxonomy.to_classes(mask, "m.png")
        assert np.array_equal(found, np.where(mask == one, 0, np.where(mask == two, 1, IGNORE)))


broken = st.sampled_from(
    [
        b"",
        b"no picture",
        png_bytes(MASK)[:-9],
        png_bytes(MASK.astype(np.uint8)),
        png_bytes(IMAGE),
        png_bytes(MASK[:3]),
        png_bytes(MASK + np.uint16(1)),
        cv2.imencode(".jpg", MASK.astype(np.uint8))[1].tobytes(),
        hand_made(5, 7, 1, 0, b"\0\0" * 7),
    ]
)


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.sampled_from("abc"), broken))
def test_a_check_of_a_dataset_names_every_broken_mask_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("dataset")
    for split in ("train", "val"):
        for folder in ("Color_Images", "Segmentation"):
            (root / split / folder).mkdir(parents=True)
        for name in "abc":
            (root / split / "Color_Images" / f"{name}.png").write_bytes(png_bytes(IMAGE))
            mask = contents.get(name, png_bytes(MASK)) if split == "train" else png_bytes(MASK)
            (root / split / "Segmentation" / f"{name}.png").write_bytes(mask)
    problems = check_dataset(root, build_taxonomy(NamedTaxonomy())).problems
    assert len(problems) == len(contents)
    for name in contents:
        assert sum(f"train/Segmentation/{name}.png" in problem for problem in problems) == 1


def test_grey_and_transparent_and_palette_images_become_rgb(path: Path) -> None:
    for mode in ("L", "LA", "RGBA", "P", "1"):
        image = Image.fromarray(IMAGE).convert(mode)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())
        assert np.array_equal(read_image(path), np.array(image.convert("RGBA").convert("RGB")))
