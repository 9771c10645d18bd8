"""Dividing a row of weights among concepts (after arXiv 2504.12939): the arithmetic, no network.

A channel's row w has I input units; m_k is the mean, over the pictures of concept k, of the
spatial sums of the inputs, and v_k = w * m_k the averaged relevance vector of k. A unit belongs to
the concept that outweighs all others by the factor 1/rho, and is shared where none does.
"""

from __future__ import annotations

import numpy as np

RULES = ("balanced", "symmetric", "published")
RHOS = np.round(np.arange(1, 21) * 0.05, 2)
SHARED = -1
TINY = 1e-5


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
