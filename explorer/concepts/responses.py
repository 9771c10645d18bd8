"""From cosines of pictures with texts to probabilities of concepts: P = sigmoid(a (cos + b))."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 4000
STEPS = 100
SCALES, OFFSETS = (0.1, 150.0), (-1.0, 1.0)
"""Where a and b may lie."""
DEFAULTS = {"open_clip": (58.0, -0.25), "conse": (12.8, -0.25)}
"""(a, b) where there are no labels to fit them to: CLIP's published ones; ConSE's as fitted on
3,000 ImageNet pictures (docs/explanations.md)."""
TOP, FIRES, VARIES = 5, 0.5, 1e-5


@dataclass(frozen=True)
class Curve:
    """``scale`` a and ``offset`` b of the sigmoid; ``fitted`` to labels, or the default."""

    scale: float
    offset: float
    fitted: bool

    def __call__(self, cosine: np.ndarray) -> np.ndarray:
        """f32 probabilities of f32 cosines."""
        return np.asarray(1 / (1 + np.exp(-self.scale * (cosine + self.offset))), np.float32)


def calibrate(cosine: np.ndarray, member: np.ndarray) -> Curve:
    """The curve of least balanced cross-entropy for cosines f32[n,L] and truths bool[n,L].

    Pairs that belong together weigh as much in all as those that do not, so that P = 0.5 says "as
    likely as not" however rare a concept is; unbalanced, a weak embedder never reaches 0.5.
    Cross-entropy is convex in (a, ab), so Newton's method on cosines counted in bins finds the
    one optimum; it is then clipped to the range that the paper's grid covers.
    """
    edges = np.linspace(-1, 1, BINS + 1)
    at = (edges[:-1] + edges[1:]) / 2
    true = np.histogram(cosine[member], edges)[0].astype(np.float64)
    false = np.histogram(cosine, edges)[0] - true
    true, false = true / max(true.sum(), 1), false / max(false.sum(), 1)
    design = np.stack([at, np.ones_like(at)])
    found = np.array([1.0, 0.0])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-found @ design))
        slope = design @ (true - (true + false) * chance)
        curvature = (design * ((true + false) * chance * (1 - chance))) @ design.T
        step = np.linalg.solve(curvature + 1e-12 * np.eye(2), slope)
        found = found + step * min(1.0, 10 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    scale = float(np.clip(found[0], *SCALES))
    return Curve(scale, float(np.clip(found[1] / scale, *OFFSETS)), True)


def default_curve(embedder: str) -> Curve:
    """The curve for an embedder whose pictures have no labels."""
    return Curve(*DEFAULTS.get(embedder.partition(":")[0], DEFAULTS["open_clip"]), False)


def speaking(responses: np.ndarray) -> np.ndarray:
    """bool[M]: concepts that fire (mean of the five highest responses at least 0.5) and vary, of
    the training pictures' responses f32[n,M]."""
    top = min(TOP, len(responses))
    highest = np.partition(responses, len(responses) - top, axis=0)[-top:]
    return np.asarray((highest.mean(axis=0) >= FIRES) & (responses.std(axis=0) >= VARIES))
