"""A page in inches: pictures and text at exact places, text measured before it is set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTHS = {"single": 3.3, "double": 6.9}
"""Column widths in inches: one column, or both, of a two-column paper."""

INK = "#1a1a1a"
QUIET = "#5f6368"
LINE_HEIGHT = 1.3
"""Baseline to baseline, in multiples of the text size."""

_POINTS = 72.0
_SLACK = 1.02
# Renderers round glyph widths differently: a line measured as full is not let reach the edge.


class Page:
    """A figure of ``width`` x ``height`` inches, the origin at its top left, y growing downward.

    ``form`` is the format it will be saved in: PDF and SVG keep the pixels of pictures as they
    are and leave scaling to the reader; a PNG is scaled once, smoothly.
    """

    def __init__(self, width: float, height: float, form: str) -> None:
        from matplotlib.figure import Figure

        self.figure: Figure = Figure(figsize=(width, height), facecolor="white")
        self._axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self._axes.set_axis_off()
        self._interpolation = "antialiased" if form == "png" else "none"
        self._width, self._height = width, height
        self._frame()

    def picture(self, pixels: np.ndarray, left: float, top: float, side: float) -> None:
        """Place u8[h,w,3] in a square of ``side``, whole and centred."""
        high, wide = pixels.shape[:2]
        width, height = side * wide / max(high, wide), side * high / max(high, wide)
        left, top = left + (side - width) / 2, top + (side - height) / 2
        self._axes.imshow(
            pixels,
            extent=(left, left + width, top + height, top),
            interpolation=self._interpolation,
            aspect="auto",
            clip_on=False,
            zorder=1,
        )
        self._frame()

    def bar(
        self, left: float, top: float, width: float, height: float, colour: str, **look: Any
    ) -> None:
        """Fill a rectangle, beneath pictures; ``look`` goes to matplotlib."""
        from matplotlib.patches import Rectangle

        look = {"linewidth": 0, "zorder": 0, **look}
        self._axes.add_patch(Rectangle((left, top), width, height, facecolor=colour, **look))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """A plot of its own in a rectangle."""
        bottom = self._height - top - height
        box = left / self._width, bottom / self._height, width / self._width, height / self._height
        return self.figure.add_axes(box)

    def text(self, words: str, left: float, top: float, size: float, **look: Any) -> None:
        """Set one line of ``size`` points below ``top``; ``look`` goes to matplotlib."""
        baseline = top + size / _POINTS
        self._axes.text(
            left, baseline, words, fontsize=size, va="baseline", parse_math=False, **look
        )

    def lines(
        self, lines: Sequence[str], left: float, top: float, size: float, colour: str
    ) -> None:
        """Set lines below each other."""
        for number, line in enumerate(lines):
            self.text(line, left, top + number * leading(size), size, color=colour)

    def _frame(self) -> None:
        # Adding a picture moves the limits of the axes.
        self._axes.set_xlim(0.0, self._width)
        self._axes.set_ylim(self._height, 0.0)


def leading(size: float) -> float:
    """Inches from one baseline to the next for text of ``size`` points."""
    return size * LINE_HEIGHT / _POINTS


@lru_cache(maxsize=4096)
def text_width(words: str, size: float) -> float:
    """Inches that a line of text takes."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    width, _, _ = TextToPath().get_text_width_height_descent(
        words, FontProperties(family="DejaVu Sans", size=size), ismath=False
    )
    return float(width) / _POINTS * _SLACK


def fitting(variants: Sequence[Sequence[str]], size: float, width: float) -> Sequence[str]:
    """Of several ways to word the same lines, the first whose every line fits ``width`` inches;
    else the last."""
    for lines in variants[:-1]:
        if all(text_width(line, size) <= width for line in lines):
            return lines
    return variants[-1]


def shortened(words: str, size: float, width: float) -> str:
    """The words, cut off where they do not fit ``width`` inches."""
    if text_width(words, size) <= width:
        return words
    while words and text_width(f"{words}…", size) > width:
        words = words[:-1]
    return f"{words}…"


def wrap(parts: Sequence[str], size: float, width: float) -> list[str]:
    """Lines no wider than ``width`` inches, from parts joined by a dot; a part too long for a
    line is broken between words, and a word too long for one (a path, say) between letters."""
    lines: list[str] = []
    line = ""
    for part in parts:
        joined = f"{line} · {part}" if line else part
        if text_width(joined, size) <= width:
            line = joined
            continue
        lines += [line] if line else []
        *full, line = _broken(part, size, width)
        lines += full
    return [*lines, line] if line else lines


def _broken(part: str, size: float, width: float) -> list[str]:
    lines = [""]
    for word in part.split():
        joined = f"{lines[-1]} {word}".strip()
        if text_width(joined, size) <= width:
            lines[-1] = joined
            continue
        lines = [*lines, word] if lines[-1] else [word]
        while text_width(lines[-1], size) > width and len(lines[-1]) > 1:
            cut = next(
                n
                for n in range(len(lines[-1]) - 1, 0, -1)
                if n == 1 or text_width(lines[-1][:n], size) <= width
            )
            lines[-1:] = [lines[-1][:cut], lines[-1][cut:]]
    return lines
