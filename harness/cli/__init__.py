"""The command line."""

from harness.cli import (  # noqa: F401  (importing registers their commands)
    ablations,
    bench,
    cache,
    chaos,
    confirm,
    data,
    doctor,
    export,
    models,
    rerun,
    schema,
    score,
    simulate,
    studies,
    watch,
)
from harness.cli.app import app, main

__all__ = ["app", "main"]
