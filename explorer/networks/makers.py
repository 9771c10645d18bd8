"""Which convolution or linear layer makes the channels of a layer, read off the traced network."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import cast

import torch
from timm.layers.drop import DropPath
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, fx, nn

from explorer.networks import modules as m
from explorer.networks.canonise import trace
from explorer.networks.surgery import DIVISIBLE, Weighted
from explorer.records import BadInput, Layer, Maker

PRODUCTS = frozenset(m.PRODUCTS)
NORMS = (nn.BatchNorm2d, BatchNormAct2d)
IDLE = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True)
class Tail:
    """Nothing but batch norm, sums, one activation and the mean over places lies between a layer
    and the linear classifier: ``activation`` is the path of the module whose output is averaged,
    clipped at ``ceiling``; ``factor`` f32[C] the batch norm's scale, ``head`` f32[classes,C] the
    classifier. The relevance of channel c for class t is head[t,c] factor[c] mean(a_c 1[z_c>0])."""

    activation: str
    ceiling: float | None
    factor: Tensor
    head: Tensor


class Makers:
    """Questions about one network; ``layers`` are those that can be browsed."""

    def __init__(self, model: nn.Module, layers: tuple[Layer, ...]) -> None:
        self._modules = dict(model.named_modules())
        self._layers = layers
        try:
            graph, paths = trace(model)
        except Exception as error:
            raise BadInput(
                "This network cannot be traced, so what makes a channel is not known: "
                "choose another network."
            ) from error
        self._nodes = list(graph.nodes)
        self._paths = paths
        self._depth: dict[fx.Node, int] = {}
        for node in self._nodes:
            above = [self._depth[feeder] for feeder in node.all_input_nodes]
            self._depth[node] = 1 + max(above, default=0)

    def maker(self, layer: str) -> Maker:
        """What makes the layer's channels: LAYER is a module path or a browsable layer.

        Raises BadInput when there is no such layer, or no one layer makes it.
        """
        node = self._made_by(layer)
        path = str(node.target)
        module = self._modules[path]
        if not depthwise(module):
            return self._maker(layer, node, "")
        feeder = self._feeder(node)
        refusal = (
            f"{path} is depthwise: each of its channels has one input channel and cannot be "
            "divided by inputs"
        )
        if feeder is None:
            raise BadInput(f"{refusal}; choose a layer that mixes channels.")
        other = str(feeder.target)
        return self._maker(
            layer, feeder, f"{refusal}; divide the same channel of {other}, which feeds it."
        )

    def tail(self, path: str) -> Tail | None:
        """The closed form of a last block, None where more lies behind the layer."""
        node = next((n for n in self._nodes if n.op == "call_module" and n.target == path), None)
        weight = self._weighted(path).weight
        factor = weight.new_ones(len(weight))
        activation, ceiling = "", None
        while node is not None and len(node.users) == 1:
            node = next(iter(node.users))
            module = self._module(node)
            if isinstance(module, NORMS) and not activation:
                factor = factor * _scale(module)
            inner = module.act if isinstance(module, BatchNormAct2d) else module
            if inner is not None and type(inner) in m.RECTIFIERS and not activation:
                activation, ceiling = str(node.target), m.RECTIFIERS[type(inner)]
            elif isinstance(module, nn.Linear):
                last = activation and next(iter(node.users)).op == "output"
                return Tail(activation, ceiling, factor, module.weight) if last else None
            elif not _harmless(node, module) and (activation or not isinstance(module, NORMS)):
                return None
        return None

    def orientation(self, path: str, channel: int) -> int:
        """-1 where the batch norm behind a layer turns the sign of a channel, else 1."""
        node = next((n for n in self._nodes if n.op == "call_module" and n.target == path), None)
        norm = self._module(next(iter(node.users))) if node is not None and node.users else None
        if not isinstance(norm, NORMS) or channel >= norm.num_features:
            return 1
        return -1 if float(_scale(norm)[channel]) < 0 else 1

    def _maker(self, layer: str, node: fx.Node, refusal: str) -> Maker:
        path = str(node.target)
        module = self._weighted(path)
        return Maker(
            layer=layer,
            path=path,
            kind=_kind(module),
            channels=module.weight.shape[0],
            inputs=module.weight[0].numel(),
            shown=self._shown(node),
            refusal=refusal,
        )

    def _made_by(self, layer: str) -> fx.Node:
        direct = [n for n in self._nodes if n.op == "call_module" and n.target == layer]
        if direct and type(self._modules[layer]) in DIVISIBLE:
            return cast(fx.Node, direct[-1])
        node = self._end(layer)
        if node is None:
            if layer in self._modules:
                raise BadInput(
                    f"{layer} is a {type(self._modules[layer]).__name__} that is not called as a "
                    "layer of its own: name a convolution or linear layer."
                )
            raise BadInput(f"The network has no layer '{layer[:80]}': see the command layers.")
        found = self._nearest(node)
        if found is None:
            raise BadInput(
                f"No single convolution or linear layer makes the channels of {layer}: "
                "name the layer to divide."
            )
        return found

    def _end(self, layer: str) -> fx.Node | None:
        """The last value computed under a module path."""
        inside = [
            n
            for n in self._nodes
            if (self._paths.get(n, "") + ".").startswith(layer + ".") and n.op != "placeholder"
        ]
        return inside[-1] if inside else None

    def _nearest(self, node: fx.Node) -> fx.Node | None:
        """Back to the layer whose channels a value shows: through a sum along its deepest
        branch, through a gate along its signal; None at a join."""
        while True:
            module = self._module(node)
            if type(module) in DIVISIBLE:
                return node
            feeders = [n for n in node.all_input_nodes if n.op not in ("placeholder", "get_attr")]
            if isinstance(module, nn.MultiheadAttention | nn.LayerNorm) or not feeders:
                return None
            if node.target in m.JOINS:
                return None
            if node.target in PRODUCTS:
                node = feeders[0]
            else:
                node = max(feeders, key=self._depth.__getitem__)

    def _feeder(self, node: fx.Node) -> fx.Node | None:
        """The layer that mixes channels and feeds a depthwise one."""
        found = self._nearest(node.all_input_nodes[0])
        while found is not None and depthwise(self._module(found)):
            found = self._nearest(found.all_input_nodes[0])
        return found

    def _shown(self, node: fx.Node) -> str:
        """The first browsable layer whose channels this layer makes."""
        for layer in self._layers:
            end = self._end(layer.name)
            after = end is not None and self._depth[end] >= self._depth[node]
            if after and self._nearest(cast(fx.Node, end)) is node:
                return layer.name
        return ""

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._modules.get(str(node.target)) if node.op == "call_module" else None

    def _weighted(self, path: str) -> Weighted:
        return cast(Weighted, self._modules[path])


def depthwise(module: nn.Module | None) -> bool:
    """Whether each channel of a convolution sees one input channel."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


def _kind(module: Weighted) -> str:
    if isinstance(module, nn.Linear):
        return "linear layer"
    high, wide = module.kernel_size
    grouped = f" in {module.groups} groups" if module.groups > 1 else ""
    return f"{high}x{wide} convolution{grouped}"


def _scale(norm: nn.BatchNorm2d | BatchNormAct2d) -> Tensor:
    variance = cast(Tensor, norm.running_var)
    factor = (variance + norm.eps).rsqrt()
    return factor if norm.weight is None else factor * norm.weight.detach()


ADDING = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})
AVERAGING = frozenset({"mean", torch.mean, nn.functional.adaptive_avg_pool2d})
RESHAPING = frozenset({"flatten", torch.flatten, "view", "reshape", torch.reshape, "squeeze"})


def _harmless(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a call keeps the closed form: sums, averages, reshapes and what does nothing."""
    if module is not None:
        return isinstance(module, (*IDLE, DropPath))
    return node.target in ADDING | AVERAGING | RESHAPING
