"""Find the browsable layers of a canonical network: which tensors have channels worth browsing,
what they are called, and which earlier layers a split of them may attribute to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import fx, nn

from explorer.networks import modules as m
from explorer.networks.axes import channel_axes
from explorer.records import Layer

OUTPUTS = (m.Add, m.Concatenate, m.Scale, m.Shift, nn.Conv2d, nn.Linear, nn.LayerNorm)
DIVISIBLE = (nn.Conv2d, nn.Linear)
OUTPUT_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
SELECTING = (m.Concatenate, nn.MaxPool2d)
TRUNK = 3
"""A module whose maps shrink by more than this is the trunk of the network, not a stage."""


@dataclass(frozen=True)
class Found:
    """A layer in the graph. ``node`` makes its value as later layers see it; ``source`` makes
    the value whose rectification is browsed: the pre-activation where the activation is a ReLU
    or a clipped one, else ``node`` itself. ``axis`` is where its channels are."""

    layer: Layer
    node: fx.Node
    source: fx.Node
    axis: int
    aliases: tuple[str, ...]


def find_layers(network: fx.GraphModule) -> dict[str, Found]:
    """The browsable layers of a canonical network by name, in order of execution.

    They are the outputs of activation functions, the outputs of blocks and stages, the divided
    channels of edited layers, and the logits. A layer is named by the shortest path of a module
    whose last value it is.
    """
    graph = _Graph(network)
    found = [graph.found(node) for node in graph.order if graph.browsable(node)]
    return {layer.layer.name: layer for layer in _linked(graph, found)}


def default_layer(network: fx.GraphModule, layers: Mapping[str, Found]) -> str:
    """Where browsing starts: the activation that follows the last residual sum, or, where none
    does (linear bottlenecks, ConvNeXt, transformers), the last rectified layer that feeds that
    sum. Networks without residual sums start at the last rectified layer that still has a map.
    """
    graph = _Graph(network)
    rectified = [f for f in layers.values() if f.layer.rectified and _area(f.layer) > 1]
    sums = [n for n in graph.order if isinstance(graph.module(n), m.Add) and graph.area(n) > 1]
    if sums and rectified:
        after = [f for f in rectified if f.node.args[:1] == (sums[-1],)]
        above = graph.mixing(sums[-1])
        before = [f for f in rectified if f.node in above]
        rectified = after or before or rectified
    return (rectified or list(layers.values()))[-1].layer.name


def _linked(graph: _Graph, found: Sequence[Found]) -> list[Found]:
    """The same layers with those that each may attribute to, nearest first."""
    linked = []
    for number, upper in enumerate(found):
        above = graph.mixing(upper.node)
        lowers = [lower for lower in reversed(found[:number]) if above.get(lower.node)]
        names = tuple(lower.layer.name for lower in lowers)
        lower = _default_lower(graph, upper, lowers)
        linked.append(replace(upper, layer=replace(upper.layer, lowers=names, lower=lower)))
    return linked


def _default_lower(graph: _Graph, upper: Found, lowers: Iterable[Found]) -> str:
    """The nearest rectified layer from which every channel of ``upper`` is fed, preferring
    those with a map where ``upper`` has one (not the inside of a squeeze-and-excitation)."""
    flat = _area(upper.layer) == 1
    rectified = [one for one in lowers if one.layer.rectified and (flat or _area(one.layer) > 1)]
    feeding = (one for one in rectified if graph.feeds_all(one.node, upper.node))
    nearest = next(feeding, next(iter(rectified), None))
    return nearest.layer.name if nearest else ""


def _area(layer: Layer) -> int:
    return layer.height * layer.width


class _Graph:
    """Questions about a canonical graph that several rules of this file ask."""

    def __init__(self, network: fx.GraphModule) -> None:
        self.modules = dict(network.named_modules())
        self.order = [n for n in network.graph.nodes if n.op not in ("placeholder", "output")]
        self.axes = channel_axes(network)
        self.output = next(n for n in network.graph.nodes if n.op == "output").args[0]
        self.pixels = next(n for n in network.graph.nodes if n.op == "placeholder")
        self._ancestry: dict[fx.Node, frozenset[fx.Node]] = {}
        for node in network.graph.nodes:
            above = (self._ancestry[feeder] for feeder in node.all_input_nodes)
            self._ancestry[node] = frozenset({node}).union(*above)
        self._count_under()

    def _count_under(self) -> None:
        """For each module path: how many weighted calls it has and its largest side."""
        self.weighted: dict[str, int] = {}
        self.sides: dict[str, int] = {}
        for node in self.order:
            if isinstance(self.module(node), m.SamePad):  # larger than any map of its stage
                continue
            parts = node.meta.get("path", "").split(".")
            for depth in range(1, len(parts)):
                path = ".".join(parts[:depth])
                self.weighted[path] = self.weighted.get(path, 0) + isinstance(
                    self.module(node), (nn.Conv2d, nn.Linear)
                )
                self.sides[path] = max(self.sides.get(path, 0), self.side(node))

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def size(self, node: fx.Node) -> tuple[int, int, int] | None:
        """Channels, height and width of a node's value, or None where it has no such form, or
        the first axis is not that of the pictures (some attention's windows)."""
        shape, axis = node.meta.get("shape"), self.axes.get(node)
        if shape is None or axis is None or not 2 <= len(shape) <= 4:
            return None
        if shape[0] != self.pixels.meta["shape"][0]:
            return None
        rest = [side for at, side in enumerate(shape) if at not in (0, axis)]
        height, width = (*rest, 1, 1)[:2]
        return shape[axis], height, width

    def area(self, node: fx.Node) -> int:
        size = self.size(node)
        return size[1] * size[2] if size else 0

    def side(self, node: fx.Node) -> int:
        size = self.size(node)
        return max(size[1:]) if size else 0

    def mixes(self, node: fx.Node) -> bool:
        """Whether a call lets one channel's value reach another channel."""
        module = self.module(node)
        if isinstance(module, nn.Conv2d):
            return module.in_channels > module.groups
        if isinstance(module, nn.Linear):
            return self.axes.get(node) == len(node.meta["shape"]) - 1
        if module is not None:
            return isinstance(module, nn.MultiheadAttention)
        return node.op == "call_function" and node.target not in m.SHAPERS

    def mixing(self, upper: fx.Node) -> dict[fx.Node, bool]:
        """Every ancestor of ``upper``, and whether a path from it to there mixes channels."""
        mixed: dict[fx.Node, bool] = {}
        waiting = [(upper, False)]
        while waiting:
            node, through = waiting.pop()
            through = through or self.mixes(node)
            for feeder in node.all_input_nodes:
                if feeder not in mixed or (through and not mixed[feeder]):
                    mixed[feeder] = through
                    waiting.append((feeder, through))
        return mixed

    def feeds_all(self, lower: fx.Node, upper: fx.Node) -> bool:
        """Whether every channel of ``upper`` depends on ``lower`` through a mixing of channels;
        in a join, as in DenseNet and Inception, one branch may and another may not."""
        known: dict[fx.Node, bool] = {lower: False}

        def fed(node: fx.Node) -> bool:
            if node not in known:
                feeders = node.all_input_nodes
                if self.mixes(node):
                    known[node] = any(lower in self.ancestry(feeder) for feeder in feeders)
                else:
                    every = all if isinstance(self.module(node), m.Concatenate) else any
                    known[node] = every([fed(feeder) for feeder in feeders])
            return known[node]

        return fed(upper)

    def ancestry(self, node: fx.Node) -> frozenset[fx.Node]:
        """A node and everything it depends on."""
        return self._ancestry[node]

    def rectified(self, node: fx.Node) -> bool:
        """Whether a value is (all but) never negative: an activation, or a choice of such."""
        module = self.module(node)
        if isinstance(module, (*m.RECTIFIERS, *m.SMOOTH)):
            return True
        return isinstance(module, SELECTING) and all(map(self.rectified, node.all_input_nodes))

    def browsable(self, node: fx.Node) -> bool:
        module = self.module(node)
        if self.size(node) is None or not self.names(node):
            return False
        if self.pixels not in self.ancestry(node):  # made of weights, as a bias of attention
            return False
        if node is self.output or isinstance(module, m.ACTIVATIONS):
            return True
        if not isinstance(module, (*OUTPUTS, *OUTPUT_NORMS)):
            return False
        return self._divided(node) or (self._ends_block(node) and not self._passing(node))

    def _divided(self, node: fx.Node) -> bool:
        """Whether a value holds the divided channels of an edited layer, before their merge."""
        path = node.meta.get("path", "")
        users = [self.module(user) for user in node.users]
        return path.endswith(".split") and all(isinstance(u, DIVISIBLE) for u in users)

    def _ends_block(self, node: fx.Node) -> bool:
        return any(self.weighted.get(path, 0) > 1 for path in self.names(node))

    def _passing(self, node: fx.Node) -> bool:
        """A value used only as an activation's input, or as one branch of a sum or a join."""
        users = list(node.users)
        while len(users) == 1 and self._relabels(users[0]):
            users = list(users[0].users)
        if len(users) == 1 and isinstance(self.module(users[0]), m.ACTIVATIONS):
            return True
        return all(isinstance(self.module(user), (m.Add, m.Concatenate)) for user in users)

    def _relabels(self, node: fx.Node) -> bool:
        """A call that scales or moves values one by one."""
        if node.op == "call_module":
            return isinstance(self.module(node), (m.Scale, nn.BatchNorm2d))
        return node.target in m.SHAPERS

    def names(self, node: fx.Node) -> list[str]:
        """The module paths whose last value a node is, trunks left out: first those that the
        node lies under, then those that only pass it on; each from the shortest."""
        side = max(self.side(node), 1)
        own = node.meta.get("path", "") + "."
        paths = [p for p in node.meta["aliases"] if self.sides.get(p, 0) <= TRUNK * side]
        return sorted(paths, key=lambda path: (not own.startswith(path + "."), path.count(".")))

    def found(self, node: fx.Node) -> Found:
        """The layer of a browsable node, not yet linked to its lowers."""
        module = self.module(node)
        clipped = isinstance(module, tuple(m.RECTIFIERS))
        ceiling = m.RECTIFIERS[type(module)] if clipped and module is not None else None
        names = self.names(node)
        channels, height, width = self.size(node) or (0, 0, 0)
        layer = Layer(names[0], channels, height, width, self.rectified(node), ceiling, (), "")
        source = node.all_input_nodes[0] if clipped else node
        return Found(layer, node, source, self.axes[node], tuple(names))
