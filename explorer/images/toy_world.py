"""Scenes of the toy world: forms of any colour on a clouded ground, and what is where in each.

A concept is a form; colour, size, place, turn and ground are left to chance, so that forms are all
there is to know. Every scene has a generator of its own, seeded by the world and its number, and
comes out the same whenever it is drawn.
"""

from __future__ import annotations

import colorsys
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from explorer.images import glyphs
from explorer.images.concept_boxes import COLUMNS, FILE, Box
from explorer.records import BadInput

Report = Callable[[float, str], None]

SIDE = 64
"""Pixels of a scene, each way."""
FEWEST = 4
MOST = len(glyphs.FORMS)
"""How many concepts a world can have."""

SECOND = 1 / 3
"""The share of scenes that hold a second form."""
SIZES = (20, 27)
TURN = 0.25
GRAIN = 6.0

CREDITS = "Scenes of the toy world, drawn by the explorer itself."


@dataclass(frozen=True)
class Scene:
    """``picture`` u8[SIDE,SIDE,3], and each form in it with its box (pixels that hold ink)."""

    picture: np.ndarray
    objects: tuple[tuple[str, Box], ...]


@dataclass(frozen=True)
class World:
    """Scenes of the first ``concepts`` forms. Raises BadInput for fewer than FEWEST or more than
    there are."""

    concepts: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not FEWEST <= self.concepts <= MOST:
            raise BadInput(f"A toy world has {FEWEST} to {MOST} concepts, not {self.concepts}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The concepts, in order."""
        return tuple(glyphs.FORMS)[: self.concepts]

    def scene(self, part: str, number: int) -> Scene:
        """Scene ``number`` of a part of the world ("train" or "show"): its first form goes round
        the concepts, a second one is there by chance and never the same."""
        random = np.random.default_rng([self.seed, ("train", "show").index(part), number])
        chosen = [number % self.concepts]
        if random.uniform() < SECOND:
            chosen.append((chosen[0] + int(random.integers(1, self.concepts))) % self.concepts)
        return _drawn([self.names[each] for each in chosen], random)


def write(world: World, folder: Path, count: int, report: Report) -> None:
    """Draw ``count`` scenes that are not for training into ``folder``: PNG files, ``pictures.csv``
    (scenes of one form carry it as their label) and ``concepts.csv`` (what is where)."""
    folder.mkdir(parents=True)
    listed, boxes = [], []
    for number in range(count):
        scene = world.scene("show", number)
        path = f"{number:05}.png"
        Image.fromarray(scene.picture).save(folder / path)
        names = [name for name, _ in scene.objects]
        listed.append((path, names[0] if len(names) == 1 else "", path, " and ".join(names)))
        boxes += [(path, name, *box) for name, box in scene.objects]
        if number % 64 == 0:
            report(number / count, f"Drawing scenes: {number:,} of {count:,}")
    _write(folder / "pictures.csv", ("path", "label", "source", "caption"), listed)
    _write(folder / FILE, COLUMNS, boxes)
    (folder / "CREDITS.txt").write_text(CREDITS, "utf-8")


def _write(path: Path, columns: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _drawn(names: list[str], random: np.random.Generator) -> Scene:
    canvas = _ground(random)
    objects = []
    for name, (left, top, side) in zip(names, _places(len(names), random), strict=True):
        form = glyphs.mask(name, side, random.uniform(-TURN, TURN))
        share = np.asarray(form, np.float64)[..., None] / 255
        spot = canvas[top : top + side, left : left + side]
        spot += share * (_ink(random) - spot)
        x0, y0, x1, y1 = form.getbbox() or (0, 0, side, side)
        objects.append((name, (left + x0, top + y0, left + x1, top + y1)))
    canvas += random.normal(0, GRAIN, canvas.shape)
    return Scene(np.rint(np.clip(canvas, 0, 255)).astype(np.uint8), tuple(objects))


def _places(count: int, random: np.random.Generator) -> list[tuple[int, int, int]]:
    """Left, top and side of squares that do not overlap, drawn again until they do not."""
    while True:
        sides = random.integers(*SIZES, count)
        corners = random.integers(0, SIDE - sides + 1, (2, count))
        apart = np.abs(corners[:, :, None] - corners[:, None, :]).max(axis=0)
        if (apart >= np.maximum.outer(sides, sides))[~np.eye(count, dtype=bool)].all():
            return [(int(x), int(y), int(side)) for x, y, side in zip(*corners, sides, strict=True)]


def _ink(random: np.random.Generator) -> np.ndarray:
    """A bright colour f64[3]."""
    return _colour(random.uniform(), random.uniform(0.2, 0.8), random.uniform(0.85, 1.0))


def _ground(random: np.random.Generator) -> np.ndarray:
    """f64[SIDE,SIDE,3]: one dark colour, clouded."""
    base = _colour(random.uniform(), random.uniform(0.1, 0.6), random.uniform(0.2, 0.42))
    coarse = Image.fromarray(random.normal(0, 0.25, (5, 5)).astype(np.float32))
    clouds = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)
    return base * (1 + clouds[..., None])


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))
