"""Machine code for matrix products of some rows of weights with some channels of maps.

What is multiplied lies turn next to turn, so rows and channels are chosen by their numbers, and no
weights are copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from llvmlite import ir

from explorer.networks.machine_code import (
    FLOAT,
    FUSED,
    INT,
    ONE,
    SHORT,
    Code,
    Registers,
    Takes,
    at,
    ceil,
    counting,
    smaller,
)
from explorer.networks.open_channels import RECORD, turned

PACK: Takes = (("maps", "by", "packed"), ("turns", "apart", "channels", "depth"), ())
MULTIPLY: Takes = (
    ("weights", "packed", "taken", "rows", "ends", "factors", "into"),
    ("turns", "depth", "length", "count", "wide", "fresh"),
    (),
)
UNPACK: Takes = (("found", "rows", "made", "sink"), ("turns", "apart", "channels", "wide"), ())
FILL: Takes = (
    (
        *("maps", "by", "packed", "weights", "found", "made", "sink", "factors"),
        *("open", "opened", "sources", "begun", "rows", "ends", "first", "which"),
    ),
    (
        *("turns", "apart", "outer", "length", "wide", "room", "places", "together", "inner"),
        *("made_apart", "made_places"),
    ),
    (),
)
SOURCE = ("above", "tap", "slot", "fresh")
"""What is told of a source: which place above it is, by which tap it is read, in which slot it is
packed, and whether it must be packed now."""
NOTHING, SINK, LINES = 0, 1, 2
"""Lines of sums before those of channels: one that is zero, and one for what nobody wants."""

DEEP = 320
"""Channels at once: their share of the weights and what these are multiplied with stay in the first
cache."""


class PlaceCode(Code):
    """``pack`` multiplies maps [turns,channels], ``apart`` from turn to turn, by the factors ``by``
    [channels], and lays those of channels whose factor is not zero turn next to turn: panels
    [depth + 1,width] of as many turns as registers have columns, the last one as narrow as may be.
    The last row of a panel is of no meaning.

    ``multiply`` adds to the lines ``ends`` [count] of ``into``, which lie ``wide`` apart, these
    ``factors`` [count] times the products of the ``rows`` [count] of weights [...,length] with what
    was packed, row k of which belongs to the number ``taken`` [depth] of a row of weights. The
    count is a multiple of the rows of registers.

    ``unpack`` lays lines of ``found``, ``wide`` apart, the ``rows`` [channels] of them, as maps
    [turns,channels], ``apart`` from turn to turn; the ``sink`` has room for so many channels.

    Channels are a multiple of RECORD, what lists hold are short whole numbers.
    """

    def __init__(self, shape: Registers) -> None:
        super().__init__(shape)
        self._eight = ir.VectorType(SHORT, RECORD)
        self._pack()
        for vectors in range(1, shape.vectors + 1):
            self._columns(vectors)
        self._multiply()
        self._unpack()
        self._fill()
        (self.fill,) = self.compiled(fill=FILL)

    def wide(self, turns: int) -> int:
        """So many turns as whole vectors."""
        return -(-turns // self.shape.lanes) * self.shape.lanes

    def room(self, depth: int, turns: int) -> int:
        """How many numbers the panels take."""
        return self.wide(turns) * (depth + 1)

    def _pack(self) -> None:
        b, it = self.function("pack", PACK)
        width, last = INT(self.shape.width), b.sub(it.turns, ONE)
        padded = b.mul(ceil(b, it.turns, self.shape.lanes), INT(self.shape.lanes))
        with counting(b, INT(0), padded, INT(RECORD)) as turn:
            numbers = (smaller(b, b.add(turn, INT(row)), last) for row in range(RECORD))
            given = [at(b, it.maps, b.mul(number, it.apart)) for number in numbers]
            first = b.mul(b.sdiv(turn, width), width)
            across = smaller(b, width, b.sub(padded, first))
            panel = at(b, it.packed, b.mul(first, b.add(it.depth, ONE)), b.sub(turn, first))
            with b.goto_entry_block():
                count = b.alloca(INT)
            b.store(INT(0), count)
            with counting(b, INT(0), it.channels, INT(RECORD)) as channel:
                self._put(b, it, given, channel, (panel, across, count))
        b.ret_void()

    def _put(
        self, b: ir.IRBuilder, it: SimpleNamespace, given: Sequence[Any], channel: Any, end: Any
    ) -> None:
        """Each of eight channels of some turns is laid down, and the next one over it if its factor
        is zero."""
        panel, across, count = end
        kind = ir.VectorType(FLOAT, RECORD)
        by = self._some(b, at(b, it.by, channel), kind)
        values = [b.fmul(self._some(b, at(b, row, channel), kind), by) for row in given]
        open_ = b.fcmp_unordered("!=", by, ir.Constant(kind, [0.0] * RECORD))
        bits, now = b.zext(b.bitcast(open_, ir.IntType(RECORD)), INT), b.load(count)
        for number, each in enumerate(turned(b, [b.bitcast(v, self._eight) for v in values])):
            place = at(b, panel, b.mul(now, across))
            b.store(each, b.bitcast(place, self._eight.as_pointer()), align=4)
            now = b.add(now, b.and_(b.lshr(bits, INT(number)), ONE))
        b.store(now, count)

    def _some(self, b: ir.IRBuilder, place: Any, kind: Any) -> Any:
        return b.load(b.bitcast(place, kind.as_pointer()), align=4)

    def _multiply(self) -> None:
        b, it = self.function("multiply", MULTIPLY)
        vectors, lanes = ceil(b, it.turns, self.shape.lanes), self.shape.lanes
        whole = b.sdiv(vectors, INT(self.shape.vectors))
        left = b.srem(vectors, INT(self.shape.vectors))
        names = [name for names in MULTIPLY for name in names]
        values = [getattr(it, name) for name in names]
        pieces = ceil(b, it.depth, DEEP)
        deep = b.sdiv(b.add(it.depth, b.sub(pieces, ONE)), pieces)
        with (
            counting(b, INT(0), it.depth, deep) as first,
            counting(b, INT(0), it.count, INT(self.shape.rows)) as row,
        ):
            some = first, smaller(b, b.add(first, deep), it.depth), row
            with (
                b.if_then(b.icmp_signed(">", whole, INT(0))),
                counting(b, INT(0), whole) as panel,
            ):
                turn = b.mul(panel, INT(self.shape.width))
                b.call(self.called(f"columns{self.shape.vectors}"), [*values, *some, turn])
            for narrow in range(1, self.shape.vectors):
                with b.if_then(b.icmp_signed("==", left, INT(narrow))):
                    turn = b.mul(b.sub(vectors, left), INT(lanes))
                    b.call(self.called(f"columns{narrow}"), [*values, *some, turn])
        b.ret_void()

    def _columns(self, vectors: int) -> None:
        """As many rows as registers have, from ``row`` on, and so many vectors of turns, from
        ``turn`` on; channels from ``first`` to before ``last``."""
        addresses, numbers, more = MULTIPLY
        takes = addresses, (*numbers, "first", "last", "row", "turn"), more
        b, it = self.function(f"columns{vectors}", takes)
        offsets = [self.shape.lanes * number for number in range(vectors)]
        lists = (b.bitcast(each, SHORT.as_pointer()) for each in (it.taken, it.rows, it.ends))
        taken, rows, ends = lists
        sums = [[b.alloca(self.vector) for _ in offsets] for _ in range(self.shape.rows)]
        for total in (total for each in sums for total in each):
            b.store(self.all(0.0), total)
        numbers = [at(b, rows, it.row, INT(each)) for each in range(self.shape.rows)]
        lines = [at(b, it.weights, b.mul(b.zext(b.load(n), INT), it.length)) for n in numbers]
        panel = at(b, it.packed, b.mul(it.turn, b.add(it.depth, ONE)))
        with counting(b, it.first, it.last) as number:
            channel = b.zext(b.load(at(b, taken, number)), INT)
            place = at(b, panel, b.mul(number, INT(self.shape.lanes * vectors)))
            values = [self.load(b, at(b, place, INT(offset))) for offset in offsets]
            for line, each in zip(lines, sums, strict=True):
                many = self.repeated(b, b.load(at(b, line, channel)))
                for total, own in zip(each, values, strict=True):
                    part = b.fmul(many, own, flags=FUSED)
                    b.store(self.plus(b, b.load(total), part), total)
        begun = b.icmp_signed("<", it.first, it.fresh)
        for number, each in enumerate(sums):
            factor = self.repeated(b, b.load(at(b, it.factors, it.row, INT(number))))
            end = b.zext(b.load(at(b, ends, it.row, INT(number))), INT)
            place = at(b, it.into, b.mul(end, it.wide), it.turn)
            for offset, total in zip(offsets, each, strict=True):
                here = at(b, place, INT(offset))
                part = b.fmul(factor, b.load(total), flags=FUSED)
                known = b.select(begun, self.all(0.0), self.load(b, here))
                self.store(b, self.plus(b, known, part), here)
        b.ret_void()

    def _unpack(self) -> None:
        b, it = self.function("unpack", UNPACK)
        rows = b.bitcast(it.rows, SHORT.as_pointer())
        whole = self._eight.as_pointer()
        with (
            counting(b, INT(0), it.turns, INT(RECORD)) as turn,
            counting(b, INT(0), it.channels, INT(RECORD)) as channel,
        ):
            found = []
            for number in range(RECORD):
                row = b.zext(b.load(at(b, rows, channel, INT(number))), INT)
                place = at(b, it.found, b.mul(row, it.wide), turn)
                found.append(b.load(b.bitcast(place, whole), align=4))
            for number, each in enumerate(turned(b, found)):
                own = b.add(turn, INT(number))
                there = at(b, it.made, b.mul(own, it.apart))
                line = b.select(b.icmp_signed("<", own, it.turns), there, it.sink)
                b.store(each, b.bitcast(at(b, line, channel), whole), align=4)
        b.ret_void()

    def _fill(self) -> None:
        b, it = self.function("fill", FILL)
        several = b.icmp_signed(">", it.together, ONE)
        with counting(b, INT(0), it.places) as place:
            number, order = b.sdiv(place, it.together), b.srem(place, it.together)
            with b.if_then(b.and_(several, b.icmp_signed("==", order, INT(0)))):
                size = b.mul(it.wide, b.add(it.inner, INT(LINES)))
                with self.lanes(b, size) as each:
                    self.store(b, self.all(0.0), at(b, it.found, each))
            begin, end = (self._number(b, it.begun, each) for each in (place, b.add(place, ONE)))
            with (
                b.if_then(b.icmp_signed("<", begin, end)),
                counting(b, begin, end) as source,
            ):
                alone = b.icmp_signed("==", source, begin)
                fresh = b.select(several, INT(0), b.zext(alone, INT))
                self._add(b, it, place, source, fresh)
            with b.if_then(b.icmp_signed("==", order, b.sub(it.together, ONE))):
                which = at(b, it.which, b.mul(number, it.inner))
                made = at(b, it.made, b.mul(number, it.made_places))
                given = it.found, which, made, it.sink
                about = it.turns, it.made_apart, it.inner, it.wide
                b.call(self.called("unpack"), [*given, *about])
        b.ret_void()

    def _add(
        self, b: ir.IRBuilder, it: SimpleNamespace, place: Any, source: Any, fresh: Any
    ) -> None:
        """What a place has from one of its sources."""
        told = (b.add(b.mul(source, INT(len(SOURCE))), INT(each)) for each in range(len(SOURCE)))
        above, tap, slot, now = (self._number(b, it.sources, each) for each in told)
        start, end = (self._number(b, it.opened, each) for each in (above, b.add(above, ONE)))
        depth, here = b.sub(end, start), b.mul(above, it.outer)
        packed = at(b, it.packed, b.mul(slot, it.room))
        with b.if_then(b.icmp_signed("!=", now, INT(0))):
            given = at(b, it.maps, here), at(b, it.by, here), packed
            b.call(self.called("pack"), [*given, it.turns, it.apart, it.outer, depth])
        first, last = (self._number(b, it.first, each) for each in (place, b.add(place, ONE)))
        with b.if_then(b.icmp_signed("<", first, last)):
            lists = (at(b, each, first) for each in (it.rows, it.ends, it.factors))
            weights = at(b, it.weights, b.mul(tap, it.outer))
            given = weights, packed, at(b, it.open, start), *lists, it.found
            about = it.turns, depth, it.length, b.sub(last, first), it.wide, fresh
            b.call(self.called("multiply"), [*given, *about])

    def _number(self, b: ir.IRBuilder, numbers: Any, which: Any) -> Any:
        """One of a list."""
        return b.zext(b.load(at(b, b.bitcast(numbers, SHORT.as_pointer()), which)), INT)
