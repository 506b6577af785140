"""The command line."""

from harness.cli import ablations, data, models, schema, score, studies  # noqa: F401  (importing registers their commands)
from harness.cli.app import app, main

__all__ = ["app", "main"]
