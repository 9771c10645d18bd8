"""Convolutions that add and rectify as they write: the same values in one pass over memory instead
of three."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from explorer.networks import cudnn, quick
from explorer.networks import modules as m
from explorer.networks.laid_out import NO_BORDER
from explorer.networks.max_pool import MaxPool

CUTS: Mapping[Any, float] = {
    torch.relu: math.inf,
    **{kind: math.inf if ceiling is None else ceiling for kind, ceiling in m.RECTIFIERS.items()},
}
"""Functions and kinds of modules that cut at zero, with their ceiling."""


class Fused(nn.Module):
    """A convolution, plus another map if there is one, cut at zero and at a ceiling if asked.

    PyTorch's own choice among operators, and with it the last bits, depends on how many pictures
    and threads there are; this is always the same one for maps of a size on a CPU.
    """

    def __init__(self, convolution: nn.Conv2d, cut: bool, ceiling: float) -> None:
        super().__init__()
        self.convolution = convolution
        limited = cut and ceiling < math.inf
        self.unary = ("hardtanh" if limited else "relu") if cut else None
        self.bounds = [0.0, ceiling] if limited else []
        self.over = False  # nobody reads the other map afterwards, so that it may be written over
        self.border: Bordered | None = None  # what surrounds the map, if it has not been yet

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        own, border = self.convolution, self.border
        if x.device.type == "cuda":
            made = cudnn.convolution(own, x, other, self.unary is not None)
            return limited(made, self.bounds[1], made) if self.bounds else made
        if way := quick.convolution(own, x, border.pad.border(x) if border else NO_BORDER):
            least = 0.0 if self.unary else -math.inf
            most = self.bounds[1] if self.bounds else math.inf
            return way(x, own.bias, other, least, most, self.over)
        x = border(x) if border else x
        how = (own.weight, own.bias, own.padding, own.stride, own.dilation, own.groups)
        call: Any = torch.ops.mkldnn._convolution_pointwise
        if other is None:
            made = call(x, *how, self.unary or "none", self.bounds, "")
        else:
            made = call.binary(x, other, *how, "add", 1.0, self.unary, self.bounds, None)
        return cast(Tensor, made)


class Bordered(nn.Module):
    """A map cut at a ceiling and surrounded by zeros."""

    def __init__(self, pad: m.SamePad, ceiling: float) -> None:
        super().__init__()
        self.pad = pad
        self.ceiling = ceiling

    def forward(self, x: Tensor) -> Tensor:
        (above, below), (left, right) = self.pad.border(x)
        batch, channels, height, width = x.shape
        made = torch.empty(
            (batch, channels, above + height + below, left + width + right),
            dtype=x.dtype,
            memory_format=torch.channels_last,
        )
        rows, columns = slice(above, above + height), slice(left, left + width)
        for margin in (made[:, :, :above], made[:, :, rows.stop :]):
            margin.zero_()
        for margin in (made[:, :, rows, :left], made[:, :, rows, columns.stop :]):
            margin.zero_()
        inside = made[:, :, rows, columns]
        if self.ceiling < math.inf:
            limited(x, self.ceiling, inside)
        else:
            inside.copy_(x)
        return made


def limited(x: Tensor, ceiling: float, out: Tensor | None = None) -> Tensor:
    """Numbers cut at a ceiling above zero. In bf16 their bits are compared: as integers they have
    the same order, and are six times as quick."""
    if x.dtype is not torch.bfloat16:
        return torch.clamp_max(x, ceiling, out=out)
    bits = int(torch.tensor(ceiling, dtype=x.dtype).view(torch.int16))
    into = None if out is None else out.view(torch.int16)
    return torch.clamp_max(x.view(torch.int16), bits, out=into).view(x.dtype)


def fuse(program: fx.GraphModule) -> fx.GraphModule:
    """The same program with its convolutions fused with what alone reads them.

    A function of a map that is called as ``reduce`` may share no memory with its answer: the map
    is cut at its ceiling in place afterwards.
    """
    parameter = next(program.parameters(), None)
    if parameter is None or not _supported(parameter):
        return program
    for node in list(program.graph.nodes):
        if isinstance(convolution := _module(program, node), nn.Conv2d) and _plain(convolution):
            _fuse(program, node, convolution)
    program.graph.eliminate_dead_code()
    for node in list(program.graph.nodes) if parameter.device.type == "cpu" else ():
        if isinstance(pad := _module(program, node), m.SamePad):
            _border(program, node, pad)
        elif isinstance(pool := _module(program, node), nn.MaxPool2d):
            node.target = f"quick_{node.name}"
            program.add_submodule(node.target, MaxPool(pool))
    program.graph.eliminate_dead_code()
    for node in program.graph.nodes:
        if isinstance(fused := _module(program, node), Fused) and len(node.args) > 1:
            fused.over = _unread(program, node, node.args[1])
    program.recompile()
    return program


def _unread(program: fx.GraphModule, node: fx.Node, other: fx.Node) -> bool:
    """Whether nobody needs another map once a node has read it: it is a map of its own, and those
    who read it before share no memory with it."""
    before = [reader for reader in other.users if reader is not node]
    own = _makes(program, other) and other is not node.args[0]
    apart = (reader.target == "reduce" or _makes(program, reader) for reader in before)
    return own and all(apart) and all(reader < node for reader in before)


def _makes(program: fx.GraphModule, node: fx.Node) -> bool:
    """Whether what a node gives shares no memory with what it reads, but for what is unread."""
    return isinstance(_module(program, node), (Fused, nn.Conv2d, MaxPool))


def _supported(parameter: Tensor) -> bool:
    if parameter.device.type == "cuda":
        return cudnn.supported(parameter)
    if parameter.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if parameter.dtype is torch.bfloat16:
        return multiplies_bf16()
    return parameter.dtype is torch.float32


def multiplies_bf16() -> bool:
    """Whether the CPU at hand has arithmetic of bfloat16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _plain(convolution: nn.Conv2d) -> bool:
    """Whether fusing keeps the values: the fused rectifier would turn NaN into zero."""
    padded = isinstance(convolution.padding, tuple) and convolution.padding_mode == "zeros"
    sound = all(bool(each.isfinite().all()) for each in convolution.parameters())
    suited = convolution.weight.device.type == "cpu" or cudnn.suits(convolution)
    return type(convolution) is nn.Conv2d and padded and sound and suited


def _fuse(program: fx.GraphModule, node: fx.Node, convolution: nn.Conv2d) -> None:
    """Fuse one convolution with the sum and the rectifiers that follow it, if any do."""
    end, other = _sum(program, node)
    cuts = {user: _cut(program, user) for user in end.users}
    cut = None not in cuts.values()
    ceilings = set(cuts.values())
    ceiling = cast(float, ceilings.pop()) if cut and len(ceilings) == 1 else math.inf
    name = f"fused_{node.name}"
    program.add_submodule(name, Fused(convolution, cut, ceiling))
    given = (node.args[0],) if other is None else (node.args[0], other)
    with program.graph.inserting_before(end):
        made = program.graph.call_module(name, given)
    made.meta = end.meta
    if not cut:
        end.replace_all_uses_with(made)
        return
    for user, own in cuts.items():
        if own == ceiling:
            user.replace_all_uses_with(made)
    for user, own in cuts.items():
        if own is not None and own != ceiling:
            user.replace_all_uses_with(_limited(program.graph, user, made, own))


def _sum(program: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, fx.Node | None]:
    """The sum that alone reads a convolution, and the other map of it; else the convolution."""
    reader = next(iter(node.users))
    if len(node.users) > 1 or not isinstance(_module(program, reader), m.Add):
        return node, None
    if next(program.parameters()).dtype is not torch.float32:
        return node, None  # it would be rounded once instead of twice
    others = [other for other in reader.all_input_nodes if other is not node]
    if len(others) != 1 or others[0].meta["shape"] != node.meta["shape"]:
        return node, None
    return reader, others[0]


def _cut(program: fx.GraphModule, node: fx.Node) -> float | None:
    """The ceiling of a rectifier; None if the node is no rectifier."""
    kind = node.target if node.op == "call_function" else type(_module(program, node))
    return CUTS.get(kind)


def _border(program: fx.GraphModule, node: fx.Node, pad: m.SamePad) -> None:
    """Fuse a padding with the ceiling before it, if that alone is padded, or else with the
    convolution after it, if that alone reads what is padded."""
    given, ceiling = node.all_input_nodes[0], math.inf
    if given.target is limited and len(given.users) == 1:
        given, ceiling = given.args  # type: ignore[assignment]
    reader, *others = node.users
    fused = _module(program, reader)
    if ceiling == math.inf and not others and isinstance(fused, Fused) and reader.args[0] is node:
        fused.border = Bordered(pad, ceiling)
        node.replace_all_uses_with(given)
        return
    name = f"bordered_{node.name}"
    program.add_submodule(name, Bordered(pad, ceiling))
    with program.graph.inserting_before(node):
        node.replace_all_uses_with(program.graph.call_module(name, (given,)))


def _limited(graph: fx.Graph, user: fx.Node, made: fx.Node, ceiling: float) -> fx.Node:
    """The map cut at a ceiling: in place, if all others have read it by then."""
    others = [reader for reader in made.users if reader is not user]
    read = all(reader.target == "reduce" and reader < user for reader in others)
    with graph.inserting_before(user):
        cut = graph.call_function(limited, (made, ceiling), {"out": made} if read else {})
    cut.meta = made.meta
    return cut


def _module(program: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return program.get_submodule(str(node.target)) if node.op == "call_module" else None
