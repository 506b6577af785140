"""`harness bench`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import app, console
from harness.config import did_you_mean
from harness.errors import ConfigError

#: every benchmark, a module of harness.bench, and the packages that not every machine with torch has
NEEDS = {
    "input": ("albumentations",),
    "loss": ("albumentations",),
    "scores": ("albumentations",),
    "epoch": ("albumentations",),
    "trials": ("albumentations", "optuna", "ray"),
    "memory": ("albumentations",),
    "search": ("albumentations", "optuna"),
    "views": ("albumentations",),
    "scale": ("optuna",),
    "soak": ("albumentations", "optuna", "ray"),
    "gpu": ("segmentation_models_pytorch",),
}


@app.command()
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help=f"{', '.join(NEEDS)}; none: all this machine can.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, to see that it runs; writes no file.")] = False,
    write: Annotated[
        Path | None, typer.Option(help="Folder for the tables; none: results/bench, with --quick nowhere.")
    ] = None,
) -> None:
    """Measure the harness against the same work written plainly, both in one run; soak tests Ray's workers."""
    chosen = _chosen(names or [])
    _check_folder(write)
    from harness.bench.machine import about, machine_name
    from harness.bench.sheet import on_screen, write_sheet
    from harness.bench.workplace import workplace
    from harness.store import results_folder

    folder = write or (None if quick else results_folder() / "bench")
    command = " ".join(["harness bench", *(names or []), *["--quick"] * quick])
    for name in chosen:
        module, rows, paths = import_module(f"harness.bench.{name}"), [], []
        with workplace(console) as place:
            for row in module.rows(place, quick):
                rows.append(row)
                if folder is not None:
                    # after every row: the next one may take half an hour
                    paths = write_sheet(folder / machine_name(), name, module.TITLE, rows, about(command))
        if rows:
            title = f"{module.TITLE} (--quick: too small to judge by)" if quick else module.TITLE
            console.print(on_screen(title, rows))
        for path in paths:
            console.print(f"→ {path}", highlight=False, soft_wrap=True)


def _chosen(names: Iterable[str]) -> list[str]:
    """The benchmarks asked for, or all that this machine's packages allow."""
    for name in names:
        if name not in NEEDS:
            raise ConfigError(f"bench: there is no '{name}'{did_you_mean(name, list(NEEDS))}; use {', '.join(NEEDS)}")
        if _missing(name):
            raise ConfigError(f"bench {name} needs {', '.join(_missing(name))}, not installed here; install it first")
    if names:
        return list(dict.fromkeys(names))
    for name in NEEDS:
        if _missing(name):
            console.print(f"{name}: left out, {', '.join(_missing(name))} is not installed here", highlight=False)
    return [name for name in NEEDS if not _missing(name)]


def _missing(name: str) -> list[str]:
    return [package for package in NEEDS[name] if find_spec(package) is None]


def _check_folder(write: Path | None) -> None:
    if write is not None and write.exists() and not write.is_dir():
        raise ConfigError(f"--write {write}: a file is there; give a folder")
