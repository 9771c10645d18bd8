"""Machine code for 1 x 1 convolutions, which are matrix products."""

from __future__ import annotations

from explorer.networks.machine_code import INT, Code, Registers, Takes, at, counting, smaller

CONVOLVE: Takes = (
    ("maps", "kernels", "bias", "added", "made"),
    ("inner", "outer", "first", "last", "block"),
    ("least",),
)


class PointCode(Code):
    """``plain`` makes the places from ``first`` to ``last``, as many as registers have rows at
    least, of maps [places,inner] by kernels [outer / width,inner,width], plus bias [outer], and no
    less than ``least``; ``adding`` also adds added [places,outer]. Of a ``block`` of places all
    channels are made before those of the next one, so that it stays in the cache."""

    def __init__(self, shape: Registers) -> None:
        super().__init__(shape)
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
            given = at(b, it.maps, b.mul(place, it.inner))
            self.multiply(b, sums, given, columns, it.inner, group)
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
