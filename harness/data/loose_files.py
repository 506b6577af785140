"""Images and masks that people name one by one, outside the layout of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.data.frames import Frame
from harness.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


class MaskPair(NamedTuple):
    """A predicted mask and the true one of the same name."""

    name: str
    prediction: Path
    truth: Path


def frames_of_images(paths: Sequence[Path]) -> tuple[Frame, ...]:
    """Frames of image files and of all images in folders, in the order given, folders sorted.

    An image in a `Color_Images` folder gets the mask of the same name beside it in `Segmentation`, if there is.

    Raises:
        DataError: a path that does not exist, is no image, holds none, or a name that comes twice.
    """
    frames = [_frame(file) for path in paths for file in _images(path)]
    names: dict[str, Path] = {}
    for frame in frames:
        stem = Path(frame.name).stem
        if stem in names:
            raise DataError(
                f"{names[stem]} and {frame.image} have one name, and predictions are named after their images; "
                "predict them into two folders"
            )
        names[stem] = frame.image
    return tuple(frames)


def mask_pairs(predictions: Path, truth: Path) -> tuple[MaskPair, ...]:
    """The masks of two folders, paired by name and sorted.

    Raises:
        DataError: a missing or empty folder, or a mask without a partner.
    """
    predicted, true = _masks(predictions), _masks(truth)
    alone = sorted(predicted.keys() ^ true.keys())
    if alone:
        where = "predictions" if alone[0] in predicted else "truth"
        raise DataError(
            f"{len(alone)} mask(s) without a partner, first {alone[0]} (only among the {where}); "
            f"give {predictions} and {truth} the same file names"
        )
    return tuple(MaskPair(name, predicted[name], true[name]) for name in sorted(predicted))


def _images(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _is_named_as(file, IMAGE_SUFFIXES))
        if not files:
            raise DataError(f"{path}: no image here; give a folder with {', '.join(IMAGE_SUFFIXES)} files")
        return files
    if not path.is_file():
        raise DataError(f"{path}: no such image or folder; check the path")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f"{path}: not an image; give {', '.join(IMAGE_SUFFIXES)} files")
    return [path]


def _frame(image: Path) -> Frame:
    mask = image.parent.parent / "Segmentation" / f"{image.stem}.png"
    has_mask = image.parent.name == "Color_Images" and mask.is_file()
    return Frame(name=image.name, image=image, mask=mask if has_mask else None)


def _masks(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give a folder of raw-id masks")
    masks = {file.name: file for file in folder.iterdir() if _is_named_as(file, (".png",))}
    if not masks:
        raise DataError(f"{folder}: no .png mask here; give a folder of raw-id masks")
    return masks


def _is_named_as(file: Path, suffixes: tuple[str, ...]) -> bool:
    # names with a leading dot are what file managers leave behind ("._0000060.png")
    return file.suffix.lower() in suffixes and not file.name.startswith(".")
