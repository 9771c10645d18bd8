"""Machine code as LLVM makes it for the processor at hand: what other code is made of.

Maps lie channels last, and what is done to one channel is done to its neighbours at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir

INT, SHORT, FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
POINTER = FLOAT.as_pointer()
ONE = INT(1)
LINE = 16
"""Numbers in a line of a cache."""
SECOND_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
FUSED = ("contract",)
"""A product and the sum it goes into may be rounded once, together."""

Function = TypeVar("Function", bound=Callable[..., Any])

Takes = tuple[Sequence[str], Sequence[str], Sequence[str]]
"""What a function takes, by name: addresses of single precision numbers, whole numbers, numbers."""
BOUNDS = ("least", "most")
"""What values are no less and no more than."""
PLAIN, ADDING, SCALING = "plain", "adding", "scaling"
"""How values end: ADDING adds what lies at ``added`` before they are brought within BOUNDS; SCALING
knows no bounds, but multiplies by what lies there and divides by what lies ``below``."""
OVERLAPPING = {"added", "made"}
"""Addresses that may be one and the same; all others are apart."""


@dataclass(frozen=True)
class Registers:
    """How a processor's registers are used: for so many rows of a product at once, and so many
    vectors of its columns, each of so many lanes. Whether what is multiplied is copied together
    first is a matter of how many registers there are."""

    lanes: int
    vectors: int
    rows: int = 6
    copies: bool = False

    @property
    def width(self) -> int:
        """Columns at once."""
        return self.lanes * self.vectors


PROCESSORS = {"avx512f": Registers(16, 4), "avx2": Registers(8, 2, copies=True)}
"""By what a processor can do, the best first."""


@cache
def registers() -> Registers | None:
    """Those of the processor at hand; None for one of another kind."""
    try:
        able = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM cannot tell on every system
        return None
    return next((each for name, each in PROCESSORS.items() if able.get(name)), None)


@cache
def second_cache() -> int:
    """Bytes in the second cache of a core: few where the system does not tell."""
    try:
        size = SECOND_CACHE.read_text().strip()
        return int(size.removesuffix("K")) << 10
    except (OSError, ValueError):
        return 1 << 19


def once(make: Function) -> Function:
    """Keeps what is made, for which threads wait rather than make the same."""
    kept, lock = cache(make), Lock()

    @wraps(make)
    def wait(*args: Any) -> Any:
        with lock:
            return kept(*args)

    return cast(Function, wait)


class Code:
    """Functions that are written one after the other, and then ``compiled`` together."""

    def __init__(self, shape: Registers) -> None:
        self.shape = shape
        self.vector = ir.VectorType(FLOAT, shape.lanes)
        self.wholes = ir.VectorType(SHORT, shape.lanes)
        self._module = ir.Module()

    def function(self, name: str, takes: Takes) -> tuple[ir.IRBuilder, SimpleNamespace]:
        """A builder at the start of a new function, and its arguments by name."""
        kinds = zip(takes, (POINTER, INT, FLOAT), strict=True)
        types = [kind for names, kind in kinds for _ in names]
        made = ir.Function(self._module, ir.FunctionType(ir.VoidType(), types), name)
        names = (name for names in takes for name in names)
        arguments = dict(zip(names, made.args, strict=True))
        for address in set(takes[0]) - OVERLAPPING:
            arguments[address].add_attribute("noalias")
        return ir.IRBuilder(made.append_basic_block()), SimpleNamespace(**arguments)

    def called(self, name: str) -> ir.Function:
        """A function that has been written."""
        return self._module.get_global(name)

    def compiled(self, **functions: Takes) -> list[Any]:
        """These functions, ready to be called."""
        self._engine = _compiled(self._module)  # holds the code
        return [_callable(self._engine, name, takes) for name, takes in functions.items()]

    def intrinsic(self, name: str, gives: Any, *takes: Any, ending: str = "") -> ir.Function:
        """One of LLVM's own that gives a vector of whole numbers."""
        name = f"{name}.v{gives.count}i32{ending}"
        kind = ir.FunctionType(gives, takes)
        return self._module.globals.get(name) or ir.Function(self._module, kind, name)

    @property
    def offsets(self) -> list[int]:
        """Where the vectors of a row begin."""
        return [self.shape.lanes * number for number in range(self.shape.vectors)]

    def lanes(self, b: ir.IRBuilder, channels: Any) -> AbstractContextManager[Any]:
        """The first of each vector of channels."""
        return counting(b, INT(0), channels, INT(self.shape.lanes))

    def fetch(
        self, b: ir.IRBuilder, pointer: Any, numbers: int = LINE, near: int = 3, write: bool = False
    ) -> None:
        """Have the first cache (``near`` 3) or the second one (2) get what lies there, to be read
        or written; nothing happens where no memory is."""
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, SHORT, SHORT, SHORT])
        name = "llvm.prefetch.p0"
        known = self._module.globals.get(name) or ir.Function(self._module, kind, name)
        for line in range(0, numbers, LINE):
            place = b.bitcast(at(b, pointer, INT(line)), byte)
            b.call(known, [place, SHORT(int(write)), SHORT(near), SHORT(1)])

    def load(self, b: ir.IRBuilder, pointer: Any) -> Any:
        return b.load(b.bitcast(pointer, self.vector.as_pointer()), align=4)

    def store(self, b: ir.IRBuilder, value: Any, pointer: Any) -> None:
        b.store(value, b.bitcast(pointer, self.vector.as_pointer()), align=4)

    def put(self, b: ir.IRBuilder, value: Any, pointer: Any, past: Any) -> None:
        """Store what begins where vectors do, past the cache if ``past`` is not 0: that takes half
        of the time where it would not stay there. To be closed by ``end``."""
        with b.if_else(b.icmp_signed("==", past, INT(0))) as (near, far):
            with near:
                self.store(b, value, pointer)
            with far:
                whole = b.bitcast(pointer, self.vector.as_pointer())
                stored = b.store(value, whole, align=4 * self.shape.lanes)
                stored.set_metadata("nontemporal", self._module.add_metadata([SHORT(1)]))

    def end(self, b: ir.IRBuilder) -> None:
        """Return, once others see what went past the cache."""
        b.fence("seq_cst")
        b.ret_void()

    def all(self, value: float) -> ir.Constant:
        """A vector of one number."""
        return ir.Constant(self.vector, [float(np.float32(value))] * self.shape.lanes)

    def repeated(self, b: ir.IRBuilder, value: Any, lanes: int = 0) -> Any:
        """A vector of one value, of so many lanes or as many as registers have."""
        lanes = lanes or self.shape.lanes
        nothing = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
        first = ir.Constant(ir.VectorType(SHORT, lanes), [0] * lanes)
        return b.shuffle_vector(b.insert_element(nothing, value, SHORT(0)), nothing, first)

    def plus(self, b: ir.IRBuilder, *values: Any) -> Any:
        total, *more = values
        for value in more:
            total = b.fadd(total, value, flags=FUSED)
        return total

    def ended(self, b: ir.IRBuilder, it: Any, way: str, value: Any, place: Any) -> Any:
        """A value as it ends at a place; ``it`` has vectors of its ``bounds``."""
        if way == PLAIN:
            return self.cut(b, value, it.bounds)
        other = self.load(b, at(b, it.added, place))
        if way == ADDING:
            return self.cut(b, self.plus(b, value, other), it.bounds)
        return b.fdiv(b.fmul(value, other), self.load(b, at(b, it.below, place)))

    def bounds(self, b: ir.IRBuilder, it: Any) -> list[Any]:
        """Vectors of those of BOUNDS."""
        return [self.repeated(b, getattr(it, name)) for name in BOUNDS]

    def cut(self, b: ir.IRBuilder, value: Any, bounds: Sequence[Any]) -> Any:
        """A value, or the bound that it is beyond; one that is no number stays so."""
        for beyond, bound in zip("<>", bounds, strict=True):
            value = b.select(b.fcmp_ordered(beyond, value, bound), bound, value)
        return value


def at(b: ir.IRBuilder, pointer: Any, *offsets: Any) -> Any:
    """A pointer moved on by some offsets."""
    for offset in offsets:
        pointer = b.gep(pointer, [offset])
    return pointer


def ceil(b: ir.IRBuilder, number: Any, by: int) -> Any:
    """A number divided, and rounded up."""
    return b.sdiv(b.add(number, INT(by - 1)), INT(by))


def smaller(b: ir.IRBuilder, one: Any, other: Any) -> Any:
    return b.select(b.icmp_signed("<", one, other), one, other)


def larger(b: ir.IRBuilder, one: Any, other: Any) -> Any:
    return b.select(b.icmp_signed(">", one, other), one, other)


@contextmanager
def counting(b: ir.IRBuilder, first: Any, last: Any, step: Any = ONE) -> Iterator[Any]:
    """The numbers from ``first`` to before ``last``, of which there is one at least."""
    before, inside, after = b.block, b.append_basic_block(), b.append_basic_block()
    b.branch(inside)
    b.position_at_end(inside)
    number = b.phi(INT)
    number.add_incoming(first, before)
    yield number
    following = b.add(number, step)
    number.add_incoming(following, b.block)
    b.cbranch(b.icmp_signed("<", following, last), inside, after)
    b.position_at_end(after)


def _compiled(module: ir.Module) -> Any:
    """An engine that holds the machine code of a module."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    read = llvm.parse_assembly(str(module))
    read.verify()
    about = {"cpu": llvm.get_host_cpu_name(), "features": llvm.get_host_cpu_features().flatten()}
    machine = llvm.Target.from_default_triple().create_target_machine(**about, opt=3)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(3))
    builder.getModulePassManager().run(read, builder)
    engine = llvm.create_mcjit_compiler(read, machine)
    engine.finalize_object()
    return engine


def _callable(engine: Any, name: str, takes: Takes) -> Any:
    kinds: tuple[Any, ...] = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_float)
    types = [kind for names, kind in zip(takes, kinds, strict=True) for _ in names]
    return ctypes.CFUNCTYPE(None, *types)(engine.get_function_address(name))
