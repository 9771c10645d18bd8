"""How many parts methods chose for planted channels: a table for each method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from explorer.figures.page import INK, QUIET, WIDTHS, Page, leading, shortened
from explorer.figures.planted_plots import BODY_SIZE, KNOWN, TINY_SIZE, Way, named, way_of
from explorer.records import CLEAN, Chosen, Planted

CELL, KIND = 0.125, 0.62
"""Inches of a cell, and of the words before a line of them."""
ABREAST = {"single": 2, "double": 4}


def height(found: Planted, ways: Sequence[Way], width: str) -> float:
    """Inches that all tables take."""
    shown = sum(bool(_counts(found, way)) for way in ways)
    return math.ceil(shown / ABREAST[width]) * _stride(found)


def tables(page: Page, found: Planted, ways: Sequence[Way], top: float, width: str) -> None:
    """Kinds of channels down, numbers of parts across, the right one framed."""
    across = WIDTHS[width] / ABREAST[width]
    shown = [(way, counts) for way in ways if (counts := _counts(found, way))]
    for number, (way, counts) in enumerate(shown):
        row, column = divmod(number, ABREAST[width])
        _table(page, way, counts, column * across, top + row * _stride(found), across - 0.08)


def _counts(found: Planted, way: Way) -> list[Chosen]:
    """What a method chose, clean channels first."""
    mine = [each for each in found.confusion if way_of(each) == way]
    return sorted(mine, key=lambda each: each.regime != CLEAN)


def _stride(found: Planted) -> float:
    kinds = len({(each.regime, each.groups, each.mix) for each in found.confusion})
    return leading(BODY_SIZE) + 2 * leading(TINY_SIZE) + kinds * CELL + 0.1


def _table(
    page: Page, way: Way, counts: Sequence[Chosen], left: float, top: float, wide: float
) -> None:
    name, more = named(way)
    page.text(name, left, top, BODY_SIZE, color=INK)
    top += leading(BODY_SIZE)
    page.text(shortened(more, TINY_SIZE, wide), left, top, TINY_SIZE, color=QUIET)
    top += leading(TINY_SIZE)
    side = min(CELL, (wide - KIND) / len(counts[0].counts))
    for k in range(len(counts[0].counts)):
        centre = left + KIND + (k + 0.5) * side
        page.text(str(k + 1), centre, top, TINY_SIZE, color=QUIET, ha="center")
    top += leading(TINY_SIZE)
    for each in counts:
        _line(page, each, left, top, side)
        top += CELL


def _line(page: Page, each: Chosen, left: float, top: float, side: float) -> None:
    total = sum(each.counts)
    drop = (CELL - leading(TINY_SIZE)) / 2
    name = shortened(f"{_kind(each)} ({total})", TINY_SIZE, KIND)
    page.text(name, left, top + drop, TINY_SIZE, color=INK)
    for k, count in enumerate(each.counts):
        part, start = count / total, left + KIND + k * side
        look: dict[str, Any] = {}
        if k + 1 == each.groups:
            look = {"edgecolor": INK, "linewidth": 0.6, "zorder": 1}
        page.bar(start, top, side - 0.01, CELL - 0.01, _shade(part), **look)
        if count:
            look = {"color": "white" if part > 0.55 else INK, "ha": "center", "zorder": 2}
            page.text(f"{100 * part:.0f}", start + side / 2, top + drop, TINY_SIZE, **look)


def _kind(each: Chosen) -> str:
    """Such as "far", "near, 3" or "far, 1 : 0.5"; of clean channels the regime alone."""
    if each.regime == CLEAN:
        return each.regime
    more = f", {each.groups}" if each.groups != 2 else ""
    return f"{each.regime}{more}{f', 1 : {each.mix:g}' if each.mix != 1 else ''}"


def _shade(part: float) -> str:
    """Between white and the colour of a known k."""
    full = [int(KNOWN[at : at + 2], 16) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + (each - 255) * part):02x}" for each in full)
