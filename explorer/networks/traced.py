"""Questions to a traced network: maps of layers, and sub-networks between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from explorer.networks import modules as m
from explorer.networks.canonise import canonise
from explorer.networks.fusing import fuse
from explorer.networks.layers import Found, default_layer, find_layers
from explorer.networks.slices import Slice
from explorer.records import BadInput

Reduce = Callable[[Tensor], Any]
TOGETHER = 64
"""Pictures without a channel that pass through the rest of the network at once."""
PROGRAMS = 64
"""How many compiled forward programs are kept."""


class Traced:
    """A canonical graph and its layers. Forward passes stop at the last value asked for."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.network = canonise(model, x)
        self.found: Mapping[str, Found] = find_layers(self.network)
        self.default = default_layer(self.network, self.found)
        self._programs: dict[Any, fx.GraphModule] = {}
        self._compiling = Lock()
        self._slices: dict[tuple[str | None, str], tuple[Slice, tuple[fx.Node, ...]]] = {}

    def aliases(self) -> dict[str, str]:
        """Every module path that denotes a layer, with the layer's name."""
        return {alias: name for name, found in self.found.items() for alias in found.aliases}

    def logits(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.network(x))

    def features(self, x: Tensor, layers: Sequence[str], reduce: Reduce | None) -> dict[str, Any]:
        program = self._kept(
            ("features", tuple(layers), reduce), lambda: self._browsing(layers, reduce)
        )
        return dict(zip(layers, program(x), strict=True))

    def slice(self, lower: str | None, upper: str) -> Slice:
        return self._cut(lower, upper)[0]

    def inputs(self, x: Tensor, part: Slice) -> tuple[Tensor, ...]:
        entering = self._cut(part.lower, part.upper)[1]
        program = self._kept(("inputs", entering), lambda: self._program(entering))
        return tuple(_channels_last(each) for each in program(x))

    def without(
        self, x: Tensor, layer: str, channels: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        found = self.found[layer]
        output = next(n for n in self.network.graph.nodes if n.op == "output")
        end = cast(fx.Node, output.args[0])
        inside, frontier = _between(found.node, end)
        entering = (found.node, *frontier)
        first = self._kept(("inputs", entering), lambda: self._program(entering))
        rest = self._kept(("rest", layer), lambda: self._rest(entering, inside))
        entered = first(x)
        parts = []
        for start in range(0, len(rows), TOGETHER):
            some = rows[start : start + TOGETHER]
            less, *others = (each[some] for each in entered)
            channel = channels[start : start + TOGETHER]
            less.movedim(found.axis, 1)[torch.arange(len(some)), channel] = 0
            parts.append(rest(less, *others))
        return rest(*entered), torch.cat(parts)

    def _rest(self, entering: Sequence[fx.Node], inside: Sequence[fx.Node]) -> fx.GraphModule:
        """A program of the nodes ``inside``, given the values that enter them."""
        graph = fx.Graph()
        made = {n: graph.placeholder(f"x{number}") for number, n in enumerate(entering)}
        for node in inside:
            made[node] = graph.node_copy(node, made.__getitem__)
        graph.output(made[inside[-1]])
        return fx.GraphModule(self._members(graph), graph)

    def _kept(self, key: Any, make: Callable[[], fx.GraphModule]) -> fx.GraphModule:
        """The program of that key, made once; the oldest go when there are many."""
        with self._compiling:
            if key not in self._programs:
                while len(self._programs) >= PROGRAMS:
                    del self._programs[next(iter(self._programs))]
                self._programs[key] = make()
            return self._programs[key]

    def _browsing(self, layers: Sequence[str], reduce: Reduce | None) -> fx.GraphModule:
        """A program that gives each layer's browsable value, reduced as soon as it is there."""
        wanted: dict[fx.Node, list[Found]] = {}
        for name in layers:
            wanted.setdefault(self.found[name].source, []).append(self.found[name])
        graph = fx.Graph()
        made: dict[fx.Node, fx.Node] = {}
        shown: dict[str, fx.Node] = {}
        for node in _needed(wanted):
            made[node] = graph.node_copy(node, made.__getitem__)
            for found in wanted.get(node, ()):
                value = _channels_first(graph, made[node], found)
                if found.source is not found.node:
                    value = graph.call_function(torch.relu, (value,))
                if reduce is not None:
                    value = graph.call_module("reduce", (value,))
                shown[found.layer.name] = value
        graph.output(tuple(shown[name] for name in layers))
        members = self._members(graph)
        if reduce is not None:
            members["reduce"] = _Reduction(reduce)
        return fuse(fx.GraphModule(members, graph))

    def _program(self, wanted: Sequence[fx.Node]) -> fx.GraphModule:
        """A program that gives the values of these nodes."""
        graph = fx.Graph()
        made: dict[fx.Node, fx.Node] = {}
        for node in _needed(wanted):
            made[node] = graph.node_copy(node, made.__getitem__)
        graph.output(tuple(made[node] for node in wanted))
        return fuse(fx.GraphModule(self._members(graph), graph))

    def _members(self, graph: fx.Graph) -> dict[str, Any]:
        """The network's modules and constants that a graph calls."""
        names = {str(n.target) for n in graph.nodes if n.op in ("call_module", "get_attr")}
        return {name: getattr(self.network, name) for name in names if hasattr(self.network, name)}

    def _cut(self, lower: str | None, upper: str) -> tuple[Slice, tuple[fx.Node, ...]]:
        """The slice and the nodes of this network whose values enter it."""
        if (lower, upper) not in self._slices:
            self._slices[lower, upper] = self._build(lower, upper)
        return self._slices[lower, upper]

    def _build(self, lower: str | None, upper: str) -> tuple[Slice, tuple[fx.Node, ...]]:
        pixels = next(n for n in self.network.graph.nodes if n.op == "placeholder")
        start = pixels if lower is None else self.found[lower].node
        inside, frontier = _between(start, self.found[upper].source)
        if not inside:
            raise BadInput(
                f"Nothing leads from layer '{lower}' to '{upper}': choose an earlier one."
            )
        graph = fx.Graph()
        entering = (start, *frontier)
        made = {n: graph.placeholder(f"x{number}") for number, n in enumerate(entering)}
        for node in inside:
            made[node] = graph.node_copy(node, made.__getitem__)
        graph.output(_channels_first(graph, made[inside[-1]], self.found[upper]))
        members = {
            name: m.own(member) if isinstance(member, nn.Module) else member
            for name, member in self._members(graph).items()
        }
        part = Slice(
            module=fx.GraphModule(members, graph),
            lower=lower,
            upper=upper,
            lower_axis=1 if lower is None else self.found[lower].axis,
            traced=True,
            paths={str(n.target): n.meta["path"] for n in inside if n.op == "call_module"},
        )
        return part, entering


class _Reduction(nn.Module):
    """A function of one map, in a graph."""

    def __init__(self, reduce: Reduce) -> None:
        super().__init__()
        self.reduce = reduce

    def forward(self, x: Tensor) -> Any:
        return self.reduce(x)


def _channels_last(values: Tensor) -> Tensor:
    """Maps as slices take them, which a program for a CUDA device may make otherwise."""
    if values.device.type != "cuda" or values.dim() != 4:
        return values
    return values.contiguous(memory_format=torch.channels_last)


def _needed(wanted: Iterable[fx.Node]) -> list[fx.Node]:
    """The nodes that these values depend on, themselves included, in order of execution."""
    needed: set[fx.Node] = set()
    waiting = list(wanted)
    graph = waiting[0].graph
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
    return [node for node in graph.nodes if node in needed]


def _between(start: fx.Node, end: fx.Node) -> tuple[list[fx.Node], list[fx.Node]]:
    """The nodes on paths from ``start`` (left out) to ``end``, with what computes their sizes
    and constants, and the maps that enter from elsewhere, with pictures on their first axis; both
    in order of execution."""
    needed = _needed([end])
    reached = _depending(needed, {start})
    (pixels,) = (node for node in needed if node.op == "placeholder")
    moving = _depending(needed, {pixels})
    if end is start or end not in reached:
        return [], []
    inside = {node for node in needed if node in reached and node is not start}
    frontier: set[fx.Node] = set()
    waiting = [feeder for node in inside for feeder in node.all_input_nodes]
    while waiting:
        node = waiting.pop()
        if node is start or node in inside or node in frontier:
            continue
        shape = node.meta["shape"] if node in moving else None
        if not shape or shape[0] != pixels.meta["shape"][0]:
            inside.add(node)
            waiting.extend(node.all_input_nodes)
        else:
            frontier.add(node)
    return [n for n in needed if n in inside], [n for n in needed if n in frontier]


def _depending(nodes: Iterable[fx.Node], on: set[fx.Node]) -> set[fx.Node]:
    """Some nodes and those of ``nodes``, which are in order of execution, that depend on them."""
    found = set(on)
    for node in nodes:
        if not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def _channels_first(graph: fx.Graph, value: fx.Node, found: Found) -> fx.Node:
    """[B,C,H,W] of a layer's value, whatever its layout."""
    rank = len(found.node.meta["shape"])
    if found.axis != 1:
        value = graph.call_function(torch.movedim, (value, found.axis, 1))
    for _ in range(rank, 4):
        value = graph.call_method("unsqueeze", (value, -1))
    return value
