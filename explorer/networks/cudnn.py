"""On a CUDA device, convolutions that add and rectify as they write, by cuDNN: one pass over memory
instead of three. In single precision they are quickest for maps that lie channels first."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from explorer.records import OutOfMemory

_KEPT: MutableMapping[Tensor, tuple[int, Tensor]] = WeakTensorKeyDictionary()
_REFUSED: MutableMapping[Tensor, bool] = WeakTensorKeyDictionary()
_LOCK = Lock()
LOG = logging.getLogger(__name__)


def supported(parameter: Tensor) -> bool:
    """Whether a network with such parameters can go this way here."""
    own = torch.version.cuda is not None and torch.backends.cudnn.is_available()  # type: ignore[no-untyped-call]
    known = parameter.dtype in (torch.float32, torch.bfloat16)
    return parameter.device.type == "cuda" and own and torch.backends.cudnn.enabled and known


def suits(module: nn.Conv2d) -> bool:
    """Whether this is as quick as PyTorch's own choice among its operators."""
    return module.groups == 1


def convolution(module: nn.Conv2d, x: Tensor, other: Tensor | None, cut: bool) -> Tensor:
    """The convolution of maps [B,C,H,W], plus ``other`` of its form if there is one, ``cut`` at
    zero if asked."""
    weight, bias = module.weight, module.bias
    if x.dtype is torch.float32:
        x, weight = x.contiguous(), _first(weight)
        other = None if other is None else other.contiguous()
    how: Any = (module.stride, module.padding, module.dilation, module.groups)
    if cut and module.weight not in _REFUSED:
        try:
            if other is None:
                return torch.cudnn_convolution_relu(x, weight, bias, *how)
            return torch.cudnn_convolution_add_relu(x, weight, other, 1.0, bias, *how)
        except RuntimeError as error:  # it has no code for every form on every GPU
            if OutOfMemory.told_by(error):
                raise
            LOG.info("A convolution is not fused: %s", error)
            _REFUSED[module.weight] = True
    made = F.conv2d(x, weight, bias, *how)
    made = made if other is None else made.add_(other)
    return made.relu_() if cut else made


def _first(weight: Tensor) -> Tensor:
    """Weights that lie channels first, for all who use them, and again if they changed."""
    with _LOCK:
        version, kept = _KEPT.get(weight, (-1, weight))
        if version != weight._version:
            kept = weight.detach().contiguous()
            _KEPT[weight] = weight._version, kept
        return kept
