"""Trace a network with torch.fx and bring it to one canonical form.

In the canonical form every operation that changes values is a module, every call has its own
module, nothing works in place, batch norm that follows a convolution or linear layer is folded
into it, and what does nothing outside training is gone. The function computed stays the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torchvision
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from timm.models._features_fx import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer
from torchvision.ops import StochasticDepth, stochastic_depth

from explorer.networks import modules as m
from explorer.networks.folding import bare_activation, bare_convolution, bare_norm, fold

IDLE = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Dropout1d, nn.AlphaDropout, StochasticDepth)
IDLE_FUNCTIONS = {stochastic_depth, nn.functional.dropout, nn.functional.dropout2d, "contiguous"}


def trace(model: nn.Module) -> tuple[fx.Graph, dict[fx.Node, str]]:
    """The graph of an evaluating network and the module path of each node.

    Raises whatever the tracing raises on control flow that depends on values.
    """
    tracer = NodePathTracer(
        autowrap_modules=(math, torchvision.ops),
        autowrap_functions=tuple(get_notrace_functions()),
        leaf_modules=(StochasticDepth, BatchNormAct2d, *get_notrace_modules()),
    )
    graph = tracer.trace(model)
    return graph, dict(tracer.node_to_qualname)


def record(graph_module: fx.GraphModule, x: Tensor) -> Any:
    """Run once and note each node's ``meta["shape"]`` (None where it is no tensor)."""

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            n.meta["shape"] = tuple(result.shape) if isinstance(result, Tensor) else None
            return result

    with torch.no_grad():
        return Recorder(graph_module).run(x)


def canonise(model: nn.Module, x: Tensor) -> fx.GraphModule:
    """The canonical form of ``model``; ``x`` f32[1,3,H,W] is an example input.

    Nodes carry ``meta["path"]``, their module path, ``meta["aliases"]``, every module path whose
    last value they are, in order of execution, and ``meta["shape"]``. Parameters are shared with
    ``model`` except where batch norm was folded.
    """
    graph, paths = trace(model)
    source = fx.GraphModule(model, graph)
    record(source, x)
    rewriter = _Rewriter(source, paths)
    canonical = rewriter.rewrite().eval().requires_grad_(False)
    record(canonical, x)
    fold(canonical)
    canonical.graph.eliminate_dead_code()
    canonical.delete_all_unused_submodules()
    canonical.recompile()
    return canonical.requires_grad_(False)


class _Rewriter:
    """Walks a traced graph and writes the canonical one. A value of the old graph becomes a node
    of the new one, or, when it depends on no input, the constant itself."""

    def __init__(self, source: fx.GraphModule, paths: dict[fx.Node, str]) -> None:
        self.source = source
        self.paths = paths
        self.graph = fx.Graph()
        self.members: dict[str, Any] = {}
        self.values: dict[fx.Node, Any] = {}

    def rewrite(self) -> fx.GraphModule:
        for node in self.source.graph.nodes:
            self.values[node] = self._convert(node)
        canonical = fx.GraphModule(self.members, self.graph)
        for node in self.graph.nodes:
            node.meta["aliases"] = []
        for alias, value in self._ends().items():
            value.meta["aliases"].append(alias)
        return canonical

    def _ends(self) -> dict[str, fx.Node]:
        """For each module path, the new node of the last map computed under it."""
        ends: dict[str, fx.Node] = {}
        for node, path in self.paths.items():
            value = self.values.get(node)
            if not isinstance(value, fx.Node) or node.meta.get("shape") is None:
                continue
            if node.op == "placeholder":
                continue
            parts = path.split(".")
            for depth in range(1, len(parts) + 1):
                prefix = ".".join(parts[:depth])
                ends.pop(prefix, None)
                ends[prefix] = value
        return ends

    def _convert(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op == "get_attr":
            return _attribute(self.source, str(node.target))
        args, kwargs = (_mapped(a, self._value) for a in (node.args, node.kwargs))
        if node.op == "output":
            return self.graph.output(_nodes(args)[0])
        path = self.paths.get(node, node.name)
        if node.op == "call_module":
            return self._call_module(node, path, args, kwargs)
        return self._call_function(node, path, args, kwargs)

    def _value(self, old: Any) -> Any:
        return self.values[old] if isinstance(old, fx.Node) else old

    def _placeholder(self, node: fx.Node) -> Any:
        if any(n.op == "placeholder" for n in self.graph.nodes):
            if not node.args:
                raise ValueError(f"the network has a second input, '{node.target}'")
            return node.args[0]
        return self.graph.placeholder("x")

    def _call_module(self, node: fx.Node, path: str, args: Any, kwargs: Any) -> Any:
        module = self.source.get_submodule(str(node.target))
        if isinstance(module, IDLE):
            return args[0]
        if isinstance(module, BatchNormAct2d):
            norm = bare_norm(module)
            value = self.call(norm, f"{path}.norm", args)
            if isinstance(module.act, nn.Identity):
                return value
            return self.call(bare_activation(module), path, (value,))
        if type(module) is Conv2dSame:
            pad = m.SamePad(module.kernel_size, module.stride, module.dilation)
            value = self.call(pad, f"{path}.pad", args)
            return self.call(bare_convolution(module), path, (value,))
        return self.call(m.own(module), path, args, kwargs)

    def _call_function(self, node: fx.Node, path: str, args: Any, kwargs: Any) -> Any:
        target = node.target
        if target is torch._assert:
            return None
        if not _nodes((args, kwargs)):
            return _evaluate(node, args, kwargs)
        if target in IDLE_FUNCTIONS or _spreads(node):
            return args[0]
        if target in m.DIFFERENCES and len(args) == 2 and _maps(node):
            negative = self.call(m.Scale(-1), f"{path}.negative", (args[1],))
            return self.call(m.Add(), path, (args[0], negative))
        module = self._module(node, args, kwargs)
        if module is not None:
            maps = args[0] if target in m.JOINS else args
            return self.call(module, path, [a for a in maps if isinstance(a, fx.Node)])
        if target == "view":
            target = "reshape"
        made = self.graph.create_node(node.op, target, *self._materialised(path, args, kwargs))
        made.meta["path"] = path
        return made

    def _module(self, node: fx.Node, args: Any, kwargs: Any) -> nn.Module | None:
        """The module that does what a functional call does, or None where there is none."""
        target = node.target
        if node.meta.get("shape") is None or not args:
            return None
        if target in m.JOINS and all(isinstance(a, fx.Node) for a in args[0]):
            return m.Concatenate(*args[1:], **kwargs)
        if len(args) == 2 and not kwargs:
            pair = _pair(target, *args)
            if pair is not None:
                return pair
        builder = m.MODULES.get(target)
        if builder is None or not isinstance(args[0], fx.Node) or _nodes((args[1:], kwargs)):
            return None
        if target in ("mean", torch.mean) and not (args[1:] or kwargs):
            return None
        return builder(*args[1:], **kwargs)

    def call(self, module: nn.Module, path: str, args: Any, kwargs: Any = None) -> fx.Node:
        """Add a call of a module of its own, reached by ``path`` for a person."""
        name = self._name(path)
        self.members[name] = module
        positional, named = self._materialised(path, tuple(args), kwargs or {})
        node = self.graph.call_module(name, positional, named)
        node.meta["path"] = path
        return node

    def _name(self, path: str) -> str:
        name = base = path.replace(".", "_")
        number = 0
        while name in self.members:
            number += 1
            name = f"{base}__{number}"
        return name

    def _materialised(self, path: str, args: Any, kwargs: Any) -> Any:
        """The arguments, with constant tensors as buffers of the new network."""

        def constant(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            name = self._name(f"{path}.constant")
            self.members[name] = value.detach()
            return self.graph.get_attr(name)

        return _mapped(args, constant), _mapped(kwargs, constant)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """``value`` with every leaf of its lists, tuples, dictionaries and slices changed."""
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_mapped(part, change) for part in (value.start, value.stop, value.step)))
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if isinstance(value, tuple):
        return tuple(_mapped(item, change) for item in value)
    return change(value)


def _nodes(value: Any) -> list[fx.Node]:
    """Every node among (nested) arguments."""
    found: list[fx.Node] = []

    def keep(leaf: Any) -> None:
        if isinstance(leaf, fx.Node):
            found.append(leaf)

    _mapped(value, keep)
    return found


def _maps(node: fx.Node) -> bool:
    """Whether all that a call takes are maps."""
    maps = [arg for arg in node.args if isinstance(arg, fx.Node) and arg.meta.get("shape")]
    return len(maps) == len(node.args) and not node.kwargs


def _spreads(node: fx.Node) -> bool:
    """Whether a call spreads a value for sums and products alone, which do so themselves: it would
    hide which of two factors is the gate."""

    def does(user: fx.Node) -> bool:
        others = [arg for arg in user.args if arg is not node]
        alike = any(isinstance(o, fx.Node) and o.meta.get("shape") == shape for o in others)
        return user.target in m.ADDITIONS | m.PRODUCTS and alike and _maps(user)

    shape = node.meta.get("shape")
    return node.target in ("expand", "expand_as") and all(does(user) for user in node.users)


def _attribute(root: nn.Module, target: str) -> Any:
    value: Any = root
    for name in target.split("."):
        value = getattr(value, name)
    return value


def _evaluate(node: fx.Node, args: Any, kwargs: Any) -> Any:
    """The value of a call that depends on no input."""
    with torch.no_grad():
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return cast(Callable[..., Any], node.target)(*args, **kwargs)


def _pair(target: Any, first: Any, second: Any) -> nn.Module | None:
    """The module of an operation on two values of which at least one is a map."""
    maps = isinstance(first, fx.Node), isinstance(second, fx.Node)
    if all(maps):
        if target in m.ADDITIONS:
            return m.Add()
        return m.Multiply() if target in m.PRODUCTS else None
    constant = second if maps[0] else first
    if not isinstance(constant, (int, float, Tensor)):
        return None
    if target in m.ADDITIONS:
        return m.Shift(constant)
    if target in m.PRODUCTS:
        return m.Scale(constant)
    if maps[0] and target in m.DIFFERENCES:
        return m.Shift(-constant)
    return m.Scale(1 / constant) if maps[0] and target in m.QUOTIENTS else None
