"""Machine code for matrix products of maps and kernels, without what is multiplied by zero.

A rectifier closes half of what a convolution reads or more, and places next to each other alike: of
ResNet50's 1 x 1 convolutions a quarter of the products are of channels that are closed at all the
places in registers. A product with zero changes no sum, so these are left out and every value stays
the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from llvmlite import ir

from explorer.networks.machine_code import INT, SHORT, Code, Registers, at, counting, smaller
from explorer.networks.open_channels import RECORD, Copied, Line, Listed, Part, Sums


class ProductCode(Code):
    """Code that multiplies. What is multiplied lies where it did, or is copied together if the
    processor or who asks wants it ``copied``."""

    def __init__(self, shape: Registers, copied: bool = False) -> None:
        super().__init__(shape)
        if copied or shape.copies:
            self._open: Copied | Listed = Copied(self, RECORD)
        else:
            self._open = Listed(self, shape.lanes)

    def choices(self, inner: int, rows: int) -> int:
        """How many numbers it takes to tell which channels are open, for a block of ``rows``."""
        return -(-rows // self.shape.rows) * (self._open.each * inner + self._open.more)

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
        before the next one, so that it stays in the cache. Where columns are left over, the last
        of those before are made once more. ``given`` finds where the rows lie from
        a number on, and ``ahead`` what to do before a first row and column are multiplied. ``it``
        has ``inner``, ``chosen``, room for ``choices``, and ``whole``, 1 if none may be left out.
        """
        first, last, block = places
        sums, rows, width = self._sums(b), INT(self.shape.rows), INT(self.shape.width)
        chosen = b.bitcast(it.chosen, SHORT.as_pointer())
        apart = b.add(b.mul(INT(self._open.each), it.inner), INT(self._open.more))
        with counting(b, first, last, block) as start:
            end = smaller(b, b.add(start, block), last)

            def group(number: Any) -> tuple[Any, Any, Any]:
                """The first of its rows, its number in the block, and its open channels. The last
                ones are made once more where there are fewer than a full number of rows."""
                which = b.sdiv(b.sub(number, start), rows)
                row = smaller(b, number, b.sub(last, rows))
                return row, which, at(b, chosen, b.mul(which, apart))

            with counting(b, start, end, rows) as number:
                row, _, these = group(number)
                self._open.note(b, it, partial(self.lines, b, it, row, given(row)), these)
            with (
                counting(b, INT(0), outer, width) as channel,
                counting(b, start, end, rows) as number,
            ):
                row, which, these = group(number)
                if ahead:
                    ahead(row, channel)
                panel = at(b, columns, b.mul(channel, it.inner))
                where = partial(self.reached, b, it)
                part = Part(given, where, row, which, block, last, channel, outer, it.inner, panel)
                self._open.add_up(b, sums, part, these)
                yield row, smaller(b, channel, b.sub(outer, width)), sums

    @contextmanager
    def lines(self, b: ir.IRBuilder, it: Any, row: Any, rows: Sequence[Any]) -> Iterator[Line]:
        """The lines of the ``rows`` that begin with the number ``row``."""
        yield Line(rows, it.inner, INT(0))

    def reached(self, b: ir.IRBuilder, it: Any, number: Any) -> Any:
        """How far after the start of a row a number of it lies."""
        return number

    def _sums(self, b: ir.IRBuilder) -> Sums:
        """Room in registers."""
        rows, vectors = range(self.shape.rows), range(self.shape.vectors)
        with b.goto_entry_block():
            return [[b.alloca(self.vector) for _ in vectors] for _ in rows]
