"""A second device where there is none: tensors that say they are on ``cuda:0``, worked out by the
CPU, and that may meet tensors of the CPU only where CUDA lets them. What forgets to move a tensor,
or asks a CUDA device for an operator that only CPUs have, fails here as it would there; what is
only slow there does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from explorer.compute import device

CUDA = torch.device("cuda:0")
OPERATORS = torch.ops.aten
INDEXING = {
    OPERATORS.index.Tensor,
    OPERATORS.index_put.default,
    OPERATORS.index_put_.default,
    OPERATORS._index_put_impl_.default,
}
"""The indices of these may be on the CPU."""
WAITING = {
    OPERATORS._local_scalar_dense.default,
    OPERATORS.nonzero.default,
    OPERATORS.masked_select.default,
    OPERATORS.equal.default,
}
"""What a program waits for: numbers, or shapes that depend on numbers."""


def _rectified(x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
    return nn.functional.conv2d(x, weight, bias, *how).relu()


def _added(x: Tensor, weight: Tensor, other: Tensor, alpha: float, *rest: Any) -> Tensor:
    return (nn.functional.conv2d(x, weight, *rest) + alpha * other).relu()


CUDNN = {
    OPERATORS.cudnn_convolution_relu.default: _rectified,
    OPERATORS.cudnn_convolution_add_relu.default: _added,
}
"""What only a CUDA device has."""
COPYING = {OPERATORS.copy_.default, OPERATORS._to_copy.default}


class There(Tensor):
    """A tensor on the other device. (To PyTorch's own code it is on the CPU.)"""

    value: Tensor
    made = 0

    @staticmethod
    def __new__(cls, value: Tensor) -> There:
        form = {"strides": value.stride(), "storage_offset": value.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, value.size(), dtype=value.dtype, **form)
        made.value = value
        There.made += 1
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return worked_out(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:
        return CUDA

    def cpu(self, *args: Any, **kwargs: Any) -> Tensor:
        waits("cpu")
        return self.value.clone()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def new_tensor(self, data: Any, **kwargs: Any) -> Tensor:
        return There(self.value.new_tensor(data, **kwargs))


class Elsewhere(TorchDispatchMode):
    """What makes tensors without any is seen too: ``torch.zeros(3, device="cuda:0")``."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return worked_out(func, args, kwargs or {})


def worked_out(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """An operator by the CPU, as if it was by the device that its tensors are on."""
    leaves, form = tree_flatten((args, dict(kwargs)))
    there = [each for each in leaves if isinstance(each, There)]
    here = [each for each in leaves if isinstance(each, Tensor) and not isinstance(each, There)]
    if there and func in WAITING:
        waits(func)
    mixed = there and any(each.dim() for each in here)
    if mixed and func not in INDEXING | COPYING:
        raise RuntimeError(f"Expected all tensors to be on the same device: {func}")
    if there and func.namespace not in ("aten", "prim", "prims"):
        raise RuntimeError(f"{func} is no operator of a CUDA device")
    known = {id(each.value): each for each in there}
    values = [each.value if isinstance(each, There) else each for each in leaves]
    args, options = tree_unflatten(values, form)
    goes_there = isinstance(leaves[0], There) if func in INDEXING | COPYING else bool(there)
    if options.get("device") is not None:
        goes_there = options["device"].type == "cuda"
        options["device"] = torch.device("cpu")
    if options.get("pin_memory"):
        options["pin_memory"] = False

    def placed(found: Any) -> Any:
        if not isinstance(found, Tensor):
            return found
        if id(found) in known:
            return known[id(found)]
        return There(found) if goes_there else found

    return tree_map(placed, CUDNN.get(func, func)(*args, **options))


def waits(func: Any) -> None:
    """Called where a program waits for the device, because it wants to know a number."""


class Event:
    """Of a device that never lags behind."""

    def __init__(self, where: torch.device) -> None:
        assert where == CUDA

    def record(self) -> None:
        """All is done."""

    def synchronize(self) -> None:
        """All is done."""


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, and in every new thread, this machine has that device, and it is the first."""
    device.choose_device("cpu")  # before it is seen
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 << 30, 8 << 30))
    monkeypatch.setattr(torch, "Event", Event)
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # which would hide the tensors
    monkeypatch.setattr(torch, "tensor", _making(torch.tensor))
    monkeypatch.setattr(torch, "as_tensor", _making(torch.as_tensor))
    monkeypatch.setattr(Tensor, "to", _moving(Tensor.to))
    monkeypatch.setattr(nn.Module, "_apply", _apply)
    run = Thread.run

    def inside(self: Thread) -> None:
        with Elsewhere():
            run(self)

    monkeypatch.setattr(Thread, "run", inside)


def _making(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def made(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        if device is None or torch.device(device).type != "cuda":
            return make(data, device=device, **options)
        return There(make(data.value if isinstance(data, There) else data, **options))

    return made


def _moving(to: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def moved(self: Tensor, *args: Any, **options: Any) -> Tensor:
        if args and isinstance(args[0], Tensor):  # as another one
            where, at_once, args = args[0].device, False, (args[0].dtype, *args[1:])
        else:
            where, dtype, at_once, layout = torch._C._nn._parse_to(*args, **options)
            args = (dtype or self.dtype,)
            options = {"memory_format": layout or torch.preserve_format}
        value = self.value if isinstance(self, There) else self
        found = to(value, *args, **options)
        if where is not None and where.type == "cpu" and isinstance(self, There) and not at_once:
            waits("to")
        if (where or self.device).type == "cuda":
            return self if found is value and isinstance(self, There) else There(found)
        return found.clone() if isinstance(self, There) else found

    return moved


def _apply(self: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """``nn.Module._apply``, which keeps the Python objects of tensors that stay where they are."""
    for module in self.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                made = nn.Parameter(change(weight.detach()), weight.requires_grad)
                module._parameters[name] = made
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = change(value)
    return self
