"""Training and scoring with torch: the loop as a generator, evaluation, prediction."""

from harness.engine.fit import fit

__all__ = ["fit"]
