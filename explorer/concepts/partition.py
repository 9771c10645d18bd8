"""Training, validation and test pictures: fixed by what is in them, never by order or name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer.records import BadInput

TRAIN, VALIDATION = 0.7, 0.8
"""Where in [0, 1) training ends and validation ends; the rest is for the test."""
FEWEST = {"training": 20, "validation": 8, "test": 8}


@dataclass(frozen=True)
class Partition:
    """Ids i64[n] of the pictures of each split."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def within(self, usable: np.ndarray) -> Partition:
        """The same without pictures that are not ``usable`` bool[N]; BadInput if too few stay."""
        return _enough(Partition(*(part[usable[part]] for part in self)))

    def drawn(self, count: int) -> np.ndarray:
        """Ids i64[count] of pictures drawn by lot from all splits, the same every time."""
        return np.random.default_rng(0).permutation(np.concatenate(list(self)))[:count]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter((self.train, self.validation, self.test))


def partition(hashes: np.ndarray, sources: np.ndarray) -> Partition:
    """Split pictures by the hashes u64[N] of their contents: about 70, 10 and 20 in 100.

    Pictures of one source (``sources`` i32[N]) go together, as the sum of their hashes (modulo
    2^64, so that sources of many pictures are spread as evenly as those of one) says. Raises
    BadInput when a split has too few.
    """
    _, group = np.unique(sources, return_inverse=True)
    total = np.zeros(group.max() + 1, np.uint64)
    np.add.at(total, group, hashes)
    place = total[group] / 2.0**64
    ids = np.arange(len(hashes))
    return _enough(
        Partition(
            ids[place < TRAIN],
            ids[(place >= TRAIN) & (place < VALIDATION)],
            ids[place >= VALIDATION],
        )
    )


def _enough(found: Partition) -> Partition:
    for (name, fewest), part in zip(FEWEST.items(), found, strict=True):
        if len(part) < fewest:
            raise BadInput(
                f"The image set is too small to split: {len(part)} {name} pictures, and "
                f"{fewest} are needed; use at least 150 pictures."
            )
    return found
