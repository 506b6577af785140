"""Hyperparameter search and ablation studies for semantic segmentation.

Importing this package loads neither torch nor ray.
"""

from importlib.metadata import version

__version__ = version("harness")
