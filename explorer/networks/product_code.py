"""Machine code for matrix products of maps and kernels, without what is multiplied by zero.

A rectifier closes half of what a convolution reads or more, and places next to each other alike: of
ResNet50's 1 x 1 convolutions a quarter of the products are of channels that are closed at all the
places in registers. A product with zero changes no sum, so these are left out and every value stays
the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from explorer.networks.machine_code import (
    FUSED,
    INT,
    LINE,
    ONE,
    SHORT,
    Code,
    at,
    counting,
    smaller,
)

AHEAD, SHARES = 4, 8
"""So many rows of columns ahead the first cache gets them, and the second one gets the columns that
follow, a share with each of so many groups of rows. Not every processor does it by itself."""
MAGNITUDE = 0x7FFFFFFF
"""The bits of a number but for its sign."""

Sums = list[list[Any]]
"""For each row and vector of a product."""


def choices(inner: int, groups: int) -> int:
    """How many numbers it takes to tell which channels are open, for so many groups of rows."""
    return groups * (2 * inner + 3 * LINE)


class ProductCode(Code):
    """Code that multiplies."""

    @contextmanager
    def product(
        self,
        b: ir.IRBuilder,
        it: Any,
        places: tuple[Any, Any, Any],
        given: Callable[[Any], Sequence[Any]],
        columns: Any,
        outer: Any,
        ahead: Callable[[Any, Any], None] | None = None,
    ) -> Iterator[tuple[Any, Any, Sums]]:
        """Of the rows from the first to before the last of ``places`` and ``columns``
        [outer / width,inner,width]: for as many rows as registers have, the first of them, the
        first of some columns, and the sums. Of a block, the third of ``places``, all columns come
        before the next one, so that it stays in the cache. ``given`` finds where the rows lie from
        a number on, and ``ahead`` what to do before a first row and column are multiplied. ``it``
        has ``inner``, ``chosen``, room for ``choices``, and ``whole``, 1 if none may be left out.
        """
        first, last, block = places
        sums, rows, width = self._sums(b), INT(self.shape.rows), INT(self.shape.width)
        apart = b.add(b.mul(INT(2), it.inner), INT(3 * LINE))
        chosen = b.bitcast(it.chosen, SHORT.as_pointer())
        with counting(b, first, last, block) as start:
            end = smaller(b, b.add(start, block), last)

            def group(number: Any) -> tuple[Any, Any, Any]:
                """The first of its rows, its number in the block, and its open channels. The last
                ones are made once more where there are fewer than a full number of rows."""
                which = b.sdiv(b.sub(number, start), rows)
                row = smaller(b, number, b.sub(last, rows))
                return row, which, at(b, chosen, b.mul(which, apart))

            if self.shape.packs:
                with counting(b, start, end, rows) as number:
                    row, _, these = group(number)
                    self._choose(b, it, given(row), these)
            with (
                counting(b, INT(0), outer, width) as channel,
                counting(b, start, end, rows) as number,
            ):
                row, which, these = group(number)
                if ahead:
                    ahead(row, channel)
                begun = b.icmp_signed("==", channel, INT(0))  # those of this block are there
                after = b.select(begun, block, rows) if self.shape.packs else rows
                coming = given(b.add(row, after))
                panel = at(b, columns, b.mul(channel, it.inner))
                fetch = self._fetching(b, panel, it.inner, which, coming)
                self._add_up(b, sums, given(row), panel, it.inner, these, fetch)
                yield row, channel, sums

    def _sums(self, b: ir.IRBuilder) -> Sums:
        """Room in registers."""
        rows, vectors = range(self.shape.rows), range(self.shape.vectors)
        with b.goto_entry_block():
            return [[b.alloca(self._vector) for _ in vectors] for _ in rows]

    def _choose(self, b: ir.IRBuilder, it: Any, rows: Sequence[Any], these: Any) -> None:
        """Note how many channels are not zero in each of some ``rows``, one at least, which, and
        where their columns begin."""
        whole, nothing = self._whole, ir.Constant(self._whole, None)
        bits = ir.VectorType(ir.IntType(1), self.shape.lanes)
        compress = self.intrinsic("llvm.experimental.vector.compress", whole, bits, whole)
        masked = self.intrinsic("llvm.masked.load", whole.as_pointer(), bits, whole, ending=".p0")
        lanes = ir.Constant(whole, list(range(self.shape.lanes)))
        numbers, columns = _parts(b, these, it.inner)
        with b.goto_entry_block():
            count = b.alloca(INT)

        def put(values: Any, start: Any) -> None:
            place = b.bitcast(at(b, start, b.load(count)), whole.as_pointer())
            b.store(values, place, align=4)

        b.store(INT(0), count)
        kept, inner = (self.repeated(b, b.trunc(each, SHORT)) for each in (it.whole, it.inner))
        with self.lanes(b, it.inner) as first:
            channels = b.add(self.repeated(b, b.trunc(first, SHORT)), lanes)
            there = b.icmp_signed("<", channels, inner)
            together = nothing
            for row in rows:
                place = b.bitcast(at(b, row, first), whole.as_pointer())
                together = b.or_(together, b.call(masked, [place, there, nothing]))
            size = b.and_(together, ir.Constant(whole, [MAGNITUDE] * self.shape.lanes))
            some = b.and_(there, b.icmp_unsigned("!=", b.or_(size, kept), nothing))
            found = b.call(compress, [channels, some, nothing])
            put(found, numbers)
            put(b.mul(found, ir.Constant(whole, [self.shape.width] * self.shape.lanes)), columns)
            more = b.ctpop(b.bitcast(some, ir.IntType(self.shape.lanes)))
            b.store(b.add(b.load(count), b.zext(more, INT)), count)
        put(nothing, numbers)  # what is ahead of the last one, or the first one where there is none
        put(nothing, columns)
        one = b.icmp_signed("<", b.load(count), ONE)
        b.store(b.trunc(b.select(one, ONE, b.load(count)), SHORT), these)

    def _fetching(
        self, b: ir.IRBuilder, columns: Any, inner: Any, group: Any, coming: Sequence[Any]
    ) -> Callable[[Any], None]:
        """What has the caches get, from a channel on, a line of the rows ``coming``, and that share
        of the columns after these which is this ``group``'s."""
        width, some = INT(self.shape.width), self.shape.width * LINE // SHARES
        share = b.mul(b.and_(group, INT(SHARES - 1)), INT(some))

        def fetch(channel: Any) -> None:
            after = at(b, columns, b.mul(b.add(inner, channel), width), share)
            self.fetch(b, after, some, near=2)
            for row in coming:
                self.fetch(b, at(b, row, channel))

        return fetch

    def _add_up(
        self,
        b: ir.IRBuilder,
        sums: Sums,
        rows: Sequence[Any],
        columns: Any,
        inner: Any,
        these: Any,
        fetch: Callable[[Any], None],
    ) -> None:
        """The product of ``rows`` and ``columns`` [inner,width] over ``these`` channels. Where a
        channel and its columns lie is noted twice, as LLVM lacks registers to work out either."""
        for total in (total for each in sums for total in each):
            b.store(self.all(0.0), total)
        count = b.zext(b.load(these), INT) if self.shape.packs else inner
        with counting(b, INT(0), count, INT(LINE)) as first:
            fetch(first)
            with counting(b, first, smaller(b, b.add(first, INT(LINE)), count)) as which:
                number, start, later = self._channel(b, which, these, inner)
                self.fetch(b, at(b, columns, later), self.shape.width)
                column = at(b, columns, start)
                given = [self.load(b, at(b, column, INT(offset))) for offset in self.offsets]
                for row, each in zip(rows, sums, strict=True):
                    many = self.repeated(b, b.load(at(b, row, number)))
                    for total, values in zip(each, given, strict=True):
                        part = b.fmul(many, values, flags=FUSED)
                        b.store(self.plus(b, b.load(total), part), total)
        if self.shape.packs:
            done = b.and_(b.add(count, INT(LINE - 1)), INT(-LINE))
            with counting(b, done, inner, INT(LINE)) as first:
                fetch(first)

    def _channel(self, b: ir.IRBuilder, which: Any, these: Any, inner: Any) -> tuple[Any, Any, Any]:
        """Of the ``which``-th of ``these`` channels its number, where its columns begin, and where
        those do that come later."""
        if not self.shape.packs:
            start = b.mul(which, INT(self.shape.width))
            return which, start, b.add(start, INT(AHEAD * self.shape.width))
        numbers, starts = _parts(b, these, inner)
        places = (numbers, 0), (starts, 0), (starts, AHEAD)
        number, start, later = (b.load(at(b, each, which, INT(more))) for each, more in places)
        return b.zext(number, INT), b.zext(start, INT), b.zext(later, INT)


def _parts(b: ir.IRBuilder, these: Any, inner: Any) -> tuple[Any, Any]:
    """Where the numbers of open channels are, and where their columns begin."""
    return at(b, these, INT(LINE)), at(b, these, inner, INT(2 * LINE))
