"""Machine code for convolutions over windows, as matrix products.

Where maps lie channels last, what a line of a kernel sees of them lies next to each other. So a
window is a row of the product that lies in as many lines, and those of its neighbours overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

from llvmlite import ir

from explorer.networks.machine_code import (
    BOUNDS,
    INT,
    Registers,
    Takes,
    at,
    counting,
    larger,
    smaller,
)
from explorer.networks.open_channels import Line
from explorer.networks.point_code import CONVOLVE, PointCode

WINDOWS: Takes = (
    CONVOLVE[0],
    ("deep", "down", "across", "above", "left", *CONVOLVE[1]),
    BOUNDS,
)


class WindowCode(PointCode):
    """``convolve`` makes places as in PointCode, of maps [N,high,wide,deep] by kernels of so many
    lines ``down`` and places ``across``, of which ``above`` and ``left`` of the maps lie outside
    for the first place; a window has ``inner`` numbers. Values are copied together, as those that
    lie outside are zero."""

    takes: ClassVar[Takes] = WINDOWS

    def __init__(self, shape: Registers, way: str) -> None:
        super().__init__(shape, False, way, copied=True)

    def _rows(self, b: ir.IRBuilder, it: SimpleNamespace, place: Any) -> list[Any]:
        found = []
        for picture, y, x in self._windows(b, it, place):
            line = b.add(b.mul(picture, it.high), b.sub(y, it.above))
            start = b.add(b.mul(line, it.wide), b.sub(x, it.left))
            found.append(at(b, it.maps, b.mul(start, it.deep)))
        return found

    @contextmanager
    def lines(self, b: ir.IRBuilder, it: Any, row: Any, rows: Sequence[Any]) -> Iterator[Line]:
        tops, sides = [], []
        for _, y, x in self._windows(b, it, row):
            tops.append(b.sub(y, it.above))
            left = b.sub(x, it.left)
            begun = larger(b, INT(0), b.neg(left))
            ended = smaller(b, it.across, b.sub(it.wide, left))
            sides.append((b.mul(begun, it.deep), b.mul(ended, it.deep)))
        length, apart = b.mul(it.across, it.deep), b.mul(it.wide, it.deep)
        with counting(b, INT(0), it.down) as line:
            there = []
            for top, (begun, ended) in zip(tops, sides, strict=True):
                inside = b.icmp_unsigned("<", b.add(top, line), it.high)  # -1 is a large number
                there.append((begun, b.select(inside, ended, INT(0))))
            here = [at(b, each, b.mul(line, apart)) for each in rows]
            yield Line(here, length, b.mul(line, length), there)

    def reached(self, b: ir.IRBuilder, it: Any, number: Any) -> Any:
        length, apart = b.mul(it.across, it.deep), b.mul(it.wide, it.deep)
        return b.add(b.mul(b.sdiv(number, length), apart), b.srem(number, length))
