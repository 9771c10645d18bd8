"""A network's convolutions of float32 maps on a CPU, by what is quicker than PyTorch's own."""

from __future__ import annotations

from collections.abc import MutableMapping
from threading import Lock

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from explorer.networks import pointwise, winograd
from explorer.networks.laid_out import Convolution
from explorer.networks.pointwise import Pointwise
from explorer.networks.winograd import Tiled

Way = tuple[type[Pointwise] | type[Tiled], int]
"""A kind of convolution, and its steps or the side of its tiles."""

_KEPT: MutableMapping[Tensor, tuple[int, dict[Way, Convolution]]] = WeakTensorKeyDictionary()
_LOCK = Lock()


def convolution(module: nn.Conv2d, maps: Tensor) -> Convolution | None:
    """The convolution of maps like these, by weights that were laid out once for all who use them,
    and again if they changed; None where PyTorch's own is as quick."""
    weight = module.weight
    way: Way
    if pointwise.suits(module, weight, maps):
        way = Pointwise, module.stride[0]
    elif winograd.suits(module, weight, maps) and (side := winograd.side_for(maps)):
        way = Tiled, side
    else:
        return None
    with _LOCK:
        version, ways = _KEPT.get(weight, (-1, {}))
        if version != weight._version:
            ways = {}
            _KEPT[weight] = weight._version, ways
        if way not in ways:
            kind, form = way
            ways[way] = kind(weight, form)
        return ways[way]
