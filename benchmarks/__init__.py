"""Benchmarks: what is fast, by how much, and against whom. Run ``python -m benchmarks --help``."""

import explorer  # noqa: F401 - before torch, whose threads then wait as the explorer's do
