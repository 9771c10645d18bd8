"""Trace a network with torch.fx and bring it to one canonical form.

In the canonical form every operation that changes values is a module, every call has its own
module, nothing works in place, batch norm that follows a convolution or linear layer is folded
into it, and what does nothing outside training is gone. The function computed stays the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torchvision
from timm.layers import BatchNormAct2d
from timm.layers.conv2d_same import Conv2dSame
from timm.models._features_fx import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer
from torchvision.ops import StochasticDepth, stochastic_depth

from explorer.networks import modules as m

IDLE = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Dropout1d, nn.AlphaDropout, StochasticDepth)
IDLE_FUNCTIONS = {stochastic_depth, nn.functional.dropout, nn.functional.dropout2d, "contiguous"}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


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


def own(module: nn.Module) -> nn.Module:
    """A module of its own that shares the parameters and works on none of its inputs."""
    clone = copy.copy(module)
    for name in ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"):
        setattr(clone, name, type(getattr(module, name))(getattr(module, name)))
    for name, child in module._modules.items():
        clone._modules[name] = own(child) if child is not None else None
    if getattr(clone, "inplace", False):
        clone.inplace = False
    return clone


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
    canonical = rewriter.rewrite()
    _fold(canonical)
    canonical.graph.eliminate_dead_code()
    canonical.delete_all_unused_submodules()
    canonical.recompile()
    canonical.eval().requires_grad_(False)
    record(canonical, x)
    return canonical


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
            norm = _bare_norm(module)
            value = self.call(norm, f"{path}.norm", args)
            if isinstance(module.act, nn.Identity):
                return value
            return self.call(own(module.act), path, (value,))
        if type(module) is Conv2dSame:
            pad = m.SamePad(module.kernel_size, module.stride, module.dilation)
            value = self.call(pad, f"{path}.pad", args)
            return self.call(_bare_convolution(module), path, (value,))
        return self.call(own(module), path, args, kwargs)

    def _call_function(self, node: fx.Node, path: str, args: Any, kwargs: Any) -> Any:
        target = node.target
        if target is torch._assert:
            return None
        if not _nodes((args, kwargs)):
            return _evaluate(node, args, kwargs)
        if target in IDLE_FUNCTIONS:
            return args[0]
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
        assert callable(node.target)
        return node.target(*args, **kwargs)


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


def _bare_norm(module: BatchNormAct2d) -> nn.BatchNorm2d:
    """The batch norm of timm's fused batch norm and activation."""
    norm = nn.BatchNorm2d(module.num_features, module.eps, device="meta")
    norm.track_running_stats = module.track_running_stats
    for name, value in (*module._parameters.items(), *module._buffers.items()):
        store = norm._parameters if name in norm._parameters else norm._buffers
        store[name] = value
    return norm


def _bare_convolution(module: nn.Conv2d) -> nn.Conv2d:
    """A convolution of the same weights whose padding is done before it."""
    bare = nn.Conv2d(
        module.in_channels,
        module.out_channels,
        module.kernel_size,  # type: ignore[arg-type]
        module.stride,  # type: ignore[arg-type]
        0,
        module.dilation,  # type: ignore[arg-type]
        module.groups,
        module.bias is not None,
        device="meta",
    )
    return cast(nn.Conv2d, m.parametrised(bare, module.weight, module.bias))


def _fold(network: fx.GraphModule) -> None:
    """Merge every batch norm into the convolution or linear layer that alone feeds it."""
    for node in list(network.graph.nodes):
        if node.op != "call_module" or not isinstance(node.args[0], fx.Node):
            continue
        feeder = node.args[0]
        norm = network.get_submodule(node.target)
        if not isinstance(norm, NORMS) or norm.running_mean is None:
            continue
        if feeder.op != "call_module" or len(feeder.users) > 1:
            continue
        linear = network.get_submodule(str(feeder.target))
        if type(linear) not in (nn.Conv2d, nn.Linear):
            continue
        setattr(network, str(feeder.target), _folded(linear, norm))
        feeder.meta.update(path=node.meta["path"], aliases=node.meta["aliases"])
        node.replace_all_uses_with(feeder)
        network.graph.erase_node(node)


def _folded(linear: nn.Module, norm: nn.Module) -> nn.Module:
    """w' = w s and b' = (b - mean) s + shift with s = scale / sqrt(var + eps), in float64."""
    kept = [linear.weight, linear.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var]
    weight, bias, scale, shift, mean, variance = (
        None if t is None else t.detach().double() for t in kept
    )
    factor = (
        (variance + norm.eps).rsqrt() if scale is None else scale * (variance + norm.eps).rsqrt()
    )
    offset = -mean if bias is None else bias - mean
    moved = offset * factor if shift is None else offset * factor + shift
    spread = factor.reshape(-1, *[1] * (weight.dim() - 1))
    kind = linear.weight.dtype
    return m.parametrised(own(linear), (weight * spread).to(kind), moved.to(kind))
