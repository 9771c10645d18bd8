"""Dividing a row of weights among concepts (after arXiv 2504.12939): the arithmetic, no network.

A channel's row w has I input units; m_k is the mean, over the pictures of concept k, of the
spatial sums of the inputs, and v_k = w * m_k the averaged relevance vector of k. A unit belongs to
the concept that outweighs all others by the factor 1/rho, and is shared where none does.
"""

from __future__ import annotations

import numpy as np

MASKS = ("balanced", "symmetric", "published")
"""Rules that give each input unit to one concept or to all."""
FITTED = "fitted"
"""The rule that divides the numbers themselves, by least squares."""
RULES = (FITTED, *MASKS)
"""The first is the default: it misplaces least and recovers planted sources best."""
RHOS = np.round(np.arange(1, 21) * 0.05, 2)
SHARED = -1
TINY = 1e-5
STEEPEST = 2.0**12
"""How many times its own weight a fitted part may give to an input unit, up or down."""


def divide(weight: np.ndarray, means: np.ndarray, rho: float, rule: str) -> np.ndarray:
    """i32[I]: the concept that each input unit of ``weight`` f32[I] belongs to, SHARED for none.

    ``means`` f32[n,I]; ``rho`` above 0, at most 1. "published" compares the signed v: the first
    concept k with rho v_k > max of the other v takes the unit, so that for negative weights the
    order of the concepts matters; for two concepts it is the rule of the paper's code. "symmetric"
    compares |v|: a unit belongs to the concept that drives it, up or down. "balanced" is the signed
    rule without an order, v_k - max of the other v > (1 - rho) max |v|: a unit belongs to the
    concept for which it raises the channel more, or holds it down less. For weights and means
    above zero all three are the same.
    """
    relevance = np.asarray(weight, np.float64) * np.asarray(means, np.float64)
    largest = np.abs(relevance).max(axis=0)
    if rule == "symmetric":
        relevance = np.abs(relevance)
    owner = np.full(relevance.shape[1], SHARED, np.int32)
    for concept, own in enumerate(relevance):
        others = np.delete(relevance, concept, axis=0).max(axis=0)
        wins = own - others > (1 - rho) * largest if rule == "balanced" else rho * own > others
        owner[(owner == SHARED) & wins] = concept
    return owner


def rows(weight: np.ndarray, owner: np.ndarray, concepts: int) -> np.ndarray:
    """[n+1,I]: d_1 ... d_n, the row without what belongs to other concepts, and the residual,
    what is shared. Merged with +1 ... +1, -(n-1) they give the row itself: every unit appears as
    w alone, or as n w - (n-1) w. In float64 that is exact for float32 weights."""
    kept = [np.where((owner == k) | (owner == SHARED), weight, 0) for k in range(concepts)]
    return np.stack([*kept, np.where(owner == SHARED, weight, 0)])


def fitted(weight: np.ndarray, moments: np.ndarray, rho: float) -> np.ndarray:
    """f64[n,I]: parts d_k of ``weight`` f32[I] that add up to it, by ridge regression.

    ``moments`` f64[n,I,I]: S_k, the mean of h h^T over the places where the channel fires on the
    pictures of concept k, h being what the input units read there. d_k should give what w gives
    at the places of its own concept and nothing at those of others; the least squares
    (sum_j S_j)^-1 S_k w add up to w by themselves. The ridge pulls towards w / n, all the way as
    ``rho`` goes to 0, and vanishes at rho = 1.
    """
    concepts, inputs = len(moments), len(weight)
    together = moments.sum(0)
    scale = float(np.trace(together)) / inputs
    ridge = max((1 - rho) / rho / concepts, TINY) * scale
    own = np.asarray(moments @ weight, np.float64) + ridge / concepts * weight
    return np.asarray(np.linalg.solve(together + ridge * np.eye(inputs), own.T).T)


def misplaced(parts: np.ndarray, weight: np.ndarray, moments: np.ndarray) -> float:
    """Mean over concepts j and parts k of E_j (d_k h - [j = k] w h)^2 / E_j (w h)^2, the E_j being
    those of ``moments`` f64[n,I,I]; 0 is ideal, (n-1) / n^2 what w / n has, NaN where w h is 0."""
    concepts = len(moments)
    off = parts[:, None] - np.eye(concepts)[:, :, None] * weight
    wrong = np.einsum("kji,jil,kjl->j", off, moments, off, optimize=True) / concepts
    whole = np.einsum("i,jil,l->j", weight, moments, weight, optimize=True)
    return float((wrong / whole).mean()) if (whole > 0).all() else float("nan")


def crossed(
    weight: np.ndarray, first: np.ndarray, second: np.ndarray, rhos: np.ndarray
) -> np.ndarray:
    """f32[G]: 1 less what is misplaced, for each of ``rhos``, in the moments f64[n,I,I] of one half
    of the pictures by parts fitted to the other half, mean over both ways; higher is better."""
    ways = ((first, second), (second, first))
    wrong = [
        [misplaced(fitted(weight, fit, rho), weight, judge) for fit, judge in ways] for rho in rhos
    ]
    return np.asarray(1 - np.mean(wrong, axis=1), np.float32)


def exact(parts: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """f32[n,I]: parts f64[n,I] of ``weight`` f32[I], moved by rounding errors so that with the
    residual of ``completed``, itself a rounding error, they merge to the weight bit for bit."""
    whole = np.abs(weight).astype(np.float64)
    parts = np.clip(parts, -STEEPEST * whole, STEEPEST * whole)
    parts[-1] = weight - parts[:-1].sum(0)
    fine = np.spacing(np.abs(weight).astype(np.float32)).astype(np.float64)
    grid = np.maximum(8 * np.spacing(np.abs(parts).max(0).astype(np.float32)), fine)
    made = np.round(parts / grid) * grid
    odd = len(parts) - 1
    while odd % 2 == 0:
        odd //= 2
    over = np.round((made.sum(0) - weight) / fine).astype(np.int64)
    step = np.round(grid / fine).astype(np.int64)
    for _ in range(odd - 1):  # until the residual, one (n-1)-th of what is over, is a float too
        more = over % odd != 0
        made[-1] += np.where(more, grid, 0)
        over += np.where(more, step, 0)
    return np.asarray(made, np.float32)


def completed(weight: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """f64[n+1,I]: exact parts f32[n,I] of a row with their residual, as ``rows`` gives them."""
    whole = np.asarray(parts, np.float64)
    return np.vstack([whole, (whole.sum(0) - weight) / (len(parts) - 1)])


def holders(parts: np.ndarray) -> np.ndarray:
    """i32[I]: the concept whose part holds two thirds of an input unit, SHARED for none."""
    size = np.abs(parts)
    holds = 3 * size.max(0) >= 2 * size.sum(0)
    owner = np.where(holds & (size.max(0) > 0), size.argmax(0), SHARED)
    return np.asarray(owner, np.int32)


def merge(concepts: int) -> np.ndarray:
    """f32[n+1]: the factors that put the rows together again."""
    return np.array([1.0] * concepts + [1.0 - concepts], np.float32)


def empty(owner: np.ndarray, concepts: int) -> list[int]:
    """The concepts that own no input unit."""
    return [k for k in range(concepts) if not (owner == k).any()]


def criterion(positive: np.ndarray, concept: np.ndarray, rule: str) -> float:
    """How well rows d_1 ... d_n separate the concepts; higher is better.

    ``positive`` f32[N,n] is sum_hw max(d, 0) per picture and row, ``concept`` i64[N] whose picture
    it is. "published": sum over concepts of the mean of P(own) / (P(others) + 1e-5). Else the
    mean over concepts of the mean share of the own row, which no single picture can dominate.
    """
    concepts = positive.shape[1]
    own = np.take_along_axis(positive, concept[:, None], 1)[:, 0].astype(np.float64)
    others = positive.sum(axis=1) - own
    if rule == "published":
        ratio = own / (others + TINY)
        return float(sum(ratio[concept == k].mean() for k in range(concepts)))
    share = own / np.maximum(own + others, TINY)
    return float(np.mean([share[concept == k].mean() for k in range(concepts)]))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine of two vectors, 0 where one is zero."""
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norms if norms > 0 else 0.0


def auc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Probability that a value of ``inside`` exceeds one of ``outside``; ties count half."""
    if not inside.size or not outside.size:
        return float("nan")
    above = (inside[:, None] > outside[None]).mean()
    return float(above + 0.5 * (inside[:, None] == outside[None]).mean())
