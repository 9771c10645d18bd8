"""Machine code for depthwise convolutions, in which each channel sees itself alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from llvmlite import ir

from explorer.networks.machine_code import (
    BOUNDS,
    FUSED,
    INT,
    LINE,
    SCALING,
    SHORT,
    Code,
    Registers,
    Takes,
    at,
    counting,
    larger,
    smaller,
)

CONVOLVE: Takes = (
    ("maps", "kernels", "bias", "added", "below", "made"),
    (
        *("channels", "high", "wide", "tall", "broad", "kernel", "above", "before"),
        *("picture", "line", "place", "ahead", "past", "first", "last"),
    ),
    BOUNDS,
)


class DepthCode(Code):
    """``convolve`` makes the lines from ``first`` to ``last`` of ``tall`` for each picture, each of
    ``broad`` places, of maps [N,high,wide,channels] by kernels [kernel,across,channels], plus bias
    [channels]. The first window begins so many lines ``above`` and columns ``before`` the maps, the
    next one a ``step`` further. In made one picture, line and place begins so many numbers after
    the one before. A line has as many places as ``columns``, which are made at once, at least;
    channels are a multiple of LINE.

    Values end in a ``way``, with ``added`` and ``below`` of the form of what is made. Where
    ``ahead`` is not 0 the cache gets early what the next line reads; where ``past`` is not, what is
    made goes past the cache.
    """

    def __init__(self, shape: Registers, across: int, step: int, columns: int, way: str) -> None:
        super().__init__(shape)
        self._across, self._step, self._columns, self._way = across, step, columns, way
        self._reach = (columns - 1) * step + across  # columns of the maps
        self._write()
        (self.convolve,) = self.compiled(convolve=CONVOLVE)

    def _write(self) -> None:
        b, it = self.function("convolve", CONVOLVE)
        it.bounds = self.bounds(b, it)
        it.sums = [b.alloca(self.vector) for _ in range(self._columns)]
        last = b.sub(it.broad, INT(self._columns))
        with (
            counting(b, it.first, it.last) as line,
            counting(b, INT(0), it.broad, INT(self._columns)) as start,
        ):
            picture, y, x = b.sdiv(line, it.tall), b.srem(line, it.tall), smaller(b, start, last)
            it.top = b.sub(b.mul(y, INT(self._step)), it.above)
            it.left = b.sub(b.mul(x, INT(self._step)), it.before)
            corner = b.add(b.mul(b.add(b.mul(picture, it.high), it.top), it.wide), it.left)
            it.source = at(b, it.maps, b.mul(corner, it.channels))
            it.end = b.add(b.mul(picture, it.picture), b.mul(y, it.line))
            it.end = b.add(it.end, b.mul(x, it.place))
            beyond = b.icmp_signed(">", b.add(it.left, INT(self._reach)), it.wide)
            with b.if_else(b.or_(b.icmp_signed("<", it.left, INT(0)), beyond)) as (edge, inside):
                with edge:
                    self._block(b, it, [self._known(b, it, n) for n in range(self._reach)])
                with inside:
                    self._block(b, it, [None] * self._reach)
        self.end(b)

    def _known(self, b: ir.IRBuilder, it: SimpleNamespace, number: int) -> Any:
        """Whether a column is one of the maps, for all lanes."""
        column = b.add(it.left, INT(number))
        after, before = b.icmp_signed(">=", column, INT(0)), b.icmp_signed("<", column, it.wide)
        return self.repeated(b, b.and_(after, before))

    def _block(self, b: ir.IRBuilder, it: SimpleNamespace, known: list[Any]) -> None:
        """Some places, of all channels; what lies beyond the maps is zero."""
        with counting(b, INT(0), it.channels, INT(LINE)) as channel:
            with b.if_then(b.icmp_signed("!=", it.ahead, INT(0))):
                self._look_ahead(b, it, channel)
            for part in range(0, LINE, self.shape.lanes):
                self._lanes(b, it, b.add(channel, INT(part)), known)

    def _lanes(self, b: ir.IRBuilder, it: SimpleNamespace, channel: Any, known: list[Any]) -> None:
        bias = self.load(b, at(b, it.bias, channel))
        for total in it.sums:
            b.store(bias, total)
        first = larger(b, INT(0), b.neg(it.top))
        last = smaller(b, it.kernel, b.sub(it.high, it.top))
        with b.if_then(b.icmp_signed("<", first, last)), counting(b, first, last) as row:
            self._row(b, it, row, channel, known)
        for number, total in enumerate(it.sums):
            place = b.add(b.add(it.end, b.mul(INT(number), it.place)), channel)
            value = self.ended(b, it, self._way, b.load(total), place)
            self.put(b, value, at(b, it.made, place), it.past)

    def _row(
        self, b: ir.IRBuilder, it: SimpleNamespace, row: Any, channel: Any, known: list[Any]
    ) -> None:
        """What one line of the windows adds."""
        line = at(b, it.source, b.mul(b.mul(row, it.wide), it.channels), channel)
        taps = at(b, it.kernels, b.mul(b.mul(row, INT(self._across)), it.channels), channel)
        kernel = [
            self.load(b, at(b, taps, b.mul(INT(tap), it.channels))) for tap in range(self._across)
        ]
        for column, inside in enumerate(known):
            place = at(b, line, b.mul(INT(column), it.channels))
            value = self.load(b, place) if inside is None else self._or_zero(b, place, inside)
            for number, total in enumerate(it.sums):
                if 0 <= (tap := column - number * self._step) < self._across:
                    own = b.fmul(value, kernel[tap], flags=FUSED)
                    b.store(self.plus(b, b.load(total), own), total)

    def _look_ahead(self, b: ir.IRBuilder, it: SimpleNamespace, channel: Any) -> None:
        """Fetch what the places below read that these do not, and where they go."""
        for row in range(self._step):
            line = b.mul(b.add(it.kernel, INT(row)), it.wide)
            for column in range(self._across - self._step, self._reach):
                place = b.mul(b.add(line, INT(column)), it.channels)
                self.fetch(b, at(b, it.source, place, channel), near=2)
        after = b.add(it.end, b.add(it.line, channel))
        for number in range(self._columns):
            place = b.add(after, b.mul(INT(number), it.place))
            if self._way == SCALING:
                self.fetch(b, at(b, it.added, place), near=2)
                self.fetch(b, at(b, it.below, place), near=2)
            with b.if_then(b.icmp_signed("==", it.past, INT(0))):
                self.fetch(b, at(b, it.made, place), near=2, write=True)

    def _or_zero(self, b: ir.IRBuilder, place: Any, known: Any) -> Any:
        """What lies at a place, of which nothing is read where it is not known."""
        kind = self.vector.as_pointer()
        name = f"llvm.masked.load.v{self.shape.lanes}f32.p0"
        takes = ir.FunctionType(self.vector, [kind, SHORT, known.type, self.vector])
        load = self._module.globals.get(name) or ir.Function(self._module, takes, name)
        return b.call(load, [b.bitcast(place, kind), SHORT(4), known, self.all(0.0)])
