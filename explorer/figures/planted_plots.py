"""How well methods divide planted channels: a plot of means with their errors, a row for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from explorer.figures.page import INK, QUIET, WIDTHS, Page, leading, shortened, text_width
from explorer.records import CEILING, CHANCE, Chosen, Planted, PlantedRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KNOWN, AUTO = "#0072b2", "#d55e00"
"""Told apart by colour-blind readers too (Okabe and Ito)."""
PALE = "#e6e8eb"
BODY_SIZE, SMALL_SIZE, TINY_SIZE = 6.0, 5.0, 4.5
LABELS = {"single": 1.05, "double": 1.7}
GUTTER = 0.14
STEP = 0.215
"""Inches from one method to the next."""
HEAD = 2 * leading(BODY_SIZE) + 0.05
FOOT = 0.28
"""Inches above and below a plot."""
LEGEND = (
    (("●", "at the known number of parts", KNOWN), ("◇", "at the number chosen", AUTO)),
    (("┅", "ceiling: the sources themselves", QUIET), ("┈", "null: labels by lot", QUIET)),
)

Way = tuple[str, str]
"""A method and its lower layer."""
Level = tuple[int, float]
"""How many sources there are, and their mixing ratio."""


def way_of(row: PlantedRow | Chosen) -> Way:
    return row.method, row.lower


def named(way: Way) -> tuple[str, str]:
    """The name of a method, and what tells it from others of that name."""
    name, _, params = way[0].partition(":")
    return name, " · ".join(each for each in (params.replace(",", ", "), way[1]) if each)


def legend(page: Page, top: float) -> None:
    """Two lines."""
    for number, line in enumerate(LEGEND):
        left, at = 0.0, top + number * leading(BODY_SIZE)
        for mark, words, colour in line:
            page.text(mark, left, at, BODY_SIZE, color=colour)
            left += text_width(mark, BODY_SIZE) + 0.04
            page.text(words, left, at, BODY_SIZE, color=QUIET)
            left += text_width(words, BODY_SIZE) + 0.12


def height(ways: Sequence[Way]) -> float:
    """Inches that the plots of one level take."""
    return HEAD + len(ways) * STEP + FOOT


def plots(
    page: Page, found: Planted, level: Level, ways: Sequence[Way], top: float, width: str
) -> None:
    """A plot for each regime at one level, with the methods' names at the left."""
    label = LABELS[width]
    regimes = list(dict.fromkeys(row.regime for row in found.rows))
    wide = (WIDTHS[width] - label - 0.06) / len(regimes) - GUTTER
    said = f"{level[0]} sources, mixed 1 : {level[1]:g}" if level[1] != 1 else f"{level[0]} sources"
    page.text(said, 0.0, top, BODY_SIZE, color=INK, weight="bold")
    top += HEAD
    for number, way in enumerate(ways):
        _label(page, way, top + (number + 0.5) * STEP, label)
    for number, regime in enumerate(regimes):
        left = label + GUTTER + number * (wide + GUTTER)
        rows = {way_of(r): r for r in found.rows if (r.regime, r.groups, r.mix) == (regime, *level)}
        n = max((row.n for row in rows.values()), default=0)
        page.text(f"{regime} apart", left, top - HEAD, BODY_SIZE, color=INK, weight="bold")
        page.text(f"n = {n}", left, top - HEAD + leading(BODY_SIZE), BODY_SIZE, color=QUIET)
        _plot(page.axes(left, top, wide, len(ways) * STEP), rows, ways)


def _label(page: Page, way: Way, middle: float, width: float) -> None:
    name, more = named(way)
    top = middle - (leading(BODY_SIZE) + (leading(TINY_SIZE) if more else 0.0)) / 2
    page.text(name, 0.0, top, BODY_SIZE, color=INK)
    more = shortened(more, TINY_SIZE, width)
    page.text(more, 0.0, top + leading(BODY_SIZE), TINY_SIZE, color=QUIET)


def _plot(axes: Axes, rows: Mapping[Way, PlantedRow], ways: Sequence[Way]) -> None:
    """Means with standard errors, from the first method down, between null and ceiling."""
    for name, dash in ((CEILING, (4, 2)), (CHANCE, (1, 1.5))):
        line = rows.get((name, ""))
        if line is not None and math.isfinite(line.ari):
            error = _error(line.ari_se)
            axes.axvspan(line.ari - error, line.ari + error, color=PALE, linewidth=0, zorder=0)
            axes.axvline(line.ari, color=QUIET, linewidth=0.7, dashes=dash, zorder=1)
    for at, way in enumerate(ways):
        if (row := rows.get(way)) is not None:
            _mark(axes, row.ari, row.ari_se, at - 0.14, "o", KNOWN, KNOWN)
            _mark(axes, row.auto_ari, row.auto_ari_se, at + 0.14, "D", AUTO, "white")
    axes.set_ylim(len(ways) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlim(min(-0.05, axes.get_xlim()[0]), 1.0)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.tick_params(labelsize=SMALL_SIZE, width=0.5, length=2, pad=1.5, colors=QUIET)
    axes.grid(axis="x", color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_linewidth(0.5)
        spine.set_color(QUIET)


def _mark(
    axes: Axes, mean: float, error: float, place: float, shape: str, colour: str, fill: str
) -> None:
    if math.isfinite(mean):
        axes.errorbar(
            [mean],
            [place],
            xerr=[_error(error)],
            fmt=shape,
            color=colour,
            markerfacecolor=fill,
            markersize=3.0,
            markeredgewidth=0.8,
            elinewidth=0.8,
            capsize=1.4,
            capthick=0.8,
        )


def _error(value: float) -> float:
    """A standard error, none where there is but one channel."""
    return value if math.isfinite(value) else 0.0
