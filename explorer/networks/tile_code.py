"""Machine code for 3 x 3 convolutions by Winograd's tiles.

A block of tiles goes through three steps before the next one does, so that what lies between them
stays in the cache: windows are spread out, multiplied with the kernels, and gathered as tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import ir

from explorer.networks.machine_code import (
    BOUNDS,
    FUSED,
    INT,
    LINE,
    ONE,
    Registers,
    Takes,
    at,
    ceil,
    counting,
    smaller,
)
from explorer.networks.product_code import ProductCode

PREPARE: Takes = (("weights", "kernels"), ("inner", "outer", "first", "last"), ())
CONVOLVE: Takes = (
    ("maps", "kernels", "bias", "added", "made", "spread", "products", "nothing", "sink", "chosen"),
    ("high", "wide", "inner", "outer", "whole", "first", "last", "block"),
    BOUNDS,
)
OVERLAP = 2
"""Columns that a window has in common with the one before."""


class TileCode(ProductCode):
    """For matrices ``window`` [n,n], ``kernel`` [n,3] and ``tile`` [m,n]: of a window d and a
    kernel g the tile of m x m outputs is tile (V U) tile^T, with V = window d window^T and
    U = kernel g kernel^T, and V U added up over channels.

    ``prepare`` makes kernels [n n,outer / width,inner,width] of weights [3,3,inner,outer], for
    inputs from ``first`` to ``last``. ``convolve`` makes the tiles from ``first`` to ``last`` of
    maps [N,high,wide,inner], plus bias [outer] and added (unless it is null), within
    BOUNDS. It needs ``room`` for a ``block`` of tiles, a multiple of the rows of registers:
    spread [n n,block,inner] and products [n n,block,outer], rounded up to their width;
    ``nothing``, as many zeros as a place has channels; and a ``sink`` of that size.
    """

    def __init__(
        self, window: np.ndarray, kernel: np.ndarray, tile: np.ndarray, shape: Registers
    ) -> None:
        super().__init__(shape)
        self._window, self._kernel, self._tile = window, kernel, tile
        self._side, self._made = len(window), len(tile)
        for write in (self._prepare, self._spread, self._multiply, self._gather, self._convolve):
            write().ret_void()
        self.prepare, self.convolve = self.compiled(prepare=PREPARE, convolve=CONVOLVE)

    def room(self, block: int, channels: int) -> int:
        """How many numbers the planes of a block take."""
        return self._side**2 * (block * channels + LINE)

    def _prepare(self) -> ir.IRBuilder:
        b, it = self.function("prepare", PREPARE)
        width = INT(self.shape.width)
        matrix = b.mul(it.inner, it.outer)
        plane = b.mul(b.mul(ceil(b, it.outer, self.shape.width), width), it.inner)
        with counting(b, it.first, it.last) as i, self.lanes(b, it.outer) as o:
            given = at(b, it.weights, b.mul(i, it.outer), o)
            taps = [self.load(b, at(b, given, b.mul(INT(tap), matrix))) for tap in range(9)]
            row = b.add(b.mul(b.sdiv(o, width), it.inner), i)
            into = at(b, it.kernels, b.mul(row, width), b.srem(o, width))
            made = self._both(b, self._kernel, [taps[:3], taps[3:6], taps[6:]])
            for number, value in enumerate(made):
                self.store(b, value, at(b, into, b.mul(INT(number), plane)))
        return b

    def _convolve(self) -> ir.IRBuilder:
        b, it = self.function("convolve", CONVOLVE)
        with counting(b, it.first, it.last, it.block) as start:
            some = smaller(b, b.sub(it.last, start), it.block)
            rows = b.mul(ceil(b, some, self.shape.rows), INT(self.shape.rows))
            here = {"first": start, "last": b.add(start, some), "block": rows}
            names = (name for names in CONVOLVE for name in names)
            values = [here.get(name, getattr(it, name)) for name in names]
            for step in ("spread", "multiply", "gather"):
                b.call(self.called(step), values)
        return b

    def _spread(self) -> ir.IRBuilder:
        """V of the window of each tile."""
        b, it = self.function("spread", CONVOLVE)
        plane = _plane(b, it.block, it.inner)
        with counting(b, it.first, it.last) as tile:
            window, coming = (
                _chosen(b, self._inside(b, it, each, self._side, -1), it.maps, it.inner, it.nothing)
                for each in (tile, b.add(tile, ONE))
            )
            into = at(b, it.spread, b.mul(b.sub(tile, it.first), it.inner))
            with self.lanes(b, it.inner) as channel:
                for place in _flat([row[OVERLAP:] for row in coming]):
                    self.fetch(b, at(b, place, channel))
                values = [[self.load(b, at(b, place, channel)) for place in row] for row in window]
                for number, value in enumerate(self._both(b, self._window, values)):
                    self.store(b, value, at(b, into, channel, b.mul(INT(number), plane)))
        return b

    def _multiply(self) -> ir.IRBuilder:
        """V U, by rows and columns that registers hold at once."""
        b, it = self.function("multiply", CONVOLVE)
        apart = b.mul(ceil(b, it.outer, self.shape.width), INT(self.shape.width))
        with counting(b, INT(0), INT(self._side**2)) as plane:
            columns = at(b, it.kernels, b.mul(plane, b.mul(apart, it.inner)))
            spread = at(b, it.spread, b.mul(plane, _plane(b, it.block, it.inner)))
            products = at(b, it.products, b.mul(plane, _plane(b, it.block, apart)))

            def given(number: Any) -> list[Any]:
                rows = (b.add(number, INT(row)) for row in range(self.shape.rows))
                return [at(b, spread, b.mul(row, it.inner)) for row in rows]

            tiles = INT(0), it.block, it.block
            made = self.product(b, it, tiles, given, columns, apart)
            with made as (tile, channel, sums):
                for row, each in enumerate(sums):
                    end = at(b, products, b.mul(b.add(tile, INT(row)), apart), channel)
                    for offset, total in zip(self.offsets, each, strict=True):
                        self.store(b, b.load(total), at(b, end, INT(offset)))
        return b

    def _gather(self) -> ir.IRBuilder:
        """The tiles of products, with what is added, in their places."""
        b, it = self.function("gather", CONVOLVE)
        bounds = self.bounds(b, it)
        apart = b.mul(ceil(b, it.outer, self.shape.width), INT(self.shape.width))
        plane = _plane(b, it.block, apart)
        given = b.icmp_unsigned("!=", b.ptrtoint(it.added, INT), INT(0))
        with counting(b, it.first, it.last) as tile:
            inside, next_one = (
                self._inside(b, it, each, self._made, 0) for each in (tile, b.add(tile, ONE))
            )
            ends, coming = (
                _chosen(b, each, it.made, it.outer, it.sink) for each in (inside, next_one)
            )
            there = [[(b.and_(both, given), place) for both, place in row] for row in inside]
            more = _chosen(b, there, it.added, it.outer, it.nothing)
            source = at(b, it.products, b.mul(b.sub(tile, it.first), apart))
            with self.lanes(b, it.outer) as channel:
                for place in _flat(coming):
                    self.fetch(b, at(b, place, channel), write=True)
                start = at(b, source, channel)
                planes = [b.mul(INT(number), plane) for number in range(self._side**2)]
                values = [self.load(b, at(b, start, offset)) for offset in planes]
                rows = [values[row : row + self._side] for row in range(0, len(values), self._side)]
                bias = self.load(b, at(b, it.bias, channel))
                made = zip(self._both(b, self._tile, rows), _flat(ends), _flat(more), strict=True)
                for value, end, extra in made:
                    total = self.plus(b, value, bias, self.load(b, at(b, extra, channel)))
                    self.store(b, self.cut(b, total, bounds), at(b, end, channel))
        return b

    def _inside(
        self, b: ir.IRBuilder, it: SimpleNamespace, tile: Any, side: int, before: int
    ) -> list[list[tuple[Any, Any]]]:
        """Of the places of a tile, or of a window that begins so many ``before``, whether they are
        in a map, and which place of all maps they are."""
        step = INT(self._made)
        rows, columns = (ceil(b, size, self._made) for size in (it.high, it.wide))
        each = b.mul(rows, columns)
        picture, within = b.sdiv(tile, each), b.srem(tile, each)
        top, left = b.mul(b.sdiv(within, columns), step), b.mul(b.srem(within, columns), step)
        found: list[list[tuple[Any, Any]]] = []
        for down in range(side):
            y = b.add(top, INT(before + down))
            row = b.mul(b.add(b.mul(picture, it.high), y), it.wide)
            there = b.icmp_unsigned("<", y, it.high)  # -1 is a large number
            found.append([])
            for over in range(side):
                x = b.add(left, INT(before + over))
                both = b.and_(there, b.icmp_unsigned("<", x, it.wide))
                found[-1].append((both, b.add(row, x)))
        return found

    def _both(
        self, b: ir.IRBuilder, matrix: np.ndarray, values: Sequence[Sequence[Any]]
    ) -> list[Any]:
        """matrix values matrix^T, row by row."""
        across = [[self._sum(b, weights, row) for weights in matrix] for row in values]
        down = list(zip(*across, strict=True))
        return [self._sum(b, weights, column) for weights in matrix for column in down]

    def _sum(self, b: ir.IRBuilder, weights: np.ndarray, values: Sequence[Any]) -> Any:
        parts = [
            value if weight == 1 else b.fmul(value, self.all(weight), flags=FUSED)
            for weight, value in zip(weights, values, strict=True)
            if weight
        ]
        return self.plus(b, *parts)


def _plane(b: ir.IRBuilder, block: Any, channels: Any) -> Any:
    """How far planes of a block lie apart: a line more than they take, or the same place of each
    would fall into the same part of a cache."""
    return b.add(b.mul(block, channels), INT(LINE))


def _chosen(b: ir.IRBuilder, inside: Any, maps: Any, channels: Any, outside: Any) -> list[Any]:
    """Where places are in maps of so many channels, or ``outside``."""
    return [
        [b.select(both, at(b, maps, b.mul(place, channels)), outside) for both, place in row]
        for row in inside
    ]


def _flat(rows: Sequence[Sequence[Any]]) -> list[Any]:
    return [each for row in rows for each in row]
