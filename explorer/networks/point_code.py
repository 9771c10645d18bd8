"""Machine code for 1 x 1 convolutions, which are matrix products."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from llvmlite import ir

from explorer.networks.machine_code import (
    INT,
    ONE,
    Code,
    Registers,
    Takes,
    at,
    counting,
    smaller,
)

CONVOLVE: Takes = (
    ("maps", "kernels", "bias", "added", "made"),
    ("inner", "outer", "high", "wide", "step", "tall", "broad", "first", "last", "block"),
    ("least",),
)


class PointCode(Code):
    """``plain`` makes the places from ``first`` to ``last``, as many as registers have rows at
    least, of maps [N,tall,broad,outer] from every ``step``-th line and column of maps
    [N,high,wide,inner], by kernels [outer / width,inner,width], plus bias [outer], and no less than
    ``least``; ``adding`` also adds added, of the form of what is made. Code for ``every`` place is
    quicker where steps are of one. Of a ``block`` of places all channels are made before those of
    the next one, so that it stays in the cache."""

    def __init__(self, shape: Registers, every: bool) -> None:
        super().__init__(shape)
        self._places = self._every if every else self._apart
        self._write("plain", adding=False)
        self._write("adding", adding=True)
        self.plain, self.adding = self.compiled(plain=CONVOLVE, adding=CONVOLVE)

    def _write(self, name: str, adding: bool) -> None:
        b, it = self.function(name, CONVOLVE)
        sums, width, rows = self.sums(b), INT(self.shape.width), INT(self.shape.rows)
        least = self.repeated(b, it.least)
        with (
            counting(b, it.first, it.last, it.block) as start,
            counting(b, INT(0), it.outer, width) as channel,
            counting(b, start, smaller(b, b.add(start, it.block), it.last), rows) as number,
        ):
            # The last ones are made once more where there are fewer than a full number of rows.
            place = smaller(b, number, b.sub(it.last, rows))
            columns = at(b, it.kernels, b.mul(channel, it.inner))
            offset = b.add(b.mul(place, it.outer), channel)
            for row in range(self.shape.rows):  # comes while this is multiplied
                end = b.add(offset, b.mul(INT(row), it.outer))
                for maps in (it.added, it.made) if adding else (it.made,):
                    self.fetch(b, at(b, maps, end), self.shape.width, write=True)
            group = b.sdiv(b.sub(number, start), rows)
            places = self._places(b, it, place)
            given, coming = places[: self.shape.rows], places[self.shape.rows :]
            self.multiply(b, sums, given, coming, columns, it.inner, group)
            bias = [self.load(b, at(b, it.bias, channel, INT(each))) for each in self.offsets]
            for row, each in enumerate(sums):
                end = b.add(offset, b.mul(INT(row), it.outer))
                for lane, total, own in zip(self.offsets, each, bias, strict=True):
                    values = [b.load(total), own]
                    if adding:
                        values.append(self.load(b, at(b, it.added, end, INT(lane))))
                    made = self.no_less(b, self.plus(b, *values), least)
                    self.store(b, made, at(b, it.made, end, INT(lane)))
        b.ret_void()

    def _every(self, b: ir.IRBuilder, it: SimpleNamespace, place: Any) -> list[Any]:
        """Where twice as many places begin as registers have rows, if they follow each other."""
        first = at(b, it.maps, b.mul(place, it.inner))
        return [at(b, first, b.mul(INT(row), it.inner)) for row in range(2 * self.shape.rows)]

    def _apart(self, b: ir.IRBuilder, it: SimpleNamespace, place: Any) -> list[Any]:
        """Where those begin that twice as many places read as registers have rows."""
        line, x = b.sdiv(place, it.broad), b.srem(place, it.broad)
        picture, y = b.sdiv(line, it.tall), b.srem(line, it.tall)
        found = []
        for _ in range(2 * self.shape.rows):
            line = b.add(b.mul(picture, it.high), b.mul(y, it.step))
            source = b.add(b.mul(line, it.wide), b.mul(x, it.step))
            found.append(at(b, it.maps, b.mul(source, it.inner)))
            x, more = _carried(b, b.add(x, ONE), it.broad)
            y, more = _carried(b, b.add(y, more), it.tall)
            picture = b.add(picture, more)
        return found


def _carried(b: ir.IRBuilder, number: Any, count: Any) -> tuple[Any, Any]:
    """A number up to ``count``, or 0 and a 1 to carry where it reaches that."""
    over = b.icmp_signed("==", number, count)
    return b.select(over, INT(0), number), b.zext(over, INT)
