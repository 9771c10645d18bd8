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

_KEPT: MutableMapping[Tensor, tuple[int, dict[int, Convolution]]] = WeakTensorKeyDictionary()
_LOCK = Lock()


def convolution(module: nn.Conv2d, maps: Tensor) -> Convolution | None:
    """The convolution of maps like these, by weights that were laid out once for all who use them,
    and again if they changed; None where PyTorch's own is as quick."""
    weight = module.weight
    if pointwise.suits(module, maps):
        side = 1
    elif not winograd.suits(module, weight, maps) or not (side := winograd.side_for(maps)):
        return None
    with _LOCK:
        version, ways = _KEPT.get(weight, (-1, {}))
        if version != weight._version:
            ways = {}
            _KEPT[weight] = weight._version, ways
        if side not in ways:
            ways[side] = Pointwise(weight) if side == 1 else Tiled(weight, side)
        return ways[side]
