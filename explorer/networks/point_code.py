"""Machine code for 1 x 1 convolutions, which are matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

from llvmlite import ir

from explorer.networks.machine_code import (
    ADDING,
    BOUNDS,
    INT,
    ONE,
    PLAIN,
    SCALING,
    Registers,
    Takes,
    at,
)
from explorer.networks.product_code import ProductCode

CONVOLVE: Takes = (
    ("maps", "kernels", "bias", "added", "below", "made", "chosen"),
    (
        *("inner", "outer", "high", "wide", "step", "tall", "broad", "whole", "past"),
        *("first", "last", "block"),
    ),
    BOUNDS,
)


class PointCode(ProductCode):
    """``convolve`` makes the places from ``first`` to ``last``, as many as registers have rows at
    least, of maps [N,tall,broad,outer] from every ``step``-th line and column of maps
    [N,high,wide,inner], by kernels [outer / width,inner,width], plus bias [outer]. Values end in a
    ``way``, with ``added`` and ``below`` of the form of what is made. Code for ``every`` place is
    quicker where steps are of one. Of a ``block`` of places all channels are made before those of
    the next one, so that it stays in the cache; what is made goes past it where ``past`` is not 0.
    """

    takes: ClassVar[Takes] = CONVOLVE

    def __init__(self, shape: Registers, every: bool, way: str, copied: bool = False) -> None:
        super().__init__(shape, copied)
        self._every = every
        self._way = way
        self._write()
        (self.convolve,) = self.compiled(convolve=self.takes)

    def _write(self) -> None:
        b, it = self.function("convolve", self.takes)
        it.bounds = self.bounds(b, it)
        read = {PLAIN: (), ADDING: (it.added,), SCALING: (it.added, it.below)}[self._way]

        def end(place: Any, channel: Any, row: int) -> Any:
            return b.add(b.mul(b.add(place, INT(row)), it.outer), channel)

        def ahead(place: Any, channel: Any) -> None:
            for row in range(self.shape.rows):
                start = end(place, channel, row)
                for maps in read:
                    self.fetch(b, at(b, maps, start), self.shape.width, write=maps is it.added)
                with b.if_then(b.icmp_signed("==", it.past, INT(0))):
                    self.fetch(b, at(b, it.made, start), self.shape.width, write=True)

        places, given = (it.first, it.last, it.block), partial(self._rows, b, it)
        made = self.product(b, it, places, given, it.kernels, it.outer, ahead)
        with made as (place, channel, sums):
            bias = [self.load(b, at(b, it.bias, channel, INT(each))) for each in self.offsets]
            for row, each in enumerate(sums):
                start = end(place, channel, row)
                for lane, total, own in zip(self.offsets, each, bias, strict=True):
                    here, value = b.add(start, INT(lane)), self.plus(b, b.load(total), own)
                    value = self.ended(b, it, self._way, value, here)
                    self.put(b, value, at(b, it.made, here), it.past)
        self.end(b)

    def _rows(self, b: ir.IRBuilder, it: SimpleNamespace, place: Any) -> list[Any]:
        """Where those begin that as many places read as registers have rows."""
        if self._every:
            first = at(b, it.maps, b.mul(place, it.inner))
            return [at(b, first, b.mul(INT(row), it.inner)) for row in range(self.shape.rows)]
        found = []
        for picture, y, x in self._windows(b, it, place):
            line = b.add(b.mul(picture, it.high), y)
            found.append(at(b, it.maps, b.mul(b.add(b.mul(line, it.wide), x), it.inner)))
        return found

    def _windows(
        self, b: ir.IRBuilder, it: SimpleNamespace, place: Any
    ) -> Iterator[tuple[Any, Any, Any]]:
        """For as many places as registers have rows in which picture they are, and on which line
        and column of it what they read begins."""
        line, x = b.sdiv(place, it.broad), b.srem(place, it.broad)
        picture, y = b.sdiv(line, it.tall), b.srem(line, it.tall)
        for _ in range(self.shape.rows):
            yield picture, b.mul(y, it.step), b.mul(x, it.step)
            x, more = _carried(b, b.add(x, ONE), it.broad)
            y, more = _carried(b, b.add(y, more), it.tall)
            picture = b.add(picture, more)


def _carried(b: ir.IRBuilder, number: Any, count: Any) -> tuple[Any, Any]:
    """A number up to ``count``, or 0 and a 1 to carry where it reaches that."""
    over = b.icmp_signed("==", number, count)
    return b.select(over, INT(0), number), b.zext(over, INT)
