"""What a convolution takes over from its neighbours on the way up, which saves a pass over memory
each: the border of zeros before it, and the rectifier after it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from torch import Tensor, fx, nn

from explorer.compute.convolutions import is_flat
from explorer.compute.rules import Rule
from explorer.compute.z_plus import z_plus, z_plus_above_zero
from explorer.networks import depthwise, quick
from explorer.networks import modules as m

INDIFFERENT = (None, z_plus, z_plus_above_zero)
"""Rules to which zeros around a map are nothing, and that do not look at what was made of it."""


class Joined:
    """A network's convolutions with the neighbours that they may take over, by the ``rules`` that
    its nodes have."""

    def __init__(self, network: fx.GraphModule, rules: Mapping[fx.Node, Rule | None]) -> None:
        self._modules = {
            node: network.get_submodule(str(node.target))
            for node in network.graph.nodes
            if node.op == "call_module"
        }
        self._free = {
            node
            for node, module in self._modules.items()
            if is_flat(module) and rules.get(node) in INDIFFERENT
        }
        self._surrounded: dict[fx.Node, m.Surrounded] = {}
        self._cut: dict[fx.Node, Tensor] = {}

    def leaves(self, node: fx.Node, maps: Tensor) -> bool:
        """Whether a node is a border of zeros around maps that is left to the convolution which
        alone reads it."""
        pad, reader = self._modules.get(node), _only_reader(node)
        if reader is None or reader not in self._free or not isinstance(pad, m.SamePad):
            return False
        own = m.Surrounded(cast(nn.Conv2d, self._modules[reader]), pad.border(maps))
        if not depthwise.suits(own, own.weight, maps):
            return False
        self._surrounded[reader] = own
        return True

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module of a node, with what was left to it."""
        return self._surrounded.pop(node, None) or self._modules.get(node)

    def made(self, node: fx.Node, module: nn.Conv2d, maps: Tensor) -> Tensor:
        """What the convolution of a node makes of maps, the way that is quick; cut already if a
        rectifier alone reads it."""
        way, reader = quick.convolution(module, maps), _only_reader(node)
        if way is None:
            return cast(Tensor, module(maps))
        kind = None if reader is None else type(self._modules.get(reader))
        if reader is None or kind not in m.RECTIFIERS or node not in self._free or way.whole:
            return way(maps, module.bias)
        ceiling = m.RECTIFIERS[kind]
        most = math.inf if ceiling is None else ceiling
        self._cut[reader] = way(maps, module.bias, None, 0.0, most)
        return self._cut[reader]

    def cut(self, node: fx.Node, maps: Tensor) -> bool:
        """Whether a node is a rectifier of maps that are cut already; it is asked once."""
        return self._cut.pop(node, None) is maps


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
