"""Machine code that finds which channels are open in some rows of a product, not zero in one of
them at least, and multiplies these alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from llvmlite import ir

from explorer.networks.machine_code import (
    FUSED,
    INT,
    LINE,
    ONE,
    POINTER,
    SHORT,
    Code,
    at,
    ceil,
    counting,
    smaller,
)

AHEAD, SHARES = 4, 8
"""So many rows of columns ahead the first cache gets them, and the second one gets the columns that
follow, a share with each of so many groups of rows. Not every processor does it by itself."""
MAGNITUDE = 0x7FFFFFFF
"""The bits of a number but for its sign."""
RECORD = 8
"""Numbers that are copied of a channel: its values in the rows, and where its columns begin."""
TURNS = {
    1: ([0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]),
    2: ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
    4: ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
}
"""By how many rows lie apart, which lanes of both make either one: one instruction each."""

Sums = list[list[Any]]
"""For each row and vector of a product."""


@dataclass(frozen=True)
class Part:
    """As much of a product as registers hold: the rows from ``row`` on, the ``group``-th of a
    ``block``, and of ``outer`` columns those from ``channel`` on, ``columns`` [inner,width].
    ``given`` finds where the rows lie from a number on, up to before ``last``, and ``reached`` how
    far after that a number of them does."""

    given: Callable[[Any], Sequence[Any]]
    reached: Callable[[Any], Any]
    row: Any
    group: Any
    block: Any
    last: Any
    channel: Any
    outer: Any
    inner: Any
    columns: Any


@dataclass(frozen=True)
class Line:
    """So many numbers, a ``length``, that lie next to each other in each of some ``rows``, and come
    ``before`` so many others of these. For each row between which of them it has any, where not all
    are ``there``: the others are zero."""

    rows: Sequence[Any]
    length: Any
    before: Any
    there: Sequence[tuple[Any, Any]] = ()


Lines = Callable[[], AbstractContextManager[Line]]
"""Code that runs for each line that some rows have."""


@dataclass(frozen=True)
class Seen:
    """A vector of channels, by their numbers, the ``values`` of each of some rows, as whole
    numbers, and which channels are ``open``."""

    channels: Any
    values: Sequence[Any]
    open: Any


class OpenChannels(ABC):
    """A way to note them: whole numbers, ``each`` so many of a channel and some ``more``, of which
    the first tells how many there are, in numbers of ``step``."""

    each: ClassVar[int]
    more: ClassVar[int]
    step: ClassVar[int]

    def __init__(self, code: Code, lanes: int) -> None:
        self._code = code
        self._lanes = lanes
        self._wholes = ir.VectorType(SHORT, lanes)
        self._nothing = ir.Constant(self._wholes, None)

    def note(self, b: ir.IRBuilder, it: Any, lines: Lines, these: Any) -> None:
        """Those of some rows of ``it.inner`` channels, which lie in ``lines``: one at least, and
        all if ``it.whole`` is not zero."""
        lists = self._lists(b, these, it.inner)
        with b.goto_entry_block():
            count = b.alloca(INT)
        b.store(INT(0), count)
        with lines() as line, counting(b, INT(0), line.length, INT(self._lanes)) as first:
            seen = self._seen(b, it, line, first)
            b.store(self._put(b, lists, b.load(count), seen), count)
        for each in lists:  # what is ahead of the last one, or the first one where there is none
            self._store(b, self._nothing, each, b.load(count))
        none = b.icmp_signed("<", b.load(count), INT(self.step))
        noted = b.select(none, INT(self.step), b.load(count))
        b.store(b.trunc(noted, SHORT), these)

    def _seen(self, b: ir.IRBuilder, it: Any, line: Line, first: Any) -> Seen:
        """The vector of channels that begins at the ``first`` of a line."""
        flags, whole = ir.VectorType(ir.IntType(1), self._lanes), self._wholes.as_pointer()
        masked = self._intrinsic("masked.load", whole, flags, self._wholes, ending=".p0")
        counted = ir.Constant(self._wholes, list(range(self._lanes)))
        channels = b.add(self._repeated(b, first), counted)
        known = b.icmp_signed("<", channels, self._repeated(b, line.length))
        there = [known] * len(line.rows)
        for row, (start, end) in enumerate(line.there):
            begun = b.icmp_signed(">=", channels, self._repeated(b, start))
            there[row] = b.and_(begun, b.icmp_signed("<", channels, self._repeated(b, end)))
        places = [b.bitcast(at(b, row, first), whole) for row in line.rows]
        values = [
            b.call(masked, [place, mask, self._nothing])
            for place, mask in zip(places, there, strict=True)
        ]
        together = self._nothing
        for value in values:
            together = b.or_(together, value)
        size = b.and_(together, ir.Constant(self._wholes, [MAGNITUDE] * self._lanes))
        kept = b.or_(size, self._repeated(b, it.whole))
        some = b.and_(known, b.icmp_unsigned("!=", kept, self._nothing))
        return Seen(b.add(channels, self._repeated(b, line.before)), values, some)

    def _repeated(self, b: ir.IRBuilder, number: Any) -> Any:
        """A vector of one whole number."""
        return self._code.repeated(b, b.trunc(number, SHORT), self._lanes)

    def _intrinsic(self, name: str, *takes: Any, ending: str = "") -> ir.Function:
        return self._code.intrinsic(f"llvm.{name}", self._wholes, *takes, ending=ending)

    def _store(self, b: ir.IRBuilder, values: Any, start: Any, offset: Any) -> None:
        place = b.bitcast(at(b, start, offset), self._wholes.as_pointer())
        b.store(values, place, align=4)

    def _columns(self, b: ir.IRBuilder, channels: Any) -> Any:
        """Where those of a vector of channels begin."""
        width = self._code.shape.width
        return b.mul(channels, ir.Constant(self._wholes, [width] * self._lanes))

    def _multiply(self, b: ir.IRBuilder, sums: Sums, values: Sequence[Any], columns: Any) -> None:
        """Add the products of a channel's value in each row, where ``values`` lie, and columns."""
        code = self._code
        given = [code.load(b, at(b, columns, INT(offset))) for offset in code.offsets]
        for value, each in zip(values, sums, strict=True):
            many = code.repeated(b, b.load(value))
            for total, own in zip(each, given, strict=True):
                part = b.fmul(many, own, flags=FUSED)
                b.store(code.plus(b, b.load(total), part), total)

    @abstractmethod
    def _lists(self, b: ir.IRBuilder, these: Any, inner: Any) -> list[Any]:
        """Where things are noted."""

    @abstractmethod
    def _put(self, b: ir.IRBuilder, lists: Sequence[Any], count: Any, seen: Seen) -> Any:
        """Note the open channels of those that were seen, after ``count`` others; how many there
        are now."""

    @abstractmethod
    def add_up(self, b: ir.IRBuilder, sums: Sums, part: Part, these: Any) -> None:
        """The sums of the products over ``these`` channels, in their order."""


class Listed(OpenChannels):
    """By their numbers, and values stay where they lie. For processors that pack some lanes of a
    vector at once, and have registers for where every row is."""

    each, more, step = 2, 3 * LINE, 1

    def _lists(self, b: ir.IRBuilder, these: Any, inner: Any) -> list[Any]:
        """Of numbers, and of where columns begin, as LLVM lacks registers to work out either."""
        return [at(b, these, INT(LINE)), at(b, these, inner, INT(2 * LINE))]

    def _put(self, b: ir.IRBuilder, lists: Sequence[Any], count: Any, seen: Seen) -> Any:
        kind = self._wholes, seen.open.type, self._wholes
        compress = self._intrinsic("experimental.vector.compress", *kind)
        packed = b.call(compress, [seen.channels, seen.open, self._nothing])
        for each, made in zip(lists, (packed, self._columns(b, packed)), strict=True):
            self._store(b, made, each, count)
        more = b.ctpop(b.bitcast(seen.open, ir.IntType(self._lanes)))
        return b.add(count, b.zext(more, INT))

    def add_up(self, b: ir.IRBuilder, sums: Sums, part: Part, these: Any) -> None:
        code, width = self._code, self._code.shape.width
        begun = b.icmp_signed("==", part.channel, INT(0))  # rows of this block are there
        after = b.select(begun, part.block, INT(code.shape.rows))
        rows, coming = part.given(part.row), part.given(b.add(part.row, after))
        for total in (total for each in sums for total in each):
            b.store(code.all(0.0), total)
        numbers, starts = self._lists(b, these, part.inner)
        count = b.zext(b.load(these), INT)
        with counting(b, INT(0), count, INT(LINE)) as first:
            self._fetch(b, part, coming, first)
            with counting(b, first, smaller(b, b.add(first, INT(LINE)), count)) as which:
                places = (numbers, 0), (starts, 0), (starts, AHEAD)
                noted = [b.load(at(b, each, which, INT(more))) for each, more in places]
                number, start, later = (b.zext(each, INT) for each in noted)
                code.fetch(b, at(b, part.columns, later), width)
                values = [at(b, row, number) for row in rows]
                self._multiply(b, sums, values, at(b, part.columns, start))
        done = b.and_(b.add(count, INT(LINE - 1)), INT(-LINE))
        with counting(b, done, part.inner, INT(LINE)) as first:
            self._fetch(b, part, coming, first)

    def _fetch(self, b: ir.IRBuilder, part: Part, coming: Sequence[Any], channel: Any) -> None:
        """Have the caches get, from a channel on, a line of the rows ``coming``, and that share of
        the columns after these which is this group's."""
        code, width = self._code, self._code.shape.width
        some = width * LINE // SHARES
        share = b.mul(b.and_(part.group, INT(SHARES - 1)), INT(some))
        after = at(b, part.columns, b.mul(b.add(part.inner, channel), INT(width)), share)
        code.fetch(b, after, some, near=2)
        for row in coming:
            code.fetch(b, at(b, row, channel))


class Copied(OpenChannels):
    """By a copy of their values in all rows and where their columns begin, so that one register
    tells where all of it lies and nothing falls into the same part of a cache. For registers of
    RECORD lanes, and fewer rows than that."""

    each, more, step = RECORD, 2 * LINE, RECORD

    def _lists(self, b: ir.IRBuilder, these: Any, inner: Any) -> list[Any]:
        return [at(b, these, INT(LINE))]

    def _put(self, b: ir.IRBuilder, lists: Sequence[Any], count: Any, seen: Seen) -> Any:
        """Each is copied, and the next one over it if it is not open."""
        columns = [self._columns(b, seen.channels)] * (RECORD - len(seen.values))
        bits = b.zext(b.bitcast(seen.open, ir.IntType(RECORD)), INT)
        for number, record in enumerate(turned(b, [*seen.values, *columns])):
            self._store(b, record, lists[0], count)
            one = b.and_(b.lshr(bits, INT(number)), ONE)
            count = b.add(count, b.mul(one, INT(RECORD)))
        return count

    def add_up(self, b: ir.IRBuilder, sums: Sums, part: Part, these: Any) -> None:
        self._fetch(b, part)
        for total in (total for each in sums for total in each):
            b.store(self._code.all(0.0), total)
        (records,) = self._lists(b, these, part.inner)
        with counting(b, INT(0), b.zext(b.load(these), INT), INT(RECORD)) as which:
            record = at(b, records, which)
            start = b.zext(b.load(at(b, record, INT(RECORD - 1))), INT)
            value = b.bitcast(record, POINTER)
            values = [at(b, value, INT(row)) for row in range(len(sums))]
            self._multiply(b, sums, values, at(b, part.columns, start))

    def _fetch(self, b: ir.IRBuilder, part: Part) -> None:
        """Have the cache get that share of the same rows of the next block which is these columns'.
        What else comes next it gets by itself, as all of it follows each other."""
        code = self._code
        after, width = b.add(part.row, part.block), INT(code.shape.width)
        ends = (part.channel, b.add(part.channel, width))
        lines = (b.sdiv(b.mul(each, part.inner), part.outer) for each in ends)
        first, last = (ceil(b, each, LINE) for each in lines)
        some = b.icmp_signed("<", first, last)
        with (
            b.if_then(b.and_(some, b.icmp_signed("<", after, part.last))),
            counting(b, first, last) as line,
        ):
            reached = part.reached(b.mul(line, INT(LINE)))
            for row in part.given(after):
                code.fetch(b, at(b, row, reached))


def turned(b: ir.IRBuilder, rows: Sequence[Any]) -> list[Any]:
    """Eight vectors of eight, columns for rows."""
    kind = ir.VectorType(SHORT, RECORD)
    for apart, chosen in TURNS.items():
        made = list(rows)
        for number in (number for number in range(RECORD) if not number & apart):
            pair = rows[number], rows[number + apart]
            for which, lanes in zip((number, number + apart), chosen, strict=True):
                made[which] = b.shuffle_vector(*pair, ir.Constant(kind, lanes))
        rows = made
    return [rows[number] for number in (0, 2, 1, 3, 4, 6, 5, 7)]
