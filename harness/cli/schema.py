"""`harness schema`: JSON Schema of the YAML files, for editors."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from harness.cli.app import app, print_json


@app.command()
def schema(
    kind: Annotated[Literal["experiment", "space", "ablation"], typer.Argument(help="Which file.")] = "experiment",
) -> None:
    """Print the JSON Schema of a YAML file, with which editors complete and check it."""
    from harness.config import Ablation, Experiment, Space, json_schema

    print_json(json_schema({"experiment": Experiment, "space": Space, "ablation": Ablation}[kind]))
