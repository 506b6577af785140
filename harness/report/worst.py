"""The frames that a model got worst, to look at: image, truth, prediction and where they differ."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.config import IGNORE
from harness.data import Frame, Taxonomy, read_image
from harness.engine.inference import View
from harness.engine.predict import predict_classes, side_by_side, true_classes, write_rgb
from harness.engine.trained import Trained
from harness.errors import DataError
from harness.metrics import accuracy, counts, miou
from harness.report.confusion import mistakes
from harness.report.plot_style import hex_colour
from harness.report.plots import tile_sheet
from harness.store import write_bytes, write_text

#: what the order goes by, in words
ORDER = "mIoU of the frame over the classes in its truth, lowest first"
COLUMNS = ("image", "truth", "prediction", "errors")
_ERROR, _IGNORED = (230, 30, 40), (30, 60, 160)
#: how much of the image is left where the prediction is right
_FADED = 0.45
_NAMED = 3


class WorstFrame(NamedTuple):
    """A frame's own mIoU and share of wrong pixels, both 0-1, and its largest mistakes in words."""

    name: str
    miou: float
    wrong: float
    mistakes: str


def worst_frames(
    names: Sequence[str], matrices: NDArray[np.int64], classes: Sequence[str], count: int
) -> list[WorstFrame]:
    """The `count` frames of lowest mIoU of their own, from matrices (N C C+1); of equals the one with more wrong.

    Frames without a labelled pixel have no score and are left out.
    """
    c = counts(matrices)
    scored = [
        WorstFrame(name, float(score), 1 - float(right), _in_words(matrix, classes))
        for name, score, right, matrix in zip(names, miou(c), accuracy(c), matrices, strict=True)
        if matrix.any()
    ]
    return sorted(scored, key=lambda frame: (frame.miou, -frame.wrong, frame.name))[:count]


def write_worst(
    trained: Trained,
    frames: Sequence[Frame],
    worst: Sequence[WorstFrame],
    out: Path,
    looks: tuple[View, ...],
    title: str,
) -> list[Path]:
    """Predict frames again and write a strip of each, all of them as `worst.png`, and `index.html`.

    Args:
        frames: those of the split; the worst are found among them by name.
        looks: the views of the score.

    Raises:
        DataError: a frame that has no truth, or is not among `frames`.
    """
    out.mkdir(parents=True, exist_ok=True)
    by_name = {frame.name: frame for frame in frames}
    strips, sheet = [], {column: [] for column in COLUMNS}
    for number, bad in enumerate(worst, 1):
        if bad.name not in by_name:
            raise DataError(f"frame {bad.name} is not among the frames of this split any more; evaluate again")
        pictures = pictures_of(trained, by_name[bad.name], looks)
        strips.append(out / f"{number:02d}-{Path(bad.name).stem}.png")
        write_rgb(strips[-1], side_by_side(*pictures))
        for column, picture in zip(COLUMNS, pictures, strict=True):
            sheet[column].append(_smaller(picture))
    legend = _legend(trained.taxonomy)
    if strips:
        titles = [f"{n}. {bad.name} · {_scores(bad)}" for n, bad in enumerate(worst, 1)]
        write_bytes(out / "worst.png", tile_sheet(sheet, titles, legend | _marks()))
    write_text(out / "index.html", _page(title, worst, strips, legend))
    return [*strips, out / "index.html"]


def pictures_of(trained: Trained, frame: Frame, looks: tuple[View, ...]) -> tuple[NDArray[np.uint8], ...]:
    """Image, truth, prediction and errors of a frame, RGB uint8 (H W 3) at the frame's own size."""
    truth = true_classes(frame, trained.taxonomy)
    if truth is None:
        raise DataError(f"frame {frame.name} has no mask to compare with; choose a split with masks")
    image = read_image(frame.image)
    predicted = predict_classes(trained, image, looks)
    colour = trained.taxonomy.to_colour
    return image, colour(truth), colour(predicted), error_picture(image, truth, predicted)


def error_picture(
    image: NDArray[np.uint8], truth: NDArray[np.uint8], predicted: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """The image in faded grey, red where the prediction is wrong, blue where the truth is ignored; RGB (H W 3)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    picture = np.repeat((255 - (255 - grey) * _FADED).round().astype(np.uint8)[..., None], 3, axis=2)
    ignored = truth == IGNORE
    picture[(truth != predicted) & ~ignored] = _ERROR
    picture[ignored] = _IGNORED
    return picture


def _in_words(matrix: NDArray[np.int64], classes: Sequence[str]) -> str:
    labelled = max(1, int(matrix.sum()))
    found = mistakes(matrix, classes)[:_NAMED]
    return ", ".join(f"{truth} taken for {other} {100 * pixels / labelled:.1f} %" for truth, other, pixels in found)


def _scores(bad: WorstFrame) -> str:
    return f"mIoU {bad.miou:.3f} · {100 * bad.wrong:.1f} % of the pixels wrong"


def _smaller(picture: NDArray[np.uint8], width: int = 480) -> NDArray[np.uint8]:
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    return picture if picture.shape[1] <= width else cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _legend(taxonomy: Taxonomy) -> dict[str, str]:
    return {name: hex_colour(colour) for name, colour in zip(taxonomy.names, taxonomy.colours, strict=True)}


def _marks() -> dict[str, str]:
    return {"wrong": hex_colour(_ERROR), "ignored": hex_colour(_IGNORED)}


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 24px auto; max-width: 1900px; padding: 0 16px; color: #22262b }
h1 { font-size: 20px; margin: 0 } h2 { font-size: 15px; margin: 26px 0 2px }
p { margin: 2px 0 6px; color: #4b5563 } img { width: 100%; display: block }
.key span { display: inline-block; margin-right: 14px; white-space: nowrap }
.key i { display: inline-block; width: 12px; height: 12px; margin-right: 5px; border-radius: 2px }
.columns { display: grid; grid-template-columns: repeat(4, 1fr); color: #6b7280; font-size: 13px }
"""


def _page(title: str, worst: Sequence[WorstFrame], strips: Sequence[Path], legend: dict[str, str]) -> str:
    key = "".join(
        f'<span><i style="background:{colour}"></i>{html.escape(name)}</span>'
        for name, colour in (legend | _marks()).items()
    )
    columns = "".join(f"<div>{column}</div>" for column in COLUMNS)
    blocks = "".join(
        f"<h2>{number}. {html.escape(bad.name)} · {_scores(bad)}</h2><p>{html.escape(bad.mistakes)}</p>"
        f'<div class="columns">{columns}</div><a href="{quote(strip.name)}">'
        f'<img src="{quote(strip.name)}" alt="{html.escape(bad.name)}: {", ".join(COLUMNS)}" loading="lazy"></a>\n'
        for number, (bad, strip) in enumerate(zip(worst, strips, strict=True), 1)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Worst frames: {html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>Worst frames: {html.escape(title)}</h1><p>Ordered by the {ORDER}.</p>"
        f'<p class="key">{key}</p>\n{blocks}</body></html>\n'
    )
