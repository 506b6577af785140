"""Decoded frames on disk, shared by every trial of a machine.

Decoding a PNG is three quarters of the cost of a training sample and depends on nothing that a search varies,
so it is paid once per data set and size. `harness.store.cache_folders` says how processes share the folders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.config.data import DataConfig, SyntheticDesert
from harness.data.desert import write_desert
from harness.data.frames import Frame, dataset_fingerprint, list_frames, read_frame, read_in_order
from harness.errors import DataError
from harness.store.cache_arrays import map_arrays, map_once
from harness.store.cache_folders import build_once, cache_folder
from harness.store.cache_room import make_room

__all__ = [
    "FrameArrays", "build_once", "cache_folder", "dataset_root", "frames_name", "make_room", "open_frames", "opening",
]  # fmt: skip

#: part of the folder names; raise it when the files' content changes meaning
_CACHE_VERSION = 1
#: raise it when `write_desert` draws other pixels from the same parameters
DESERT_VERSION = 1

Size = tuple[int, int]
#: is told how many frames of a split are decoded, and how many there are
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Opening:
    verify: bool = False
    progress: Progress | None = None


_PLAINLY = _Opening()
# not arguments: between who asks for frames to be checked and who opens them lie rooms that care for neither
_opening: ContextVar[_Opening] = ContextVar("_opening", default=_PLAINLY)


@dataclass(frozen=True, eq=False)
class FrameArrays:
    """The decoded frames of a split, as read-only memory maps.

    `images` uint8 RGB (N H W 3); `masks` uint16 raw ids (N H W), or None where only images were asked for;
    `native_sizes` (height, width) of each frame before it was resized. Pickling sends the folder, not the
    pixels.
    """

    folder: Path
    names: tuple[str, ...]
    images: NDArray[np.uint8]
    masks: NDArray[np.uint16] | None
    native_sizes: tuple[Size, ...]

    @property
    def size(self) -> Size:
        """Height and width of the arrays, pixels."""
        return self.images.shape[1], self.images.shape[2]

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> tuple[Callable[[Path], FrameArrays], tuple[Path]]:
        return _load, (self.folder,)


@contextmanager
def opening(*, verify: bool = False, progress: Progress | None = None) -> Iterator[None]:
    """Inside, whatever is opened of the cache is verified by checksum, and `progress` told of each decoded frame.

    A damaged cache is built again, with a warning. The checksums of a cache are computed once per process.
    """
    token = _opening.set(_Opening(verify, progress))
    try:
        yield
    finally:
        _opening.reset(token)


def dataset_root(data: DataConfig) -> Path:
    """The folder of the frames: `data.root`, or the synthetic desert, written into the cache folder once."""
    if data.root is not None:
        return Path(data.root).expanduser()
    desert = data.synthetic
    name = (
        f"desert-v{DESERT_VERSION}-{desert.train}-{desert.val}-{desert.test}"
        f"-{desert.height}x{desert.width}-s{desert.seed}"
    )
    return build_once(cache_folder() / name, lambda folder: _write_desert(folder, desert), verify=_opening.get().verify)


def open_frames(
    root: Path, split: str, size: Size | None, *, masks: bool = True, allow_8bit: bool = False
) -> FrameArrays:
    """Open the decoded frames of a split; they are decoded first where no process has done so yet.

    `size` (height, width) resizes images bilinearly and masks to the nearest pixel; None keeps the native
    size. `masks` False opens every image and no mask; True opens the frames that have a mask, which in train
    and val is all of them. The cache is keyed by the content of the data set, so that a changed file is a new
    cache. Several processes may ask at once: one decodes and the others wait. `opening` has frames checked.

    Raises DataError: a file that breaks a rule, no masks, frames of several sizes where `size` is None, or
    too little room on the disk or under the cache's limit.
    """
    name = frames_name(dataset_fingerprint(root), split, size, masks=masks, allow_8bit=allow_8bit)
    # the frames are listed and checked only where they are decoded: the name holds the content of them all
    folder = cache_folder() / name
    arrays = map_once(
        folder,
        lambda unfinished: _write(unfinished, _wanted(root, split, masks), size, masks, allow_8bit),
        verify=_opening.get().verify,
    )
    return _frames(folder, arrays)


def frames_name(fingerprint: str, split: str, size: Size | None, *, masks: bool = True, allow_8bit: bool) -> str:
    """The name in the cache folder of a split's decoded frames; the other arguments are those of `open_frames`."""
    side = "native" if size is None else f"{size[0]}x{size[1]}"
    kind = "" if masks else "-images"
    depth = "-8bit" if allow_8bit else ""
    return f"frames-v{_CACHE_VERSION}-{fingerprint}-{split}-{side}{kind}{depth}"


def _wanted(root: Path, split: str, masks: bool) -> list[Frame]:
    frames = [f for f in list_frames(root, split) if not masks or f.mask is not None]
    if not frames:
        raise DataError(f"{root / split}: no frame has a mask, so nothing can be trained or scored; add Segmentation/")
    return frames


def _write_desert(folder: Path, desert: SyntheticDesert) -> None:
    folder.rmdir()  # write_desert makes its own folder
    write_desert(
        folder,
        train=desert.train,
        val=desert.val,
        test=desert.test,
        height=desert.height,
        width=desert.width,
        seed=desert.seed,
    )


def _load(folder: Path) -> FrameArrays:
    return _frames(folder, map_arrays(folder))


def _frames(folder: Path, arrays: dict[str, NDArray]) -> FrameArrays:
    index = json.loads((folder / "frames.json").read_text())
    return FrameArrays(
        folder=folder,
        names=tuple(index["names"]),
        images=arrays["images"],
        masks=arrays.get("masks"),
        native_sizes=tuple((h, w) for h, w in index["native_sizes"]),
    )


def _write(folder: Path, frames: Sequence[Frame], size: Size | None, masks: bool, allow_8bit: bool) -> None:
    def prepare(frame: Frame) -> tuple[NDArray[np.uint8], NDArray[np.uint16] | None, Size]:
        image, mask = read_frame(frame if masks else Frame(frame.name, frame.image, None), allow_8bit)
        return (
            _resized(image, size, cv2.INTER_LINEAR),
            _resized(mask, size, cv2.INTER_NEAREST),
            image.shape[:2],
        )

    shape = size or prepare(frames[0])[2]
    needed = len(frames) * shape[0] * shape[1] * (5 if masks else 3)
    make_room(needed, "the decoded frames", "use a smaller data.input_size")
    progress = _opening.get().progress
    native: list[Size] = []
    with open(folder / "images.npy", "wb") as image_file, open(folder / "masks.npy", "wb") as mask_file:
        _write_header(image_file, np.uint8, (len(frames), *shape, 3))
        _write_header(mask_file, np.uint16, (len(frames), *shape))
        for frame, (image, mask, native_size) in zip(frames, read_in_order(prepare, frames), strict=True):
            if image.shape[:2] != shape:
                raise DataError(_sizes_differ(frame, image.shape[:2], frames[0], shape))
            image_file.write(image.tobytes())
            if mask is not None:
                mask_file.write(mask.tobytes())
            native.append(native_size)
            if progress is not None:
                progress(len(native), len(frames))
    if not masks:
        (folder / "masks.npy").unlink()
    index = {"names": [f.name for f in frames], "native_sizes": native}
    (folder / "frames.json").write_text(json.dumps(index))


def _resized(array: NDArray | None, size: Size | None, interpolation: int) -> NDArray | None:
    """Resize bit for bit as albumentations does: cv2 without antialiasing, and for masks INTER_NEAREST.

    INTER_NEAREST_EXACT would take another pixel for 76 to 100 % of a 960x540 mask at the teams' input sizes, and
    their masks and scores come from INTER_NEAREST.
    """
    if array is None or size is None or array.shape[:2] == size:
        return array
    return cv2.resize(array, (size[1], size[0]), interpolation=interpolation)


def _write_header(file: BinaryIO, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    # written in order, not through a writable map: on a full disk this raises, the map would kill the process
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _sizes_differ(frame: Frame, size: Size, first: Frame, first_size: Size) -> str:
    return (
        f"{frame.image}: {size[0]}x{size[1]} (height x width), but {first.image.name} is "
        f"{first_size[0]}x{first_size[1]}; frames of several sizes cannot be kept at native size: resize the "
        "files, or use no crop step and evaluation.raster input, so that all are resized to data.input_size"
    )
