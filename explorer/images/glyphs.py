"""The alphabet of the toy world: forms that a person can name, each a concept of its own.

A form is a list of marks in coordinates from -1 to 1 in both directions, y downwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw

FINE = 4
"""Masks are drawn so many times larger and then reduced, which smooths their edges."""
THICK = 0.3
"""The width of a line, where a form is 2 wide."""
ROOM = 0.84
"""How much of half the side a form takes, so that turning it cuts nothing off."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Area:
    """A filled polygon."""

    points: tuple[Point, ...]


@dataclass(frozen=True)
class Line:
    """A line with round ends and corners."""

    points: tuple[Point, ...]
    width: float = THICK


@dataclass(frozen=True)
class Disc:
    """A filled circle, or with ``ink`` 0 a hole."""

    x: float
    y: float
    radius: float
    ink: int = 255


Mark = Area | Line | Disc


def area(*points: Point) -> Area:
    return Area(points)


def line(*points: Point, width: float = THICK) -> Line:
    return Line(points, width)


def around(count: int, *radii: float, turn: float = 0.0) -> tuple[Point, ...]:
    """Points about the centre, clockwise from the top, their radii taken in turn."""
    angles = [turn + 2 * math.pi * at / count for at in range(count)]
    return tuple(
        (radii[at % len(radii)] * math.sin(angle), -radii[at % len(radii)] * math.cos(angle))
        for at, angle in enumerate(angles)
    )


def spiral() -> Line:
    """Two turns outwards."""
    steps = [at / 40 for at in range(41)]
    return line(
        *(
            (0.9 * s * math.cos(4 * math.pi * s), 0.9 * s * math.sin(4 * math.pi * s))
            for s in steps
        ),
        width=0.2,
    )


FORMS: dict[str, tuple[Mark, ...]] = {
    "disc": (Disc(0, 0, 0.8),),
    "star": (area(*around(10, 1.0, 0.4)),),
    "frame": (line((-0.75, -0.75), (0.75, -0.75), (0.75, 0.75), (-0.75, 0.75), (-0.75, -0.75)),),
    "plus": (line((0, -0.85), (0, 0.85)), line((-0.85, 0), (0.85, 0))),
    "moon": (Disc(-0.1, 0, 0.9), Disc(0.35, 0, 0.75, 0)),
    "bars": tuple(line((-0.8, y), (0.8, y), width=0.28) for y in (-0.7, 0.0, 0.7)),
    "triangle": (area((0, -0.95), (0.95, 0.8), (-0.95, 0.8)),),
    "spiral": (spiral(),),
    "dots": tuple(Disc(x, y, 0.3) for x in (-0.55, 0.55) for y in (-0.55, 0.55)),
    "arrow": (line((-0.9, 0), (0.8, 0)), line((0.2, -0.65), (0.85, 0), (0.2, 0.65))),
    "ring": (Disc(0, 0, 0.9), Disc(0, 0, 0.55, 0)),
    "hourglass": (area((-0.8, -0.9), (0.8, -0.9), (-0.8, 0.9), (0.8, 0.9)),),
    "fork": (
        line((0, 0), (0, 0.9)),
        line((-0.7, -0.9), (-0.7, 0), (0.7, 0), (0.7, -0.9)),
        line((0, 0), (0, -0.9)),
    ),
    "house": (area((0, -1), (0.9, -0.1), (0.6, -0.1), (0.6, 0.9), (-0.6, 0.9), (-0.6, -0.1),
                   (-0.9, -0.1)),),
    "zigzag": (line((-0.9, 0.6), (-0.45, -0.6), (0, 0.6), (0.45, -0.6), (0.9, 0.6)),),
    "flower": (*(Disc(x, y, 0.36) for x, y in around(6, 0.6)), Disc(0, 0, 0.28, 0)),
    "tee": (line((-0.8, -0.75), (0.8, -0.75)), line((0, -0.75), (0, 0.85))),
    "fish": (Disc(-0.15, 0, 0.62), area((0.25, 0), (0.95, -0.65), (0.95, 0.65))),
    "cross": (line((-0.75, -0.75), (0.75, 0.75)), line((-0.75, 0.75), (0.75, -0.75))),
    "ladder": (
        *(line((x, -0.9), (x, 0.9), width=0.22) for x in (-0.5, 0.5)),
        *(line((-0.5, y), (0.5, y), width=0.22) for y in (-0.5, 0.0, 0.5)),
    ),
    "drop": (Disc(0, 0.3, 0.6), area((0, -1), (0.56, 0.1), (-0.56, 0.1))),
    "hook": (line((0.5, -0.9), (0.5, 0.3), (0.3, 0.7), (-0.1, 0.85), (-0.5, 0.65), (-0.65, 0.3)),),
    "glasses": (
        Disc(-0.52, 0, 0.46), Disc(-0.52, 0, 0.22, 0), Disc(0.52, 0, 0.46), Disc(0.52, 0, 0.22, 0),
    ),
    "chevrons": (
        line((-0.8, 0.0), (0, -0.75), (0.8, 0.0)), line((-0.8, 0.75), (0, 0.0), (0.8, 0.75)),
    ),
    "bolt": (area((0.15, -1), (-0.65, 0.15), (-0.05, 0.15), (-0.25, 1), (0.65, -0.25),
                  (0.05, -0.25), (0.4, -1)),),
    "gate": (line((-0.7, 0.9), (-0.7, -0.2), (-0.5, -0.65), (0, -0.85), (0.5, -0.65), (0.7, -0.2),
                  (0.7, 0.9)),),
    "key": (Disc(-0.55, 0, 0.42), Disc(-0.55, 0, 0.18, 0), line((-0.2, 0), (0.9, 0), width=0.22),
            line((0.85, 0), (0.85, 0.5), width=0.22), line((0.45, 0), (0.45, 0.4), width=0.22)),
    "pine": (area((0, -1), (0.6, -0.15), (-0.6, -0.15)), area((0, -0.5), (0.85, 0.55),
             (-0.85, 0.55)), line((0, 0.5), (0, 0.9))),
    "asterisk": tuple(line((-x, -y), (x, y), width=0.22) for x, y in around(6, 0.9)[:3]),
    "ell": (line((-0.55, -0.85), (-0.55, 0.75), (0.7, 0.75), width=0.4),),
    "dumbbell": (Disc(-0.6, 0, 0.4), Disc(0.6, 0, 0.4), line((-0.5, 0), (0.5, 0), width=0.22)),
    "flag": (line((-0.6, -0.9), (-0.6, 0.95), width=0.2), area((-0.5, -0.95), (0.9, -0.45),
             (-0.5, 0.05))),
    "comb": (line((-0.85, -0.7), (0.85, -0.7)),
             *(line((x, -0.7), (x, 0.75), width=0.2) for x in (-0.8, -0.27, 0.27, 0.8))),
    "heart": (Disc(-0.42, -0.35, 0.47), Disc(0.42, -0.35, 0.47), area((-0.84, -0.12), (0, -0.3),
              (0.84, -0.12), (0, 0.95))),
    "wheel": (Disc(0, 0, 0.95), Disc(0, 0, 0.7, 0), line((-0.8, 0), (0.8, 0), width=0.2),
              line((0, -0.8), (0, 0.8), width=0.2)),
    "steps": (line((-0.9, 0.8), (-0.3, 0.8), (-0.3, 0.1), (0.3, 0.1), (0.3, -0.6), (0.9, -0.6)),),
}  # fmt: skip
"""The forms in the order in which a world takes them."""


def mask(name: str, side: int, angle: float) -> Image.Image:
    """A form turned by ``angle`` radians: mode L, side x side, 255 where there is ink."""
    canvas = Image.new("L", (side * FINE, side * FINE))
    draw = ImageDraw.Draw(canvas)
    centre, half = side * FINE / 2, ROOM * side * FINE / 2
    cos, sin = math.cos(angle), math.sin(angle)

    def placed(point: Point) -> Point:
        x, y = point
        return centre + half * (cos * x - sin * y), centre + half * (sin * x + cos * y)

    def disc(middle: Point, radius: float, ink: int) -> None:
        x, y = middle
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)

    for mark in FORMS[name]:
        if isinstance(mark, Disc):
            disc(placed((mark.x, mark.y)), half * mark.radius, mark.ink)
        elif isinstance(mark, Area):
            draw.polygon([placed(point) for point in mark.points], fill=255)
        else:
            points = [placed(point) for point in mark.points]
            draw.line(points, fill=255, width=round(half * mark.width))
            for point in points:
                disc(point, half * mark.width / 2, 255)
    return canvas.resize((side, side), Image.Resampling.BOX)
