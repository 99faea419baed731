"""Measures tornado_ws beside its peers: ``python -m benchmarks --help``."""
