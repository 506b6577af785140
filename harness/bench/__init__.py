"""Benchmarks: the harness against the same work written plainly, both sides in one run.

The door is empty on purpose: `harness.bench.gpu` runs where albumentations, ray and optuna are not installed.
"""
