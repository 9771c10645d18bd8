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
    LINE,
    ONE,
    POINTER,
    SHORT,
    Code,
    Registers,
    Takes,
    at,
    ceil,
    counting,
    larger,
    smaller,
)
from explorer.networks.open_channels import RECORD, turned

PACK: Takes = (("maps", "by", "packed"), ("turns", "apart", "channels", "depth"), ())
MULTIPLY: Takes = (
    ("weights", "packed", "taken", "rows", "factors", "into"),
    ("turns", "depth", "length", "count", "wide", "fresh"),
    (),
)
ENDS = ("found", "factors", "made", "sink")
UNPACK: Takes = (ENDS, ("turns", "apart", "channels", "wide", "all"), ())
GIVEN = ("maps", "by", "weights", "factors", "made", "sources", "begun")
NEEDED = ("packed", "taken", "rows", "found", "sink")
SIZES = ("turns", "apart", "outer", "length", "wide", "room", "inner", "across", "together")
FILL: Takes = ((*GIVEN, *NEEDED), (*SIZES, "places", "made_apart", "made_across"), ())
SOURCE = ("above", "tap", "slot", "new")
"""What is told of a source: which place above it is, by which tap of the kernel it is read, in
which slot it is packed, and whether it must be packed first."""
SINK, LINES = 1, 2
"""Before the lines of channels there is one that is zero, and one for what nobody wants."""
DEEP = 320
"""Channels at once: their share of the weights and what these are multiplied with stay in the first
cache."""


class PlaceCode(Code):
    """``fill`` makes what some ``turns`` of maps [turns,P,outer], which lie ``apart``, times ``by``
    [P,outer] give to places by weights [inner,taps,outer], each of whose SOURCEs from its ``begun``
    number on is read by a tap. That is multiplied by factors [places,inner], whose rows lie
    ``across``, and so many places ``together`` are added up: made [turns,places / together,inner].
    Where a factor is zero so is what comes, and what is zero above is left out.

    It needs ``packed`` of ``room`` for each slot, ``taken`` of ``outer`` and a LINE for each,
    ``rows`` of ``inner`` and the registers' rows, ``found`` of LINES and ``inner`` lines of
    ``wide`` turns, the first of them zeros, and a ``sink`` of ``inner``. Channels are a multiple of
    RECORD; what is told of sources and listed are short whole numbers.
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

    def room(self, channels: int, turns: int) -> int:
        """How many numbers the panels of a place take at most."""
        return self.wide(turns) * (channels + 1)

    def _pack(self) -> None:
        """Maps times their factors, those of channels whose factor is not zero turn next to turn:
        panels [depth + 1,width] of as many turns as registers have columns, the last one as narrow
        as may be. The last row of a panel is of no meaning."""
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
        """Add to lines of sums the products of ``rows`` of weights, whose number is ``taken`` for
        each row that was packed, times their factors."""
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
        taken, rows = (b.bitcast(each, SHORT.as_pointer()) for each in (it.taken, it.rows))
        sums = [[b.alloca(self.vector) for _ in offsets] for _ in range(self.shape.rows)]
        for total in (total for each in sums for total in each):
            b.store(self.all(0.0), total)
        listed = [b.load(at(b, rows, it.row, INT(each))) for each in range(self.shape.rows)]
        numbers = [b.sext(number, INT) for number in listed]
        known = [larger(b, number, INT(0)) for number in numbers]
        lines = [at(b, it.weights, b.mul(number, it.length)) for number in known]
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
        fresh = b.icmp_signed("<", it.first, it.fresh)
        for number, row, each in zip(numbers, known, sums, strict=True):
            none = b.icmp_signed("<", number, INT(0))
            factor = b.select(none, FLOAT(0.0), b.load(at(b, it.factors, row)))
            place = at(b, it.into, b.mul(b.add(number, INT(LINES)), it.wide), it.turn)
            for offset, total in zip(offsets, each, strict=True):
                here = at(b, place, INT(offset))
                part = b.fmul(self.repeated(b, factor), b.load(total), flags=FUSED)
                before = b.select(fresh, self.all(0.0), self.load(b, here))
                self.store(b, self.plus(b, before, part), here)
        b.ret_void()

    def _unpack(self) -> None:
        """Lines of sums as maps: all of them, or zeros where a factor is zero."""
        b, it = self.function("unpack", UNPACK)
        whole, every = self._eight.as_pointer(), b.icmp_signed("!=", it.all, INT(0))
        with (
            counting(b, INT(0), it.turns, INT(RECORD)) as turn,
            counting(b, INT(0), it.channels, INT(RECORD)) as channel,
        ):
            found = []
            for number in range(RECORD):
                here = b.add(channel, INT(number))
                kept = b.or_(every, _open(b, b.load(at(b, it.factors, here))))
                line = b.select(kept, b.add(here, INT(LINES)), INT(0))
                place = at(b, it.found, b.mul(line, it.wide), turn)
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
        came, rows = b.alloca(INT), b.bitcast(it.rows, SHORT.as_pointer())
        with counting(b, INT(0), it.places) as place:
            number, order = b.sdiv(place, it.together), b.srem(place, it.together)
            with b.if_then(b.and_(several, b.icmp_signed("==", order, INT(0)))):
                self._clear(b, it)
            b.store(INT(0), came)
            factors = at(b, it.factors, b.mul(place, it.across))
            count = self._listed(b, factors, it.inner, rows)
            for row in range(self.shape.rows):  # where registers have more of them
                b.store(SHORT(SINK - LINES), at(b, rows, count, INT(row)))
            begin, end = (_number(b, it.begun, each) for each in (place, b.add(place, ONE)))
            with (
                b.if_then(b.icmp_signed("<", begin, end)),
                counting(b, begin, end) as source,
            ):
                self._add(b, it, source, (factors, count), came)
            with b.if_then(b.icmp_signed("==", order, b.sub(it.together, ONE))):
                none = b.icmp_signed("==", b.load(came), INT(0))
                with b.if_then(b.and_(none, b.not_(several))):
                    self._clear(b, it)
                made = at(b, it.made, b.mul(number, it.made_across))
                about = it.turns, it.made_apart, it.inner, it.wide
                every = b.zext(b.or_(several, none), INT)
                b.call(self.called("unpack"), [it.found, factors, made, it.sink, *about, every])
        b.ret_void()

    def _add(
        self, b: ir.IRBuilder, it: SimpleNamespace, source: Any, below: Any, came: Any
    ) -> None:
        """What a place has from one of its sources: the first that ``came`` takes the place of what
        was there, unless several places are added up."""
        factors, count = below
        told = (b.add(b.mul(source, INT(len(SOURCE))), INT(each)) for each in range(len(SOURCE)))
        above, tap, slot, new = (_number(b, it.sources, each) for each in told)
        here, packed = b.mul(above, it.outer), at(b, it.packed, b.mul(slot, it.room))
        numbers = b.bitcast(it.taken, SHORT.as_pointer())
        head = at(b, numbers, b.mul(slot, b.add(it.outer, INT(LINE))))
        taken = at(b, head, INT(LINE))
        with b.if_then(b.icmp_signed("!=", new, INT(0))):
            by = at(b, it.by, here)
            depth = self._listed(b, by, it.outer, taken)
            b.store(b.trunc(depth, SHORT), head)
            given = at(b, it.maps, here), by, packed
            b.call(self.called("pack"), [*given, it.turns, it.apart, it.outer, depth])
        depth = b.zext(b.load(head), INT)
        some = b.and_(*(b.icmp_signed(">", each, INT(0)) for each in (depth, count)))
        with b.if_then(some):
            alone = b.icmp_signed("==", b.load(came), INT(0))
            fresh = b.and_(alone, b.icmp_signed("==", it.together, ONE))
            weights = at(b, it.weights, b.mul(tap, it.outer))
            lists = (b.bitcast(each, POINTER) for each in (taken, it.rows))
            about = it.turns, depth, it.length, count, it.wide, b.zext(fresh, INT)
            given = weights, packed, *lists, factors, it.found
            b.call(self.called("multiply"), [*given, *about])
            b.store(ONE, came)

    def _clear(self, b: ir.IRBuilder, it: SimpleNamespace) -> None:
        """All sums."""
        with self.lanes(b, b.mul(it.wide, b.add(it.inner, INT(LINES)))) as each:
            self.store(b, self.all(0.0), at(b, it.found, each))

    def _listed(self, b: ir.IRBuilder, values: Any, channels: Any, numbers: Any) -> Any:
        """The numbers of channels whose values are not zero, and how many these are."""
        with b.goto_entry_block():
            count = b.alloca(INT)
        b.store(INT(0), count)
        with counting(b, INT(0), channels) as channel:
            now = b.load(count)
            b.store(b.trunc(channel, SHORT), at(b, numbers, now))
            open_ = _open(b, b.load(at(b, values, channel)))
            b.store(b.add(now, b.zext(open_, INT)), count)
        return b.load(count)


def _open(b: ir.IRBuilder, value: Any) -> Any:
    """Whether a value is not zero."""
    return b.fcmp_unordered("!=", value, FLOAT(0.0))


def _number(b: ir.IRBuilder, numbers: Any, which: Any) -> Any:
    """One of a list."""
    return b.zext(b.load(at(b, b.bitcast(numbers, SHORT.as_pointer()), which)), INT)
