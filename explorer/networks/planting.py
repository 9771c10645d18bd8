"""Plant a channel: one more channel of a layer, a weighted sum of channels that it already has.

The sum is made by real weights, a 1x1 convolution, so that relevance starts from it and passes
through it as through any other channel. It adds either the layer's rectified (but not clipped)
values, or what is rectified: then the planted channel is one more row of the layer's own weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from explorer.networks.slices import Slice
from explorer.records import BadInput

RECTIFY, SUM = "planted_rectify", "planted_sum"


def plant(part: Slice, weights: Tensor, rectified: bool = True) -> Slice:
    """The slice with planted channels in place of those of its upper layer.

    ``weights`` f32[P,C], not negative: channel p is sum_c weights[p,c] max(z_c, 0) of the C
    channels z that the slice gives, or sum_c weights[p,c] z_c where not ``rectified``. Raises
    BadInput where the network could not be traced.
    """
    if not isinstance(part.module, fx.GraphModule):
        raise BadInput(
            "This network cannot be traced, so nothing can be planted in it: choose another one."
        )
    graph = fx.Graph()
    end = graph.graph_copy(part.module.graph, {})
    if rectified:
        end = graph.call_module(RECTIFY, (end,))
    graph.output(graph.call_module(SUM, (end,)))
    members: dict[str, Any] = {
        str(node.target): _member(part.module, str(node.target))
        for node in part.module.graph.nodes
        if node.op in ("call_module", "get_attr")
    }
    members |= {RECTIFY: nn.ReLU(), SUM: _convolution(weights)}
    paths = {**part.paths, RECTIFY: RECTIFY, SUM: SUM}
    return replace(part, module=fx.GraphModule(members, graph), paths=paths)


def _convolution(weights: Tensor) -> nn.Conv2d:
    planted, channels = weights.shape
    made = nn.Conv2d(channels, planted, 1, bias=False, device=weights.device)
    made.weight = nn.Parameter(weights[:, :, None, None].float(), requires_grad=False)
    return made.to(memory_format=torch.channels_last)


def _member(network: nn.Module, name: str) -> Any:
    parent, _, last = name.rpartition(".")
    return getattr(network.get_submodule(parent), last)
