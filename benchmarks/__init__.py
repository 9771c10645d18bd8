"""Benchmarks: what is fast, by how much, and against whom. Run ``python -m benchmarks --help``."""
