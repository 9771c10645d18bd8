"""What truth says of a neuron: which concepts drive it, and which reference belongs to which.

``seen`` i64[K] is the number of the concept that drives each reference, -1 where none is known.
"""

from __future__ import annotations

import numpy as np


def drives(seen: np.ndarray, concepts: int) -> np.ndarray:
    """f32[concepts]: the share of all references that each concept drives; 0 to 1, their sum is
    less than 1 where some are driven by none."""
    counts = np.bincount(seen[seen >= 0], minlength=concepts)
    return np.asarray(counts / max(len(seen), 1), np.float32)


def present(shares: np.ndarray, least: float) -> np.ndarray:
    """i64[k]: the concepts that drive at least the share ``least`` of the references. A neuron is
    polysemantic from two on."""
    return np.flatnonzero(shares >= least - 1e-6)


def division(seen: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """i64[K]: the true division of the references among these concepts; those that another
    concept drives, or none, are -1."""
    return np.where(np.isin(seen, concepts), seen, -1)
