"""What a channel does to a network's answers, and how much of that a prediction of it keeps
(arXiv 2405.06855). Answers are the network's own: the class that it ranks first."""

from __future__ import annotations

import numpy as np

from explorer.records import BadInput

TEMPERATURE = 1.1
"""Logits are divided by it before a cross-entropy, as in the paper."""
LINEAR = 1e-3
"""How far from linear, relative to the largest change, counts as linear."""


def effects(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """f64[n]: what taking a channel out does to each picture, from logits f[n,classes] with and
    without it: half its share of answers lost, half its change of cross-entropy, relative to the
    summed cross-entropy with the channel."""
    first, lost, change = changes(before, after)
    return combined(first, lost, change)


def changes(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of logits f[n,classes] with and without a channel: cross-entropies with it f64[n], answers
    lost bool[n], and changes of cross-entropy f64[n]."""
    own = before.argmax(axis=1)
    first = _losses(before, own)
    return first, after.argmax(axis=1) != own, _losses(after, own) - first


def combined(first: np.ndarray, lost: np.ndarray, change: np.ndarray) -> np.ndarray:
    """f64[...,n]: effects on n pictures from what ``changes`` says of them, ``first`` f64[n]."""
    relative = change / max(float(first.sum()), 1e-12)
    return np.asarray(0.5 * (lost / len(first) + relative))


def linear_part(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The channel's amount f64[n] in each picture and the direction f64[classes] in which it
    moves the logits f[n,classes]. Raises BadInput where they do not follow it linearly: where
    more than pooling and one linear layer comes after it."""
    moved = np.asarray(before, np.float64) - after
    direction = moved[np.linalg.norm(moved, axis=1).argmax()]
    amount = moved @ direction / max(float(direction @ direction), 1e-30)
    off = np.abs(moved - np.outer(amount, direction)).max()
    if off > LINEAR * max(float(np.abs(moved).max()), 1e-3):
        raise BadInput(
            "More than pooling and one linear layer follows this layer, so a prediction cannot "
            "take the channel's place: choose the last layer before the classifier."
        )
    return amount, direction


def ablation(
    logits: np.ndarray, direction: np.ndarray, amount: np.ndarray, said: np.ndarray, mean: float
) -> float:
    """1 - sum |l_said - l| / sum |l_mean - l|, with l the cross-entropy of the network's answer:
    1 if the prediction keeps all of the channel's effect, 0 if no more than its mean does, below
    if less; NaN where the mean does no harm.

    ``logits`` f[n,classes] hold the channel's ``amount`` f[n] times ``direction`` f[classes];
    ``said`` f[n], or the constant ``mean``, takes its place.
    """
    said_off, mean_off = (
        misled(logits, direction, amount, value) for value in (said, np.full(len(amount), mean))
    )
    return float(1 - said_off / mean_off) if mean_off > 1e-9 * len(amount) else float("nan")


def misled(
    logits: np.ndarray, direction: np.ndarray, amount: np.ndarray, said: np.ndarray
) -> float:
    """The sum over pictures of |l_said - l|, see ``ablation``."""
    own = logits.argmax(axis=1)
    moved = logits + np.outer(said - amount, direction)
    return float(np.abs(_losses(moved, own) - _losses(logits, own)).sum())


def optimised(
    logits: np.ndarray, direction: np.ndarray, amount: np.ndarray, said: np.ndarray
) -> tuple[float, float]:
    """Factor and offset of predictions ``said`` f[n] that mislead the network least on the
    validation pictures (the paper's "optim"), by Nelder and Mead's search from the scaling of
    ``scaled``, from the channel's own spread and from its mean; a constant ``said`` has factor
    0. Arguments as in ``ablation``."""
    from scipy.optimize import minimize

    middle, spread = float(np.mean(amount)), float(np.std(amount))
    centred = said - np.mean(said)
    width = float(np.std(said))
    shape = centred / width if width > 1e-12 * max(1.0, float(np.abs(said).max())) else 0 * centred

    def off(at: np.ndarray) -> float:
        return misled(logits, direction, amount, middle + spread * (at[0] * shape + at[1]))

    agreement = float(np.mean(shape * (amount - middle)) / spread) if spread > 0 else 0.0
    starts = [np.array([factor, 0.0]) for factor in {agreement, 1.0, 0.0}]
    settings = {"xatol": 1e-4, "fatol": 1e-9, "maxiter": 400}
    found = [minimize(off, at, method="Nelder-Mead", options=settings) for at in starts]
    factor, offset = min(found, key=lambda each: float(each.fun)).x
    factor = spread * float(factor) / width if shape.any() else 0.0
    return factor, middle + spread * float(offset) - factor * float(np.mean(said))


def scaled(said: np.ndarray, amount: np.ndarray, correlation: float) -> tuple[float, float]:
    """Factor and offset that bring predictions f[n] to the mean of ``amount`` f[n] and to its
    spread times their correlation, on the validation pictures (the paper's "norm")."""
    spread = float(np.std(said))
    factor = float(np.std(amount)) * correlation / spread if spread > 0 else 0.0
    return factor, float(np.mean(amount) - factor * np.mean(said))


def _losses(logits: np.ndarray, own: np.ndarray) -> np.ndarray:
    """f64[n]: cross-entropy of class ``own`` i64[n] for logits f[n,classes]."""
    rows = np.asarray(logits, np.float64) / TEMPERATURE
    top = rows.max(axis=1)
    whole = top + np.log(np.exp(rows - top[:, None]).sum(axis=1))
    return np.asarray(whole - rows[np.arange(len(own)), own])
