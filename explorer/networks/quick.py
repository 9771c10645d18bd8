"""A network's convolutions of float32 maps on a CPU, by what is quicker than PyTorch's own."""

from __future__ import annotations

from collections.abc import MutableMapping
from threading import Lock
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from explorer.networks import depthwise, pointwise, windowed, winograd
from explorer.networks.depthwise import Depthwise
from explorer.networks.laid_out import NO_BORDER, Convolution, form_of
from explorer.networks.modules import Border
from explorer.networks.pointwise import Pointwise
from explorer.networks.windowed import Windowed
from explorer.networks.winograd import Tiled

Way = tuple[Any, Any]
"""Pointwise and its step, Tiled and the side of its tiles, or Depthwise or Windowed and the form of
either."""

_KEPT: MutableMapping[Tensor, tuple[int, dict[Way, Convolution]]] = WeakTensorKeyDictionary()
_LOCK = Lock()


def convolution(module: nn.Conv2d, maps: Tensor, more: Border = NO_BORDER) -> Convolution | None:
    """The convolution of maps like these, by weights that were laid out once for all who use them,
    and again if they changed; None where PyTorch's own is as quick. Maps may have ``more`` border
    than the module's."""
    weight = module.weight
    way: Any
    bare = more == NO_BORDER
    if bare and pointwise.suits(module, weight, maps):
        way = Pointwise, module.stride[0]
    elif bare and winograd.suits(module, weight, maps) and (side := winograd.side_for(maps)):
        way = Tiled, side
    elif depthwise.suits(module, weight, maps, more):
        way = Depthwise, form_of(module, more)
    elif windowed.suits(module, weight, maps, more):
        way = Windowed, form_of(module, more)
    else:
        return None
    with _LOCK:
        version, ways = _KEPT.get(weight, (-1, {}))
        if version != weight._version:
            ways = {}
            _KEPT[weight] = weight._version, ways
        if way not in ways:
            ways[way] = way[0](weight, way[1])
        return ways[way]
