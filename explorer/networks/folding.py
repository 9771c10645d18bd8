"""Batch norm and padding in the canonical form: fused layers taken apart, batch norm folded in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from timm.layers import activations
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, fx, nn

from explorer.networks.modules import own, parametrised

TIMM_ACTIVATIONS: dict[type[nn.Module], Callable[[], nn.Module]] = {
    activations.GELU: nn.GELU,
    activations.GELUTanh: lambda: nn.GELU("tanh"),
    activations.Swish: nn.SiLU,
    activations.Mish: nn.Mish,
    activations.HardSwish: nn.Hardswish,
}

FOLDED = (nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def bare_norm(module: BatchNormAct2d) -> nn.BatchNorm2d:
    """The batch norm of timm's fused batch norm and activation."""
    norm = nn.BatchNorm2d(module.num_features, module.eps, device="meta")
    norm.track_running_stats = module.track_running_stats
    for name, value in (*module._parameters.items(), *module._buffers.items()):
        store: dict[str, Any] = norm._parameters if name in norm._parameters else norm._buffers
        store[name] = value
    return norm


def bare_activation(module: BatchNormAct2d) -> nn.Module:
    """The activation of timm's fused batch norm and activation, of torch's own kind if it can."""
    own_kind = TIMM_ACTIVATIONS.get(type(module.act))
    return own(module.act) if own_kind is None else own_kind()


def bare_convolution(module: nn.Conv2d) -> nn.Conv2d:
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
    return cast("nn.Conv2d", parametrised(bare, module.weight, module.bias))


def fold(network: fx.GraphModule) -> None:
    """Merge every batch norm into the convolution or linear layer that alone feeds it.

    Needs ``meta["shape"]``. Subclasses that make their weights anew on each call are left alone.
    """
    for node in list(network.graph.nodes):
        norm = network.get_submodule(node.target) if node.op == "call_module" else None
        if not isinstance(norm, NORMS) or norm.running_mean is None:
            continue
        feeder = node.all_input_nodes[0]
        if feeder.op != "call_module" or len(feeder.users) > 1 or len(feeder.meta["shape"]) == 3:
            continue
        linear = network.get_submodule(str(feeder.target))
        if not isinstance(linear, (nn.Conv2d, nn.Linear)) or type(linear) not in FOLDED:
            continue
        setattr(network, str(feeder.target), _folded(linear, norm))
        feeder.meta.update(path=node.meta["path"], aliases=node.meta["aliases"])
        node.replace_all_uses_with(feeder)
        network.graph.erase_node(node)


def _folded(linear: nn.Conv2d | nn.Linear, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    """w' = w s and b' = (b - mean) s + shift with s = scale / sqrt(var + eps), in float64."""
    weight = linear.weight.detach().double()
    variance, mean = _double(norm.running_var, 1.0), _double(norm.running_mean, 0.0)
    factor = _double(norm.weight, 1.0) * (variance + norm.eps).rsqrt()
    bias = (_double(linear.bias, 0.0) - mean) * factor + _double(norm.bias, 0.0)
    spread = factor.reshape(-1, *[1] * (weight.dim() - 1))
    kind = linear.weight.dtype
    return parametrised(own(linear), (weight * spread).to(kind), bias.to(kind))


def _double(value: Tensor | None, otherwise: float) -> Tensor:
    return torch.tensor(otherwise).double() if value is None else value.detach().double()
