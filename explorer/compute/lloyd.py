"""k-means of many samples at once, from inner products alone.

For K rows their Gram matrix f64[K,K] holds all that k-means needs, however many features the
rows have: |x - m|^2 = <x,x> - 2 <x,m> + <m,m>. Take it of centred rows, for precision. A run is
one sample of the rows with one start; all runs step together, and leave as they settle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEPS = 50

SKLEARN_STEPS, SKLEARN_TOLERANCE = 300, 1e-4
"""scikit-learn's own defaults, the tolerance a share of the mean variance of the features."""


@dataclass(frozen=True)
class Settled:
    """Where R runs ended: ``labels`` i64[R,K], of rows without weight too, ``inertia`` f64[R], and
    whether a group was ``emptied`` on the way, bool[R]."""

    labels: np.ndarray
    inertia: np.ndarray
    emptied: np.ndarray

    def best(self, runs: int) -> np.ndarray:
        """i64[R/runs,K]: labels of the best of every ``runs`` successive runs."""
        first = np.arange(0, len(self.inertia), runs)
        kept: np.ndarray = self.labels[first + self.inertia.reshape(-1, runs).argmin(axis=1)]
        return kept


def lloyd(
    grams: np.ndarray,
    weight: np.ndarray,
    seeds: np.ndarray,
    tolerance: float = -1.0,
    steps: int = STEPS,
) -> Settled:
    """Lloyd's algorithm for R runs, as many on each of G Gram matrices, in their order.

    ``grams`` f64[G,K,K], ``weight`` f64[R,K] what each row counts in each run, ``seeds`` i64[R,k]
    the rows that are the first centres. A run ends when no label changes, after its centres moved
    by no more than ``tolerance`` (sum of squares), or after ``steps``.
    """
    runs = len(seeds)
    of = _owners(grams, runs)
    norms = np.diagonal(grams, axis1=1, axis2=2)
    inner = np.ascontiguousarray(grams[of[:, None], seeds].transpose(2, 0, 1))  # [K,R,k]
    square = norms[of[:, None], seeds]
    found = Settled(np.empty(weight.shape, np.int64), np.empty(runs), np.zeros(runs, bool))
    weight = np.ascontiguousarray(weight.T)
    alive, labels, last = np.arange(runs), np.full(weight.shape, -1), np.zeros(runs, bool)
    for step in range(steps + 1):
        inner -= square / 2
        before, labels = labels, inner.argmax(axis=2)
        near = np.take_along_axis(inner, labels[..., None], 2)[..., 0]
        over = last | (labels == before).all(axis=0) | (step == steps)
        if over.any():
            ended, going = alive[over], ~over
            squared = norms[of[ended]].T - 2 * near[:, over]
            found.labels[ended] = labels[:, over].T
            found.inertia[ended] = (squared * weight[:, over]).sum(axis=0)
            alive, square = alive[going], square[going]
            labels, near, weight = labels[:, going], near[:, going], weight[:, going]
            if not len(alive):
                break
        inner, square, shift = _moved(grams, of[alive], weight, labels, near, square)
        last = shift <= tolerance
        found.emptied[alive] |= np.isinf(square).any(axis=1)
    return found


def _moved(
    grams: np.ndarray,
    of: np.ndarray,
    weight: np.ndarray,
    labels: np.ndarray,
    near: np.ndarray,
    square: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The means of the groups: their inner products with the rows [K,R,k], their squares [R,k],
    and how far they are from the centres before (R sums of squares), whose squares are ``square``
    [R,k]; ``near`` [K,R] is the product of each row with its own of them, less half its square."""
    count, runs = labels.shape
    k = square.shape[1]
    place = labels + k * np.arange(runs)

    def totals(values: np.ndarray) -> np.ndarray:
        return np.bincount(place.ravel(), values.ravel(), runs * k)

    sizes = totals(weight)
    share = weight / np.maximum(sizes, 1e-9)[place]
    member = np.zeros((count, runs * k))
    np.put_along_axis(member, place, share, 1)
    inner = np.empty_like(member)
    edges = k * np.searchsorted(of, np.arange(len(grams) + 1))
    for gram, start, end in zip(grams, edges[:-1], edges[1:], strict=True):
        np.matmul(gram, member[:, start:end], out=inner[:, start:end])
    squares = totals(share * np.take_along_axis(inner, place, 1)).reshape(runs, k)
    crossed = totals(share * (near + square.ravel()[place] / 2)).reshape(runs, k)
    shift = (squares - 2 * crossed + square).sum(axis=1)
    squares[sizes.reshape(runs, k) < 0.5] = np.inf  # a group without rows takes none back
    return inner.reshape(count, runs, k), squares, shift


def sprinkled(grams: np.ndarray, weight: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Seeds i64[R,k] by k-means++ (Arthur and Vassilvitskii 2007) for runs as those of ``lloyd``,
    from numbers ``uniform`` f64[R,k] in 0 to 1."""
    runs, k = uniform.shape
    of = _owners(grams, runs)
    norms = np.diagonal(grams, axis1=1, axis2=2)
    least, chance = np.full(weight.shape, np.inf), weight
    seeds = np.empty((runs, k), np.int64)
    for group in range(k):
        heap = chance.cumsum(axis=1)
        picked = (heap <= uniform[:, group, None] * heap[:, -1:]).sum(axis=1)
        seeds[:, group] = picked = np.minimum(picked, weight.shape[1] - 1)
        squared = norms[of] + norms[of, picked][:, None] - 2 * grams[of, picked]
        least = np.minimum(least, np.maximum(squared, 0.0))
        chance = weight * least
    return seeds


def like_sklearn(gram: np.ndarray, k: int, seed: int, restarts: int, features: int) -> Settled:
    """What scikit-learn's ``KMeans(k, n_init=restarts, random_state=seed)`` does with rows of so
    many features behind one Gram matrix f64[K,K]: the same numbers drawn, the same steps. Where a
    group was emptied scikit-learn goes on in another way, which is not followed."""
    trials = 2 + int(np.log(k))
    uniform = np.random.RandomState(seed).random_sample((restarts, 1 + (k - 1) * trials))
    tolerance = SKLEARN_TOLERANCE * np.trace(gram) / gram.shape[0] / features
    everything = np.ones((restarts, len(gram)))
    seeds = _greedy(gram, uniform, k, trials)
    return lloyd(gram[None], everything, seeds, tolerance, SKLEARN_STEPS)


def _greedy(gram: np.ndarray, uniform: np.ndarray, k: int, trials: int) -> np.ndarray:
    """Seeds i64[R,k] by scikit-learn's k-means++: of ``trials`` rows drawn, the one is taken that
    leaves the least."""
    norms, count, runs = np.diagonal(gram), len(gram), np.arange(len(uniform))
    even = np.full(count, 1.0 / count).cumsum()
    seeds = np.empty((len(uniform), k), np.int64)
    seeds[:, 0] = np.searchsorted(even / even[-1], uniform[:, 0], side="right")

    def squared(rows: np.ndarray) -> np.ndarray:
        return np.asarray(np.maximum(norms + norms[rows][..., None] - 2 * gram[rows], 0.0))

    least = squared(seeds[:, 0])
    drawn = uniform[:, 1:].reshape(len(uniform), k - 1, trials)
    for group in range(1, k):
        heap = least.cumsum(axis=1)
        level = drawn[:, group - 1] * least.sum(axis=1, keepdims=True)
        tried = (heap[:, None] < level[..., None]).sum(axis=2).clip(max=count - 1)
        left = np.minimum(least[:, None], squared(tried))
        best = left.sum(axis=2).argmin(axis=1)
        seeds[:, group], least = tried[runs, best], left[runs, best]
    return seeds


def _owners(grams: np.ndarray, runs: int) -> np.ndarray:
    """Which Gram matrix each run is on."""
    return np.repeat(np.arange(len(grams)), runs // len(grams))
