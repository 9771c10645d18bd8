"""What is where in pictures whose contents are known: the sidecar ``concepts.csv`` of a folder.

Columns ``picture`` (relative path), ``concept`` and a box in pixels of the picture: ``left``,
``top``, ``right``, ``bottom``, the end exclusive. A picture may have several rows, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from explorer.images import folders, pictures
from explorer.records import BadInput, Preprocess

FILE = "concepts.csv"
COLUMNS = ("picture", "concept", "left", "top", "right", "bottom")

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Contents:
    """``names`` of all concepts, sorted; per picture, the numbers of those in it and their boxes
    f64[n,4] in pixels of the picture."""

    names: tuple[str, ...]
    numbers: dict[str, np.ndarray]
    boxes: dict[str, np.ndarray]


def read(root: Path) -> Contents:
    """What is where in a folder of pictures; BadInput where there is none or it is malformed."""
    path = root / FILE
    if not path.is_file():
        raise BadInput(
            f"Nothing says what is in these pictures: put {FILE} with the columns "
            f"{', '.join(COLUMNS)} beside them, or make a toy world."
        )
    rows = folders.table(path, COLUMNS)
    names = tuple(sorted({row["concept"] for row in rows}))
    number = {name: at for at, name in enumerate(names)}
    found: dict[str, list[tuple[int, list[float]]]] = {}
    for at, row in enumerate(rows, 2):
        try:
            box = [float(row[side]) for side in COLUMNS[2:]]
        except ValueError:
            box = []
        if not row["concept"] or not box or not (box[0] < box[2] and box[1] < box[3]):
            raise BadInput(
                f"{path}, line {at}: write a concept and a box with left below right and top "
                "below bottom."
            )
        found.setdefault(row["picture"], []).append((number[row["concept"]], box))
    return Contents(
        names=names,
        numbers={path: np.array([n for n, _ in rows]) for path, rows in found.items()},
        boxes={path: np.array([box for _, box in rows]) for path, rows in found.items()},
    )


def concept_at(
    contents: Contents,
    root: Path,
    path: str,
    preprocess: Preprocess,
    place: Sequence[float],
    cell: float,
) -> int:
    """The number of the concept that a place of a layer's map shows, -1 for none.

    ``place`` is (x, y), the middle of the place in pixels of the network's view, ``cell`` how many
    pixels a place is wide there. The concept is that of the nearest box, none where even that is
    more than a cell away.
    """
    if path not in contents.boxes:
        return -1
    size = pictures.read(pictures.locate(root, path), path).size
    boxes = pictures.placed(contents.boxes[path], size, preprocess)
    x, y = place
    outside = np.stack([boxes[:, 0] - x, x - boxes[:, 2], boxes[:, 1] - y, y - boxes[:, 3]])
    away = np.maximum(outside.max(axis=0), 0.0)
    nearest = int(away.argmin())
    return int(contents.numbers[path][nearest]) if away[nearest] <= cell else -1
