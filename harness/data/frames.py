"""Frame folders in the official layout: which files belong together, and how one is read safely.

The split folders lie side by side:

    <root>/<split>/Color_Images/0000060.png     8-bit RGB
    <root>/<split>/Segmentation/0000060.png     16-bit, one channel, raw ids

Train and val need a mask for every image; test may have none.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.data.image_headers import ImageHeader, read_header
from harness.errors import DataError

SPLITS = ("train", "val", "test")
IMAGES, MASKS = "Color_Images", "Segmentation"
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
#: pixels of the largest image that is decoded, 8192x8192: a file of kilobytes can ask for gigabytes of them
MAX_PIXELS = 1 << 26
#: bytes of the largest file that is read: twice that many pixels of 64 bits without compression
_MAX_BYTES = 1 << 30
#: files in flight at once: bounds the memory of a reader that is faster than its consumer
_CHUNK = 32

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Frame:
    """One image and its mask, None where a test frame has none; `name` is the file name's stem."""

    name: str
    image: Path
    mask: Path | None


def list_frames(root: Path, split: str) -> tuple[Frame, ...]:
    """List the frames of a split, sorted by name.

    Raises DataError: a folder is missing or empty, two images share a name, or an image and a mask of train
    or val lack their partner (a test frame may lack its mask).
    """
    frames, problems = find_frames(root, split)
    if problems:
        raise DataError("; ".join(problems))
    return frames


def find_frames(root: Path, split: str) -> tuple[tuple[Frame, ...], list[str]]:
    """The frames of a split that have what they need, and one line for each rule that its folders break."""
    folder = root / split
    if split not in SPLITS:
        return (), [f"split '{split}' does not exist; use one of {', '.join(SPLITS)}"]
    if not (folder / IMAGES).is_dir() or (split != "test" and not (folder / MASKS).is_dir()):
        return (), [_missing_folder(root, split)]
    files = _files(folder / IMAGES, _IMAGE_SUFFIXES)
    images = {p.stem: p for p in files}
    masks = {p.stem: p for p in _files(folder / MASKS, (".png",))}
    problems = _naming_problems(folder, files, images)
    problems += _orphans(folder / MASKS, "masks without an image", sorted(masks.keys() - images.keys()))
    missing = sorted(images.keys() - masks.keys())
    if split != "test":
        problems += _orphans(folder / IMAGES, "images without a mask", missing)
        images = {name: path for name, path in images.items() if name in masks}
    return tuple(Frame(name, images[name], masks.get(name)) for name in sorted(images)), problems


def existing_splits(root: Path) -> tuple[str, ...]:
    """The splits that have a folder of images."""
    return tuple(split for split in SPLITS if (root / split / IMAGES).is_dir())


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as RGB, uint8 (H W 3); grey and transparent images become RGB, turned ones upright.

    Raises DataError for a file that is missing, cut short, damaged, too large, animated, of 16 bits, or no image.
    """
    return _image(path)[0]


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as `read_image` gives it, which is decoded only where it is turned.

    Raises DataError as `read_image` does, for what its header tells.
    """
    header = _checked_header(path, _content(path))
    return read_image(path).shape[:2] if header.turned else (header.height, header.width)


def _image(path: Path) -> tuple[NDArray[np.uint8], ImageHeader]:
    content = _content(path)
    header = _checked_header(path, content)
    if header.depth == 16:
        # OpenCV keeps the high byte: what holds 0 to 255 becomes black
        raise DataError(f"{path}: an image of 16 bits a channel; a frame has 8: export it as an 8-bit RGB PNG")
    return cv2.cvtColor(_decode(path, content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), header


def read_mask(path: Path, allow_8bit: bool = False) -> NDArray[np.uint16]:
    """Read a mask as raw ids, uint16 (H W), unchanged.

    8-bit masks are accepted only where `allow_8bit` says that the taxonomy's ids fit into 8 bits.
    Raises DataError for a file that is missing, cut short, damaged, too large, no plain PNG, not of one channel, or
    of another depth.
    """
    content = _content(path)
    header = _checked_header(path, content)
    if header.kind != "PNG":
        raise DataError(f"{path}: a {header.kind}, which changes the ids of a mask; fetch the 16-bit PNG")
    if header.depth < 8:
        # OpenCV stretches the values to 0-255
        raise DataError(f"{path}: a mask of {header.depth} bit a pixel; export it as a 16-bit single-channel PNG")
    # IMREAD_UNCHANGED: by default OpenCV keeps the high byte only, where 100 and 200 become 0, and 10000
    # becomes 39
    mask = _decode(path, content, cv2.IMREAD_UNCHANGED)
    if mask.ndim != 2:
        raise DataError(
            f"{path}: a mask of {mask.shape[2]} channels; a mask has one channel of raw ids, not colours: "
            "export it as a 16-bit single-channel PNG"
        )
    if mask.dtype == np.uint16 or (allow_8bit and mask.dtype == np.uint8):
        return mask.astype(np.uint16, copy=False)
    raise DataError(
        f"{path}: an 8-bit mask; ids above 255 (Sky is 10000) do not fit into 8 bits, so a converter, or "
        "cv2.imread without IMREAD_UNCHANGED, has destroyed them: fetch the 16-bit original. 8-bit masks are "
        "read only with a taxonomy of kind custom whose ids are all 255 or less"
    )


def read_frame(frame: Frame, allow_8bit: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.uint16] | None]:
    """Read image, uint8 (H W 3), and mask, uint16 (H W) or None.

    Raises DataError as `read_image` and `read_mask` do, where the two differ in size, and for an image that has a
    mask and is stored turned.
    """
    image, header = _image(frame.image)
    if frame.mask is None:
        return image, None
    if header.turned:
        raise DataError(
            f"{frame.image}: stored turned or mirrored (Exif orientation), so that its pixels and its mask's may not "
            "lie on each other; save it upright, without Exif"
        )
    mask = read_mask(frame.mask, allow_8bit)
    if mask.shape != image.shape[:2]:
        raise DataError(
            f"{frame.mask}: {_pixels(mask)}, but its image {frame.image.name} has {_pixels(image)}; "
            "a mask has the size of its image: export one of them again"
        )
    return image, mask


def dataset_fingerprint(root: Path) -> str:
    """Sixteen hex digits of the BLAKE2b of every frame file's name and content, in all splits.

    The files are read in full once per process; a change of any name, size or time of change reads them
    again.
    """
    stamps = sorted(stamp for split in existing_splits(root) for stamp in _stamps(root, split))
    if not stamps:
        raise DataError(_missing_folder(root, "train"))
    return _content_hash(root.resolve(), tuple(stamps))


def read_in_order(read: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Apply `read` to every item in threads (OpenCV and hashlib release the GIL); results in order."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(items), _CHUNK):
            yield from list(pool.map(read, items[start : start + _CHUNK]))


@lru_cache(maxsize=8)
def _content_hash(root: Path, stamps: tuple[tuple[str, int, int], ...]) -> str:
    names = [name for name, _, _ in stamps]
    whole = hashlib.blake2b(digest_size=8)
    for name, content in zip(names, read_in_order(lambda n: _file_hash(root / n), names), strict=True):
        whole.update(len(os.fsencode(name)).to_bytes(4, "little") + os.fsencode(name) + content)
    return whole.hexdigest()


def _file_hash(path: Path) -> bytes:
    return hashlib.blake2b(_content(path), digest_size=16).digest()


def _stamps(root: Path, split: str) -> Iterator[tuple[str, int, int]]:
    """Name below the root, size and time of change of the files of a split: looked at by every trial that starts."""
    for kind, suffixes in ((IMAGES, _IMAGE_SUFFIXES), (MASKS, (".png",))):
        for entry in _entries(root / split / kind, suffixes):
            try:
                stat = entry.stat()
            except OSError as error:
                raise DataError(f"{entry.path}: cannot be read ({error.strerror}); remove it, or mend it") from error
            yield f"{split}/{kind}/{entry.name}", stat.st_size, stat.st_mtime_ns


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(Path(entry.path) for entry in _entries(folder, suffixes))


def _entries(folder: Path, suffixes: tuple[str, ...]) -> list[os.DirEntry[str]]:
    if not folder.is_dir():
        return []
    try:
        with os.scandir(folder) as entries:
            # names with a leading dot are what file managers leave behind ("._0000060.png")
            return [e for e in entries if e.name.lower().endswith(suffixes) and not e.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error


def _naming_problems(folder: Path, files: list[Path], images: dict[str, Path]) -> list[str]:
    if not files:
        return [f"{folder / IMAGES}: no .png or .jpg image; put the frames of this split there"]
    twins = sorted({p.stem for p in files if images[p.stem] != p})
    if twins:
        return [f"{folder / IMAGES}: {len(twins)} names with two images ({_first(twins)}); keep one file of each"]
    return []


def _orphans(folder: Path, what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"{folder}: {len(names)} {what} ({_first(names)}); add their partners of the same name, or remove them"]


def _first(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _missing_folder(root: Path, split: str) -> str:
    present = ", ".join(existing_splits(root)) or "none"
    return (
        f"{root / split}: no frames there; the layout is <root>/<split>/{IMAGES}/*.png with "
        f"<root>/<split>/{MASKS}/*.png, splits {', '.join(SPLITS)}; splits found under {root}: {present}. "
        "Set data.root to the folder that holds the splits"
    )


def _content(path: Path) -> bytes:
    """The bytes of an image file: a pipe or a device that bears its name would never end."""
    try:
        about = path.stat()
        if not S_ISREG(about.st_mode):
            raise DataError(f"{path}: no file (a folder, a pipe, a device); remove it, or put the image in its place")
        if about.st_size > _MAX_BYTES:
            raise DataError(f"{path}: {about.st_size} bytes; an image has up to {_MAX_BYTES}: remove it")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error


def _checked_header(path: Path, content: bytes) -> ImageHeader:
    header = read_header(content)
    if header is None:
        raise DataError(f"{path}: cut short or damaged ({len(content)} bytes); copy the file again")
    if header.width * header.height > MAX_PIXELS:
        raise DataError(
            f"{path}: {header.width}x{header.height} pixels; images of up to {MAX_PIXELS} pixels (8192x8192) are read: "
            "cut it into smaller ones"
        )
    if header.animated:
        raise DataError(f"{path}: an animated PNG, several pictures in one file; export one of them as a plain PNG")
    return header


def _decode(path: Path, content: bytes, flag: int) -> NDArray:
    try:
        array = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error as error:
        raise DataError(f"{path}: OpenCV cannot decode it ({error.err}); copy or export the file again") from error
    if array is None:
        raise DataError(f"{path}: OpenCV cannot decode it; copy or export the file again")
    return array


def _pixels(array: NDArray) -> str:
    return f"{array.shape[1]}x{array.shape[0]} pixels"
