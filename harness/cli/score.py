"""`harness score`: any folder of raw-id masks against another, whoever made it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import track

from harness.cli.app import app, console, errors, print_json


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(help="Folder of raw-id masks.")],
    truth: Annotated[Path, typer.Argument(help="Folder of raw-id masks of the same names.")],
    taxonomy: Annotated[
        Literal["falcon10", "ignitia10", "falcon7"], typer.Option(help="What the ids mean.")
    ] = "falcon10",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    per_image: Annotated[bool, typer.Option("--per-image", help="Also print a line per image.")] = False,
) -> None:
    """Score raw-id masks: per class, per image, and under every convention."""
    import numpy as np

    from harness.config.data import NamedTaxonomy
    from harness.data import build_taxonomy, read_mask
    from harness.data.loose_files import mask_pairs
    from harness.metrics import confusion_matrix
    from harness.report import per_image_rows, score_tables, scores_as_values

    classes = build_taxonomy(NamedTaxonomy(name=taxonomy))
    pairs = mask_pairs(predictions, truth)
    matrices = np.stack(
        [
            confusion_matrix(
                classes.to_classes(read_mask(pair.truth), str(pair.truth)),
                # an id outside the taxonomy is a prediction of none of its classes, not a broken file
                classes.table[read_mask(pair.prediction)],
                len(classes.names),
            )
            for pair in track(pairs, "scoring", console=errors, transient=True, disable=json)
        ]
    )
    values = scores_as_values(tuple(pair.name for pair in pairs), matrices, classes.names)
    values |= {"predictions": str(predictions), "truth": str(truth), "taxonomy": taxonomy}
    if json:
        print_json(values)
        return
    console.print(score_tables(values, f"{predictions} against {truth} · {len(pairs)} masks · {taxonomy}"))
    if per_image:
        console.print(per_image_rows(values))
