"""Where each value of a canonical network keeps its channels."""

from __future__ import annotations

import torch
from torch import fx, nn

from explorer.networks import modules as m

FIRST = (nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d, nn.AvgPool2d)
PERMUTES = (torch.permute, "permute")
TRANSPOSES = (torch.transpose, "transpose")
RESHAPES = (torch.reshape, "reshape")


def channel_axes(network: fx.GraphModule) -> dict[fx.Node, int]:
    """The axis of each node's channels; nodes without channels are absent.

    Needs ``meta["shape"]``. Convolutions and batch norms have channels at 1, linear layers and
    layer norms at the end; permutations move them; other operations keep their input's axis.
    """
    axes: dict[fx.Node, int] = {}
    modules = dict(network.named_modules())
    for node in network.graph.nodes:
        module = modules[str(node.target)] if node.op == "call_module" else None
        axis = _axis(node, module, axes)
        if axis is not None:
            axes[node] = axis
    return axes


def _axis(node: fx.Node, module: nn.Module | None, axes: dict[fx.Node, int]) -> int | None:
    shape = node.meta.get("shape")
    if node.op == "placeholder" or isinstance(module, FIRST):
        return 1
    feeder = next((n for n in node.all_input_nodes if n in axes), None)
    if shape is None:  # a tuple of maps, as chunk gives, keeps the axis; a size has none
        return axes.get(feeder) if feeder and node.target in ("chunk", torch.chunk) else None
    if isinstance(module, (nn.Linear, nn.LayerNorm, nn.MultiheadAttention)):
        return len(shape) - 1
    if len(shape) == 2:
        return 1
    if feeder is None:
        return None
    axis, before = axes[feeder], feeder.meta.get("shape")
    if isinstance(module, m.Mean) and before and not module.keepdim:
        gone = {d % len(before) for d in module.dim}
        return None if axis in gone else axis - sum(d < axis for d in gone)
    if node.target in PERMUTES + TRANSPOSES:
        return _moved(node, axis, len(shape))
    if before and (node.target in RESHAPES or len(before) != len(shape)):
        return _reshaped(before, shape, axis)
    return axis


def _reshaped(before: tuple[int, ...], shape: tuple[int, ...], axis: int) -> int | None:
    """The axis after a reshape that leaves it whole, counted from the front or from the back."""
    if before[: axis + 1] == shape[: axis + 1]:
        return axis
    back = len(before) - axis
    return len(shape) - back if before[-back:] == shape[-back:] else None


def _moved(node: fx.Node, axis: int, rank: int) -> int | None:
    """The axis after a permutation or transposition."""
    given = node.args[1] if isinstance(node.args[1], (list, tuple)) else node.args[1:]
    given = given or tuple(node.kwargs.values())[:1]
    order = [d % rank for d in given if isinstance(d, int)]
    if node.target in PERMUTES:
        return order.index(axis) if axis in order else None
    return order[1 - order.index(axis)] if axis in order else axis
