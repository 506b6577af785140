"""`harness data`: generate, verify, count."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from harness.cli.app import app, console, print_json
from harness.config import visible
from harness.errors import DataError

data = typer.Typer(no_args_is_help=True, help="Generate, verify and count frame folders.")
app.add_typer(data, name="data")

Folder = Annotated[Path, typer.Argument(help="Dataset folder.")]
TaxonomyName = Annotated[Literal["falcon10", "ignitia10", "falcon7"], typer.Option(help="What the ids mean.")]


@data.command()
def synth(
    folder: Folder,
    train: Annotated[int, typer.Option(min=1, help="Training frames.")] = 160,
    val: Annotated[int, typer.Option(min=1, help="Validation frames.")] = 40,
    test: Annotated[int, typer.Option(min=1, help="Test frames, from another environment.")] = 40,
    height: Annotated[int, typer.Option(min=32, help="Pixels.")] = 540,
    width: Annotated[int, typer.Option(min=32, help="Pixels.")] = 960,
    seed: Annotated[int, typer.Option(min=0, help="Seed.")] = 0,
) -> None:
    """Write a synthetic desert in the official layout."""
    from harness.data import write_desert

    with console.status(f"drawing {train + val + test} frames of {width}×{height}"):
        write_desert(folder, train=train, val=val, test=test, height=height, width=width, seed=seed)
    console.print(f"{train} train, {val} val, {test} test frames → {folder}", highlight=False)


@data.command()
def check(folder: Folder, taxonomy: TaxonomyName = "falcon10") -> None:
    """Verify every pair: names, sizes, bit depth, ids; report every problem."""
    from harness.config.data import NamedTaxonomy
    from harness.data import build_taxonomy, check_dataset, dataset_fingerprint

    with console.status(Text(f"checking {folder}")):
        result = check_dataset(folder, build_taxonomy(NamedTaxonomy(name=taxonomy)))
    for problem in result.problems:
        console.print(Text.assemble(("✗", "red"), f" {visible(problem)}"), soft_wrap=True)
    counted = ", ".join(f"{count} {split}" for split, count in result.frames.items())
    if result.problems:
        raise DataError(f"{folder}: {len(result.problems)} problem(s) in {counted} frames; mend the files above")
    console.print(Text.assemble(("✓", "green"), f" {counted} frames, fingerprint {dataset_fingerprint(folder)}"))


@data.command()
def census(
    folder: Folder,
    taxonomy: TaxonomyName = "falcon10",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count pixels per class and split, the class weights they give, and colour statistics."""
    from harness.config.data import NamedTaxonomy
    from harness.data import build_taxonomy, existing_splits
    from harness.data import census as census_of
    from harness.report import census_tables

    classes = build_taxonomy(NamedTaxonomy(name=taxonomy))
    splits = existing_splits(folder)
    if not splits:
        raise DataError(f"{folder}: no split here; it needs train/Color_Images, val/Color_Images or test/Color_Images")
    with console.status(Text(f"counting {folder}")):
        values = _census_values({split: census_of(folder, split, classes) for split in splits})
    if json:
        print_json(values)
    else:
        console.print(census_tables(values, str(folder)))


@data.command()
def gap(
    a: Annotated[Path, typer.Argument(help="Split folder, e.g. DATASET/train.")],
    b: Annotated[Path, typer.Argument(help="Split folder, e.g. DATASET/test.")],
    taxonomy: TaxonomyName = "falcon10",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how two splits differ: class shares, absent classes, colours."""
    from harness.config.data import NamedTaxonomy
    from harness.data import build_taxonomy
    from harness.data import census as census_of
    from harness.data import gap as gap_of
    from harness.report import gap_tables

    classes = build_taxonomy(NamedTaxonomy(name=taxonomy))
    with console.status(Text(f"counting {a} and {b}")):
        values = gap_of(census_of(a.parent, a.name, classes), census_of(b.parent, b.name, classes))
    if json:
        print_json(values)
    else:
        console.print(gap_tables(values, str(a), str(b)))


def _census_values(counted: dict[str, Any]) -> dict[str, Any]:
    """Counts of each split as plain values, with the class weights that the training split gives."""
    from harness.config.loss import InverseFrequency, LogFrequency
    from harness.losses import class_weights

    splits = {
        split: {
            "frames": c.frames,
            "labelled": c.labelled,
            "ignored": c.ignored,
            "classes": {
                name: {
                    "pixels": int(c.pixels[i]),
                    "share": float(c.pixels[i] / max(1, c.pixels.sum())),
                    "frames": int(c.frames_with_class[i]),
                }
                for i, name in enumerate(c.names)
            },
            "colour_mean": c.colour_mean.tolist(),
            "colour_deviation": c.colour_deviation.tolist(),
            "sizes": {f"{height}x{width}": n for (height, width), n in c.sizes.items()},
        }
        for split, c in counted.items()
    }
    base = counted.get("train")
    schemes = {} if base is None or not base.pixels.any() else {"inverse": InverseFrequency(), "log": LogFrequency()}
    weights = {
        label: dict(zip(base.names, class_weights(scheme, base.pixels, base.names).tolist(), strict=True))
        for label, scheme in schemes.items()
    }
    names = list(next(iter(counted.values())).names)
    return {"classes": names, "splits": splits, "class_weights": weights}
